//! Lease messages.

use farm_core::id::{Epoch, Generation, Incarnation, Seq};
use farm_core::lease::{Grant, Renewal};
use farm_core::time::Span;
use farm_proto::v1;

use super::{Wire, WireError, required, text};

impl Wire for Renewal {
    type Proto = v1::Renewal;

    fn to_wire(&self) -> v1::Renewal {
        v1::Renewal {
            generation: Some(self.generation.to_wire()),
            node: self.node.0,
            incarnation: self.incarnation.0.to_vec().into(),
            seq: self.seq.0,
            applied: self.applied.0,
            leased: self.leased,
            lease_ms: u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn from_wire(p: v1::Renewal) -> Result<Self, WireError> {
        Ok(Self {
            generation: required::<Generation>("Renewal.generation", p.generation)?,
            node: text::node("Renewal.node", p.node)?,
            incarnation: Incarnation(text::array("Renewal.incarnation", &p.incarnation)?),
            seq: Seq(p.seq),
            applied: Epoch(p.applied),
            leased: p.leased,
            lease: Span::millis(p.lease_ms.into()),
        })
    }
}

impl Wire for Grant {
    type Proto = v1::Grant;

    fn to_wire(&self) -> v1::Grant {
        v1::Grant {
            generation: Some(self.generation.to_wire()),
            elector: self.elector.0,
            node: self.node.0,
            incarnation: self.incarnation.0.to_vec().into(),
            seq: self.seq.0,
            // Rounded down: a lease may only get shorter on its way. The bound of L8 is a few seconds.
            lease_ms: u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX),
            epoch: self.epoch.0,
        }
    }

    fn from_wire(p: v1::Grant) -> Result<Self, WireError> {
        Ok(Self {
            generation: required::<Generation>("Grant.generation", p.generation)?,
            elector: text::node("Grant.elector", p.elector)?,
            node: text::node("Grant.node", p.node)?,
            incarnation: Incarnation(text::array("Grant.incarnation", &p.incarnation)?),
            seq: Seq(p.seq),
            lease: Span::millis(p.lease_ms.into()),
            epoch: Epoch(p.epoch),
        })
    }
}
