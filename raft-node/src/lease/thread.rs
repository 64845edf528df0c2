//! The real-time thread: renews this node's lease, grants others', and is the only writer of the filter.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use farm_common::image::Image;
use farm_core::command::Command;
use farm_core::id::{EntryId, Epoch, Generation, NodeId};
use farm_core::lease::{AppliedFences, Elector, Expiry, Grant, Holder, Renewal, Timing};
use farm_core::restart::{self, Inherited, Restarts};
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use farm_dataplane::sink::{GraceError, PublishRefused, TableSink};
use nix::poll::{PollFd, PollFlags};
use nix::sys::time::TimeSpec;

use super::contest::Contest;
use super::datagram::{DATAGRAM_MAX, LeaseMessage, Sealer};
use super::orders::{Identity, LeaseState, Observation, Order, ThreadEnd};
use super::socket::LeaseSockets;

/// Datagrams read per network before the thread looks at its other duties.
const BATCH: usize = 64;
/// Longest sleep; only bounds how late a missed wake-up could be noticed.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A node that is closed on order goes on renewing so long: what takes longer to mend is left to the others.
const SHUT_MAX: Span = Span::millis(500);

/// A node whose filter cannot be taken up for so long says that it is alive all the same.
const INHERIT_MAX: Span = Span::seconds(5);

struct Machines {
    holder: Holder,
    elector: Elector,
    generation: Generation,
}

impl Machines {
    fn speak_for(&mut self, generation: Generation) {
        self.generation = generation;
        self.elector.set_generation(generation);
        self.holder.set_generation(generation);
    }
}

pub(super) struct LeaseThread {
    identity: Identity,
    sealer: Sealer,
    sockets: LeaseSockets,
    end: ThreadEnd,
    /// Both machines start together, when the applied state is known.
    machines: Option<Machines>,
    /// The generation that this node has decided to begin, if it has.
    decided: Generation,
    /// Fences of log entries that were recovered or appended before that.
    early: Vec<(EntryId, Vec<(NodeId, Epoch)>)>,
    /// Entries of the log that change what leases may be granted, until the machines start: this elector may have
    /// granted those in its last run.
    early_leases: Vec<(EntryId, Command)>,
    routes: BTreeMap<NodeId, BTreeMap<String, SocketAddr>>,
    filter: Option<Box<dyn TableSink>>,
    /// When this run began.
    started: BootTime,
    /// What the run before left in the filter is known: see [`Order::Inherited`].
    inherited: bool,
    /// A table that could not be published, or not completely; tried again in every round.
    unpublished: Option<Image>,
    /// What happens if the one other voter is lost.
    contest: Option<Box<Contest>>,
    /// Closed on order, since then.
    shut: Option<BootTime>,
    /// What the filter works with, after the grace period.
    applied: Epoch,
}

impl LeaseThread {
    pub(super) fn new(identity: Identity, sealer: Sealer, sockets: LeaseSockets, end: ThreadEnd) -> Self {
        Self {
            identity,
            sealer,
            sockets,
            end,
            machines: None,
            decided: Generation::default(),
            early: Vec::new(),
            routes: BTreeMap::new(),
            early_leases: Vec::new(),
            filter: None,
            started: now(),
            inherited: false,
            unpublished: None,
            contest: None,
            shut: None,
            applied: Epoch(0),
        }
    }

    /// Runs until [`Order::End`].
    pub(super) fn run(mut self) {
        while self.obey() {
            self.publish_again();
            self.receive();
            self.renew_if_due();
            self.contest.iter_mut().for_each(|contest| contest.step(now()));
            self.sleep();
        }
        self.close();
    }

    fn sleep(&self) {
        let renewal =
            self.machines.as_ref().filter(|_| !self.keeps_silent(now())).map(|m| m.holder.next_renewal());
        let contest = self.contest.as_ref().and_then(|contest| contest.arbiter.due(now()));
        let due = renewal.into_iter().chain(contest).min();
        let wait = due.map_or(SLEEP_MAX, |due| SLEEP_MAX.min(Duration::from_nanos(due.since(now()).0)));
        let routers = self.contest.iter().flat_map(|contest| contest.fds());
        let fds = self.sockets.fds().chain(routers);
        let mut fds: Vec<PollFd> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        fds.push(PollFd::new(self.end.wake.as_fd(), PollFlags::POLLIN));
        // EINTR only ends the sleep early.
        let _ = nix::poll::ppoll(&mut fds, Some(TimeSpec::from_duration(wait)), None);
    }

