//! The driver of a daemon: the log, the replicated state, and the controller while this node leads.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use farm_core::command::{Body, Command};
use farm_core::controller::{Controller, DrainState, Effect, Input, Observed, Patience};
use farm_core::id::{Epoch, NodeId};
use farm_core::lease::Expiry;
use farm_core::model::{BucketSet, Phase};
use farm_core::planted::{Bug, is_planted};
use farm_core::time::{BootTime, Span};

use super::bootstrap::{BUCKETS, modules};
use super::clock::RealTime;
use super::entry::{Entry, Members, Payload};
use super::machine::{Daemon, DriverWork, LeaseWork};
use super::network::Message;
use super::raft::RaftMessage;
use super::{Event, World};
use crate::coverage::Situation;
use crate::invariant::{Property, minimal};
use crate::nemesis::Traffic;

/// Messages that wait for a driver that stands still; what is more is lost.
const INBOX: usize = 4_096;
/// After a fault, what it touched is given so long before it counts as well.
const CONVALESCENCE: Span = Span::millis(3_000);

/// Shorter than the shipped limits, so that a minute sees every kind of change.
const PATIENCE: Patience = Patience {
    requests: Span::millis(500),
    drain: Span::millis(1_500),
    lag: Span::millis(1_500),
    hold: Span::millis(1_000),
    evict: Span::millis(3_000),
};

impl World {
    /// Gives the driver work; it does it when it can.
    pub(super) fn driver_work(&mut self, m: usize, work: DriverWork) {
        let Some(daemon) = &mut self.machines[m].daemon else { return };
        if daemon.inbox.len() < INBOX || !matches!(work, DriverWork::Message(_)) {
            daemon.inbox.push_back(work);
        }
        self.driver_drain(m);
    }

    /// Does what waits, as far as the driver runs.
    pub(super) fn driver_drain(&mut self, m: usize) {
        while let Some(work) = self.next_driver_work(m) {
            let input = self.driver_do(m, work);
            self.settle(m);
            self.step(m, input);
            self.settle(m);
        }
    }

    fn next_driver_work(&mut self, m: usize) -> Option<DriverWork> {
        let machine = &mut self.machines[m];
        let runs = machine.paused[1] == 0;
        machine.daemon.as_mut().filter(|_| runs)?.inbox.pop_front()
    }

    fn driver_do(&mut self, m: usize, work: DriverWork) -> Option<Input> {
        let machine = &mut self.machines[m];
        let now = machine.now(self.now);
        let daemon = machine.daemon.as_mut()?;
        match work {
            DriverWork::Message(Message::Raft(message)) => {
                daemon.raft.receive(message, now);
                None
            }
            DriverWork::Message(Message::Answer { elector, ask, expiry }) => Some(match expiry {
                Expiry::Remaining(left) => Input::Expiry { elector, ask, expires_at: now + left },
                Expiry::NotFenced => Input::ExpiryUnknown { elector, ask },
            }),
            DriverWork::Message(Message::Renewal(_) | Message::Grant(_) | Message::Ask { .. }) => None,
            DriverWork::Timer => {
                daemon.raft.tick(now);
                let due =
                    daemon.controller.as_ref().and_then(Controller::wake_at).is_some_and(|at| at <= now);
                due.then_some(Input::Tick)
            }
            DriverWork::Synced(entry) => {
                self.synced(m, entry);
                None
            }
            DriverWork::Fenced(entry) => {
                daemon.fencing -= 1;
                daemon.raft.acknowledge(entry);
                None
            }
            DriverWork::Input(input) => Some(input),
            DriverWork::Command(payload) => {
                daemon.raft.propose(payload, now);
                None
            }
        }
    }

    /// Entries are on disk: their fences first, then they are acknowledged.
    fn synced(&mut self, m: usize, last: farm_core::id::EntryId) {
        let Some(daemon) = &mut self.machines[m].daemon else { return };
        let durable = daemon.raft.durable();
        let entries = daemon.raft.behind(durable).iter().take_while(|e| e.id.index <= last.index);
        let fences: Vec<_> = entries.map(|e| (e.id, e.fences())).filter(|(_, f)| !f.is_empty()).collect();
        if (fences.is_empty() && daemon.fencing == 0) || is_planted(Bug::FenceOnlyCommitted) {
            daemon.raft.acknowledge(last);
        } else {
            daemon.fencing += 1;
            self.lease_work(m, LeaseWork::Appended(fences, last));
        }
    }

