//! What a cluster's size costs: a node falls silent, the controller plans who takes its buckets, the entry is written,
//! applied and rendered. Pure functions and the wire format, no network; one line of JSON.
//!
//! `cargo run --release -p farmd --example scale`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use farm_common::layout::{Slot, Word};
use farm_core::command::{Body, Command};
use farm_core::controller::{Controller, Effect, Input, Observed};
use farm_core::id::{ClusterId, EntryId, Incarnation, Leadership, NodeId};
use farm_core::lease::{Heard, Timing};
use farm_core::model::{
    BUCKETS, Criterion, HashKey, Link, Membership, Mode, ModuleName, Node, Phase, Profile, Protocol, Role,
    Service, Vlan,
};
use farm_core::state::ClusterState;
use farm_core::table::render;
use farm_core::time::{BootTime, Span};
use farmd::wire;
use serde_json::{Value, json};

/// Repetitions of what is timed.
const RUNS: usize = 20;
/// Far more renewals than a cluster needs to come to rest: the longest wait is a drain's, of 400.
const RENEWALS_MAX: usize = 5_000;

/// A cluster's size.
#[derive(Clone, Copy)]
struct Size {
    nodes: u8,
    services: u16,
    modules: u16,
    buckets: usize,
}

const fn size(nodes: u8, services: u16, modules: u16, buckets: usize) -> Size {
    Size { nodes, services, modules, buckets }
}

/// One thing grows at a time, then all do. Two servers have a witness beside them, which votes: else none would be
/// given up.
const SIZES: [Size; 9] = [
    size(2, 1, 1, BUCKETS),
    size(3, 1, 1, BUCKETS),
    size(8, 1, 1, BUCKETS),
    size(32, 1, 1, BUCKETS),
    size(3, 1, 1, BUCKETS / 4),
    size(3, 8, 1, BUCKETS),
    size(3, 64, 1, BUCKETS),
    size(32, 64, 1, BUCKETS),
    size(32, 64, 32, BUCKETS),
];

fn main() {
    let sizes: Vec<Value> = SIZES.into_iter().map(measure).collect();
    println!("{}", Value::from(sizes));
}

fn measure(size: Size) -> Value {
    let mut cluster = Cluster::found(size);
    cluster.rest();
    let mut servers = cluster.state.nodes.values().filter(|node| node.role == Role::Server);
    let victim = servers.next_back().expect("there are servers").id;
    let (plans, command) = cluster.lose(victim);
    let encode = times(|| (), |()| wire::encode(&command));
    let entry = cluster.next_entry();
    let apply = times(
        || cluster.state.clone(),
        |mut state| (state.apply(&command, entry).expect("a known level").is_applied(), state),
    );
    let mut after = cluster.state.clone();
    assert!(after.apply(&command, entry).expect("a known level").is_applied());
    let me = *after.nodes.keys().next().expect("there are nodes");
    let rendering = times(|| (), |()| render(&after, me).expect("it has room"));
    let timing = Timing::of(Profile::Fast);
    let renewals = cluster.state.nodes.len() * cluster.state.electors.current.len();
    json!({
        "nodes": size.nodes, "services": size.services, "modules": size.modules,
        "buckets": size.buckets * usize::from(size.modules),
        "plan_ms": plans, "encode_ms": encode, "apply_ms": apply, "render_ms": rendering,
        "entry_bytes": wire::encode(&command).len(),
        "renewals_per_s": renewals as f64 * 1e9 / timing.renewal.0 as f64,
        "table_bytes": 2 * size_of::<Slot>() + size_of::<Word>(),
    })
}

/// Milliseconds of each repetition of `work`, on what `prepare` gives it.
fn times<I, O>(mut prepare: impl FnMut() -> I, mut work: impl FnMut(I) -> O) -> Vec<f64> {
    let mut one = || {
        let given = prepare();
        let start = Instant::now();
        let done = black_box(work(given));
        let taken = start.elapsed();
        drop(done);
        taken.as_secs_f64() * 1e3
    };
    (0..RUNS).map(|_| one()).collect()
}

/// The state, its leader's controller, and nodes that renew their leases and apply every epoch at once.
struct Cluster {
    state: ClusterState,
    controller: Controller,
    observed: Observed,
    now: BootTime,
    index: u64,
}

impl Cluster {
    fn found(size: Size) -> Self {
        let leader = NodeId(1);
        let leadership = Leadership { term: 1, leader };
        let now = BootTime(1_000_000_000);
        let controller = Controller::new(leader, leadership, now).having_listened_since(now);
        let state = ClusterState::unfounded(size.buckets);
        let mut cluster = Self { state, controller, observed: Observed::default(), now, index: 0 };
        cluster.apply(&Command::any(Body::Found {
            cluster: ClusterId([7; 16]),
            name: "scale".into(),
            hash_key: HashKey([9; 16]),
            profile: Profile::Fast,
            node: node(1, Role::Server),
            nonce: 5,
        }));
        for number in 2..=size.nodes {
            cluster.apply(&Command::any(Body::NodeJoin(node(number, Role::Server))));
        }
        if size.nodes == 2 {
            cluster.apply(&Command::any(Body::NodeJoin(node(3, Role::Witness))));
        }
        for number in 0..size.services {
            cluster.apply(&Command::any(service(number, number % size.modules)));
        }
        let members: Vec<NodeId> = cluster.state.nodes.keys().copied().collect();
        cluster.observed.voters = members.iter().take(5).copied().collect();
        cluster.observed.learners = members.iter().skip(5).copied().collect();
        cluster.observed.caught_up = members.into_iter().collect();
        cluster
    }

