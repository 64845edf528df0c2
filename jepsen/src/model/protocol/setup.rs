//! The cluster that a search starts with: founded, owned, settled, and known to everybody.

use std::collections::BTreeSet;

use farm_core::command::{Body, Command, Evidence, Transfer};
use farm_core::id::{ClusterId, EntryId, Generation, Leadership, NodeId};
use farm_core::model::{BucketSet, HashKey, Mode, ModuleName};
use farm_core::state::ClusterState;

use super::clock::PROFILE;
use crate::world::sim::bootstrap::{member, service};

/// Buckets of the only module.
pub const BUCKETS: usize = 2;

/// Its name.
#[must_use]
pub fn module() -> ModuleName {
    ModuleName("web".into())
}

/// The generation of every cluster here.
#[must_use]
pub fn generation() -> Generation {
    Generation { number: 1, survivor: NodeId(1), nonce: 5 }
}

/// The bucket set of a bitmap.
#[must_use]
pub fn buckets(mask: u8) -> BucketSet {
    BucketSet::from_bytes(vec![mask])
}

/// A state with the index of its last entry.
#[derive(Clone, Debug)]
pub struct Founded {
    /// The state.
    pub state: ClusterState,
    /// The index.
    pub last: u64,
}

impl Founded {
    /// `nodes` members, the first `electors` of which grant leases; the owners have one bucket each.
    #[must_use]
    pub fn new(nodes: u8, electors: u8, owners: [u8; BUCKETS]) -> Self {
        let mut founded = Self { state: ClusterState::unfounded(BUCKETS), last: 0 };
        founded.any(Body::Found {
            cluster: ClusterId([7; 16]),
            name: "c".into(),
            hash_key: HashKey([9; 16]),
            profile: PROFILE,
            node: member(0),
            nonce: 5,
        });
        (1..nodes).for_each(|n| founded.any(Body::NodeJoin(member(usize::from(n)))));
        (1..electors).for_each(|n| founded.add_elector(n));
        let service = service(80);
        founded.any(Body::ServiceAdd { module: module(), service, mode: Mode::Directed });
        let transfer = |(bucket, owner): (usize, u8)| Transfer {
            module: module(),
            to: NodeId(u64::from(owner) + 1),
            buckets: buckets(1 << bucket),
        };
        let transfers = owners.into_iter().enumerate().map(transfer).collect();
        founded.step(Body::Move { losers: Vec::new(), transfers });
        assert_eq!(founded.state.generation, generation(), "it is the same for every cluster");
        founded
    }

    fn add_elector(&mut self, last: u8) {
        let nodes: Vec<NodeId> = self.state.nodes.keys().copied().collect();
        self.step(Body::ElectorsJoint(nodes[..=usize::from(last)].to_vec()));
        self.step(Body::ElectorsSeal { joint: self.state.epoch, nodes: nodes.clone() });
        let epoch = self.state.epoch;
        let released = |node| Evidence::Released { node, epoch };
        self.step(Body::ElectorsFinal(nodes.into_iter().map(released).collect()));
    }

    fn any(&mut self, body: Body) {
        self.apply(&Command::any(body));
    }

    fn step(&mut self, body: Body) {
        self.apply(&Command::at(self.state.epoch, body));
    }

    fn apply(&mut self, command: &Command) {
        self.last += 1;
        let by = Leadership { term: 1, leader: NodeId(1) };
        let outcome =
            self.state.apply(command, EntryId { by, index: self.last }).expect("of the first level");
        assert!(outcome.is_applied(), "the founding is refused: {:?}", outcome.refusal());
    }

    /// Everybody.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.state.nodes.keys().copied().collect()
    }
}
