//! Calls between nodes besides Raft itself: propose, join, expiry reports, drain reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_core::apply::{LEVEL, Refusal};
use farm_core::command::{Body, Command};
use farm_core::controller::{DrainState, Patience};
use farm_core::id::{Epoch, FeatureLevel, Leadership, NodeId};
use farm_core::lease::{Ask, Expiry};
use farm_core::model::{BucketSet, ModuleName, Node};
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use farm_proto::v1;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Response, Status};

use crate::api::status as problem_status;
use crate::collect::Collector;
use crate::drill;
use crate::driver::Feedback;
use crate::look::Mirror;
use crate::member::HeardBy;
use crate::modules;
use crate::problem::Problem;
use crate::proposer::Proposer;
use crate::raft::{
    Applied, CallError, Caller, Client, Endpoint, Gate, Handle, Link, PeerHandler, ProposeError, Snapshot,
};
use crate::tiebreak::Trial;
use crate::wire::{Wire, WireError};

/// A newcomer waits this long for the member it asks, which may have to find the leader first.
const JOIN_WAIT: Duration = Duration::from_secs(15);
/// A forwarded command waits this long for its commit; then its fate is unknown to the caller.
const PROPOSE_WAIT: Duration = Duration::from_secs(5);
/// An elector that does not answer within this is asked again; it covers the elector's own wait for the entry.
const ASK_WAIT: Duration = Duration::from_millis(300);
/// How long an elector waits for an entry that it is asked about before it says that it has no fence for it.
const FENCE_WAIT: Duration = Duration::from_millis(200);

/// A node that does not say within this how it is is shown without: a person waits for the answer.
const LOOK_WAIT: Duration = Duration::from_millis(250);

/// A node that does not do within this what its part of a module is asked for is one that does not answer.
const CONTROL_WAIT: Duration = Duration::from_secs(2);

/// A node that is examined looks at its machine and at every peer, each for a bounded time; these add up to less.
const EXAMINE_WAIT: Duration = Duration::from_secs(20);

/// What came of a command.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// Index of its entry.
    pub index: u64,
    /// Epoch after it; 0 when it changed nothing.
    pub epoch: Epoch,
    /// The node that it admitted.
    pub node: Option<NodeId>,
    /// Set when it changed nothing.
    pub refused: Option<Refused>,
}

impl Proposed {
    /// Not even tried.
    #[must_use]
    pub fn refused(why: Refused) -> Self {
        Self { index: 0, epoch: Epoch(0), node: None, refused: Some(why) }
    }

    fn from_wire(answer: v1::ProposeResponse) -> Self {
        let refused = answer.refused.map(|r| Refused { code: r.code, fact: r.fact, cure: r.cure });
        let node = (answer.node != 0).then_some(NodeId(answer.node));
        Self { index: answer.index, epoch: Epoch(answer.epoch), node, refused }
    }

    fn into_wire(self) -> v1::ProposeResponse {
        v1::ProposeResponse {
            index: self.index,
            epoch: self.epoch.0,
            node: self.node.map_or(0, |n| n.0),
            refused: self.refused.map(Refused::into_wire),
        }
    }
}

/// A refusal that may have travelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable code.
    pub code: String,
    /// Observed fact.
    pub fact: String,
    /// Curing command.
    pub cure: String,
}

impl From<&Applied> for Proposed {
    fn from(applied: &Applied) -> Self {
        let done = applied.outcome.result.as_ref().ok();
        Self {
            index: applied.entry.index,
            epoch: done.map_or(Epoch(0), |done| done.epoch),
            node: done.and_then(|done| done.node),
            refused: applied.outcome.refusal().map(Refused::from),
        }
    }
}

/// Whether a failed call to the leader certainly left nothing in the log.
#[must_use]
pub fn surely_not_proposed(error: &CallError) -> bool {
    match error {
        CallError::NoAddress | CallError::Refused { .. } => true,
        CallError::Status { status, .. } => status.code() == Code::FailedPrecondition,
        CallError::Timeout { .. } | CallError::Unreachable { .. } | CallError::Answer { .. } => false,
    }
}

