//! The real-time thread of a daemon: renews, grants, and is the only writer of the filter.

use std::rc::Rc;

use farm_core::id::{EntryId, Epoch, NodeId};
use farm_core::lease::{Ask, Elector, Expiry, Grant, Holder, Refused, Renewal, Timing};
use farm_core::planted::{Bug, is_planted};
use farm_core::restart::{self, Inherited};
use farm_core::state::ClusterState;
use farm_core::time::{BootTime, Span};

use super::machine::{DriverWork, LeaseThread, LeaseWork, Publishing};
use super::network::Message;
use super::{Event, World};
use crate::coverage::Situation;
use crate::invariant::Property;
use farm_core::controller::Input;

/// Datagrams that wait in the socket; what is more is lost.
const SOCKET: usize = 256;
/// Longest visit to every CPU.
const GRACE: Span = Span::micros(300);

/// Length of the leases that `me` asks for.
fn asked(state: &ClusterState, me: NodeId) -> Span {
    restart::allowed(&state.restarts, me).unwrap_or_default().max(Timing::of(state.profile).lease)
}

impl World {
    /// Gives the thread work; it does it when it can.
    pub(super) fn lease_work(&mut self, m: usize, work: LeaseWork) {
        let Some(daemon) = &mut self.machines[m].daemon else { return };
        let inbox = &mut daemon.lease.inbox;
        match work {
            LeaseWork::Published => inbox.push_front(work),
            LeaseWork::Datagram(_) if inbox.len() >= SOCKET => {}
            LeaseWork::Datagram(_)
            | LeaseWork::Timer
            | LeaseWork::State(..)
            | LeaseWork::Appended(..)
            | LeaseWork::Truncated(_)
            | LeaseWork::Ask(..) => inbox.push_back(work),
        }
        self.lease_drain(m);
    }

    /// Does what waits, as far as the thread runs and is not publishing.
    pub(super) fn lease_drain(&mut self, m: usize) {
        while let Some(work) = self.next_lease_work(m) {
            self.lease_do(m, work);
            self.wake_lease(m);
        }
    }

    fn next_lease_work(&mut self, m: usize) -> Option<LeaseWork> {
        let machine = &mut self.machines[m];
        let runs = machine.paused[0] == 0;
        let lease = &mut machine.daemon.as_mut().filter(|_| runs)?.lease;
        let next = lease.inbox.front()?;
        let ready = lease.publishing.is_none() || matches!(next, LeaseWork::Published);
        if ready { lease.inbox.pop_front() } else { None }
    }

    fn lease_do(&mut self, m: usize, work: LeaseWork) {
        match work {
            LeaseWork::Datagram(Message::Renewal(renewal)) => self.answer_renewal(m, &renewal),
            LeaseWork::Datagram(Message::Grant(grant)) => self.granted(m, &grant),
            LeaseWork::Datagram(Message::Raft(_) | Message::Ask { .. } | Message::Answer { .. }) => {}
            LeaseWork::Timer => self.renew(m),
            LeaseWork::Published => self.published(m),
            LeaseWork::State(state, last) => self.take_state(m, &state, last),
            LeaseWork::Appended(fences, last) => self.fence(m, fences, last),
            LeaseWork::Truncated(after) => self.truncated(m, after),
            LeaseWork::Ask(ask, from) => self.answer_ask(m, ask, from),
        }
    }

    fn lease(&mut self, m: usize) -> Option<(&mut LeaseThread, BootTime)> {
        let machine = &mut self.machines[m];
        let now = machine.now(self.now);
        machine.daemon.as_mut().map(|d| (&mut d.lease, now))
    }

    fn machines_of(&mut self, m: usize) -> Option<(&mut Holder, &mut Elector, BootTime)> {
        let (lease, now) = self.lease(m)?;
        lease.machines.as_mut().map(|(holder, elector)| (holder, elector, now))
    }

    fn answer_renewal(&mut self, m: usize, renewal: &Renewal) {
        if let Some(grant) = self.grant(m, renewal) {
            self.send(m, renewal.node, &Message::Grant(grant));
        }
    }

