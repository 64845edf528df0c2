//! A small cluster around the real machines: a log with terms and truncation, a network of one millisecond, nodes
//! that freeze, restart and reboot, and a filter per node that outlives its daemon. Exclusive acceptance (P1) is
//! checked at every millisecond.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use farm_core::command::{Body, Command};
use farm_core::controller::{Controller, DrainState, Effect, Input, Observed};
use farm_core::electors::Electors;
use farm_core::id::{ClusterId, EntryId, Epoch, Generation, Incarnation, Leadership, NodeId};
use farm_core::lease::{AppliedFences, Ask, Elector, Expiry, Grant, Holder, Renewal, Timing};
use farm_core::model::{
    BucketSet, BucketState, Criterion, HashKey, Link, Maintenance, Membership, Mode, ModuleKind, ModuleName,
    Node, Outline, Phase, Profile, Protocol, Readiness, Role, Service, Vlan, Weight,
};
use farm_core::restart::{self, Inherited, RESTART_LEASE};
use farm_core::state::ClusterState;
use farm_core::time::{BootTime, Span, UnixTime};

const MS: Span = Span::millis(1);
/// A leader that nobody heard for so long is replaced.
const ELECTION: Span = Span::millis(200);

type Entry = Rc<(EntryId, Command)>;

enum Packet {
    Renewal(Renewal),
    Grant(Grant),
    Sync { term: u64, log: Vec<Entry>, commit: usize, from: NodeId },
    Ack { term: u64, of: NodeId, len: usize },
    Ask { ask: Ask, from: NodeId },
    Answer { elector: NodeId, ask: Ask, answer: Expiry },
    Publish(Box<ClusterState>),
    Feed(u64, Input),
    Voters(BTreeSet<NodeId>),
}

/// One machine: what survives a crash of the daemon, and the daemon.
pub struct Server {
    id: NodeId,
    /// Whether the daemon runs; the filter always does.
    pub runs: bool,
    /// Whether the network reaches it.
    pub cut: bool,
    /// Whether the log does not reach it, though leases do.
    pub deaf: bool,
    /// Whether leases that are granted to it get lost.
    pub ungranted: bool,
    /// Whether it hears nobody's renewals but its own, though the log goes on.
    pub unaware: bool,
    /// Whether its connections never end.
    pub busy: bool,
    /// Has connected UDP sockets in every second bucket.
    pub connected: bool,
    log: Vec<Entry>,
    term: u64,
    /// The published table, and until when it accepts.
    table: ClusterState,
    deadline: BootTime,
    pub state: ClusterState,
    applied: usize,
    commit: usize,
    holder: Holder,
    /// This run goes on with the lease that the filter has from the run before.
    resumed: bool,
    elector: Elector,
    controller: Option<Controller>,
    matched: BTreeMap<NodeId, usize>,
    proposed: Option<EntryId>,
    dirty: bool,
    heard_leader: BootTime,
}

/// The cluster.
pub struct World {
    pub now: BootTime,
    buckets: usize,
    pub servers: BTreeMap<NodeId, Server>,
    wire: BTreeMap<(BootTime, u64), (NodeId, NodeId, Packet)>,
    serial: u64,
    voters: BTreeSet<NodeId>,
    incarnations: u8,
    joined: usize,
    /// What the leader applied, one line per event.
    pub journal: Vec<String>,
}

fn module() -> ModuleName {
    ModuleName("web".into())
}

/// The one service of these tests.
pub fn service(port: u16) -> Service {
    Service {
        vip: IpAddr::from([10, 0, 0, 100]).into(),
        protocol: Protocol::Tcp,
        port,
        criterion: Criterion::SourceAddress,
    }
}

/// A member that can serve 10.0.0.100.
pub fn node(number: u8) -> Node {
    let link = Link {
        name: "eth0".into(),
        mac: [2, 0, 0, 0, 0, number],
        addresses: vec![([10, 0, 0, number].into(), 24)],
        vlan: Vlan::NONE,
    };
    Node {
        id: NodeId(0),
        name: format!("node{number}"),
        role: Role::Server,
        membership: Membership::Member,
        addresses: BTreeMap::from([("main".into(), [10, 0, 0, number].into())]),
        links: vec![link],
        peer_port: 7601,
        lease_port: 7601,
        api_port: 7600,
        room: String::new(),
    }
}

