//! This node's part of the state, made real: table, guard, virtual IPs, drains.
//!
//! Tasks owned: [`Follower::run`] (state → filter and host), [`report_drains`] and [`Spreads::run`]. All are
//! level-triggered and cancel-safe: what is lost with a cancelled await is done again from the next state.

mod census;
mod desired;
mod discovery;
mod drains;
mod duplicates;
mod elsewhere;
mod filter;
mod guarding;
mod network;
mod news;
mod spread;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farm_core::id::{ClusterId, Epoch, NodeId};
use farm_core::model::VirtualIp;
use farm_core::state::ClusterState;
use farm_host::sockets::SockDiag;
use tokio::sync::{mpsc, watch as tokio_watch};

pub use desired::{Carried, carried, handed_over, lease_state, routes, stand_in};
pub use drains::{Here, draining, leaves, survey};
pub use duplicates::{Duplicates, Watcher as DuplicatesWatcher};
pub use elsewhere::{Elsewhere, service, watch_sockets};
pub use filter::{FilterHost, HostError, HostView};
use guarding::{Done, Guarding};
pub use network::{LinkMismatch, check as check_links};
use news::News;
pub use spread::{Spread, Spreads};
pub use watch::{Alarm, watch as watch_host};

use crate::journal::Journal;
use crate::lease::{LeaseHandle, Order};
use crate::look::Drains;
use crate::raft::Snapshot;

/// Shortest pause between two surveys of the sockets of an open change.
const SURVEY_EVERY: Duration = Duration::from_millis(50);
/// Longest pause: so much later than the last connection a change may end.
const SURVEY_SLOWEST: Duration = Duration::from_secs(1);
/// The pause is one part in so many of the time for which there has been something to drain.
const SURVEY_AGE: u32 = 20;
/// A survey takes at most one part in so many of a core: the kernel walks all sockets, also those in TIME_WAIT.
const SURVEY_SHARE: u32 = 10;
/// Repetitions of an announcement after a death (a single frame may be lost, and switches learn late).
const ANNOUNCE_AT: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// Follows the applied state.
pub struct Follower {
    me: NodeId,
    lease: LeaseHandle,
    host: FilterHost,
    journal: Arc<Journal>,
    /// Whether the lease machines have started: they need a founded state.
    begun: bool,
    /// Epoch of the table that a predecessor left on this host, once it was taken up; before that no epoch counts as
    /// applied, and a state before it is only the log being read again.
    inherited: Option<Epoch>,
    /// The state has come to that epoch: from then on this run is the holder of the lease that the filter goes by.
    resumed: bool,
    /// The last trouble, told once and not with every new try.
    trouble: Option<String>,
    /// Nodes that are about to go, and own nothing any more.
    gone: BTreeSet<NodeId>,
    /// Closed because guard or filter are not in place; the event that said so.
    shut: Option<String>,
    published: Epoch,
    carried: BTreeMap<VirtualIp, Carried>,
    /// Asks about the guard, and puts it back.
    guarding: Guarding,
    /// Who is to be told that this node answers them.
    news: News,
}

impl Follower {
    /// For `me`; `host` is the filter and the host around it.
    #[must_use]
    pub fn new(me: NodeId, lease: LeaseHandle, host: FilterHost, journal: Arc<Journal>) -> Self {
        Self {
            me,
            lease,
            host,
            journal,
            begun: false,
            inherited: None,
            resumed: false,
            gone: BTreeSet::new(),
            trouble: None,
            shut: None,
            published: Epoch(0),
            carried: BTreeMap::new(),
            guarding: Guarding::default(),
            news: News::default(),
        }
    }

    /// Runs until the state's sender is gone or `stop` says so; then takes the host back to where it was.
    pub async fn run(
        mut self,
        mut state: tokio_watch::Receiver<Arc<Snapshot>>,
        mut alarms: mpsc::Receiver<Alarm>,
        mut announce: mpsc::Receiver<()>,
        mut stop: tokio_watch::Receiver<bool>,
    ) {
        loop {
            let snapshot = state.borrow_and_update().clone();
            self.follow(&snapshot).await;
            tokio::select! {
                // Who serves whom comes before everything else.
                biased;
                changed = state.changed() => if changed.is_err() { break },
                Some(alarm) = alarms.recv() => {
                    // A burst (a firewall that is reloaded, containers that come and go) is looked at once.
                    let also: Vec<Alarm> = std::iter::from_fn(|| alarms.try_recv().ok()).collect();
                    let alarm = if also.iter().all(|a| *a == alarm) { alarm } else { Alarm::Routine };
                    self.alarm(alarm).await;
                }
                done = self.guarding.done() => self.guarded(done).await,
                Some(()) = announce.recv() => self.announce(),
                () = stopped(&mut stop) => break,
            }
        }
        self.lease.give(Order::Shut(true));
        self.host.take_down(&self.carried).await;
    }

