//! Members of a group in one process: real stores, real connections over loopback.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farm_core::command::{Body, Command};
use farm_core::id::{ClusterId, EntryId, FeatureLevel, Generation, NodeId};
use farm_core::model::{
    HashKey, Membership, ModuleKind, ModuleName, Node, Profile, Role as NodeRole, Weight,
};
use farm_proto::v1;
use farm_store::{LogStore, OpenOptions, Store};
use farmd::raft::{
    Applied, Caller, Endpoint, Handle, LogWatch, Options, PeerHandler, Role, Snapshot, Timing,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::Status;

pub const CLUSTER: ClusterId = ClusterId([0xfa; 16]);
pub const PROOF: &str = "the proof of this test";
pub const LEVEL: FeatureLevel = FeatureLevel(1);
/// Nothing here takes longer, unless it never comes: twenty failovers on a machine that does something else besides.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the log watch was told, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Appended(EntryId),
    Truncated(Option<u64>),
    Installed(u64),
}

pub struct Notes(watch::Sender<Vec<Told>>);

impl Default for Notes {
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl Notes {
    /// Waits until `seen` holds of everything told so far.
    pub async fn until(&self, seen: impl FnMut(&Vec<Told>) -> bool) -> Vec<Told> {
        let mut told = self.0.subscribe();
        let found = tokio::time::timeout(PATIENCE, told.wait_for(seen)).await;
        found.expect("told in time").expect("the sender is self").clone()
    }

    /// Everything told from now on, too.
    pub fn follow(&self) -> watch::Receiver<Vec<Told>> {
        self.0.subscribe()
    }

    pub fn now(&self) -> Vec<Told> {
        self.0.borrow().clone()
    }

    fn add(&self, told: Told) {
        self.0.send_modify(|all| all.push(told));
    }
}

impl LogWatch for Notes {
    fn appended(&self, entry: EntryId, _: &Command) {
        self.add(Told::Appended(entry));
    }

    fn truncated(&self, after: Option<u64>) {
        self.add(Told::Truncated(after));
    }

    fn installed(&self, snapshot: &Snapshot) {
        self.add(Told::Installed(snapshot.last_applied.index));
    }
}

/// Answers `Join`, and nothing else, so that a test can tell who came through.
struct Doorman;

#[tonic::async_trait]
impl PeerHandler for Doorman {
    async fn propose(&self, _: Caller, _: v1::ProposeRequest) -> Result<v1::ProposeResponse, Status> {
        Err(Status::unimplemented("propose"))
    }

    async fn join(&self, _: Caller, _: v1::JoinRequest) -> Result<v1::JoinResponse, Status> {
        Ok(v1::JoinResponse { cluster_name: "welcome".into(), ..Default::default() })
    }

    async fn expiry(&self, _: Caller, _: v1::ExpiryRequest) -> Result<v1::ExpiryResponse, Status> {
        Err(Status::unimplemented("expiry"))
    }

    async fn drain(&self, _: Caller, _: v1::DrainReport) -> Result<v1::DrainAck, Status> {
        Err(Status::unimplemented("drain"))
    }

    async fn look(&self, _: Caller) -> Result<v1::LookResponse, Status> {
        Err(Status::unimplemented("look"))
    }

    async fn control(&self, _: Caller, _: v1::ControlRequest) -> Result<v1::ControlResponse, Status> {
        Err(Status::unimplemented("control"))
    }

    async fn log(&self, _: Caller, _: v1::LogRequest) -> Result<v1::ModuleLogLines, Status> {
        Err(Status::unimplemented("log"))
    }

    async fn drill(&self, _: Caller, _: v1::DrillRequest) -> Result<v1::PeerDrillResponse, Status> {
        Err(Status::unimplemented("drill"))
    }

    async fn pause(&self, _: Caller, _: v1::PauseRequest) -> Result<v1::PauseResponse, Status> {
        Err(Status::unimplemented("pause"))
    }

    async fn piece(&self, _: Caller, _: v1::PieceRequest) -> Result<v1::PieceResponse, Status> {
        Err(Status::unimplemented("piece"))
    }

    async fn tail(&self, _: Caller, _: v1::TailRequest) -> Result<v1::TailResponse, Status> {
        Err(Status::unimplemented("tail"))
    }

