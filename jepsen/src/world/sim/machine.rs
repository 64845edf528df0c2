//! A machine, and the run of the daemon on it.

use std::collections::VecDeque;
use std::rc::Rc;

use farm_core::command::Command;
use farm_core::controller::{Controller, Input};
use farm_core::id::{EntryId, Epoch, NodeId};
use farm_core::lease::{Elector, Holder};
use farm_core::planted::{Bug, is_planted};
use farm_core::state::ClusterState;
use farm_core::time::{BootTime, Span};

use super::bootstrap::BUCKETS;
use super::clock::{Clock, RealTime};
use super::entry::{Entry, Payload, Stored};
use super::filter::{Filter, Table};
use super::network::Message;
use super::raft::Raft;

/// Longest sync of a healthy disk.
pub const FSYNC: Span = Span::micros(1_500);
/// Longest time to write a table on a healthy machine.
pub const FLIP: Span = Span::micros(300);

/// What a daemon's disk holds.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The log.
    pub raft: Stored,
    /// State up to the entry, in place of the log before it.
    pub snapshot: Rc<ClusterState>,
    /// The last entry of the snapshot.
    pub last: EntryId,
}

/// What survives the daemon.
pub struct Machine {
    /// Its node id, once it was admitted.
    pub id: Option<NodeId>,
    /// Its boot clock.
    pub clock: Clock,
    /// Its filter, with pins.
    pub filter: Filter,
    /// Its disk.
    pub disk: Disk,
    /// The running daemon.
    pub daemon: Option<Daemon>,
    /// Counts daemons.
    pub run: u64,
    /// Longest sync of the log.
    pub fsync: Span,
    /// Longest time from the order to publish to the flip.
    pub flip: Span,
    /// How often each thread was told to stand still: lease, driver.
    pub paused: [u32; 2],
    /// Flows of buckets that it lost go on for so long.
    pub busy_until: RealTime,
    /// The last instant at which a fault touched it.
    pub disturbed: RealTime,
}

/// One run of the daemon.
pub struct Daemon {
    /// The log.
    pub raft: Raft,
    /// The applied state.
    pub state: Rc<ClusterState>,
    /// The last applied entry.
    pub applied: EntryId,
    /// The leader's logic.
    pub controller: Option<Controller>,
    /// The command of the controller that is under way.
    pub proposed: Option<EntryId>,
    /// The membership change that is under way.
    pub changing: Option<EntryId>,
    /// What is known to be committed, written down now and then.
    pub committed: u64,
    /// Entries up to here are being synced.
    pub syncing: u64,
    /// Batches of entries whose fences are not installed yet.
    pub fencing: u32,
    /// Work that came while the driver stood still.
    pub inbox: VecDeque<DriverWork>,
    /// When the driver is to be woken.
    pub wake: Option<RealTime>,
    /// The real-time thread.
    pub lease: LeaseThread,
}

/// The real-time thread.
pub struct LeaseThread {
    /// Holder and elector, once the node is a member.
    pub machines: Option<(Holder, Elector)>,
    /// Fences that came before that.
    pub early: Vec<(EntryId, Vec<(NodeId, Epoch)>)>,
    /// Longest lease that the log allows beyond the state.
    pub bound: Span,
    /// What it says about planned restarts.
    pub restarts: Vec<(EntryId, Command)>,
    /// This run goes on with the lease that the filter has from the run before.
    pub resumed: bool,
    /// What the filter works with, as far as this thread knows.
    pub applied: Epoch,
    /// A table on its way into the filter; the thread does nothing else meanwhile.
    pub publishing: Option<Publishing>,
    /// Work that came while it stood still or published.
    pub inbox: VecDeque<LeaseWork>,
    /// When it is to be woken.
    pub wake: Option<RealTime>,
}

