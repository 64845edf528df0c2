//! Identities.

use farm_core::id::{EntryId, Generation, Leadership, NodeId};
use farm_proto::v1;

use super::{Wire, WireError};

impl Wire for EntryId {
    type Proto = v1::EntryId;

    fn to_wire(&self) -> v1::EntryId {
        v1::EntryId { term: self.by.term, leader: self.by.leader.0, index: self.index }
    }

    fn from_wire(p: v1::EntryId) -> Result<Self, WireError> {
        Ok(Self { by: Leadership { term: p.term, leader: NodeId(p.leader) }, index: p.index })
    }
}

impl Wire for Generation {
    type Proto = v1::Generation;

    fn to_wire(&self) -> v1::Generation {
        v1::Generation { number: self.number, survivor: self.survivor.0, nonce: self.nonce }
    }

    fn from_wire(p: v1::Generation) -> Result<Self, WireError> {
        Ok(Self { number: p.number, survivor: NodeId(p.survivor), nonce: p.nonce })
    }
}