    async fn follow(&mut self, snapshot: &Snapshot) {
        let state = &snapshot.state;
        if state.cluster == ClusterId::default() {
            return;
        }
        let leases = Box::new(lease_state(state, snapshot.last_applied.index));
        if self.begun {
            self.lease.give(Order::State(leases));
        } else {
            self.begun = true;
            self.lease.give(Order::Begin(leases));
        }
        match self.carry_out(state).await {
            Ok(()) => self.trouble = None,
            Err(error) => self.tell("host_refused", &error),
        }
    }

    /// Done again with the next state or alarm where it fails.
    async fn carry_out(&mut self, state: &ClusterState) -> Result<(), HostError> {
        let inherited = match self.inherited {
            Some(epoch) => epoch,
            None => *self.inherited.insert(self.host.inherit(&self.lease).await?),
        };
        if state.epoch < inherited || !state.nodes.contains_key(&self.me) {
            return Ok(());
        }
        if !self.resumed {
            self.resumed = true;
            self.lease.give(Order::Inherited);
        }
        let wanted = carried(state, self.me);
        // Guard and filter come before the table that opens an address, the address itself comes last.
        if wanted != self.carried || !self.host.attached() {
            self.host.before(&wanted, &self.lease).await?;
        }
        if state.epoch != self.published {
            self.publish(state)?;
            self.published = state.epoch;
            self.reopen();
        }
        self.host.after(&self.carried, &wanted).await?;
        self.carried = wanted;
        self.stand_in(state);
        Ok(())
    }

    /// Whoever sends to a node that is about to go must learn of another one while that one still sends it on.
    fn stand_in(&mut self, state: &ClusterState) {
        let gone = handed_over(state);
        if !gone.is_subset(&self.gone) && stand_in(state) == Some(self.me) {
            self.announce();
        }
        self.gone = gone;
    }

    /// A table that cannot be rendered leaves the older one in force, and its epoch unreported: the next fence closes it.
    fn publish(&mut self, state: &ClusterState) -> Result<(), HostError> {
        if !self.host.attached() {
            self.lease.give(Order::Idle(state.epoch));
            return Ok(());
        }
        let table = farm_core::table::render(state, self.me)?;
        self.lease.give(Order::Publish(table.clone()));
        let Self { news, host, lease, .. } = self;
        news.follow(table, || host.means(lease));
        Ok(())
    }

    async fn alarm(&mut self, alarm: Alarm) {
        self.restore_addresses().await;
        let findings = self.host.inspect(alarm).await;
        self.shut_for(&findings);
        if self.shut.is_some() {
            // What could not be mended at the last alarm is tried again, also when nothing new is found.
            self.mend().await;
        } else if alarm != Alarm::Link {
            self.guarding.look(self.host.guard());
        }
    }

    /// Guard before filter. The guard takes nft, which may take long: who serves whom goes on meanwhile.
    async fn mend(&mut self) {
        match self.host.guard() {
            Some(guard) => self.guarding.put_back(guard),
            None => self.repair().await,
        }
    }

    async fn guarded(&mut self, done: Done) {
        match done {
            Done::Looked(guard, state) => {
                let former = self.host.view().guard_trouble();
                let found = self.host.judge_guard(&guard, state);
                self.tell_guard(former);
                if let Some(found) = found {
                    self.shut_for(&[found]);
                    self.mend().await;
                }
            }
            // It was replaced meanwhile, and may have come after its successor.
            Done::PutBack(guard, Ok(())) if self.host.guard().is_some_and(|g| g.rules() != guard.rules()) => {
                self.mend().await;
            }
            Done::PutBack(_, Ok(())) => self.repair().await,
            Done::PutBack(_, Err(error)) | Done::Failed(error) => {
                self.tell("filter_not_restored", &error.into());
            }
        }
    }

