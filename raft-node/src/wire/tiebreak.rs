//! What decides between two voters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use farm_core::arbiter::Kind;
use farm_core::model::Profile;
use farm_core::tiebreak::{Mac, Rehearsal, TieBreak};
use farm_core::time::UnixTime;
use farm_proto::v1;

use super::{Wire, WireError, text};

wire_enum!(Kind = TieBreakKind, "TieBreak.kind", { Plain, Exclusive });

impl Wire for TieBreak {
    type Proto = v1::TieBreak;

    fn to_wire(&self) -> v1::TieBreak {
        let router = |(ip, mac): (&IpAddr, &Mac)| v1::Router { ip: ip.to_string(), mac: mac.to_vec().into() };
        v1::TieBreak {
            kind: self.kind.to_wire(),
            routers: self.routers.iter().map(router).collect(),
            address: self.address.map(|a| a.to_string()).unwrap_or_default(),
            rehearsed: self.rehearsed.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(p: v1::TieBreak) -> Result<Self, WireError> {
        let router = |r: v1::Router| Ok((text::ip("Router.ip", &r.ip)?, text::array("Router.mac", &r.mac)?));
        let address =
            (!p.address.is_empty()).then(|| text::ip("TieBreak.address", &p.address)).transpose()?;
        Ok(Self {
            kind: Kind::from_wire(p.kind)?,
            routers: p.routers.into_iter().map(router).collect::<Result<BTreeMap<_, _>, WireError>>()?,
            address,
            rehearsed: p.rehearsed.map(Rehearsal::from_wire).transpose()?,
        })
    }
}

impl Wire for Rehearsal {
    type Proto = v1::Rehearsal;

    fn to_wire(&self) -> v1::Rehearsal {
        v1::Rehearsal {
            at_ms: self.at.0,
            nodes: self.nodes.iter().map(|id| id.0).collect(),
            failure: self.failure.clone(),
            profile: self.profile.to_wire(),
        }
    }

    fn from_wire(p: v1::Rehearsal) -> Result<Self, WireError> {
        let nodes =
            p.nodes.into_iter().map(|id| text::node("Rehearsal.nodes", id)).collect::<Result<_, _>>()?;
        Ok(Self { at: UnixTime(p.at_ms), nodes, failure: p.failure, profile: Profile::from_wire(p.profile)? })
    }
}