/// The founding of cluster `c` by node1.
pub fn founding() -> Command {
    Command::any(Body::Found {
        cluster: ClusterId([7; 16]),
        name: "c".into(),
        hash_key: HashKey([9; 16]),
        profile: Profile::Fast,
        node: node(1),
        nonce: 5,
    })
}

fn elector(id: NodeId, longer: &Inherited, now: BootTime) -> Elector {
    let generation = Generation { number: 1, survivor: NodeId(1), nonce: 5 };
    let timing = Timing::of(Profile::Fast);
    Elector::start(id, generation, timing, AppliedFences::default(), Span::ZERO, longer, now)
}

impl Server {
    fn new(id: NodeId, buckets: usize, run: u8, now: BootTime) -> Self {
        let generation = Generation { number: 1, survivor: NodeId(1), nonce: 5 };
        let timing = Timing::of(Profile::Fast);
        let incarnation = Incarnation([run; 16]);
        Self {
            id,
            runs: true,
            cut: false,
            deaf: false,
            ungranted: false,
            unaware: false,
            busy: false,
            connected: false,
            log: Vec::new(),
            term: 0,
            table: ClusterState::unfounded(buckets),
            deadline: BootTime(0),
            state: ClusterState::unfounded(buckets),
            applied: 0,
            commit: 0,
            holder: Holder::new(id, incarnation, generation, Electors::default(), timing, Epoch(0)),
            elector: elector(id, &Inherited::default(), now),
            resumed: true,
            controller: None,
            matched: BTreeMap::new(),
            proposed: None,
            dirty: false,
            heard_leader: now,
        }
    }

    /// A new run of the daemon: log and filter are kept, everything in memory is gone.
    fn restart(&mut self, run: u8, now: BootTime) {
        let fresh = Self::new(self.id, self.state.buckets, run, now);
        let (log, table) = (std::mem::take(&mut self.log), self.table.clone());
        let Self { term, deadline, cut, deaf, ungranted, unaware, busy, connected, .. } = *self;
        *self = Self { log, table, term, deadline, cut, deaf, ungranted, unaware, busy, connected, ..fresh };
        let generation = Generation { number: 1, survivor: NodeId(1), nonce: 5 };
        let (timing, electors) = (Timing::of(Profile::Fast), Electors::default());
        self.holder =
            Holder::new(self.id, Incarnation([run; 16]), generation, electors, timing, self.table.epoch);
        self.resumed = false;
        let mut longer = Inherited::default();
        self.log.iter().for_each(|entry| longer.follow(&entry.1, entry.0));
        self.elector = elector(self.id, &longer, now);
        for entry in &self.log {
            self.elector.appended(entry.0, &entry.1.fences());
        }
    }

    /// The lease follows the applied state; the filter has the deadline before the epoch is reported.
    fn lease(&mut self, now: BootTime) {
        let timing = Timing::of(Profile::Fast);
        let asked = restart::allowed(&self.state.restarts, self.id).unwrap_or_default().max(timing.lease);
        self.holder.set_electors(self.state.electors.clone());
        let mut deadline = self.holder.set_lease(timing, asked, now);
        if !self.resumed && self.state.epoch >= self.table.epoch {
            self.resumed = true;
            deadline = self.holder.inherit(self.deadline, now);
        }
        if self.resumed {
            self.deadline = self.deadline.min(deadline);
        }
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |e| e.0.by.term), self.log.len())
    }

    fn truncate(&mut self, len: usize) {
        assert!(len >= self.applied, "an applied entry was cut off");
        self.log.truncate(len);
        self.elector.truncated(len as u64);
    }

    fn push(&mut self, entry: Entry) {
        self.elector.appended(entry.0, &entry.1.fences());
        self.log.push(entry);
    }

    fn entry_for(&self, bucket: usize) -> Option<&BucketState> {
        self.table.modules.get(&module())?.assignment.get(bucket)
    }

    /// Whether the filter takes a new flow of the bucket that a client sent.
    fn takes(&self, bucket: usize, now: BootTime) -> bool {
        let Some(entry) = self.entry_for(bucket) else { return false };
        let acceptor = match entry.phase {
            Phase::Stable | Phase::Activate => entry.current,
            Phase::Prepare => entry.previous,
            Phase::Move | Phase::MoveClosed => None,
        };
        self.deadline > now && acceptor == Some(self.id)
    }

    /// To whom it bounces new flows, marked.
    fn bounces(&self, bucket: usize, now: BootTime) -> Option<NodeId> {
        let entry = self.entry_for(bucket)?;
        let bounces = matches!(entry.phase, Phase::Move | Phase::Activate) && entry.previous == Some(self.id);
        entry.current.filter(|_| bounces && self.deadline > now)
    }

    /// From whom it takes marked new flows.
    fn takes_from(&self, bucket: usize, now: BootTime) -> Option<NodeId> {
        let entry = self.entry_for(bucket)?;
        let takes = matches!(entry.phase, Phase::Prepare | Phase::Move | Phase::Activate);
        entry.previous.filter(|_| takes && entry.current == Some(self.id) && self.deadline > now)
    }
}

