//! What the rest of the daemon asks of the real-time thread, and what it learns from it.
//!
//! One bounded queue leads to the thread (a byte on a socket pair wakes it), one bounded queue and a few atomics lead
//! back. The thread never waits for anybody; who asks for an answer waits for the thread.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, mpsc};

use farm_common::image::Image;
use farm_core::command::Command;
use farm_core::electors::Electors;
use farm_core::id::{ClusterId, EntryId, Epoch, Generation, Incarnation, NodeId};
use farm_core::lease::{AppliedFences, Ask, Expiry, Heard, Timing};
use farm_core::restart::Restarts;
use farm_core::time::Span;
use farm_dataplane::sink::TableSink;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use super::contest::Contest;
use crate::tally::SharedTally;

/// Orders that may wait: a burst of appended Moves plus a few tables. Senders block beyond it.
pub const ORDERS_MAX: usize = 256;
/// Observations that may wait for the driver: a second of renewals of 32 nodes at 25 ms. Older ones are superseded anyway.
pub const OBSERVATIONS_MAX: usize = 1280;

/// Where each member's lease port is, per network.
pub type Routes = BTreeMap<NodeId, BTreeMap<String, SocketAddr>>;

/// Who this node is; given once, when it is a member.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub me: NodeId,
    /// This run of the daemon.
    pub incarnation: Incarnation,
}

/// The part of the replicated state that leases depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// Who grants.
    pub electors: Electors,
    /// Where they and all other members are.
    pub routes: Routes,
    /// Lengths.
    pub timing: Timing,
    /// Fences of the applied state.
    pub fences: AppliedFences,
    /// The cluster's generation.
    pub generation: Generation,
    /// Longest lease that the profiles ever allowed (L8).
    pub bound: Span,
    /// Planned restarts, with what longer leases they allow.
    pub restarts: Restarts,
}

/// An order to the thread.
pub enum Order {
    /// The node became a member: start to renew, and to grant with these fences.
    Begin(Box<LeaseState>),
    /// This node has decided to go on alone in this generation, which the state may not know yet: lower ones are over.
    Generation(Generation),
    /// The applied state changed.
    State(Box<LeaseState>),
    /// The filter is attached (or taken up): write to it from now on.
    Filter(Box<dyn TableSink>),
    /// What an earlier run left in the filter, if anything, has been taken up, and the state has come to its epoch: this
    /// run goes on with its lease. Before that no deadline is written.
    Inherited,
    /// Publish this table: flip, grace period, and only then report its epoch.
    Publish(Image),
    /// This node's table needs nothing of the filter: the epoch counts as applied.
    Idle(Epoch),
    /// An entry is durable in this node's log; its fences hold before the append is acknowledged.
    Appended {
        /// The entry.
        entry: EntryId,
        /// Who loses buckets, and the target epoch.
        fences: Vec<(NodeId, Epoch)>,
        /// What it says, where that changes the leases that may be granted once it applies.
        leases: Option<Command>,
        /// Told when the fences hold.
        done: mpsc::SyncSender<()>,
    },
    /// The log was cut after this index.
    Truncated(u64),
    /// A snapshot is durable and stands for the log: its fences hold before it is acknowledged.
    Installed {
        /// Fences of the snapshot.
        fences: AppliedFences,
        /// Told when they hold.
        done: mpsc::SyncSender<()>,
    },
    /// From now on routers decide if the one other voter is lost; or they do not any more.
    Contest(Option<Box<Contest>>),
    /// What the contest decided is written down.
    Recorded,
    /// It must not be decided.
    Refused,
    /// When does the last grant below the fence of an entry run out?
    Expiry(Ask, oneshot::Sender<Expiry>),
    /// Close (`true`) or reopen the filter: the guard is missing, or the filter was found detached.
    Shut(bool),
    /// Close for good and end the thread.
    End,
}

/// One renewal that an elector heard.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Who.
    pub node: NodeId,
    /// What.
    pub heard: Heard,
}