    fn grant(&mut self, m: usize, renewal: &Renewal) -> Option<Grant> {
        let (_, elector, now) = self.machines_of(m)?;
        let before = elector.heard(renewal.node).map(|h| h.applied);
        let answer = elector.renewal(renewal, now);
        let news = before != elector.heard(renewal.node).map(|h| h.applied);
        let me = self.machines[m].id;
        if let (Ok(grant), Some(me)) = (&answer, me) {
            self.judges.bound.granted(me, renewal.node, grant.lease, &self.machines[m].clock, self.now);
        }
        self.cover(Situation::RenewedBeforeApplied, matches!(answer, Err(Refused::Fenced { .. })));
        if news && self.machines[m].daemon.as_ref().is_some_and(|d| d.controller.is_some()) {
            self.driver_work(m, DriverWork::Input(Input::Tick));
        }
        answer.ok()
    }

    fn granted(&mut self, m: usize, grant: &Grant) {
        let run = self.machines[m].run;
        self.cover(Situation::AnswerToOlderRun, grant.incarnation != Self::incarnation(m, run));
        let Some((holder, _, now)) = self.machines_of(m) else { return };
        let Some(deadline) = holder.granted(grant, now) else { return };
        let electors = holder.electors().clone();
        let until = self.machines[m].clock.shows(deadline);
        let judged = self.judges.bound.believed(grant.node, &electors, until);
        self.judged(Property::Bound, judged);
        self.set_deadline(m, deadline);
    }

    fn set_deadline(&mut self, m: usize, deadline: BootTime) {
        if self.lease(m).is_some_and(|(lease, _)| !lease.resumed) {
            return;
        }
        self.machines[m].filter.set_deadline(deadline);
        self.judge_filters();
    }

    fn renew(&mut self, m: usize) {
        let Some((holder, _, now)) = self.machines_of(m) else { return };
        if holder.next_renewal() > now {
            return;
        }
        let renewal = holder.renew(now);
        let electors = holder.electors().all();
        for elector in electors.iter().filter(|e| **e != renewal.node) {
            self.send(m, *elector, &Message::Renewal(renewal));
        }
        // This node's own elector is asked like every other.
        if electors.contains(&renewal.node)
            && let Some(grant) = self.grant(m, &renewal)
        {
            self.granted(m, &grant);
        }
    }

    fn take_state(&mut self, m: usize, state: &Rc<ClusterState>, last: EntryId) {
        let Some(me) = self.machines[m].id else { return };
        if self.lease(m).is_some_and(|(lease, _)| lease.machines.is_none()) {
            if !state.nodes.contains_key(&me) {
                return;
            }
            self.begin(m, me, state, last);
        } else if let Some((holder, elector, now)) = self.machines_of(m) {
            let timing = Timing::of(state.profile);
            elector.applied(state.applied_fences(last.index));
            elector.set_timing(timing);
            elector.set_restarts(state.restarts.clone(), state.lease_bound, now);
            // Only ever shorter, and before the epoch that brings it is reported.
            holder.set_electors(state.electors.clone());
            let deadline = holder.set_lease(timing, asked(state, me), now);
            self.set_deadline(m, deadline);
        }
        self.inherit(m, state);
        self.publish(m, state, me);
    }

    /// Once the state has come to what the filter works with, this run goes on with the lease of the one before.
    fn inherit(&mut self, m: usize, state: &ClusterState) {
        let pinned = self.machines[m].filter.in_force();
        let (epoch, deadline) = (pinned.epoch, pinned.deadline);
        let Some((lease, now)) = self.lease(m) else { return };
        if lease.resumed || state.epoch < epoch {
            return;
        }
        lease.resumed = true;
        if let Some((holder, _)) = &mut lease.machines {
            let deadline = holder.inherit(deadline, now);
            self.set_deadline(m, deadline);
        }
    }

    fn begin(&mut self, m: usize, me: NodeId, state: &ClusterState, last: EntryId) {
        let incarnation = Self::incarnation(m, self.machines[m].run);
        let timing = Timing::of(state.profile);
        let Some((lease, now)) = self.lease(m) else { return };
        let bound = state.lease_bound.max(lease.bound);
        let mut longer = Inherited::new(state.restarts.clone());
        for (entry, command) in std::mem::take(&mut lease.restarts) {
            longer.follow(&command, entry);
        }
        let fences = state.applied_fences(last.index);
        let mut elector = Elector::start(me, state.generation, timing, fences, bound, &longer, now);
        elector.set_restarts(state.restarts.clone(), state.lease_bound, now);
        for (entry, fences) in lease.early.drain(..) {
            elector.appended(entry, &fences);
        }
        let electors = state.electors.clone();
        let mut holder = Holder::new(me, incarnation, state.generation, electors, timing, lease.applied);
        holder.set_lease(timing, asked(state, me), now);
        lease.machines = Some((holder, elector));
    }