impl World {
    /// `nodes` members, node1 leads and founded the cluster; runs until the electors have followed.
    pub fn new(nodes: u8, buckets: usize) -> Self {
        let mut world = Self {
            now: BootTime(0) + Span::millis(10_000),
            buckets,
            servers: BTreeMap::new(),
            wire: BTreeMap::new(),
            serial: 0,
            voters: BTreeSet::from([NodeId(1)]),
            incarnations: 0,
            joined: 0,
            journal: Vec::new(),
        };
        let mut first = Server::new(NodeId(1), buckets, world.next_run(), world.now);
        let id = EntryId { by: Leadership { term: 1, leader: NodeId(1) }, index: 1 };
        first.push(Rc::new((id, founding())));
        world.servers.insert(NodeId(1), first);
        world.joined = 1;
        world.lead(NodeId(1), 1);
        for _ in 1..nodes {
            world.join();
        }
        world.run(3_000);
        world.journal.clear();
        world
    }

    fn next_run(&mut self) -> u8 {
        self.incarnations = self.incarnations.wrapping_add(1);
        self.incarnations
    }

    /// Who leads in the highest term.
    pub fn leader(&self) -> NodeId {
        let leads = self.servers.values().filter(|s| s.controller.is_some());
        leads.max_by_key(|s| s.term).map(|s| s.id).expect("somebody always leads, or did")
    }

    /// Whether it serves nothing and leads.
    pub fn is_led_by_a_witness(&self) -> bool {
        let (state, leader) = (self.state(), self.leader());
        state.nodes.get(&leader).is_some_and(|n| n.role == Role::Witness)
    }

    /// The state of the leader.
    pub fn state(&self) -> ClusterState {
        self.servers[&self.leader()].state.clone()
    }

    /// A new machine asks to join; its id is the index of the entry.
    pub fn join(&mut self) {
        self.join_as(Role::Server);
    }

    /// The same of a machine that serves, or only votes.
    pub fn join_as(&mut self, role: Role) {
        self.joined += 1;
        let mut node = node(u8::try_from(self.joined).unwrap());
        node.role = role;
        if role == Role::Witness {
            node.links.clear();
        }
        let Some(entry) = self.propose(Body::NodeJoin(node)) else { return };
        let (id, run) = (NodeId(entry.index), self.next_run());
        self.servers.insert(id, Server::new(id, self.buckets, run, self.now));
    }

    /// Adds the service.
    pub fn service_add(&mut self) {
        self.propose(Body::ServiceAdd { module: module(), service: service(80), mode: Mode::Directed });
    }

    /// The service is one of a module with an application, which serves where [`World::readiness`] says so.
    pub fn module_apply(&mut self) {
        let outline = Outline {
            kind: ModuleKind::Farm,
            services: vec![(service(80), Mode::Directed)],
            weights: BTreeMap::new(),
            drain: None,
            application: true,
        };
        self.propose(Body::ModuleApply { module: module(), outline, content: [1, 2, 3].into() });
    }

    /// The application on `node` serves, is about to stop, or does not run.
    pub fn readiness(&mut self, node: NodeId, readiness: Readiness) {
        self.propose(Body::ModuleReadiness { module: module(), node, readiness });
    }

    /// A person's command, at the leader.
    pub fn propose(&mut self, body: Body) -> Option<EntryId> {
        let leader = self.leader();
        self.servers[&leader].runs.then(|| self.append(leader, Command::any(body)))
    }

    /// The daemon of `node` is about to be restarted.
    pub fn begin_restart(&mut self, node: NodeId) {
        let everybody = self.state().needs_everybody(node);
        self.propose(Body::RestartBegin { node, lease: RESTART_LEASE, everybody });
    }