    fn obey(&mut self) -> bool {
        let mut bytes = [0; 64];
        // An error means that nobody woke us.
        let _ = (&self.end.wake).read(&mut bytes);
        loop {
            let order = match self.end.orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Empty) => return true,
                // Nobody is left to give orders: the member did not come up.
                Err(TryRecvError::Disconnected) => return false,
            };
            match order {
                Order::Begin(state) => self.begin(*state),
                Order::State(state) => self.state(*state),
                Order::Generation(generation) => self.raise(generation),
                Order::Filter(sink) => self.take_filter(sink),
                Order::Publish(image) => self.publish(image),
                Order::Idle(epoch) => self.count_as_applied(epoch),
                Order::Inherited => self.inherit(),
                Order::Appended { entry, fences, leases, done } => {
                    self.appended(entry, fences, leases);
                    // The asker may have given up; the fence holds all the same.
                    let _ = done.try_send(());
                }
                Order::Installed { fences, done } => {
                    self.installed(fences);
                    let _ = done.try_send(());
                }
                Order::Truncated(after) => self.truncated(after),
                Order::Expiry(ask, reply) => {
                    let answer =
                        self.machines.as_ref().map_or(Expiry::NotFenced, |m| m.elector.expiry(&ask, now()));
                    let _ = reply.send(answer);
                }
                Order::Contest(contest) => self.contest = contest,
                Order::Recorded => self.contest.iter_mut().for_each(|c| c.recorded(now())),
                Order::Refused => self.contest.iter_mut().for_each(|c| c.refused()),
                Order::Shut(shut) => self.shut(shut),
                Order::End => return false,
            }
        }
    }

    fn appended(&mut self, entry: EntryId, fences: Vec<(NodeId, Epoch)>, leases: Option<Command>) {
        match &mut self.machines {
            Some(machines) => machines.elector.appended(entry, &fences),
            None => {
                self.early.push((entry, fences));
                self.early_leases.extend(leases.map(|command| (entry, command)));
            }
        }
    }

    fn installed(&mut self, fences: AppliedFences) {
        // Before the machines start the state itself brings these fences.
        if let Some(machines) = &mut self.machines {
            machines.elector.applied(fences);
        }
    }

    fn truncated(&mut self, after: u64) {
        match &mut self.machines {
            Some(machines) => machines.elector.truncated(after),
            // What was granted by an entry that is cut off was granted all the same.
            None => self.early.retain(|(entry, _)| entry.index <= after),
        }
    }

    fn raise(&mut self, decided: Generation) {
        if decided.number > self.decided.number {
            self.decided = decided;
        }
        if let Some(machines) = &mut self.machines {
            machines.speak_for(self.decided);
        }
    }

    fn begin(&mut self, state: LeaseState) {
        let LeaseState { electors, routes, timing, fences, generation, bound, restarts } = state;
        let generation = newer(self.decided, generation);
        let mut longer = Inherited::new(restarts.clone());
        let mut longest = bound;
        for (entry, command) in std::mem::take(&mut self.early_leases) {
            longest = longest.max(command.lease().unwrap_or_default());
            longer.follow(&command, entry);
        }
        let me = self.identity.me;
        let mut elector = Elector::start(me, generation, timing, fences, longest, &longer, now());
        elector.set_restarts(restarts.clone(), bound, now());
        for (entry, fences) in self.early.drain(..) {
            elector.appended(entry, &fences);
        }
        let incarnation = self.identity.incarnation;
        let mut holder = Holder::new(me, incarnation, generation, electors, timing, self.applied);
        holder.set_lease(timing, asked(&restarts, me, timing), now());
        self.machines = Some(Machines { holder, elector, generation });
        self.routes = routes;
    }

    fn state(&mut self, state: LeaseState) {
        let Some(machines) = &mut self.machines else { return };
        machines.speak_for(newer(self.decided, state.generation));
        machines.elector.applied(state.fences);
        machines.elector.set_timing(state.timing);
        machines.elector.set_restarts(state.restarts.clone(), state.bound, now());
        // Only ever shorter, and before the epoch that brings it is reported.
        machines.holder.set_electors(state.electors);
        let asked = asked(&state.restarts, self.identity.me, state.timing);
        let deadline = machines.holder.set_lease(state.timing, asked, now());
        self.routes = state.routes;
        self.write_deadline(deadline);
    }

    /// The lease of the run before goes on.
    fn inherit(&mut self) {
        self.inherited = true;
        let pinned = self.filter.as_ref().map_or(0, |filter| filter.deadline());
        let Some(machines) = &mut self.machines else { return };
        let deadline = machines.holder.inherit(BootTime(pinned), now());
        self.write_deadline(deadline);
    }

    fn take_filter(&mut self, sink: Box<dyn TableSink>) {
        let mut sink = sink;
        let pinned = sink.pinned();
        // A predecessor may have flipped just before it died: a grace period comes before anything is written.
        let settled = sink.grace();
        let foreign = self.machines.as_ref().is_some_and(|m| m.generation.number != pinned.generation);
        if foreign {
            sink.close();
        }
        self.filter = Some(sink);
        match settled {
            // An empty table accepts nothing, so it takes nothing back that was reported before; nor does a closed one.
            Ok(()) if foreign => self.count_as_applied(self.applied),
            // A table that was taken up is what this node works with, whatever its log has replayed.
            Ok(()) => self.count_as_applied(self.applied.max(Epoch(pinned.epoch))),
            Err(error) => tracing::error!(%error, "no grace period after taking the filter up"),
        }
    }

    fn publish(&mut self, image: Image) {
        let Some(filter) = &mut self.filter else { return };
        let epoch = Epoch(image.head.epoch);
        self.unpublished = None;
        match put_in_force(&mut **filter, &image) {
            Ok(()) => {}
            Err(NotInForce::Refused(refused)) => {
                tracing::debug!(%refused, ?epoch, "table not published");
                return;
            }
            Err(NotInForce::Grace(error)) => {
                // Without the grace period nothing may be reported; the epoch stays unreported and the lease lapses if it is fenced.
                tracing::error!(%error, ?epoch, "no grace period: trying again");
                self.unpublished = Some(image);
                return;
            }
        }
        self.count_as_applied(epoch);
        if let Some(deadline) = self.deadline() {
            self.write_deadline(deadline);
        }
    }

    fn publish_again(&mut self) {
        if let Some(image) = self.unpublished.take() {
            self.publish(image);
        }
    }

    fn deadline(&self) -> Option<BootTime> {
        self.machines.as_ref().map(|m| m.holder.deadline())
    }

    fn count_as_applied(&mut self, epoch: Epoch) {
        self.applied = epoch;
        self.end.readings.applied.store(epoch.0, Ordering::Release);
        if let Some(machines) = &mut self.machines {
            machines.holder.applied(epoch);
        }
    }

    fn shut(&mut self, shut: bool) {
        self.shut = shut.then(|| self.shut.unwrap_or_else(now));
        if shut {
            self.close();
        } else if let Some(deadline) = self.deadline() {
            self.write_deadline(deadline);
        }
    }

    fn close(&self) {
        if let Some(filter) = &self.filter {
            filter.close();
        }
    }

    fn write_deadline(&self, deadline: BootTime) {
        if !self.inherited {
            return;
        }
        self.end.readings.deadline.store(deadline.0, Ordering::Relaxed);
        if self.shut.is_some() {
            return;
        }
        if let Some(filter) = &self.filter {
            filter.set_deadline(deadline.0);
        }
    }

    /// Before the filter is taken up, what this run could say of itself would not be true.
    fn keeps_silent(&self, at: BootTime) -> bool {
        !self.inherited && at.since(self.started) < INHERIT_MAX
    }

    fn renew_if_due(&mut self) {
        let at = now();
        if self.keeps_silent(at) {
            return;
        }
        let Some(Machines { holder, .. }) = &mut self.machines else { return };
        if holder.next_renewal() > at {
            return;
        }
        let mut renewal = holder.renew(at);
        if !self.inherited {
            // It is alive, and its filter does not go by its lease: it serves nobody, and needs no more than others.
            renewal.leased = false;
            renewal.lease = Span::ZERO;
        }
        if self.shut.is_some_and(|since| at.since(since) >= SHUT_MAX) {
            // A node that cannot serve must not keep its buckets.
            return;
        }
        let bytes = self.sealer.seal(&LeaseMessage::Renewal(renewal));
        for elector in holder.electors().all() {
            match self.routes.get(&elector) {
                _ if elector == self.identity.me => {}
                Some(route) => {
                    self.sockets.send(&bytes, route);
                }
                None => tracing::debug!(%elector, "no route to an elector"),
            }
        }
        // This node's own elector is asked like every other, after the datagrams are on their way.
        if let Some(grant) = self.grant(&renewal) {
            self.granted(&grant);
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0u8; DATAGRAM_MAX];
        let mut arrived = Vec::new();
        // Grants are answered inside the batch, with the clock read at each stamp.
        let sealer = self.sealer.clone();
        let sockets = std::mem::replace(&mut self.sockets, LeaseSockets::none());
        sockets.receive(BATCH, &mut buffer, |bytes| match sealer.open(bytes) {
            Ok(LeaseMessage::Renewal(renewal)) => {
                self.grant(&renewal).map(|grant| sealer.seal(&LeaseMessage::Grant(grant)))
            }
            Ok(LeaseMessage::Grant(grant)) => {
                arrived.push(grant);
                None
            }
            Ok(LeaseMessage::Call(nonce)) => Some(sealer.seal(&LeaseMessage::Echo(nonce))),
            // Who asks listens elsewhere.
            Ok(LeaseMessage::Echo(_)) => None,
            Err(_) => {
                self.end.readings.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
        });
        self.sockets = sockets;
        for grant in arrived {
            self.granted(&grant);
        }
    }

    /// Check, stamp and answer: one step of this thread, which also reports expiry.
    fn grant(&mut self, renewal: &Renewal) -> Option<Grant> {
        let machines = self.machines.as_mut()?;
        let of_peer = |contest: &&mut Box<Contest>| {
            contest.peer == renewal.node && machines.generation == renewal.generation
        };
        if self.contest.as_mut().filter(of_peer).is_some_and(|contest| !contest.heard(now())) {
            return None;
        }
        let elector = &mut machines.elector;
        let answer = elector.renewal(renewal, now());
        if let Some(heard) = elector.heard(renewal.node) {
            // A full queue loses only an observation that the next renewal repeats.
            let _ = self.end.observations.try_send(Observation { node: renewal.node, heard });
        }
        answer.ok()
    }

    fn granted(&mut self, grant: &Grant) {
        let Some(Machines { holder, .. }) = &mut self.machines else { return };
        let answered = holder.sent_at(grant);
        if let (Some(contest), Some(sent)) = (&mut self.contest, answered)
            && contest.peer == grant.elector
        {
            contest.answered(sent, now());
        }
        let before = holder.deadline();
        let Some(deadline) = holder.granted(grant, now()) else { return };
        self.read_margin(before);
        self.write_deadline(deadline);
    }

    fn read_margin(&self, before: BootTime) {
        let readings = &self.end.readings;
        readings.grants.fetch_add(1, Ordering::Relaxed);
        let margin = before.since(now()).0;
        if before.0 == 0 {
            return;
        }
        readings.margins.add(Duration::from_nanos(margin));
        if margin == 0 {
            readings.lapses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why a table does not count as applied.
enum NotInForce {
    Refused(PublishRefused),
    Grace(GraceError),
}

/// Flip and grace period; a grace period that an earlier flip still owes comes first.
fn put_in_force(filter: &mut dyn TableSink, image: &Image) -> Result<(), NotInForce> {
    let published = match filter.publish(image) {
        Err(PublishRefused::GraceMissing) => {
            filter.grace().map_err(NotInForce::Grace)?;
            filter.publish(image)
        }
        published => published,
    };
    match published {
        // It flipped the last time and only its grace period is owed.
        Err(PublishRefused::NotNewer { pinned, offered }) if pinned == offered => {}
        published => published.map_err(NotInForce::Refused)?,
    }
    filter.grace().map_err(NotInForce::Grace)
}

fn newer(one: Generation, other: Generation) -> Generation {
    if one.number > other.number { one } else { other }
}

/// Length of the leases that `me` asks for.
fn asked(restarts: &Restarts, me: NodeId, timing: Timing) -> Span {
    restart::allowed(restarts, me).unwrap_or_default().max(timing.lease)
}

fn now() -> BootTime {
    BootTime(boot_now())
}