    async fn echoes(&self, _: Caller, _: v1::EchoesRequest) -> Result<v1::EchoesResponse, Status> {
        Err(Status::unimplemented("echoes"))
    }

    async fn examine(&self, _: Caller) -> Result<v1::ExamineResponse, Status> {
        Err(Status::unimplemented("examine"))
    }
}

/// A member with its data and its address, running or not.
pub struct Member {
    pub id: NodeId,
    pub address: SocketAddr,
    pub notes: Arc<Notes>,
    dir: PathBuf,
    generation: Generation,
    handle: Option<Handle>,
}

impl Member {
    pub fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("this member runs")
    }

    pub fn endpoint(&self) -> Endpoint {
        [self.address].into_iter().collect()
    }

    pub fn runs(&self) -> bool {
        self.handle.is_some()
    }

    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub fn open(&self) -> Store {
        open(&self.dir)
    }

    pub async fn start(&mut self) {
        self.notes = Arc::default();
        let listener = TcpListener::bind(self.address).expect("the address is free");
        self.address = listener.local_addr().expect("it is bound");
        let options = Options {
            me: self.id,
            cluster: CLUSTER,
            level: LEVEL,
            proof: PROOF.into(),
            generation: self.generation,
            timing: Some(Timing::of(Profile::Standard)),
            store: Arc::new(self.open()) as Arc<dyn LogStore>,
            watch: self.notes.clone(),
            fatal: Arc::new(|reason| panic!("a member ended: {reason}")),
        };
        let handle = Handle::start(options).await.expect("it starts");
        handle.serve(vec![listener], Arc::new(Doorman)).await.expect("it listens");
        self.handle = Some(handle);
    }

    /// Ends at once: nothing is handed over, no other member is told.
    pub async fn stop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown().await;
        }
    }

    /// Waits until this member's view of the group is as wanted.
    pub async fn sees(&self, what: &str, wanted: impl FnMut(&Role) -> bool) -> Role {
        let mut role = self.handle().role();
        let seen = tokio::time::timeout(PATIENCE, role.wait_for(wanted)).await;
        seen.unwrap_or_else(|_| panic!("node {} never saw: {what}", self.id)).expect("it runs").clone()
    }

    /// Waits until `entry` is applied here.
    pub async fn applied(&self, entry: EntryId) -> Arc<Snapshot> {
        let mut state = self.handle().state();
        let there =
            tokio::time::timeout(PATIENCE, state.wait_for(|s| s.last_applied.index >= entry.index)).await;
        there.unwrap_or_else(|_| panic!("node {} never applied {entry:?}", self.id)).expect("it runs").clone()
    }
}

fn open(dir: &std::path::Path) -> Store {
    let mut options = OpenOptions::new(Arc::new(|reason| panic!("a store failed: {reason}")));
    options.allow_volatile = true;
    options.ballast = 0;
    Store::open(dir, &options).expect("the store opens").0
}

/// A group; its data goes away with it.
pub struct Group {
    pub members: BTreeMap<NodeId, Member>,
    dir: TempDir,
}

impl Group {
    /// One member that has founded the cluster.
    pub async fn found() -> Self {
        let mut group =
            Self { members: BTreeMap::new(), dir: tempfile::tempdir().expect("a scratch directory") };
        let me = NodeId(1);
        let address = free_address("first");
        group.begin(me, Generation::default(), address).await;
        let founder = group.at(me);
        founder.handle().initialize(founder.endpoint()).await.expect("initialized");
        founder.sees("itself leading", |r| r.leader == Some(me)).await;
        let body = Body::Found {
            cluster: CLUSTER,
            name: "test".into(),
            hash_key: HashKey([1; 16]),
            profile: Profile::Fast,
            node: node(me.0, "first", address),
            nonce: 42,
        };
        group.do_at(me, body).await;
        group.do_at(me, Body::ModulePut { name: web(), kind: ModuleKind::Farm }).await;
        group
    }