    /// Draws the consequences of whatever happened to the log.
    pub(super) fn settle(&mut self, m: usize) {
        self.take_cut(m);
        self.sync(m);
        let inputs = self.apply(m);
        self.lead(m);
        self.send_out(m);
        self.wake_driver(m);
        for input in inputs {
            self.driver_work(m, DriverWork::Input(input));
        }
    }

    fn take_cut(&mut self, m: usize) {
        let Some(daemon) = &mut self.machines[m].daemon else { return };
        let Some(after) = daemon.raft.cut.take() else { return };
        daemon.syncing = daemon.syncing.min(after);
        self.note(m, || format!("cuts its log behind {after}"));
        self.coverage_of_cut(m);
        self.lease_work(m, LeaseWork::Truncated(after));
    }

    fn coverage_of_cut(&mut self, m: usize) {
        let moves = self.machines[m].daemon.as_mut().is_some_and(|d| std::mem::take(&mut d.raft.cut_fence));
        self.cover(Situation::MoveTruncated, moves);
    }

    fn sync(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let (run, longest) = (machine.run, machine.fsync.0);
        let Some(daemon) = &mut machine.daemon else { return };
        let entry = daemon.raft.last();
        if entry.index > daemon.syncing {
            daemon.syncing = entry.index;
            let takes = Span(self.rng.u64(longest / 8..=longest));
            self.queue.put(self.now + takes, Event::Synced { machine: m, run, entry });
        }
    }

