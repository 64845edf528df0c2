//! A whole cluster in one thread and in virtual time.
//!
//! Every machine has a boot clock of its own rate, a disk, a filter that outlives its daemon, and a daemon of two
//! threads: the real-time thread ([`lease`]: holder, elector, the only writer of the filter) and the driver
//! ([`driver`]: log, replicated state, controller). Machines meet only through the [`network`].

pub mod bootstrap;
pub mod clock;
mod driver;
pub mod entry;
mod faults;
pub mod filter;
mod lease;
pub mod machine;
pub mod network;
mod queue;
pub mod raft;
pub mod walk;

use std::collections::BTreeMap;
use std::rc::Rc;

use farm_core::id::{EntryId, Incarnation, NodeId};
use farm_core::lease::Timing;
use farm_core::time::{BootTime, Span};

use crate::coverage::{Coverage, Situation};
use crate::invariant::{Agreement, Bound, Epochs, Exclusive, Property, View, Violation, unserved};
use crate::schedule::Schedule;
use bootstrap::Founded;
use clock::{Clock, RealTime};
use faults::Undo;
use filter::{Filter, Table};
use machine::{Daemon, Disk, DriverWork, LeaseThread, LeaseWork, Machine};
use network::{Message, Network};
use queue::Queue;
use raft::Raft;

/// Something that will happen.
enum Event {
    Deliver { to: usize, message: Message },
    LeaseTimer { machine: usize, run: u64 },
    DriverTimer { machine: usize, run: u64 },
    Synced { machine: usize, run: u64, entry: EntryId },
    Published { machine: usize, run: u64 },
    Fault(usize),
    Undo(Undo),
    Start(usize),
}

#[derive(Default)]
struct Judges {
    exclusive: Exclusive,
    epochs: Epochs,
    agreement: Agreement,
    bound: Bound,
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// Situations met.
    pub coverage: Coverage,
    /// How long the cluster lived, in simulated time.
    pub lived: Span,
    /// Faults that struck; load is not counted.
    pub faults: usize,
    /// Events that happened.
    pub events: u64,
    /// One line per thing that happened, if it was asked for.
    pub timeline: String,
}

/// The simulation.
pub struct World {
    now: RealTime,
    queue: Queue<Event>,
    rng: fastrand::Rng,
    schedule: Rc<Schedule>,
    timing: Timing,
    net: Network,
    machines: Vec<Machine>,
    numbers: BTreeMap<NodeId, usize>,
    judges: Judges,
    coverage: Coverage,
    violation: Option<Violation>,
    /// A fault that concerns everybody struck last at.
    disturbed: RealTime,
    ports: Vec<u16>,
    faults: usize,
    timeline: Option<String>,
}

/// Runs a schedule to its end or to the first violation.
#[must_use]
pub fn run(schedule: &Rc<Schedule>, with_timeline: bool) -> Report {
    let mut world = World::new(schedule, with_timeline);
    let events = world.run();
    Report {
        violation: world.violation,
        coverage: world.coverage,
        lived: world.now.since(RealTime(0)),
        faults: world.faults,
        events,
        timeline: world.timeline.unwrap_or_default(),
    }
}

impl World {
    fn new(schedule: &Rc<Schedule>, with_timeline: bool) -> Self {
        let mut world = Self {
            now: RealTime(0),
            queue: Queue::default(),
            rng: fastrand::Rng::with_seed(schedule.seed),
            schedule: schedule.clone(),
            timing: Timing::of(schedule.profile),
            net: Network::default(),
            machines: Vec::new(),
            numbers: BTreeMap::new(),
            judges: Judges::default(),
            coverage: Coverage::default(),
            violation: None,
            disturbed: RealTime(0),
            ports: Vec::new(),
            faults: 0,
            timeline: with_timeline.then(String::new),
        };
        world.found();
        for (index, (at, _)) in schedule.faults.iter().enumerate() {
            world.queue.put(*at, Event::Fault(index));
        }
        world
    }