    fn tell_guard(&self, former: Option<String>) {
        let (kind, text) = match (former, self.host.view().guard_trouble()) {
            (None, Some(trouble)) => ("guard_unknown", trouble),
            (Some(_), None) => ("guard_known", "nft answers again".into()),
            (None, None) | (Some(_), Some(_)) => return,
        };
        self.journal.note(self.me.0, kind, "filter", text, "");
    }

    fn shut_for(&mut self, findings: &[String]) {
        if !findings.is_empty() && self.shut.is_none() {
            self.lease.give(Order::Shut(true));
            self.shut = Some(self.journal.note(self.me.0, "filter_lost", "filter", findings.join("; "), ""));
        }
    }

    async fn repair(&mut self) {
        if self.shut.is_none() {
            return;
        }
        match self.host.repair(&self.carried, &self.lease).await {
            // The table is published anew, before the node opens: a filter that was put back starts empty.
            Ok(()) => self.published = Epoch(0),
            Err(error) => self.tell("filter_not_restored", &error),
        }
    }

    async fn restore_addresses(&mut self) {
        match self.host.restore_addresses(&self.carried).await {
            Ok(restored) => {
                for vip in restored {
                    let text = format!("{vip} had gone from lo and was put back");
                    self.journal.note(self.me.0, "address_restored", &vip.to_string(), text, "");
                }
            }
            Err(error) => self.tell("address_not_restored", &error),
        }
    }

    /// Once guard and filter are in place again, and the table with them.
    fn reopen(&mut self) {
        let Some(cause) = self.shut.take_if(|_| self.host.sound()) else { return };
        self.lease.give(Order::Shut(false));
        let text = "guard and filter are in place again";
        self.journal.note(self.me.0, "filter_restored", "filter", text, &cause);
    }

    fn announce(&mut self) {
        let frames = self.host.announcements(&self.carried);
        if frames.is_empty() {
            return;
        }
        tokio::spawn(async move {
            let start = tokio::time::Instant::now();
            for at in ANNOUNCE_AT {
                tokio::time::sleep_until(start + at).await;
                for frame in &frames {
                    if let Err(error) = frame.send() {
                        tracing::warn!(%error, "announcement not sent");
                    }
                }
            }
        });
    }

    fn tell(&mut self, kind: &str, error: &HostError) {
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            self.journal.note(self.me.0, kind, "filter", text.clone(), "");
            self.trouble = Some(text);
        }
    }
}

/// Returns when told to stop, or when nobody can say so any more.
async fn stopped(stop: &mut tokio_watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

/// A change that has been open for minutes ends no sooner by being looked at twenty times a second.
fn pause(age: Duration) -> Duration {
    (age / SURVEY_AGE).clamp(SURVEY_EVERY, SURVEY_SLOWEST)
}

/// Surveys the sockets of open changes and hands each report to `tell`.
pub async fn report_drains<F, R>(
    me: NodeId,
    lease: LeaseHandle,
    mut state: tokio_watch::Receiver<Arc<Snapshot>>,
    drains: Arc<Drains>,
    elsewhere: Arc<Elsewhere>,
    mut tell: F,
) where
    F: FnMut(farm_core::model::ModuleName, farm_core::controller::DrainState) -> R,
    R: Future<Output = ()>,
{
    let mut begun = None;
    let mut diag = match SockDiag::open() {
        Ok(diag) => diag,
        Err(error) => return tracing::error!(%error, "drains end by their time-out only"),
    };
    loop {
        let snapshot = state.borrow_and_update().clone();
        let names: Vec<_> = draining(&snapshot.state, me).into_iter().cloned().collect();
        drains.keep(&names);
        if names.is_empty() {
            begun = None;
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let start = tokio::time::Instant::now();
        let age = start - *begun.get_or_insert(start);
        let flows = elsewhere.flows().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the flows that the filter remembers");
            BTreeSet::new()
        });
        for name in names {
            let here = Here { me, epoch: lease.applied(), flows: &flows };
            match survey(&mut diag, &here, &snapshot.state, &name).await {
                Ok(report) => {
                    drains.put(&name, &report);
                    tell(name, report).await;
                }
                Err(error) => tracing::warn!(%error, "cannot list sockets"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause(age).max(start.elapsed() * SURVEY_SHARE)) => {}
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