impl Refused {
    fn into_wire(self) -> v1::Refusal {
        v1::Refusal { code: self.code, fact: self.fact, cure: self.cure }
    }
}

impl From<&Refusal> for Refused {
    fn from(r: &Refusal) -> Self {
        Self { code: r.code.to_string(), fact: r.fact.clone(), cure: r.cure.clone() }
    }
}

/// What a call is for. Each has its own connection, so that a slow one never holds up another kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Purpose {
    Propose,
    Expiry,
    Drain,
    Look,
    Modules,
    Examine,
}

/// Connections to the other members, made when first used.
#[derive(Clone)]
pub struct PeerClients {
    gate: Gate,
    state: watch::Receiver<Arc<Snapshot>>,
    links: Arc<Mutex<Links>>,
}

type Links = BTreeMap<(NodeId, Purpose), Arc<tokio::sync::Mutex<Link>>>;

impl PeerClients {
    /// Finds members in `state`.
    #[must_use]
    pub fn new(gate: Gate, state: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { gate, state, links: Arc::default() }
    }

    /// One call to where `node` is now.
    async fn call<T, F, Fut>(&self, to: (NodeId, Purpose), wait: Duration, call: F) -> Result<T, CallError>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let link = self.link(to);
        let mut link = link.lock().await;
        let now = self.state.borrow().state.nodes.get(&to.0).map(Endpoint::of);
        link.redirect(&now.unwrap_or_default());
        link.call(wait, call).await
    }

    fn link(&self, to: (NodeId, Purpose)) -> Arc<tokio::sync::Mutex<Link>> {
        // A panic while the map was held leaves it whole: inserting is one step.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = || Link::new(self.gate.clone(), Some(to.0), Endpoint::default());
        let fresh = || Arc::new(tokio::sync::Mutex::new(link()));
        links.entry(to).or_insert_with(fresh).clone()
    }

    /// Asks `elector`; `None` when it does not answer.
    pub async fn expiry(&self, elector: NodeId, ask: Ask) -> Option<Expiry> {
        let request = v1::ExpiryRequest {
            entry: Some(ask.entry.to_wire()),
            node: ask.node.0,
            leader_term: ask.leadership.term,
            leader: ask.leadership.leader.0,
        };
        let call = |mut client: Client| async move { client.expiry(request).await };
        let answer: v1::ExpiryResponse = self.call((elector, Purpose::Expiry), ASK_WAIT, call).await.ok()?;
        Some(match answer.result? {
            v1::expiry_response::Result::RemainingNs(ns) => Expiry::Remaining(Span(ns)),
            v1::expiry_response::Result::NotFenced(_) => Expiry::NotFenced,
        })
    }

    /// Hands `command` to the leader.
    ///
    /// # Errors
    /// When the leader does not answer, or is none any more: the command's fate is then unknown.
    pub async fn propose(&self, leader: NodeId, command: &Command) -> Result<Proposed, CallError> {
        let request = v1::ProposeRequest { command: Some(command.to_wire()) };
        let call = |mut client: Client| async move { client.propose(request).await };
        let answer: v1::ProposeResponse = self.call((leader, Purpose::Propose), PROPOSE_WAIT, call).await?;
        Ok(Proposed::from_wire(answer))
    }

    /// Tells the leader about this node's sockets; what is lost is repeated by the next survey.
    pub async fn drain(&self, leader: NodeId, me: NodeId, module: &ModuleName, state: &DrainState) {
        let drain = v1::ModuleDrain {
            module: module.0.clone(),
            requests: state.requests.as_bytes().to_vec().into(),
            established: state.established.as_bytes().to_vec().into(),
            datagrams: state.datagrams.as_bytes().to_vec().into(),
            sockets: state.sockets,
        };
        let report = v1::DrainReport { node: me.0, epoch: state.epoch.0, modules: vec![drain] };
        let call = |mut client: Client| async move { client.drain(report).await };
        let sent: Result<v1::DrainAck, CallError> = self.call((leader, Purpose::Drain), ASK_WAIT, call).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "drain report not delivered");
        }
    }
}