/// Steps of a publication.
///
/// ```text
/// Write ── the word is flipped ──▶ Grace ── every CPU was visited ──▶ done: the epoch is reported
/// ```
#[derive(Clone, Debug)]
pub enum Publishing {
    /// The free slot is being written.
    Write(Table),
    /// Old packets are being waited for.
    Grace(Epoch),
}

/// Work of the real-time thread.
#[derive(Clone, Debug)]
pub enum LeaseWork {
    /// A datagram.
    Datagram(Message),
    /// The thread was asked to wake.
    Timer,
    /// The next step of the publication is due.
    Published,
    /// The applied state changed.
    State(Rc<ClusterState>, EntryId),
    /// Entries are on disk; their fences must hold before the last of them is acknowledged.
    Appended(Vec<(EntryId, Vec<(NodeId, Epoch)>)>, EntryId),
    /// The log was cut.
    Truncated(u64),
    /// The own leader asks this elector.
    Ask(farm_core::lease::Ask, NodeId),
}

/// Work of the driver.
#[derive(Clone, Debug)]
pub enum DriverWork {
    /// A message of the log, or an answer.
    Message(Message),
    /// The driver was asked to wake.
    Timer,
    /// The log is on disk up to the entry.
    Synced(EntryId),
    /// The fences hold up to the entry.
    Fenced(EntryId),
    /// Something for the controller.
    Input(Input),
    /// Somebody's command.
    Command(Payload),
}

impl Disk {
    /// Of a machine that never was a member.
    #[must_use]
    pub fn empty() -> Self {
        let snapshot = Rc::new(ClusterState::unfounded(BUCKETS));
        Self { raft: Stored::default(), snapshot, last: EntryId::default() }
    }
}

impl Daemon {
    /// A daemon with nothing but what its disk holds.
    #[must_use]
    pub fn new(raft: Raft, disk: &Disk, lease: LeaseThread) -> Self {
        Self {
            syncing: raft.last().index,
            raft,
            state: disk.snapshot.clone(),
            applied: disk.last,
            controller: None,
            proposed: None,
            changing: None,
            committed: disk.raft.committed,
            fencing: 0,
            inbox: VecDeque::new(),
            wake: None,
            lease,
        }
    }
}

impl LeaseThread {
    /// A thread that found its filter at epoch `pinned` and the log with `behind` after the snapshot.
    #[must_use]
    pub fn new(pinned: Epoch, behind: &[Rc<Entry>], committed: u64) -> Self {
        let fenced = |e: &&Rc<Entry>| e.id.index <= committed || !is_planted(Bug::FenceOnlyCommitted);
        Self {
            machines: None,
            early: behind
                .iter()
                .filter(fenced)
                .map(|e| (e.id, e.fences()))
                .filter(|(_, f)| !f.is_empty())
                .collect(),
            applied: if is_planted(Bug::LowerEpochAfterRestart) { Epoch(0) } else { pinned },
            bound: behind.iter().filter_map(|e| e.lease()).max().unwrap_or_default(),
            restarts: behind.iter().filter_map(|e| Some((e.id, e.restart()?))).collect(),
            resumed: false,
            publishing: None,
            inbox: VecDeque::new(),
            wake: None,
        }
    }
}

impl Machine {
    /// A machine whose daemon does not run yet.
    #[must_use]
    pub fn new(id: Option<NodeId>, clock: Clock, disk: Disk) -> Self {
        Self {
            id,
            clock,
            filter: Filter::default(),
            disk,
            daemon: None,
            run: 0,
            fsync: FSYNC,
            flip: FLIP,
            paused: [0, 0],
            busy_until: RealTime(0),
            disturbed: RealTime(0),
        }
    }

    /// What its clock shows.
    #[must_use]
    pub fn now(&self, now: RealTime) -> BootTime {
        self.clock.read(now)
    }

    /// Whether the driver of the daemon can work.
    #[must_use]
    pub fn driver_works(&self) -> bool {
        self.paused[1] == 0 && self.daemon.is_some()
    }
}
