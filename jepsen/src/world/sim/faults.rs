//! What faults do to this world, and how they end.

use farm_core::command::{Body, Command};
use farm_core::lease::Timing;
use farm_core::model::{Mode, ModuleName, Profile, Weight};
use farm_core::time::Span;

use super::bootstrap::{member, service};
use super::entry::Payload;
use super::machine::{DriverWork, FLIP, FSYNC};
use super::network::Weather;
use super::{Event, World};
use crate::coverage::Situation;
use crate::nemesis::{Fault, Target, Threads, Traffic};

/// Longer than any failover, and short enough that one in its middle is soon over.
const RESTART_LEASE: Span = Span::millis(800);

/// The end of a fault.
pub(super) enum Undo {
    Resume(usize, Threads),
    Heal(Vec<(usize, usize, Traffic)>),
    Fast(Vec<(usize, usize, Traffic)>),
    Fair,
    Disk(usize),
    Flip(usize),
}

impl World {
    /// A fault of the schedule strikes.
    pub(super) fn strike(&mut self, index: usize) {
        let fault = self.schedule.faults[index].1.clone();
        self.faults += usize::from(!fault.is_load());
        self.note(0, || format!("* {fault}"));
        match fault {
            Fault::Pause(target, threads, lasts) => self.on(target, |w, m| w.pause(m, threads, lasts)),
            Fault::Cut { from, to, traffic, lasts } => {
                let (Some(from), Some(to)) = (self.resolve(from), self.resolve(to)) else { return };
                self.cut(traffic.iter().map(|t| (from, to, *t)).collect(), lasts);
            }
            Fault::Isolate(target, lasts) => self.on(target, |w, m| w.split(1 << m, lasts)),
            Fault::Split(mask, lasts) => self.split(mask, lasts),
            Fault::Noise { loss, twice, jitter, lasts } => self.noise(loss, twice, jitter, lasts),
            Fault::Slow { from, to, traffic, extra, lasts } => {
                let (Some(from), Some(to)) = (self.resolve(from), self.resolve(to)) else { return };
                self.slow(traffic.iter().map(|t| (from, to, *t)).collect(), extra, lasts);
            }
            Fault::Restart(target, down) => self.on(target, |w, m| w.restart(m, down)),
            Fault::Reboot(target, down) => self.on(target, |w, m| w.reboot(m, down)),
            Fault::SlowDisk(target, by, lasts) => self.on(target, |w, m| {
                w.machines[m].fsync = by;
                w.end(m, lasts, Undo::Disk(m));
            }),
            Fault::SlowFlip(target, by, lasts) => self.on(target, |w, m| {
                w.machines[m].flip = by;
                w.end(m, lasts, Undo::Flip(m));
            }),
            Fault::Transfer(target) => self.on(target, World::transfer),
            Fault::Snapshot(target) => self.on(target, World::snapshot),
            Fault::BeginRestart(target) => self.on(target, Self::begin_restart),
            Fault::EndRestart(target) => self.on(target, Self::end_restart),
            Fault::Weight(target, weight) => self.on(target, |w, m| w.weigh(m, Weight(weight))),
            Fault::Touch => self.touch(),
            Fault::Leave(target) => self.on(target, World::leave),
            Fault::Join(m) => self.command(Body::NodeJoin(member(m))),
        }
        self.judge_filters();
    }