impl PeerClients {
    /// Asks `node` how it is; `None` when it does not answer at once.
    pub async fn look(&self, node: NodeId) -> Option<v1::LookResponse> {
        let call = |mut client: Client| async move { client.look(v1::LookRequest {}).await };
        self.call((node, Purpose::Look), LOOK_WAIT, call).await.ok()
    }

    /// Starts or stops `node`'s part of a module.
    ///
    /// # Errors
    /// Its refusal, or `node_silent`.
    pub async fn control(&self, node: NodeId, request: v1::ControlRequest) -> Result<(), Problem> {
        let call = |mut client: Client| async move { client.control(request).await };
        let answer = self.call((node, Purpose::Modules), CONTROL_WAIT, call).await;
        granted(answer.map_err(|error| silent(&error))?.refused)
    }

    /// Has the leader rehearse a failure.
    ///
    /// # Errors
    /// Its refusal, or `node_silent`.
    pub async fn drill(
        &self,
        leader: NodeId,
        request: v1::DrillRequest,
    ) -> Result<v1::DrillResponse, Problem> {
        let call = |mut client: Client| async move { client.drill(request).await };
        let answer = self.call((leader, Purpose::Modules), CONTROL_WAIT, call).await;
        let v1::PeerDrillResponse { drill, refused } = answer.map_err(|error| silent(&error))?;
        granted(refused).map(|()| drill.unwrap_or_default())
    }

    /// Has `node` stand still.
    ///
    /// # Errors
    /// Its refusal, or `node_silent`.
    pub async fn pause(&self, node: NodeId, request: v1::PauseRequest) -> Result<(), Problem> {
        let call = |mut client: Client| async move { client.pause(request).await };
        let answer = self.call((node, Purpose::Modules), CONTROL_WAIT, call).await;
        granted(answer.map_err(|error| silent(&error))?.refused)
    }

    /// The last events of `node`.
    ///
    /// # Errors
    /// `node_silent`.
    pub async fn tail(&self, node: NodeId, last: u64) -> Result<Vec<v1::Event>, Problem> {
        let request = v1::TailRequest { last };
        let call = |mut client: Client| async move { client.tail(request).await };
        let answer = self.call((node, Purpose::Modules), CONTROL_WAIT, call).await;
        answer.map(|tail| tail.events).map_err(|error| silent(&error))
    }

    /// What keeps `node` from working well.
    ///
    /// # Errors
    /// `node_silent`.
    pub async fn examine(&self, node: NodeId) -> Result<v1::ExamineResponse, Problem> {
        let call = |mut client: Client| async move { client.examine(v1::ExamineRequest {}).await };
        let answer = self.call((node, Purpose::Examine), EXAMINE_WAIT, call).await;
        answer.map_err(|error| silent(&error))
    }

    /// Has `node` send echoes as the address of the tie-break; how many are answered.
    ///
    /// # Errors
    /// `node_silent`, or what keeps it from sending.
    pub async fn echoes(&self, node: NodeId, request: v1::EchoesRequest) -> Result<u64, Problem> {
        let call = |mut client: Client| async move { client.echoes(request).await };
        let answer = self.call((node, Purpose::Examine), CONTROL_WAIT, call).await;
        let v1::EchoesResponse { answered, problem } = answer.map_err(|error| silent(&error))?;
        if problem.is_empty() { Ok(answered) } else { Err(Problem::new("tie_break", problem, "ip route")) }
    }

    /// A piece of what support needs to know of `node`, or the names of all.
    ///
    /// # Errors
    /// `node_silent`.
    pub async fn piece(&self, node: NodeId, name: &str) -> Result<v1::PieceResponse, Problem> {
        let request = v1::PieceRequest { name: name.to_owned() };
        let call = |mut client: Client| async move { client.piece(request).await };
        self.call((node, Purpose::Examine), EXAMINE_WAIT, call).await.map_err(|error| silent(&error))
    }