    /// `n` members, all voting.
    pub async fn of(n: usize) -> Self {
        let mut group = Self::found().await;
        while group.members.len() < n {
            group.join().await;
        }
        let all: BTreeSet<NodeId> = group.members.keys().copied().collect();
        let leader = group.at(NodeId(1));
        leader.handle().set_voters(all.clone()).await.expect("all vote");
        for member in group.members.values() {
            member.sees("all voting", |r| r.voters == all && r.leader.is_some()).await;
        }
        group
    }

    /// Admits one more as a learner, under the id that the log gives it, and waits until it has caught up.
    pub async fn join(&mut self) -> NodeId {
        let leader = self.leader().await;
        let name = format!("node{}", self.members.len());
        let address = free_address(&name);
        let applied = self.do_at(leader, Body::NodeJoin(node(0, &name, address))).await;
        let id = applied.outcome.result.expect("it may join").node.expect("it has an id");
        let generation = self.at(leader).handle().gate().generation();
        self.begin(id, generation, address).await;
        let endpoint = self.at(id).endpoint();
        self.at(leader).handle().add_learner(id, endpoint).await.expect("a learner");
        self.at(leader).sees("the newcomer caught up", |r| r.caught_up.contains(&id)).await;
        id
    }

    async fn begin(&mut self, id: NodeId, generation: Generation, address: SocketAddr) {
        let dir = self.dir.path().join(id.to_string());
        let mut member = Member { id, address, notes: Arc::default(), dir, generation, handle: None };
        member.start().await;
        self.members.insert(id, member);
    }

    pub fn at(&self, id: NodeId) -> &Member {
        self.members.get(&id).expect("a member")
    }

    pub fn at_mut(&mut self, id: NodeId) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    pub fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.members.keys().copied().filter(|n| *n != id).collect()
    }

    /// Waits until a running member leads.
    pub async fn leader(&self) -> NodeId {
        let running: BTreeSet<NodeId> = self.members.values().filter(|m| m.runs()).map(|m| m.id).collect();
        let any = self.members.values().find(|m| m.runs()).expect("somebody runs");
        let role = any.sees("a running leader", |r| r.leader.is_some_and(|l| running.contains(&l))).await;
        let leader = role.leader.expect("just seen");
        self.at(leader).sees("itself leading", |r| r.leader == Some(leader)).await;
        leader
    }

    /// Applies a command by way of `id`, which leads, and expects it to change the state.
    pub async fn do_at(&self, id: NodeId, body: Body) -> Applied {
        let command = Command { level: LEVEL, base: None, body };
        let applied = self.at(id).handle().propose(command).await.expect("applied");
        assert!(applied.outcome.is_applied(), "refused: {:?}", applied.outcome.refusal());
        applied
    }

    /// All running members have applied `entry`, and then say the same of the cluster. Gives what they say.
    pub async fn agree(&self, entry: EntryId) -> Arc<Snapshot> {
        let mut said: Vec<Arc<Snapshot>> = Vec::new();
        for member in self.members.values().filter(|m| m.runs()) {
            said.push(member.applied(entry).await);
        }
        assert!(said.iter().all(|s| s.state == said[0].state), "members disagree after {entry:?}");
        said.swap_remove(0)
    }
}

pub fn web() -> ModuleName {
    ModuleName("web".into())
}

/// A command that leaves a trace.
pub fn weight(weight: u16) -> Body {
    Body::WeightSet { module: web(), node: NodeId(1), weight: Weight(weight) }
}

pub fn weight_in(snapshot: &Snapshot) -> u16 {
    snapshot.state.modules[&web()].weights[&NodeId(1)].0
}

/// A loopback address of its own for `name`, with a port that nobody uses.
fn free_address(name: &str) -> SocketAddr {
    let last = name.bytes().fold(1u8, |sum, b| sum.wrapping_mul(31).wrapping_add(b));
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 1, last), 0)).expect("a free port");
    listener.local_addr().expect("bound")
}

fn node(id: u64, name: &str, address: SocketAddr) -> Node {
    Node {
        id: NodeId(id),
        name: name.into(),
        role: NodeRole::Server,
        membership: Membership::Member,
        addresses: BTreeMap::from([("lan".to_owned(), address.ip())]),
        links: Vec::new(),
        peer_port: address.port(),
        lease_port: 7601,
        api_port: 7600,
        room: String::new(),
    }
}