    /// The daemon of `node` is back.
    pub fn end_restart(&mut self, node: NodeId) {
        if let Some(restart) = self.state().restarting(node).copied() {
            self.propose(Body::RestartEnd { node, begun: restart.entry });
        }
    }

    /// Keeps a node free of clients.
    pub fn maintain(&mut self, node: NodeId) {
        let maintenance = Maintenance { since: UnixTime(1), until: None, reason: "new disks".into() };
        self.propose(Body::MaintenanceOn { node, maintenance });
    }

    /// Sets for how long connections may stay, in ms.
    pub fn drain_for(&mut self, ms: u64) {
        self.propose(Body::DrainSet { module: module(), limit: Span::millis(ms) });
    }

    /// Sets a weight.
    pub fn weight(&mut self, node: NodeId, weight: u16) {
        self.propose(Body::WeightSet { module: module(), node, weight: Weight(weight) });
    }

    /// Kills the daemon and starts it again.
    pub fn restart(&mut self, id: NodeId) {
        let (run, now) = (self.next_run(), self.now);
        self.servers.get_mut(&id).unwrap().restart(run, now);
    }

    /// The machine loses its filter too.
    pub fn reboot(&mut self, id: NodeId) {
        let server = self.servers.get_mut(&id).unwrap();
        server.table = ClusterState::unfounded(self.buckets);
        server.deadline = BootTime(0);
        self.restart(id);
    }

    /// Elects `id`, if a majority of the voters can and would vote for it.
    pub fn elect(&mut self, id: NodeId) -> bool {
        let candidate = &self.servers[&id];
        let last = candidate.last();
        let votes = |v: &&NodeId| {
            let Some(s) = self.servers.get(v) else { return false };
            s.id == id || (s.runs && !s.cut && !candidate.cut && s.last() <= last)
        };
        let elected = candidate.runs && self.voters.iter().filter(votes).count() > self.voters.len() / 2;
        let term = self.servers.values().map(|s| s.term).max().unwrap_or(0) + 1;
        if elected && self.voters.contains(&id) {
            for voter in self.voters.clone() {
                let server = self.servers.get_mut(&voter).unwrap();
                if server.runs && !server.cut {
                    server.term = term;
                    server.controller = None;
                    server.heard_leader = self.now;
                }
            }
            self.lead(id, term);
            return true;
        }
        false
    }

    fn lead(&mut self, id: NodeId, term: u64) {
        let now = self.now;
        let server = self.servers.get_mut(&id).unwrap();
        server.term = term;
        server.controller = Some(Controller::new(id, Leadership { term, leader: id }, now));
        server.matched.clear();
        server.proposed = None;
        if term > 1 {
            // A leader commits what it found by an entry of its own term that changes nothing.
            self.append(id, Command::any(Body::ProfileSet(Profile::Fast)));
        }
    }

    fn append(&mut self, leader: NodeId, command: Command) -> EntryId {
        let server = self.servers.get_mut(&leader).unwrap();
        let by = Leadership { term: server.term, leader };
        let entry = EntryId { by, index: server.log.len() as u64 + 1 };
        server.push(Rc::new((entry, command)));
        entry
    }