    /// The last lines of a module's application log on `node`, or what follows.
    ///
    /// # Errors
    /// `node_silent`.
    pub async fn log(&self, node: NodeId, request: v1::LogRequest) -> Result<v1::ModuleLogLines, Problem> {
        let call = |mut client: Client| async move { client.log(request).await };
        let answer = self.call((node, Purpose::Modules), CONTROL_WAIT, call).await;
        answer.map_err(|error| silent(&error))
    }
}

fn granted(refused: Option<v1::Refusal>) -> Result<(), Problem> {
    refused.map_or(Ok(()), |v1::Refusal { code, fact, cure }| Err(Problem::new(code, fact, cure)))
}

/// What answers carry a problem in.
fn refusal(problem: Problem) -> v1::Refusal {
    v1::Refusal { code: problem.code.into(), fact: problem.fact, cure: problem.cure }
}

fn silent(error: &CallError) -> Problem {
    Problem::new("node_silent", format!("it does not answer: {error}"), "farmctl node list")
}

/// Asks the cluster behind `peer` for membership.
///
/// # Errors
/// `peer_unreachable` with what was tried, `peer_refused`, or the refusal of the peer's gate.
pub async fn ask_to_join(gate: Gate, peer: SocketAddr, node: &Node) -> Result<v1::JoinResponse, Problem> {
    let mut link = Link::new(gate, None, [peer].into_iter().collect());
    let request = v1::JoinRequest { node: Some(node.to_wire()), feature_level: LEVEL.0 };
    let call = |mut client: Client| async move { client.join(request).await };
    let joined: Result<v1::JoinResponse, CallError> = link.call(JOIN_WAIT, call).await;
    joined.map_err(|error| match error {
        CallError::Status { status, .. } => {
            let fact = format!("{peer} could not let this node in: {}", status.message());
            Problem::new("not_joined", fact, format!("farmctl node join {peer}"))
        }
        CallError::Refused { code, reason, .. } => {
            let fact = format!(
                "{peer} refuses this node ({code}): {reason}; secret_file must be the same on all nodes"
            );
            Problem::new("peer_refused", fact, format!("farmctl node join {peer}"))
        }
        other => {
            let fact = format!("no member answers at {peer}: {other}");
            Problem::new("peer_unreachable", fact, format!("farmctl node join {peer}"))
        }
    })
}

/// Serves those calls on a member.
pub struct Serving {
    /// The way into the log.
    pub proposer: Proposer,
    /// The driver.
    pub driver: mpsc::Sender<Feedback>,
    /// What it can say of itself.
    pub mirror: Mirror,
    /// Who tells support of it.
    pub collector: Arc<Collector>,
    /// Who decides on rehearsals.
    pub drills: mpsc::Sender<drill::Call>,
    /// Who of the members must have lost what they were.
    pub lost: Lost,
    /// Ticks when an entry was appended: an expiry question may be answerable now.
    pub appended: watch::Receiver<u64>,
}

/// Tells a member whose machine comes back without its store from one that goes on.
pub struct Lost {
    /// This node.
    pub me: NodeId,
    /// Who votes, and what is agreed.
    pub raft: Handle,
    /// Who is heard.
    pub heard: HeardBy,
    /// Since when.
    pub since: BootTime,
}

impl Lost {
    /// The member called `name`, if it neither votes nor grants and has not been heard for as long as it takes to let a
    /// voter go. Who does not grant hears nobody, and cannot tell.
    fn under(&self, name: &str) -> Option<NodeId> {
        let snapshot = self.raft.state().borrow().clone();
        let (state, electors) = (&snapshot.state, snapshot.state.electors.all());
        let id = state.nodes.values().find(|n| n.name == name && n.membership.stays())?.id;
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(|h| h.at);
        let silent = BootTime(boot_now()).since(heard.unwrap_or(self.since));
        let votes = self.raft.role().borrow().voters.contains(&id);
        let tells = electors.contains(&self.me) && silent >= Patience::default().evict;
        (tells && !votes && !electors.contains(&id)).then_some(id)
    }
}

