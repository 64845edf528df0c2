//! The replicated log and the group that keeps it. The only module that names openraft.
//!
//! ```text
//! propose ─▶ openraft ─▶ store::Log ─▶ farm-store      (durable, then LogWatch, then counted)
//!               │  ▲
//!               │  └──── server ◀─ gate ◀─ peers       (cluster, generation, proof on every message)
//!               └▶ network ─▶ link ─▶ peers
//!               └▶ machine: core apply ─▶ state(), events()
//! ```
//! Everything here runs on a tokio runtime of its own, which the [`Handle`] carries: nothing that a client of the API
//! does can delay a heartbeat.

mod codec;
#[cfg(test)]
mod codec_test;
mod gate;
mod held;
mod hooks;
mod link;
mod machine;
mod members;
mod network;
mod role;
mod runs;
mod serve;
mod server;
mod start;
mod store;
#[cfg(test)]
mod store_test;
mod takeover;
mod timing;
mod types;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use farm_core::apply::Outcome;
use farm_core::command::Command;
use farm_core::id::{ClusterId, EntryId, FeatureLevel, Generation, Leadership, NodeId};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard, broadcast, watch};

pub use gate::{Caller, Denied, Gate, Stamp, refusal};
pub use held::Held;
pub use hooks::LogWatch;
pub use link::{CallError, Client, Link};
pub use machine::{Happened, Snapshot};
pub use members::MembersError;
pub use role::Role;
pub use runs::{Run, Runs};
pub use server::PeerHandler;
pub use start::owner;
pub use takeover::{Ineligible, TakeOver};
pub use timing::Timing;
pub use types::Endpoint;

use machine::{Machine, Published};
use takeover::Overruled;
use types::{LeaderId, Proposal, Types, entry_id};

/// Entries per append. 64 of the largest (a Move of all buckets to 32 nodes) make 2 MiB.
const ENTRIES_PER_APPEND: u64 = 64;
/// A snapshot is made after this many entries: replaying a thousand takes milliseconds, and they hold a few MiB at most.
const SNAPSHOT_EVERY: u64 = 1_000;
/// Entries kept behind a snapshot, so that a member that was away for a failover or two needs no snapshot.
const ENTRIES_KEPT: u64 = 500;
/// A whole snapshot (tens of MiB at worst) is sent, stored and taken over within this time.
const SNAPSHOT_TIMEOUT_MS: u64 = 10_000;
/// Raft's runtime has no blocking tasks, and what it polls returns within microseconds.
const RUNTIME_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Threads of Raft's runtime: Raft's own task, and one for connections and the state machine.
const THREADS: usize = 2;

type RaftOf = openraft::Raft<Types, Machine>;
/// Called once, with the reason, when Raft cannot go on. The daemon ends its process here.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// What Raft needs to start.
pub struct Options {
    /// This node: the log index of the entry that admitted it (the founder: 1). Never reused.
    pub me: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Newest feature level this version knows.
    pub level: FeatureLevel,
    /// Derived from the cluster secret; printable ASCII.
    pub proof: String,
    /// What the cluster said at `Join`; afterwards the recorded one counts if it is higher.
    pub generation: Generation,
    /// Election times; `None`: those of the profile in the log, or of `standard` if there is none.
    pub timing: Option<Timing>,
    /// The durable store.
    pub store: Arc<dyn farm_store::LogStore>,
    /// Told of every change of the durable log before Raft counts it.
    pub watch: Arc<dyn LogWatch>,
    /// Called when Raft cannot go on.
    pub fatal: Fatal,
}

/// Why Raft did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store belongs to another member.
    #[error(
        "the store belongs to node {recorded}, not to {given}; move the data directory aside, or start it as that node"
    )]
    OtherNode {
        /// Whose it is.
        recorded: NodeId,
        /// Who was to start.
        given: NodeId,
    },
    /// The store belongs to another cluster.
    #[error("the store belongs to another cluster; move the data directory aside and let the node join")]
    OtherCluster,
    /// The store cannot be read or written, or holds what this version does not know.
    #[error("the log cannot be taken up: {0}")]
    Store(#[from] io::Error),
    /// The runtime could not be made, or Raft refused to start.
    #[error("Raft cannot start: {0}")]
    Raft(String),
}

/// A command that is in the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its entry.
    pub entry: EntryId,
    /// What it did.
    pub outcome: Outcome,
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or nobody; or the leadership is not the one asked for. Nothing was appended.
    #[error("this node does not lead; ask {}", leader.map_or("again when there is a leader".to_owned(), |n| format!("node {n}")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The command cannot be written in a form that every member reads. Nothing was appended.
    #[error("the command is malformed: {0}")]
    Malformed(#[from] crate::wire::WireError),
    /// The leadership changed, or no majority answered in time: the command may or may not take effect.
    #[error("it is not known whether the command takes effect; look at the state before trying again")]
    Unknown,
    /// Raft has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

/// The running Raft. Clones share it; it ends with [`Handle::shutdown`] or the last clone.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeId,
    raft: RaftOf,
    gate: Gate,
    timing: Timing,
    /// Raft has it open, and nobody else once Raft has ended.
    disk: Weak<dyn farm_store::LogStore>,
    overruled: Overruled,
    decided: watch::Sender<Option<TakeOver>>,
    published: Published,
    role: watch::Receiver<Role>,
    membership: Mutex<()>,
    stopping: Arc<AtomicBool>,
    threads: std::sync::Mutex<Threads>,
}