    fn publish(&mut self, m: usize, state: &ClusterState, me: NodeId) {
        let Some((lease, _)) = self.lease(m) else { return };
        if state.epoch <= lease.applied {
            return;
        }
        let Some(table) = self.render(state, me) else { return };
        let epoch = table.epoch;
        if let Some((lease, _)) = self.lease(m) {
            lease.publishing = Some(Publishing::Write(table));
        }
        let delay = Span(self.rng.u64(20_000..=self.machines[m].flip.0));
        self.queue.put(self.now + delay, Event::Published { machine: m, run: self.machines[m].run });
        if is_planted(Bug::ReportBeforeFlip) {
            self.report(m, epoch);
            self.renew(m);
        }
    }

    fn published(&mut self, m: usize) {
        let Some(step) = self.lease(m).and_then(|(lease, _)| lease.publishing.take()) else { return };
        match step {
            Publishing::Write(table) => {
                let epoch = table.epoch;
                let judged = self.judges.epochs.published(m, epoch);
                self.judged(Property::Epochs, judged);
                self.note(m, || format!("flips to {epoch:?}"));
                self.machines[m].filter.flip(table);
                self.cover_flip();
                self.judge_filters();
                if let Some((lease, _)) = self.lease(m) {
                    lease.publishing = Some(Publishing::Grace(epoch));
                }
                // What slows the write down slows the visits down too.
                let longest = GRACE.0.max(self.machines[m].flip.0);
                let delay = Span(self.rng.u64(10_000..=longest));
                self.queue.put(self.now + delay, Event::Published { machine: m, run: self.machines[m].run });
            }
            Publishing::Grace(epoch) => {
                self.machines[m].filter.grace();
                self.report(m, epoch);
            }
        }
    }

    /// The epoch counts as applied.
    fn report(&mut self, m: usize, epoch: Epoch) {
        let Some((lease, _)) = self.lease(m) else { return };
        lease.applied = epoch;
        let Some((holder, _)) = &mut lease.machines else { return };
        holder.applied(epoch);
        let deadline = holder.deadline();
        self.set_deadline(m, deadline);
    }

    fn cover_flip(&mut self) {
        let epochs =
            || self.machines.iter().filter(|m| m.daemon.is_some()).map(|m| m.filter.in_force().epoch.0);
        let (newest, oldest) = (epochs().max(), epochs().min());
        let apart = newest.zip(oldest).is_some_and(|(n, o)| n >= o + 2);
        self.cover(Situation::TwoEpochsInFlight, apart);
    }

    fn fence(&mut self, m: usize, fences: Vec<(EntryId, Vec<(NodeId, Epoch)>)>, last: EntryId) {
        let Some((lease, _)) = self.lease(m) else { return };
        match &mut lease.machines {
            Some((_, elector)) => fences.iter().for_each(|(entry, fences)| elector.appended(*entry, fences)),
            None => lease.early.extend(fences),
        }
        self.driver_work(m, DriverWork::Fenced(last));
    }

    fn truncated(&mut self, m: usize, after: u64) {
        let Some((lease, _)) = self.lease(m) else { return };
        match &mut lease.machines {
            Some((_, elector)) => elector.truncated(after),
            None => lease.early.retain(|(entry, _)| entry.index <= after),
        }
    }

    fn answer_ask(&mut self, m: usize, ask: Ask, from: NodeId) {
        let Some((_, elector, now)) = self.machines_of(m) else { return };
        let expiry = elector.expiry(&ask, now);
        self.cover(Situation::NotFenced, expiry == Expiry::NotFenced);
        let Some(elector) = self.machines[m].id else { return };
        self.send(m, from, &Message::Answer { elector, ask, expiry });
    }

    fn wake_lease(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let (clock, run) = (machine.clock, machine.run);
        let Some(lease) = machine.daemon.as_mut().map(|d| &mut d.lease) else { return };
        let Some((holder, _)) = &lease.machines else { return };
        let at = clock.shows(holder.next_renewal()).max(self.now + Span::micros(1));
        if lease.wake.is_none_or(|wake| at < wake) {
            lease.wake = Some(at);
            self.queue.put(at, Event::LeaseTimer { machine: m, run });
        }
    }
}