    fn found(&mut self) {
        let schedule = self.schedule.clone();
        let founded = Founded::new(schedule.nodes, schedule.profile);
        let snapshot = Rc::new(founded.state.clone());
        self.numbers = founded.state.nodes.keys().copied().zip(0..).collect();
        for (m, rate) in schedule.rates.iter().enumerate() {
            let id = self.numbers.iter().find(|(_, n)| **n == m).map(|(id, _)| *id);
            let disk = match id {
                Some(_) => {
                    Disk { raft: founded.stored.clone(), snapshot: snapshot.clone(), last: founded.last() }
                }
                None => Disk::empty(),
            };
            self.machines.push(Machine::new(
                id,
                Clock::new(self.now, BootTime(1_000_000_000_000), *rate),
                disk,
            ));
            if let Some(id) = id {
                let table = self.render(&snapshot, id).expect("a founding node is a member");
                self.machines[m].filter.flip(table);
                self.machines[m].filter.grace();
                self.start(m);
            }
        }
        let now = self.machines[0].now(self.now);
        if let Some(daemon) = &mut self.machines[0].daemon {
            daemon.raft.hurry(now);
        }
        self.settle(0);
    }

    fn run(&mut self) -> u64 {
        let end = self.schedule.end;
        let mut events = 0;
        while self.violation.is_none() {
            let Some((at, event)) = self.queue.next_before(end) else { break };
            self.now = at;
            self.happen(event);
            events += 1;
        }
        if self.violation.is_none() {
            self.now = end;
            if self.schedule.recovers {
                self.judge_live();
            }
        }
        events
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, message } => self.deliver(to, message),
            Event::LeaseTimer { machine, run } if self.is_due(machine, run, |d| &mut d.lease.wake) => {
                self.lease_work(machine, LeaseWork::Timer);
            }
            Event::DriverTimer { machine, run } if self.is_due(machine, run, |d| &mut d.wake) => {
                self.driver_work(machine, DriverWork::Timer);
            }
            Event::Synced { machine, run, entry } if self.runs(machine, run) => {
                if let Some(daemon) = &mut self.machines[machine].daemon {
                    daemon.raft.synced(entry);
                }
                self.driver_work(machine, DriverWork::Synced(entry));
            }
            Event::Published { machine, run } if self.runs(machine, run) => {
                self.lease_work(machine, LeaseWork::Published);
            }
            // Of a run that ended, or put off since.
            Event::LeaseTimer { .. } | Event::DriverTimer { .. } => {}
            Event::Synced { .. } | Event::Published { .. } => {}
            Event::Fault(index) => self.strike(index),
            Event::Undo(undo) => self.undo(undo),
            Event::Start(machine) => self.start(machine),
        }
    }

    fn runs(&self, machine: usize, run: u64) -> bool {
        let machine = &self.machines[machine];
        machine.daemon.is_some() && machine.run == run
    }

    fn is_due(&mut self, machine: usize, run: u64, wake: fn(&mut Daemon) -> &mut Option<RealTime>) -> bool {
        let now = self.now;
        let runs = self.runs(machine, run);
        let daemon = self.machines[machine].daemon.as_mut().filter(|_| runs);
        daemon.is_some_and(|d| wake(d).take_if(|at| *at == now).is_some())
    }

    fn deliver(&mut self, to: usize, message: Message) {
        match message {
            Message::Renewal(_) | Message::Grant(_) => self.lease_work(to, LeaseWork::Datagram(message)),
            Message::Ask { ask, from } => self.lease_work(to, LeaseWork::Ask(ask, from)),
            Message::Raft(_) | Message::Answer { .. } => self.driver_work(to, DriverWork::Message(message)),
        }
    }

    /// Sends a message to a node, if it has a machine.
    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(to) = self.numbers.get(&to).copied() else { return };
        for delay in self.net.copies(&mut self.rng, from, to, message.traffic()).into_iter().flatten() {
            self.queue.put(self.now + delay, Event::Deliver { to, message: message.clone() });
        }
    }

    /// Starts the daemon from its disk; the filter is taken up as it is.
    fn start(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let (Some(id), None) = (machine.id, &machine.daemon) else { return };
        machine.run += 1;
        let boot = machine.now(self.now);
        // The predecessor may have flipped just before it died.
        machine.filter.grace();
        let disk = &machine.disk;
        let raft = Raft::start(id, &disk.raft, self.timing, boot, self.rng.fork());
        let behind = raft.behind(disk.last.index);
        let lease = LeaseThread::new(machine.filter.in_force().epoch, behind, disk.raft.committed);
        machine.daemon = Some(Daemon::new(raft, disk, lease));
        self.cover_start(m);
        self.note(m, || "the daemon starts".into());
        let disk = &self.machines[m].disk;
        let begin = LeaseWork::State(disk.snapshot.clone(), disk.last);
        self.lease_work(m, begin);
        self.settle(m);
    }

    fn cover_start(&mut self, m: usize) {
        let machine = &self.machines[m];
        let below = machine.disk.snapshot.epoch < machine.filter.in_force().epoch;
        let out = machine.id.is_some_and(|id| self.judges.bound.is_out(id, self.now));
        self.cover(Situation::ReplayedBelowPins, below);
        let newest = self.machines.iter().map(|m| m.filter.in_force().epoch).max();
        self.cover(
            Situation::ElectorRestartedWithOldMemory,
            out && Some(self.machines[m].disk.snapshot.epoch) < newest,
        );
    }

    /// The daemon dies; its disk and its filter stay.
    fn stop(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let Some(daemon) = machine.daemon.take() else { return };
        machine.disk.raft = daemon.raft.stored(daemon.committed);
        let mid_flip = machine.filter.stale().is_some();
        self.cover(Situation::DiedBeforeGrace, mid_flip);
        self.note(m, || "the daemon dies".into());
    }

    /// Which run of the daemon this is.
    fn incarnation(m: usize, run: u64) -> Incarnation {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&run.to_le_bytes());
        bytes[8..].copy_from_slice(&(m as u64).to_le_bytes());
        Incarnation(bytes)
    }

    fn render(&self, state: &farm_core::state::ClusterState, me: NodeId) -> Option<Table> {
        let number = |n: NodeId| self.numbers.get(&n).map_or(0, |m| u8::try_from(m + 1).unwrap_or(0));
        Table::render(state, me, number)
    }

    fn views(&self) -> Vec<View<'_>> {
        self.machines.iter().map(|m| (&m.filter, m.now(self.now))).collect()
    }

    /// Judges the filters right after one of them changed.
    fn judge_filters(&mut self) {
        let views: Vec<View<'_>> = self.machines.iter().map(|m| (&m.filter, m.now(self.now))).collect();
        let judged = self.judges.exclusive.judge(&views);
        self.judged(Property::Exclusive, judged);
    }

    fn judge_live(&mut self) {
        let unserved = unserved(&self.views());
        if !unserved.is_empty() {
            let fact = format!("nobody accepts new flows of buckets {unserved:?}\n{}", self.describe());
            self.judged(Property::Live, Err(fact));
        }
    }

    fn judged(&mut self, property: Property, result: Result<(), String>) {
        if let (Err(fact), None) = (result, &self.violation) {
            self.violation = Some(Violation { property, at: self.now, fact });
        }
    }

    fn cover(&mut self, situation: Situation, met: bool) {
        if met {
            self.coverage.met(situation);
        }
    }

    fn note(&mut self, m: usize, line: impl FnOnce() -> String) {
        if let Some(timeline) = &mut self.timeline {
            timeline.push_str(&format!("{:>14} m{m} {}\n", format!("{:?}", self.now), line()));
        }
    }

    /// Every machine in a line.
    fn describe(&self) -> String {
        let line = |(m, machine): (usize, &Machine)| {
            let now = machine.now(self.now);
            let table = machine.filter.in_force();
            let daemon = machine.daemon.as_ref().map(|d| {
                let leads = d.raft.leads().is_some();
                format!(
                    "term {} leads {leads} applied {} state {:?}",
                    d.raft.term(),
                    d.applied.index,
                    d.state.epoch
                )
            });
            format!("m{m} {:?} {:?} open {} {daemon:?}", machine.id, table.epoch, table.is_open(now))
        };
        self.machines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Filter {
    /// Whether the table in force names `machine` in any bucket.
    fn names(&self, machine: usize) -> bool {
        self.in_force().cells.iter().any(|(_, e)| usize::from(e.current) == machine + 1)
    }
}