/// Bounds of the margins in seconds: fine where a lease of the profile `fast` ends, coarse where one of `virtual` does. At
/// the first one the lease had run out.
const MARGINS: [f64; 16] =
    [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5, 2.0];

/// What the thread publishes about itself.
#[derive(Debug)]
pub struct LeaseReadings {
    /// Boot-clock deadline of this node's lease, ns.
    pub deadline: AtomicU64,
    /// Epoch of the filter, after the grace period.
    pub applied: AtomicU64,
    /// What was left (deadline minus now) each time a grant extended the lease.
    pub margins: SharedTally<{ MARGINS.len() }>,
    /// Times the lease was found run out when a grant arrived.
    pub lapses: AtomicU64,
    /// Grants received.
    pub grants: AtomicU64,
    /// Datagrams that were refused: malformed, forged, foreign.
    pub refused: AtomicU64,
}

impl Default for LeaseReadings {
    fn default() -> Self {
        Self {
            deadline: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            margins: SharedTally::new(&MARGINS),
            lapses: AtomicU64::new(0),
            grants: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

/// The way to the thread. Clones share it.
#[derive(Clone)]
pub struct LeaseHandle {
    orders: SyncSender<Order>,
    wake: Arc<UnixStream>,
    /// What the thread says of itself.
    pub readings: Arc<LeaseReadings>,
}

/// The thread's end of the queues.
pub(super) struct ThreadEnd {
    pub orders: mpsc::Receiver<Order>,
    pub wake: UnixStream,
    pub readings: Arc<LeaseReadings>,
    pub observations: tokio_mpsc::Sender<Observation>,
}

/// Makes the queues.
pub(super) fn queues() -> std::io::Result<(LeaseHandle, ThreadEnd, tokio_mpsc::Receiver<Observation>)> {
    let (orders, receiver) = mpsc::sync_channel(ORDERS_MAX);
    let (observations, observed) = tokio_mpsc::channel(OBSERVATIONS_MAX);
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let readings = Arc::<LeaseReadings>::default();
    let handle = LeaseHandle { orders, wake: Arc::new(wake), readings: readings.clone() };
    Ok((handle, ThreadEnd { orders: receiver, wake: woken, readings, observations }, observed))
}

impl LeaseHandle {
    /// Gives an order. Blocks while the queue is full: the thread empties it within microseconds.
    pub fn give(&self, order: Order) {
        let full = match self.orders.try_send(order) {
            Ok(()) => None,
            Err(TrySendError::Full(order)) => Some(order),
            // The thread has ended: the daemon is going down and the lease with it.
            Err(TrySendError::Disconnected(_)) => return,
        };
        self.wake();
        if let Some(order) = full {
            let _ = self.orders.send(order);
            self.wake();
        }
    }

    /// Installs the fences of a durable entry; returns when they hold.
    pub fn fence(&self, entry: EntryId, fences: Vec<(NodeId, Epoch)>, leases: Option<Command>) {
        let (done, wait) = mpsc::sync_channel(1);
        self.give(Order::Appended { entry, fences, leases, done });
        // An error means the thread has ended, and with it all granting.
        let _ = wait.recv();
    }

    /// Installs the fences of a durable snapshot; returns when they hold.
    pub fn install(&self, fences: AppliedFences) {
        let (done, wait) = mpsc::sync_channel(1);
        self.give(Order::Installed { fences, done });
        // As above.
        let _ = wait.recv();
    }

    /// Asks the elector of this node for an expiry report.
    pub async fn expiry(&self, ask: Ask) -> Option<Expiry> {
        let (reply, answer) = oneshot::channel();
        self.give(Order::Expiry(ask, reply));
        answer.await.ok()
    }

    /// Boot-clock deadline of this node's lease in ns; 0 = none.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.readings.deadline.load(Ordering::Relaxed)
    }

    /// Epoch that the filter works with.
    #[must_use]
    pub fn applied(&self) -> Epoch {
        Epoch(self.readings.applied.load(Ordering::Acquire))
    }

    fn wake(&self) {
        // A full socket means that the thread is being woken already.
        let _ = (&*self.wake).write(&[1]);
    }
}
