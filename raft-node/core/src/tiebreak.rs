//! What decides which of two voters goes on when they have lost each other.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::arbiter::Kind;
use crate::id::NodeId;
use crate::model::Profile;
use crate::state::ClusterState;
use crate::time::UnixTime;

/// A link address.
pub type Mac = [u8; 6];

/// Most routers that are asked.
pub const ROUTERS_MAX: usize = 5;

/// The split-brain checker of a cluster (DESIGN §5).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TieBreak {
    /// How it decides.
    pub kind: Kind,
    /// The routers that are asked, with their link addresses, which are not to change.
    pub routers: BTreeMap<IpAddr, Mac>,
    /// The address that is claimed, which nobody has; `None` for [`Kind::Plain`].
    pub address: Option<IpAddr>,
    /// Whether it was tried, with every node claiming in turn.
    pub rehearsed: Option<Rehearsal>,
}

/// What a trial came to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rehearsal {
    /// When.
    pub at: UnixTime,
    /// Who took part, and knew what was tried.
    pub nodes: BTreeSet<NodeId>,
    /// The timing that they all knew.
    pub profile: Profile,
    /// Why it would not decide; empty: it does.
    pub failure: String,
}

impl TieBreak {
    /// Why it does not decide between `nodes`; `None` when it does. Two that went by different locks, or by different
    /// lengths of time, could both win: each goes by what the other one is known to know.
    #[must_use]
    pub fn idle(&self, nodes: &BTreeSet<NodeId>, profile: Profile) -> Option<String> {
        match (self.kind, &self.rehearsed) {
            (Kind::Plain, _) => None,
            (Kind::Exclusive, None) => Some("it was never rehearsed".into()),
            (Kind::Exclusive, Some(r)) if !r.failure.is_empty() => Some(r.failure.clone()),
            (Kind::Exclusive, Some(r)) if !nodes.is_subset(&r.nodes) => {
                Some("it was rehearsed by other nodes".into())
            }
            (Kind::Exclusive, Some(r)) if r.profile != profile => {
                Some("it was rehearsed with another timing profile".into())
            }
            (Kind::Exclusive, Some(_)) => None,
        }
    }
}

impl ClusterState {
    /// The other one of exactly two electors, where `me` is one of them and no change is open.
    #[must_use]
    pub fn peer_of(&self, me: NodeId) -> Option<NodeId> {
        let current = &self.electors.current;
        let pair = self.electors.change.is_none() && current.len() == 2 && current.contains(&me);
        current.iter().copied().find(|id| pair && *id != me)
    }
}
