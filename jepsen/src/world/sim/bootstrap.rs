//! The cluster a simulation starts with: founded, every node a member and elector, all buckets owned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use farm_core::command::{Body, Command, Evidence, Transfer};
use farm_core::id::{ClusterId, EntryId, Leadership, NodeId};
use farm_core::model::{
    BucketSet, Criterion, HashKey, Link, Membership, Mode, ModuleName, Node, Profile, Protocol, Role,
    Service, Vlan, Weight,
};
use farm_core::planner::{Claim, plan};
use farm_core::state::ClusterState;

use super::entry::{Entry, Members, Payload, Stored};

/// Buckets per module: few, so that every node owns some and every kind of change happens to each.
pub const BUCKETS: usize = 6;

/// The modules, by name, with the delivery mode and the last byte of the virtual IP.
const MODULES: [(&str, Mode, u8); 2] = [("dns", Mode::Flood, 101), ("web", Mode::Directed, 100)];

/// Names of all modules.
pub fn modules() -> impl Iterator<Item = ModuleName> {
    MODULES.iter().map(|(name, ..)| ModuleName((*name).into()))
}

/// A service of the module that serves in directed mode.
#[must_use]
pub fn service(port: u16) -> Service {
    Service {
        vip: IpAddr::from([10, 0, 0, 100]).into(),
        protocol: Protocol::Tcp,
        port,
        criterion: Criterion::SourceAddress,
    }
}

/// What machine `machine` joins as.
#[must_use]
pub fn member(machine: usize) -> Node {
    let number = u8::try_from(machine + 1).expect("a simulation has a handful of machines");
    let address = [10, 0, 0, number];
    Node {
        id: NodeId(0),
        name: format!("node{number}"),
        role: Role::Server,
        membership: Membership::Member,
        addresses: BTreeMap::from([("main".into(), address.into())]),
        links: vec![Link {
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, number],
            addresses: vec![(address.into(), 24)],
            vlan: Vlan::NONE,
        }],
        peer_port: 7601,
        lease_port: 7601,
        api_port: 7600,
        room: String::new(),
    }
}

/// A log under construction, and what it comes to.
pub struct Founded {
    /// The log, all of it committed.
    pub stored: Stored,
    /// Its state.
    pub state: ClusterState,
}

impl Founded {
    /// A cluster of `nodes` members with the ids 1 to `nodes`.
    #[must_use]
    pub fn new(nodes: usize, profile: Profile) -> Self {
        let mut founded =
            Self { stored: Stored { term: 1, ..Stored::default() }, state: ClusterState::unfounded(BUCKETS) };
        founded.any(Body::Found {
            cluster: ClusterId([7; 16]),
            name: "c".into(),
            hash_key: HashKey([9; 16]),
            profile,
            node: member(0),
            nonce: 5,
        });
        (1..nodes).for_each(|m| founded.any(Body::NodeJoin(member(m))));
        (1..nodes).for_each(|m| founded.add_elector(m));
        for (name, mode, last) in MODULES {
            let service = Service { vip: IpAddr::from([10, 0, 0, last]).into(), ..service(80) };
            founded.any(Body::ServiceAdd { module: ModuleName(name.into()), service, mode });
        }
        founded.assign();
        let voters = founded.state.nodes.keys().copied().collect();
        founded.push(Payload::Members(Members { voters, learners: BTreeSet::new() }));
        founded.stored.committed = founded.stored.log.len() as u64;
        founded
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.stored.log.last().map(|e| e.id).unwrap_or_default()
    }

    fn add_elector(&mut self, machine: usize) {
        let next = self.state.nodes.keys().copied().take(machine + 1).collect();
        self.step(Body::ElectorsJoint(next));
        let nodes: Vec<NodeId> = self.state.nodes.keys().copied().collect();
        let joint = self.state.epoch;
        self.step(Body::ElectorsSeal { joint, nodes: nodes.clone() });
        let epoch = self.state.epoch;
        self.step(Body::ElectorsFinal(
            nodes.into_iter().map(|node| Evidence::Released { node, epoch }).collect(),
        ));
    }

    fn assign(&mut self) {
        let weights = self.state.nodes.keys().map(|n| (*n, Weight::DEFAULT)).collect();
        let mut transfers = Vec::new();
        for module in modules() {
            let mut to: BTreeMap<NodeId, BucketSet> = BTreeMap::new();
            for (bucket, node) in plan(&weights, &[Claim::Free; BUCKETS]) {
                to.entry(node).or_insert_with(|| BucketSet::empty(BUCKETS)).insert(bucket);
            }
            let transfer = |(to, buckets)| Transfer { module: module.clone(), to, buckets };
            transfers.extend(to.into_iter().map(transfer));
        }
        self.step(Body::Move { losers: Vec::new(), transfers });
    }

    fn any(&mut self, body: Body) {
        self.push(Payload::Command(Command::any(body)));
    }

    fn step(&mut self, body: Body) {
        self.push(Payload::Command(Command::at(self.state.epoch, body)));
    }

    fn push(&mut self, payload: Payload) {
        let by = Leadership { term: 1, leader: NodeId(1) };
        let id = EntryId { by, index: self.stored.log.len() as u64 + 1 };
        if let Payload::Command(command) = &payload {
            let outcome = self.state.apply(command, id).expect("the first level is known");
            assert!(outcome.is_applied(), "the founding is refused: {:?}", outcome.refusal());
        }
        self.stored.log.push(Rc::new(Entry { id, payload }));
    }
}