#[tonic::async_trait]
impl PeerHandler for Serving {
    async fn propose(&self, _: Caller, request: v1::ProposeRequest) -> Result<v1::ProposeResponse, Status> {
        let command = request.command.ok_or_else(|| Status::invalid_argument("no command"))?;
        if let Some(early) = self.proposer.too_early(FeatureLevel(command.feature_level)) {
            return Ok(Proposed::refused(early).into_wire());
        }
        let command = Command::from_wire(command).map_err(bad)?;
        self.proposer.propose_here(command).await.map(Proposed::into_wire).map_err(|e| not_here(&e))
    }

    async fn join(&self, _: Caller, request: v1::JoinRequest) -> Result<v1::JoinResponse, Status> {
        let node =
            Node::from_wire(request.node.ok_or_else(|| Status::invalid_argument("no node"))?).map_err(bad)?;
        let needs = self.proposer.raft.state().borrow().state.level;
        if FeatureLevel(request.feature_level) < needs {
            let fact = format!(
                "{} knows feature level {}, the cluster uses {needs}",
                node.name, request.feature_level
            );
            let refused = Refused { code: "old_version".into(), fact, cure: "farmd --version".into() };
            return Ok(v1::JoinResponse {
                refused: Some(refused.into_wire()),
                ..v1::JoinResponse::default()
            });
        }
        if let Some(lost) = self.lost.under(&node.name) {
            // Refused where it grants leases: then the name is taken, too.
            let overrule = Command::any(Body::NodeOverrule(lost));
            self.proposer.propose(overrule).await.map_err(|e| not_here(&e))?;
        }
        let command = Command::any(Body::NodeJoin(node));
        let proposed = self.proposer.propose(command).await.map_err(|e| not_here(&e))?;
        let snapshot = self.proposer.raft.state().borrow().clone();
        Ok(v1::JoinResponse {
            node: proposed.node.map_or(0, |n| n.0),
            // The log of a member that has just started may not have told it yet.
            cluster: self.proposer.raft.gate().cluster().unwrap_or_default().0.to_vec().into(),
            cluster_name: snapshot.state.name.clone(),
            refused: proposed.refused.map(Refused::into_wire),
            profile: snapshot.state.profile.to_wire(),
            generation: Some(self.proposer.raft.gate().generation().to_wire()),
        })
    }

    async fn expiry(&self, _: Caller, request: v1::ExpiryRequest) -> Result<v1::ExpiryResponse, Status> {
        let entry = request.entry.ok_or_else(|| Status::invalid_argument("no entry"))?;
        let ask = Ask {
            entry: farm_core::id::EntryId::from_wire(entry).map_err(bad)?,
            node: NodeId(request.node),
            leadership: Leadership { term: request.leader_term, leader: NodeId(request.leader) },
        };
        let answer = tokio::time::timeout(FENCE_WAIT, self.fenced(ask)).await.unwrap_or(Expiry::NotFenced);
        let result = match answer {
            Expiry::Remaining(left) => v1::expiry_response::Result::RemainingNs(left.0),
            Expiry::NotFenced => v1::expiry_response::Result::NotFenced(true),
        };
        Ok(v1::ExpiryResponse { result: Some(result) })
    }

    async fn drain(&self, _: Caller, report: v1::DrainReport) -> Result<v1::DrainAck, Status> {
        let at = BootTime(boot_now());
        for module in report.modules {
            let state = DrainState {
                epoch: Epoch(report.epoch),
                requests: BucketSet::from_bytes(module.requests.to_vec()),
                established: BucketSet::from_bytes(module.established.to_vec()),
                datagrams: BucketSet::from_bytes(module.datagrams.to_vec()),
                sockets: module.sockets,
                at,
            };
            let feedback =
                Feedback::Drain { node: NodeId(report.node), module: ModuleName(module.module), state };
            // Full: the next survey repeats it.
            let _ = self.driver.try_send(feedback);
        }
        Ok(v1::DrainAck {})
    }