    /// Runs for `ms` milliseconds.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now + MS;
            self.deliver();
            let ids: Vec<NodeId> = self.servers.keys().copied().collect();
            for id in &ids {
                self.renew(*id);
                self.replicate(*id);
            }
            self.vote();
            for id in &ids {
                self.step(*id, Input::Tick, false);
            }
            self.check();
        }
    }

    /// Runs until the newest renewal of `id` is answered.
    #[cfg(feature = "planted")]
    pub fn run_to_grant(&mut self, id: NodeId) {
        let before = self.servers[&id].deadline;
        while self.servers[&id].deadline == before {
            self.run(1);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        self.send_after(from, to, MS, packet);
    }

    fn send_after(&mut self, from: NodeId, to: NodeId, after: Span, packet: Packet) {
        self.serial += 1;
        self.wire.insert((self.now + after, self.serial), (from, to, packet));
    }

    fn connected(&self, a: NodeId, b: NodeId) -> bool {
        let up = |id: &NodeId| self.servers.get(id).is_some_and(|s| !s.cut);
        a == b || (up(&a) && up(&b))
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let (from, to, packet) = entry.remove();
            let runs = self.servers.get(&to).is_some_and(|s| s.runs);
            match packet {
                Packet::Voters(voters) => self.set_voters(from, voters),
                // What a frozen process has for itself waits in its memory.
                packet if !runs && from == to => self.send(from, to, packet),
                packet if runs && self.connected(from, to) => self.receive(to, packet),
                _ => {}
            }
        }
    }

    /// A change of voters is an entry too: it holds when majorities of the old and the new ones have the whole log.
    fn set_voters(&mut self, leader: NodeId, voters: BTreeSet<NodeId>) {
        let server = &self.servers[&leader];
        let has_all = |v: &&NodeId| {
            let peer = self.servers.get(v);
            peer.is_some_and(|p| p.runs && self.connected(p.id, leader) && p.last() == server.last())
        };
        let majority = |set: &BTreeSet<NodeId>| set.iter().filter(has_all).count() > set.len() / 2;
        if self.leader() == leader && server.runs && majority(&voters) && majority(&self.voters) {
            self.voters = voters;
        }
    }

    fn receive(&mut self, to: NodeId, packet: Packet) {
        let now = self.now;
        let server = self.servers.get_mut(&to).unwrap();
        match packet {
            Packet::Renewal(renewal) if server.unaware && renewal.node != to => {}
            Packet::Grant(_) if server.ungranted => {}
            Packet::Renewal(renewal) => {
                if let Ok(grant) = server.elector.renewal(&renewal, now) {
                    self.send(to, renewal.node, Packet::Grant(grant));
                }
            }
            Packet::Grant(grant) => {
                let granted = server.holder.granted(&grant, now);
                if let Some(deadline) = granted.filter(|_| server.resumed) {
                    server.deadline = deadline;
                }
            }
            Packet::Sync { .. } if server.deaf => {}
            Packet::Sync { term, log, commit, from } => self.synced(to, term, log, commit, from),
            Packet::Ack { term, of, len } => {
                if server.term == term {
                    server.matched.insert(of, len);
                }
            }
            Packet::Ask { ask, from } => {
                let answer = server.elector.expiry(&ask, now);
                self.send(to, from, Packet::Answer { elector: to, ask, answer });
            }
            Packet::Answer { elector, ask, answer } => {
                let input = match answer {
                    Expiry::Remaining(left) => Input::Expiry { elector, ask, expires_at: now + left },
                    Expiry::NotFenced => Input::ExpiryUnknown { elector, ask },
                };
                self.step(to, input, true);
            }
            Packet::Publish(table) => {
                if table.epoch > server.table.epoch {
                    server.table = *table;
                    server.holder.applied(server.table.epoch);
                }
            }
            Packet::Feed(term, input) => {
                if server.term == term {
                    self.step(to, input, true);
                }
            }
            Packet::Voters(_) => unreachable!("handled before"),
        }
    }

    fn renew(&mut self, id: NodeId) {
        let now = self.now;
        let server = self.servers.get_mut(&id).unwrap();
        if !server.runs || server.holder.next_renewal() > now || server.holder.electors().all().is_empty() {
            return;
        }
        let renewal = server.holder.renew(now);
        for elector in server.holder.electors().all() {
            self.send(id, elector, Packet::Renewal(renewal));
        }
    }

    fn replicate(&mut self, id: NodeId) {
        let server = &self.servers[&id];
        if !server.runs || server.controller.is_none() {
            return;
        }
        let (term, log, commit) = (server.term, server.log.clone(), server.commit);
        let peers: Vec<NodeId> =
            self.servers.keys().copied().filter(|p| *p != id && self.is_behind(*p, id)).collect();
        for peer in peers {
            self.send(id, peer, Packet::Sync { term, log: log.clone(), commit, from: id });
        }
        let server = self.servers.get_mut(&id).unwrap();
        server.matched.insert(id, log.len());
        server.heard_leader = self.now;
        let reached = |len: usize| {
            self.voters.iter().filter(|v| server.matched.get(v).copied().unwrap_or(0) >= len).count()
        };
        let own = |len: &usize| server.log[*len - 1].0.by.term == term;
        let commit = (server.commit + 1..=log.len())
            .filter(own)
            .filter(|len| reached(*len) > self.voters.len() / 2)
            .max();
        if let Some(commit) = commit {
            server.commit = commit;
            self.apply(id);
        }
    }

    fn is_behind(&self, peer: NodeId, leader: NodeId) -> bool {
        let (peer, leader) = (&self.servers[&peer], &self.servers[&leader]);
        let heartbeat = self.now.since(peer.heard_leader) > Span::millis(20);
        peer.log.len() != leader.log.len() || peer.commit != leader.commit || heartbeat
    }

    fn synced(&mut self, to: NodeId, term: u64, log: Vec<Entry>, commit: usize, from: NodeId) {
        let now = self.now;
        let server = self.servers.get_mut(&to).unwrap();
        if term < server.term {
            return;
        }
        if term > server.term {
            server.controller = None;
        }
        server.term = term;
        server.heard_leader = now;
        let same = server.log.iter().zip(&log).take_while(|(a, b)| a.0 == b.0).count();
        // An older message of the same leader may be a prefix of what is here already.
        if same < server.log.len() && same < log.len() {
            server.truncate(same);
        }
        // What stands behind it may be of a leader that nobody followed: only what was sent is known to be the same.
        let len = log.len();
        log.into_iter().skip(server.log.len().max(same)).for_each(|e| server.push(e));
        server.commit = server.commit.max(commit.min(len));
        self.apply(to);
        self.send(to, from, Packet::Ack { term, of: to, len });
    }

    fn apply(&mut self, id: NodeId) {
        loop {
            let server = self.servers.get_mut(&id).unwrap();
            if server.applied == server.commit {
                return;
            }
            let entry = server.log[server.applied].clone();
            let epoch = server.state.epoch;
            let outcome = server.state.apply(&entry.1, entry.0).expect("every level is known");
            server.applied += 1;
            server.dirty = true;
            server.elector.applied(server.state.applied_fences(entry.0.index));
            let bound = server.state.lease_bound;
            server.elector.set_restarts(server.state.restarts.clone(), bound, self.now);
            server.lease(self.now);
            let leads = server.controller.is_some();
            let done = if outcome.is_applied() { Input::ProposalDone } else { Input::ProposalFailed };
            let own = server.proposed.take_if(|p| *p == entry.0).is_some();
            let (term, now_epoch) = (server.term, server.state.epoch);
            if now_epoch > epoch && server.state.nodes.contains_key(&id) {
                let table = Box::new(server.state.clone());
                self.send(id, id, Packet::Publish(table));
            }
            if leads {
                let at = self.now.0 / 1_000_000 - 10_000;
                let lines = outcome.events.iter().map(|e| format!("{at} {}", e.kind.text()));
                self.journal.extend(lines);
            }
            if own {
                self.send(id, id, Packet::Feed(term, done));
            }
        }
    }

    /// A majority without a leader elects one of its members.
    fn vote(&mut self) {
        let lost = |v: &NodeId| {
            self.servers.get(v).is_some_and(|s| s.runs && !s.cut && self.now.since(s.heard_leader) > ELECTION)
        };
        let lost: Vec<NodeId> = self.voters.iter().copied().filter(lost).collect();
        if let Some(best) = lost.iter().copied().max_by_key(|id| self.servers[id].last()) {
            self.elect(best);
        }
    }

    fn observe(&self, leader: NodeId) -> Observed {
        let server = &self.servers[&leader];
        let near =
            |s: &&Server| s.runs && self.connected(s.id, leader) && s.log.len() + 5 >= server.log.len();
        let members = server.state.nodes.keys().copied();
        let mut observed = Observed {
            heard: server.elector.all_heard(),
            voters: self.voters.clone(),
            learners: members.filter(|n| !self.voters.contains(n)).collect(),
            caught_up: self.servers.values().filter(near).map(|s| s.id).collect(),
            last_applied: server.log.get(server.applied.wrapping_sub(1)).map(|e| e.0).unwrap_or_default(),
            drains: BTreeMap::new(),
        };
        for peer in self.servers.values().filter(|s| s.runs && self.connected(s.id, leader)) {
            observed.drains.insert((peer.id, module()), self.drain(peer));
        }
        observed
    }

    fn drain(&self, server: &Server) -> DrainState {
        let mut established = BucketSet::empty(self.buckets);
        if server.busy {
            (0..self.buckets).for_each(|b| established.insert(b));
        }
        let requests = BucketSet::empty(self.buckets);
        let mut datagrams = requests.clone();
        if server.connected {
            (0..self.buckets).step_by(2).for_each(|b| datagrams.insert(b));
        }
        DrainState {
            epoch: server.table.epoch,
            datagrams,
            requests,
            sockets: established.len() as u64,
            established,
            at: self.now,
        }
    }

    fn step(&mut self, id: NodeId, input: Input, now_please: bool) {
        let server = &self.servers[&id];
        let Some(controller) = &server.controller else { return };
        let due = controller.wake_at().is_none_or(|at| at <= self.now) || server.dirty;
        if !server.runs || !(due || now_please) {
            return;
        }
        let (observed, now) = (self.observe(id), self.now);
        let server = self.servers.get_mut(&id).unwrap();
        server.dirty = false;
        let term = server.term;
        let controller = server.controller.as_mut().expect("checked above");
        let effects = controller.step(now, &server.state, &observed, input);
        for effect in effects {
            self.execute(id, term, effect);
        }
    }

    fn execute(&mut self, id: NodeId, term: u64, effect: Effect) {
        match effect {
            Effect::Propose(command) => {
                let entry = self.append(id, command);
                self.servers.get_mut(&id).unwrap().proposed = Some(entry);
            }
            Effect::AskExpiry { elector, ask } => self.send(id, elector, Packet::Ask { ask, from: id }),
            Effect::SetVoters(voters) => {
                // A deposed leader may still believe in older voters.
                let one = voters.symmetric_difference(&self.voters).count() == 1;
                assert!(one || self.leader() != id, "one voter at a time");
                self.send_after(id, id, Span::millis(5), Packet::Voters(voters));
                self.send_after(id, id, Span::millis(6), Packet::Feed(term, Input::VotersDone));
            }
            Effect::TransferLeader(to) => drop(self.elect(to)),
            Effect::AddLearner(_) | Effect::RemoveFromRaft(_) => {}
            Effect::Notice(notice) => {
                let name = self.servers[&id].state.name_of(notice.node());
                let at = self.now.0 / 1_000_000 - 10_000;
                self.journal.push(format!(
                    "{at} ({}) {}",
                    self.servers[&id].state.name_of(id),
                    notice.text(&name)
                ));
            }
        }
    }

    fn check(&self) {
        for bucket in 0..self.buckets {
            let mut acceptors: BTreeSet<NodeId> = BTreeSet::new();
            for server in self.servers.values() {
                let bounced = server.takes_from(bucket, self.now).is_some_and(|from| {
                    self.servers.get(&from).is_some_and(|p| p.bounces(bucket, self.now) == Some(server.id))
                });
                if bounced || server.takes(bucket, self.now) {
                    acceptors.insert(server.id);
                }
            }
            assert!(
                acceptors.len() <= 1,
                "bucket {bucket} is accepted by {acceptors:?} at {:?}\n{}",
                self.now,
                self.tail()
            );
        }
    }

    /// The last lines of the journal.
    pub fn tail(&self) -> String {
        self.journal[self.journal.len().saturating_sub(40)..].join("\n")
    }

    /// Buckets per node for which it accepts new flows right now.
    pub fn accepting(&self) -> BTreeMap<NodeId, usize> {
        let count = |s: &Server| (0..self.buckets).filter(|b| s.takes(*b, self.now)).count();
        self.servers.values().map(|s| (s.id, count(s))).filter(|(_, n)| *n > 0).collect()
    }

    /// What is not as it should be when nothing is wrong any more.
    pub fn unsettled(&self) -> Vec<String> {
        let state = self.state();
        let mut found = Vec::new();
        let open =
            state.modules.values().flat_map(|m| &m.assignment).filter(|b| b.phase != Phase::Stable).count();
        let members = state.nodes.keys().filter(|n| self.servers[n].runs);
        let behind: Vec<_> = members.filter(|n| self.servers[n].table.epoch != state.epoch).collect();
        let mut say = |bad: bool, what: String| {
            if bad {
                found.push(what)
            }
        };
        say(open > 0, format!("{open} open changes"));
        say(!behind.is_empty(), format!("{behind:?} lag"));
        say(state.electors.change.is_some(), "electors are being changed".into());
        say(
            state.electors.current != self.voters,
            format!("electors {:?} voters {:?}", state.electors.current, self.voters),
        );
        say(!state.retired.is_empty(), "retired services".into());
        say(self.is_led_by_a_witness(), "a witness leads".into());
        say(
            self.accepting().values().sum::<usize>() != self.buckets,
            format!("accepting {:?}", self.accepting()),
        );
        found
    }
}