    /// Applies what is committed; what the controller is to hear of it.
    fn apply(&mut self, m: usize) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut changed = false;
        while let Some(entry) = self.next_committed(m) {
            inputs.extend(self.apply_entry(m, &entry));
            changed = true;
        }
        let Some(daemon) = self.machines[m].daemon.as_ref().filter(|_| changed) else { return inputs };
        inputs.push(Input::Tick);
        let work = LeaseWork::State(daemon.state.clone(), daemon.applied);
        self.lease_work(m, work);
        self.write_down(m);
        inputs
    }

    fn next_committed(&self, m: usize) -> Option<Rc<Entry>> {
        let daemon = self.machines[m].daemon.as_ref()?;
        let next = daemon.applied.index + 1;
        let ready = daemon.raft.committed().min(daemon.raft.durable());
        daemon.raft.entry(next).filter(|_| next <= ready).cloned()
    }

    fn apply_entry(&mut self, m: usize, entry: &Entry) -> Option<Input> {
        let daemon = self.machines[m].daemon.as_mut()?;
        daemon.applied = entry.id;
        let own = daemon.proposed.take_if(|p| *p == entry.id).is_some();
        let changing = daemon.changing.take_if(|p| *p == entry.id).is_some();
        let Payload::Command(command) = &entry.payload else {
            return changing.then_some(Input::VotersDone);
        };
        let before = daemon.state.clone();
        let state = Rc::make_mut(&mut daemon.state);
        let outcome = state.apply(command, entry.id).expect("every command is of the first level");
        let agreed = self.judges.agreement.applied(entry.id, state);
        self.judged(Property::Agreement, agreed);
        self.cover_apply(m, command, outcome.is_applied(), &before);
        self.note(m, || format!("applies {} {}: {:?}", entry.id.index, name(command), outcome.result));
        if let (Ok(applied), Body::NodeJoin(node)) = (&outcome.result, &command.body) {
            self.admitted(&node.name, applied.node);
        }
        own.then_some(if outcome.is_applied() { Input::ProposalDone } else { Input::ProposalFailed })
    }

    fn cover_apply(
        &mut self,
        m: usize,
        command: &Command,
        applied: bool,
        before: &farm_core::state::ClusterState,
    ) {
        let leads = self.machines[m].daemon.as_ref().is_some_and(|d| d.raft.leads().is_some());
        if !leads {
            return;
        }
        let evidence = match &command.body {
            Body::Activate { evidence, .. } | Body::ElectorsFinal(evidence) if applied => evidence.as_slice(),
            _ => &[],
        };
        let released =
            |e: &farm_core::command::Evidence| matches!(e, farm_core::command::Evidence::Released { .. });
        self.cover(Situation::Released, evidence.iter().any(released));
        self.cover(Situation::Expired, evidence.iter().any(|e| !released(e)));
        self.cover(Situation::StaleStep, command.is_step() && command.base != Some(before.epoch));
        self.cover(Situation::Settled, applied && matches!(command.body, Body::Settle(_)));
        self.cover(Situation::ElectorsChanged, applied && matches!(command.body, Body::ElectorsFinal(_)));
        self.cover(Situation::ClosedMove, applied && self.has_closed(m));
    }

    fn has_closed(&self, m: usize) -> bool {
        let closed = |s: &farm_core::state::ClusterState| {
            s.modules.values().flat_map(|m| &m.assignment).any(|b| b.phase == Phase::MoveClosed)
        };
        self.machines[m].daemon.as_ref().is_some_and(|d| closed(&d.state))
    }

    /// A machine gets its node id; its daemon starts.
    fn admitted(&mut self, name: &str, id: Option<NodeId>) {
        let machine = (0..self.machines.len()).find(|m| super::bootstrap::member(*m).name == name);
        if let (Some(m), Some(id)) = (machine, id)
            && self.machines[m].id.is_none()
        {
            self.machines[m].id = Some(id);
            self.numbers.insert(id, m);
            self.queue.put(self.now + Span::millis(1), Event::Start(m));
        }
    }

    /// Now and then the disk learns what is committed, more rarely a snapshot.
    fn write_down(&mut self, m: usize) {
        if self.schedule.lazy_disks {
            return;
        }
        let (committed, snapshot) = (self.rng.u8(0..8) == 0, self.rng.u8(0..48) == 0);
        if let Some(daemon) = &mut self.machines[m].daemon
            && committed
        {
            daemon.committed = daemon.applied.index;
        }
        if snapshot {
            self.snapshot(m);
        }
    }

    pub(super) fn snapshot(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        if let Some(daemon) = &mut machine.daemon {
            machine.disk.snapshot = daemon.state.clone();
            machine.disk.last = daemon.applied;
            daemon.committed = daemon.committed.max(daemon.applied.index);
        }
    }

    /// A controller belongs to one leadership.
    fn lead(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let now = machine.now(self.now);
        let (Some(daemon), Some(id)) = (&mut machine.daemon, machine.id) else { return };
        let leads = daemon.raft.leads();
        if daemon.controller.as_ref().map(Controller::leadership) == leads {
            return;
        }
        daemon.controller = leads.map(|l| Controller::with_patience(id, l, now, PATIENCE));
        (daemon.proposed, daemon.changing) = (None, None);
        if let Some(leads) = leads {
            self.note(m, || format!("leads in term {}", leads.term));
            self.cover_leader(m);
            self.driver_work(m, DriverWork::Input(Input::Tick));
        }
    }

    fn cover_leader(&mut self, m: usize) {
        let others = || self.machines.iter().enumerate().filter(move |(n, _)| *n != m);
        let leased = others().any(|(n, o)| o.filter.names(n) && o.filter.in_force().is_open(o.now(self.now)));
        let leads = others().any(|(_, o)| o.daemon.as_ref().is_some_and(|d| d.raft.leads().is_some()));
        self.cover(Situation::LeaderChangeWithLease, leased);
        self.cover(Situation::MinorityLeader, leads);
    }

    fn send_out(&mut self, m: usize) {
        let Some(daemon) = &mut self.machines[m].daemon else { return };
        for (to, message) in std::mem::take(&mut daemon.raft.out) {
            let stand = matches!(message, RaftMessage::Stand { .. });
            self.cover(Situation::Transferred, stand);
            self.send(m, to, &Message::Raft(message));
        }
    }

    fn wake_driver(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let (clock, run) = (machine.clock, machine.run);
        let Some(daemon) = &mut machine.daemon else { return };
        let controller = daemon.controller.as_ref().and_then(Controller::wake_at);
        let due = controller.map_or(daemon.raft.wake_at(), |at| at.min(daemon.raft.wake_at()));
        let at = clock.shows(due).max(self.now + Span::micros(50));
        if daemon.wake.is_none_or(|wake| at < wake) {
            daemon.wake = Some(at);
            self.queue.put(at, Event::DriverTimer { machine: m, run });
        }
    }

    fn step(&mut self, m: usize, input: Option<Input>) {
        let Some(input) = input else { return };
        let Some(observed) = self.observe(m) else { return };
        let now = self.machines[m].now(self.now);
        let Some(daemon) = &mut self.machines[m].daemon else { return };
        let Some(controller) = &mut daemon.controller else { return };
        for effect in controller.step(now, &daemon.state, &observed, input) {
            self.execute(m, effect, now);
        }
    }

    fn observe(&self, m: usize) -> Option<Observed> {
        let daemon = self.machines[m].daemon.as_ref().filter(|d| d.controller.is_some())?;
        let Members { voters, learners } = daemon.raft.members();
        Some(Observed {
            heard: daemon.lease.machines.as_ref().map(|(_, e)| e.all_heard()).unwrap_or_default(),
            voters,
            learners,
            caught_up: daemon.raft.caught_up(),
            last_applied: daemon.applied,
            drains: self.drains(m, daemon),
        })
    }

    /// What previous owners would report about their sockets.
    fn drains(
        &self,
        leader: usize,
        daemon: &Daemon,
    ) -> BTreeMap<(NodeId, farm_core::model::ModuleName), DrainState> {
        let previous: BTreeSet<NodeId> =
            daemon.state.modules.values().flat_map(|m| &m.assignment).filter_map(|b| b.previous).collect();
        let mut drains = BTreeMap::new();
        for node in previous {
            let Some(m) = self.numbers.get(&node).copied() else { continue };
            if self.machines[m].driver_works() && self.net.connects(m, leader, Traffic::Log) {
                let report = self.drain(m, self.machines[leader].now(self.now));
                drains.extend(modules().map(|name| ((node, name), report.clone())));
            }
        }
        drains
    }

    fn drain(&self, m: usize, at: BootTime) -> DrainState {
        let machine = &self.machines[m];
        let mut established = BucketSet::empty(BUCKETS);
        if self.now < machine.busy_until {
            (0..BUCKETS).for_each(|b| established.insert(b));
        }
        let sockets = established.len() as u64;
        let epoch = machine.daemon.as_ref().map_or(Epoch(0), |d| d.lease.applied);
        let [requests, datagrams] = [BucketSet::empty(BUCKETS), BucketSet::empty(BUCKETS)];
        DrainState { epoch, requests, datagrams, established, sockets, at }
    }

    fn execute(&mut self, m: usize, effect: Effect, now: BootTime) {
        match effect {
            Effect::Propose(command) => self.propose(m, command, now),
            Effect::AskExpiry { elector, ask } => {
                let Some(from) = self.machines[m].id else { return };
                if elector == from {
                    self.lease_work(m, LeaseWork::Ask(ask, from));
                } else {
                    self.send(m, elector, &Message::Ask { ask, from });
                }
            }
            Effect::SetVoters(voters) => self.change_members(m, now, true, |members| {
                members.learners.extend(&members.voters);
                members.learners.retain(|n| !voters.contains(n));
                members.voters.clone_from(&voters);
            }),
            Effect::AddLearner(node) => {
                self.change_members(m, now, false, |members| {
                    members.learners.insert(node);
                });
            }
            Effect::RemoveFromRaft(node) => {
                self.change_members(m, now, false, |members| {
                    members.learners.remove(&node);
                });
            }
            Effect::TransferLeader(to) => {
                if let Some(daemon) = &mut self.machines[m].daemon {
                    daemon.raft.transfer(to);
                }
            }
            Effect::Notice(notice) => self.note(m, || notice.text(&format!("node {}", notice.node()))),
        }
    }

    fn propose(&mut self, m: usize, command: Command, now: BootTime) {
        let Some(state) = self.machines[m].daemon.as_ref().map(|d| d.state.clone()) else { return };
        let healthy = |n: NodeId| self.numbers.get(&n).is_some_and(|n| self.is_well(*n) && self.is_well(m));
        let judged = minimal::proposed(&command.body, &state, healthy);
        self.judged(Property::Minimal, judged);
        self.note(m, || format!("proposes {} at {:?}", name(&command), command.base));
        let busy = self.now + Span::millis(self.rng.u64(0..2_000));
        for machine in &mut self.machines {
            machine.busy_until = machine.busy_until.max(busy);
        }
        if let Some(daemon) = &mut self.machines[m].daemon {
            daemon.proposed = daemon.raft.propose(Payload::Command(command), now);
        }
    }

    /// Whether no fault has touched the machine for long.
    fn is_well(&self, m: usize) -> bool {
        let machine = &self.machines[m];
        let disturbed = machine.disturbed.max(self.disturbed);
        let standing = machine.paused == [0, 0] && machine.daemon.is_some();
        standing && self.now.since(RealTime(0)) > CONVALESCENCE && self.now > disturbed + CONVALESCENCE
    }

    fn change_members(&mut self, m: usize, now: BootTime, asked: bool, change: impl FnOnce(&mut Members)) {
        let Some(daemon) = &mut self.machines[m].daemon else { return };
        let mut members = daemon.raft.members();
        change(&mut members);
        let entry = daemon.raft.change(members, now);
        if asked {
            daemon.changing = entry;
            if entry.is_none() {
                self.driver_work(m, DriverWork::Input(Input::VotersDone));
            }
        }
    }
}

/// The first word of a command.
fn name(command: &Command) -> String {
    let text = format!("{:?}", command.body);
    text.split(['(', '{', ' ']).next().unwrap_or_default().to_owned()
}