    /// A fault ends.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Resume(m, threads) => self.resume(m, threads),
            Undo::Heal(cuts) => {
                for (from, to, traffic) in cuts {
                    self.net.heal(from, to, traffic);
                    self.touched([from, to]);
                }
            }
            Undo::Fast(ways) => {
                for (from, to, traffic) in ways {
                    self.net.slow(from, to, traffic, None);
                    self.touched([from, to]);
                }
            }
            Undo::Fair => {
                self.net.weather = Weather::FAIR;
                self.disturbed = self.disturbed.max(self.now);
            }
            Undo::Disk(m) => {
                self.machines[m].fsync = FSYNC;
                self.touched([m]);
            }
            Undo::Flip(m) => {
                self.machines[m].flip = FLIP;
                self.touched([m]);
            }
        }
    }

    fn resolve(&self, target: Target) -> Option<usize> {
        match target {
            Target::Machine(m) => (m < self.machines.len()).then_some(m),
            Target::Leader => self.leader(),
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |m: &usize| {
            let daemon = self.machines[*m].daemon.as_ref().filter(|d| d.raft.leads().is_some());
            daemon.map(|d| d.raft.term())
        };
        (0..self.machines.len()).filter(|m| leads(m).is_some()).max_by_key(leads)
    }

    fn on(&mut self, target: Target, fault: impl FnOnce(&mut Self, usize)) {
        if let Some(m) = self.resolve(target) {
            self.touched([m]);
            fault(self, m);
        }
    }

    fn touched(&mut self, machines: impl IntoIterator<Item = usize>) {
        for m in machines {
            self.machines[m].disturbed = self.machines[m].disturbed.max(self.now);
        }
    }

    fn end(&mut self, m: usize, lasts: Span, undo: Undo) {
        self.machines[m].disturbed = self.machines[m].disturbed.max(self.now + lasts);
        self.queue.put(self.now + lasts, Event::Undo(undo));
    }

    fn pause(&mut self, m: usize, threads: Threads, lasts: Span) {
        for thread in parts(threads) {
            self.machines[m].paused[*thread] += 1;
        }
        self.end(m, lasts, Undo::Resume(m, threads));
    }

    fn resume(&mut self, m: usize, threads: Threads) {
        let machine = &self.machines[m];
        let lapsed = machine.filter.names(m) && !machine.filter.in_force().is_open(machine.now(self.now));
        self.cover(
            Situation::OwnerPausedPastLease,
            lapsed && machine.daemon.is_some() && threads != Threads::Driver,
        );
        for thread in parts(threads) {
            self.machines[m].paused[*thread] -= 1;
        }
        self.touched([m]);
        self.lease_drain(m);
        self.driver_drain(m);
    }

    fn cut(&mut self, cuts: Vec<(usize, usize, Traffic)>, lasts: Span) {
        for (from, to, traffic) in &cuts {
            self.net.cut(*from, *to, *traffic);
            self.touched([*from, *to]);
        }
        self.disturbed = self.disturbed.max(self.now + lasts);
        self.queue.put(self.now + lasts, Event::Undo(Undo::Heal(cuts)));
    }

    fn split(&mut self, mask: u32, lasts: Span) {
        let side = |m: usize| mask & (1 << m) != 0;
        let machines = || 0..self.machines.len();
        let across =
            machines().flat_map(|a| machines().map(move |b| (a, b))).filter(|(a, b)| side(*a) != side(*b));
        let cuts = across.flat_map(|(a, b)| Traffic::ALL.iter().map(move |t| (a, b, *t))).collect();
        self.cut(cuts, lasts);
    }

    fn noise(&mut self, loss: u8, twice: u8, jitter: Span, lasts: Span) {
        let delay_max = Weather::FAIR.delay_max + jitter;
        self.net.weather = Weather { loss, twice, delay_max, ..Weather::FAIR };
        self.disturbed = self.disturbed.max(self.now + lasts);
        self.queue.put(self.now + lasts, Event::Undo(Undo::Fair));
    }

    fn slow(&mut self, ways: Vec<(usize, usize, Traffic)>, extra: Span, lasts: Span) {
        for (from, to, traffic) in &ways {
            self.net.slow(*from, *to, *traffic, Some(extra));
        }
        self.disturbed = self.disturbed.max(self.now + lasts);
        self.queue.put(self.now + lasts, Event::Undo(Undo::Fast(ways)));
    }

    fn restart(&mut self, m: usize, down: Span) {
        let machine = &self.machines[m];
        let left = machine.filter.in_force().deadline.since(machine.now(self.now));
        let longer = left > Timing::of(Profile::Fast).lease;
        self.cover(Situation::RestartedUnderLongerLease, longer && machine.daemon.is_some());
        self.stop(m);
        self.machines[m].disturbed = self.machines[m].disturbed.max(self.now + down);
        self.queue.put(self.now + down, Event::Start(m));
    }

    fn reboot(&mut self, m: usize, down: Span) {
        self.cover(Situation::Rebooted, self.machines[m].daemon.is_some());
        self.restart(m, down);
        let machine = &mut self.machines[m];
        machine.filter = super::filter::Filter::default();
        machine.clock.reboot(self.now);
        self.judges.epochs.rebooted(m);
    }

    fn transfer(&mut self, to: usize) {
        let (Some(leader), Some(id)) = (self.leader(), self.machines[to].id) else { return };
        self.touched([leader]);
        if let Some(daemon) = self.machines[leader].daemon.as_mut() {
            daemon.raft.transfer(id);
        }
        self.settle(leader);
    }

    fn weigh(&mut self, m: usize, weight: Weight) {
        let Some(node) = self.machines[m].id else { return };
        for module in super::bootstrap::modules() {
            self.command(Body::WeightSet { module, node, weight });
        }
    }

    fn begin_restart(&mut self, m: usize) {
        let state = self.leader().and_then(|l| self.machines[l].daemon.as_ref()).map(|d| d.state.clone());
        if let (Some(node), Some(state)) = (self.machines[m].id, state) {
            let lives = |e| self.machines.iter().any(|other| other.id == Some(e) && other.daemon.is_some());
            let everybody = !state.electors.majority(|e| e != node && lives(e));
            self.command(Body::RestartBegin { node, lease: RESTART_LEASE, everybody });
        }
    }

    fn end_restart(&mut self, m: usize) {
        let state = self.leader().and_then(|l| self.machines[l].daemon.as_ref()).map(|d| d.state.clone());
        let Some((node, state)) = self.machines[m].id.zip(state) else { return };
        if let Some(restart) = state.restarting(node) {
            self.command(Body::RestartEnd { node, begun: restart.entry });
        }
    }

    /// Adds a service, or removes the one that was added last.
    fn touch(&mut self) {
        const FIRST: u16 = 1_000;
        let module = || ModuleName("web".into());
        if self.ports.len() < 4 {
            let port = FIRST + u16::try_from(self.faults + self.ports.len()).unwrap_or(0);
            self.ports.push(port);
            self.command(Body::ServiceAdd { module: module(), service: service(port), mode: Mode::Directed });
        } else if let Some(port) = self.ports.pop() {
            self.command(Body::ServiceRemove { module: module(), service: service(port) });
        }
    }

    fn leave(&mut self, m: usize) {
        if let Some(node) = self.machines[m].id {
            self.command(Body::NodeLeave(node));
        }
    }

    /// Somebody gives a command to whoever leads.
    fn command(&mut self, body: Body) {
        if let Some(leader) = self.leader() {
            self.driver_work(leader, DriverWork::Command(Payload::Command(Command::any(body))));
        }
    }
}

fn parts(threads: Threads) -> &'static [usize] {
    match threads {
        Threads::All => &[0, 1],
        Threads::Lease => &[0],
        Threads::Driver => &[1],
    }
}