impl Inner {
    fn disk(&self) -> io::Result<Arc<dyn farm_store::LogStore>> {
        self.disk.upgrade().ok_or_else(|| io::Error::other("Raft has ended"))
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Threads> {
        // What it holds is whole at every step.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
    }
}

/// Raft's runtime, until it is taken to be ended.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Possibly dropped on another runtime, where blocking is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl Handle {
    /// Takes up the log and starts. Before Raft does, `watch` has been told of everything that is in the log.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("farm-raft")
            .on_thread_start(crate::realtime::prefer)
            .enable_all()
            .build()
            .map_err(|e| StartError::Raft(e.to_string()))?;
        let starting = runtime.spawn(start::take_up(options));
        // From here on it ends with this future, too.
        let threads = Threads(Some(runtime));
        let inner = starting.await.map_err(|e| StartError::Raft(e.to_string()))??;
        *inner.threads() = threads;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Appends `command` and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.write(command, None).await
    }

    /// As [`Handle::propose`], but only in exactly this leadership: what a leader learned in one must not be said in
    /// the next. Waits while that leadership lasts: what no majority has confirmed
    /// may still come about in it.
    ///
    /// # Errors
    /// [`ProposeError`]; `NotLeader` also when this node leads again, in another term; `Unknown` when the leadership
    /// ended first.
    pub async fn propose_as(
        &self,
        leadership: Leadership,
        command: Command,
    ) -> Result<Applied, ProposeError> {
        self.write(command, Some(leadership)).await
    }

    async fn write(&self, command: Command, only: Option<Leadership>) -> Result<Applied, ProposeError> {
        // What one member cannot read would stop all of them.
        crate::wire::decode::<Command>(&crate::wire::encode(&command))?;
        let (responder, reply) = ProgressResponder::complete_only();
        let mut request = self.inner.raft.write(Proposal(command)).responder(responder);
        if let Some(l) = only {
            request = request.with_leader(LeaderId { term: l.term, node_id: l.leader.0 });
        }
        request.await.map_err(|e| ProposeError::Stopped(e.to_string()))?;
        let mut role = self.role();
        let patience = async {
            if let Some(l) = only {
                // Raft's end ends it too.
                drop(role.wait_for(|role| role.leadership != Some(l)).await);
            }
            tokio::time::sleep(self.patience()).await;
        };
        let written = tokio::select! {
            biased;
            written = reply => written,
            () = patience => return Err(ProposeError::Unknown),
        };
        let response = written.map_err(|_| ProposeError::Unknown)?.map_err(not_written)?;
        let outcome = response.data.expect("only entries of Raft itself have no outcome");
        Ok(Applied { entry: entry_id(&response.log_id), outcome })
    }

    /// The replicated state, each time it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.published.state.subscribe()
    }

    /// What happens from now on. A subscriber that falls 4096 events behind is told how many it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Happened> {
        self.inner.published.events.subscribe()
    }

    /// Who leads, votes and has caught up, each time it changes.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.role.clone()
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.inner.me
    }

    /// This node's credentials, for calls to peers.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// The election times in force; see [`Timing`] on changing them.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.inner.timing
    }

    /// Makes a snapshot now; it is there some time after the return.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`].
    pub async fn trigger_snapshot(&self) -> Result<(), ProposeError> {
        self.inner.raft.trigger().snapshot().await.map_err(|e| ProposeError::Stopped(e.to_string()))
    }

    /// Ends Raft, the servers of [`Handle::serve`] and the runtime; commands that wait are answered with an error. On
    /// return nothing of it holds the store or a listener any more. Not to be called by what runs on that runtime
    /// (a [`PeerHandler`]).
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!("Raft did not end cleanly: {error}");
        }
        let runtime = self.inner.threads().0.take();
        if let Some(runtime) = runtime {
            let ended =
                tokio::task::spawn_blocking(move || runtime.shutdown_timeout(RUNTIME_ENDS_WITHIN)).await;
            ended.expect("ending a runtime does not panic");
        }
    }

    fn raft(&self) -> &RaftOf {
        &self.inner.raft
    }

    fn patience(&self) -> Duration {
        self.inner.timing.patience()
    }

    async fn membership_turn(&self) -> MutexGuard<'_, ()> {
        self.inner.membership.lock().await
    }
}

fn not_written(error: ClientWriteError<Types>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader { leader: to.leader_id.map(NodeId) },
        ClientWriteError::LogEntryDiscarded(_)
        | ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_) => ProposeError::Unknown,
    }
}