    fn next_entry(&self) -> EntryId {
        EntryId { by: self.controller.leadership(), index: self.index + 1 }
    }

    fn apply(&mut self, command: &Command) {
        let entry = self.next_entry();
        let outcome = self.state.apply(command, entry).expect("a known level");
        assert!(outcome.is_applied(), "{command:?}: {:?}", outcome.refusal());
        self.index = entry.index;
        self.observed.last_applied = entry;
    }

    fn hear(&mut self, but: Option<NodeId>) {
        let heard = Heard {
            at: self.now,
            applied: self.state.epoch,
            incarnation: Incarnation::default(),
            leased: true,
            lease: Span::ZERO,
        };
        let nodes = self.state.nodes.keys().filter(|node| Some(**node) != but);
        self.observed.heard.extend(nodes.map(|node| (*node, heard)).collect::<BTreeMap<_, _>>());
    }

    /// Lets time pass until every bucket has an owner for good and the controller wants nothing more.
    fn rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..RENEWALS_MAX {
            self.now = self.now + Timing::of(Profile::Fast).renewal;
            self.hear(None);
            let effects = self.controller.step(self.now, &self.state, &self.observed, Input::Tick);
            quiet = if effects.is_empty() && self.is_settled() { quiet + 1 } else { 0 };
            if quiet > 100 {
                return;
            }
            effects.into_iter().for_each(|effect| self.carry_out(effect));
        }
        panic!("the cluster does not come to rest");
    }

    fn is_settled(&self) -> bool {
        let mut buckets = self.state.modules.values().flat_map(|m| &m.assignment);
        buckets.all(|b| b.phase == Phase::Stable && b.current.is_some())
    }

    fn carry_out(&mut self, effect: Effect) {
        let input = match effect {
            Effect::Propose(command) => {
                self.apply(&command);
                self.hear(None);
                Input::ProposalDone
            }
            Effect::SetVoters(voters) => {
                self.observed.voters = voters;
                Input::VotersDone
            }
            Effect::AskExpiry { .. }
            | Effect::AddLearner(_)
            | Effect::RemoveFromRaft(_)
            | Effect::TransferLeader(_)
            | Effect::Notice(_) => return,
        };
        let more = self.controller.step(self.now, &self.state, &self.observed, input);
        more.into_iter().for_each(|effect| self.carry_out(effect));
    }

    /// `victim` is not heard any more: milliseconds of the step in which the controller plans, and what it proposes.
    fn lose(&mut self, victim: NodeId) -> (Vec<f64>, Command) {
        let silence = Timing::of(Profile::Fast).silence();
        let end = self.now + silence;
        while self.now + Span::millis(25) < end {
            self.now = self.now + Span::millis(25);
            self.hear(Some(victim));
            let effects = self.controller.step(self.now, &self.state, &self.observed, Input::Tick);
            assert!(effects.is_empty(), "{effects:?}");
        }
        self.now = end;
        self.hear(Some(victim));
        let mut proposed = None;
        let mut step = || {
            let mut controller = self.controller.clone();
            let start = Instant::now();
            let effects = controller.step(self.now, &self.state, &self.observed, Input::Tick);
            let taken = start.elapsed().as_secs_f64() * 1e3;
            proposed = effects.into_iter().find_map(|effect| match effect {
                Effect::Propose(command) => Some(command),
                _ => None,
            });
            taken
        };
        let plans = (0..RUNS).map(|_| step()).collect();
        let command = proposed.expect("the silent node's buckets are moved");
        assert!(matches!(command.body, Body::Move { .. }), "{command:?}");
        (plans, command)
    }
}

fn node(number: u8, role: Role) -> Node {
    let ip = [10, 77, 0, number].into();
    Node {
        id: NodeId(0),
        name: format!("node{number}"),
        role,
        membership: Membership::Member,
        addresses: BTreeMap::from([("main".into(), ip)]),
        links: vec![Link {
            name: "eth0".into(),
            mac: [2, 0, 0, 0, 0, number],
            addresses: vec![(ip, 24)],
            vlan: Vlan::NONE,
        }],
        peer_port: 7601,
        lease_port: 7601,
        api_port: 7600,
        room: String::new(),
    }
}

fn service(number: u16, module: u16) -> Body {
    let vip = IpAddr::from([10, 77, 0, 100 + module as u8]).into();
    let service =
        Service { vip, protocol: Protocol::Tcp, port: 1000 + number, criterion: Criterion::SourceAddress };
    Body::ServiceAdd { module: ModuleName(format!("m{module}")), service, mode: Mode::Directed }
}