    async fn look(&self, _: Caller) -> Result<v1::LookResponse, Status> {
        Ok(self.mirror.look())
    }

    async fn control(&self, _: Caller, request: v1::ControlRequest) -> Result<v1::ControlResponse, Status> {
        let done = self.mirror.modules.control(&request).await;
        Ok(v1::ControlResponse { refused: done.err().map(refusal) })
    }

    async fn drill(&self, _: Caller, request: v1::DrillRequest) -> Result<v1::PeerDrillResponse, Status> {
        Ok(match drill::ask(&self.drills, request).await {
            Ok(drill) => v1::PeerDrillResponse { drill: Some(drill), refused: None },
            Err(problem) => v1::PeerDrillResponse { drill: None, refused: Some(refusal(problem)) },
        })
    }

    async fn pause(&self, _: Caller, request: v1::PauseRequest) -> Result<v1::PauseResponse, Status> {
        let done = drill::stand_still(
            &self.collector.journal,
            self.proposer.me,
            &self.collector.config.name,
            &request,
        );
        Ok(v1::PauseResponse { refused: done.err().map(refusal) })
    }

    async fn tail(&self, _: Caller, request: v1::TailRequest) -> Result<v1::TailResponse, Status> {
        let last = usize::try_from(request.last).unwrap_or(usize::MAX);
        let events = self.collector.journal.tail(last).0.into_iter().map(Into::into).collect();
        Ok(v1::TailResponse { events })
    }

    async fn piece(&self, _: Caller, request: v1::PieceRequest) -> Result<v1::PieceResponse, Status> {
        Ok(self.collector.answer(&request.name).await)
    }

    async fn echoes(&self, _: Caller, request: v1::EchoesRequest) -> Result<v1::EchoesResponse, Status> {
        if self.proposer.raft.gate().is_hushed() {
            // A trial must not take the lock from a contest.
            return Err(Status::unavailable("this node waits to see whether it has to go on alone"));
        }
        let trial = Trial::from_wire(request).map_err(bad)?;
        let snapshot = self.proposer.raft.state().borrow().clone();
        let done = trial.run(&snapshot.state).await;
        let problem = done.as_ref().err().map(ToString::to_string).unwrap_or_default();
        Ok(v1::EchoesResponse { answered: done.unwrap_or_default(), problem })
    }

    async fn examine(&self, _: Caller) -> Result<v1::ExamineResponse, Status> {
        Ok(self.collector.doctor.examine().await)
    }

    async fn log(&self, _: Caller, request: v1::LogRequest) -> Result<v1::ModuleLogLines, Status> {
        let lines = modules::log(&self.collector.config.data_dir, request).await;
        lines.map_err(|p| problem_status(Code::Internal, &p))
    }
}

impl Serving {
    /// Waits until the elector holds the fence of the entry.
    async fn fenced(&self, ask: Ask) -> Expiry {
        let mut appended = self.appended.clone();
        loop {
            appended.borrow_and_update();
            match self.mirror.lease.expiry(ask).await {
                Some(Expiry::Remaining(left)) => return Expiry::Remaining(left),
                Some(Expiry::NotFenced) => {}
                None => return Expiry::NotFenced,
            }
            if appended.changed().await.is_err() {
                return Expiry::NotFenced;
            }
        }
    }
}

fn bad(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn not_here(error: &ProposeError) -> Status {
    let code = match error {
        ProposeError::NotLeader { .. } | ProposeError::Malformed(_) => Code::FailedPrecondition,
        ProposeError::Unknown | ProposeError::Stopped(_) => Code::Aborted,
    };
    problem_status(code, &Problem::new("not_proposed", error.to_string(), "farmctl cluster status"))
}
