//! Everything that will happen to a cluster from outside, drawn from a seed.

use core::fmt;

use farm_core::model::Profile;
use farm_core::time::Span;

use crate::nemesis::{Fault, Target, Threads, Traffic};
use crate::world::sim::clock::{Rate, RealTime};

/// How long a cluster lives, at least.
pub const LIFE: Span = Span::millis(60_000);
/// Faults are over so long before the end: the time in which P5 must be true again.
pub const QUIET: Span = Span::millis(15_000);
/// Fewest faults of a schedule.
pub const FAULTS_MIN: usize = 12;

/// A plan of faults and load. Two runs of the same schedule are the same to the byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Where it was drawn from; also seeds delays of messages, disks and elections.
    pub seed: u64,
    /// Members at the start; more machines are spare.
    pub nodes: usize,
    /// Timing.
    pub profile: Profile,
    /// Rate of each machine's clock.
    pub rates: Vec<Rate>,
    /// What strikes when.
    pub faults: Vec<(RealTime, Fault)>,
    /// When it is over.
    pub end: RealTime,
    /// Whether the faults are over long before the end, so that P5 must hold then.
    pub recovers: bool,
    /// Whether disks learn what is committed, and get snapshots, only when told to.
    pub lazy_disks: bool,
}

impl Schedule {
    /// The schedule of `seed`.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut draw = Draw { rng: fastrand::Rng::with_seed(seed), nodes: 0, machines: 0 };
        draw.nodes = draw.rng.usize(2..=5);
        draw.machines = draw.nodes + 1;
        let rates = (0..draw.machines).map(|_| draw.rate()).collect();
        let mut faults = Vec::new();
        for _ in 0..draw.rng.usize(FAULTS_MIN..3 * FAULTS_MIN) {
            let at = draw.instant();
            faults.push((at, draw.fault()));
            if draw.rng.u8(0..3) == 0 {
                // Faults that come together find more than faults that come alone.
                faults.push((at + Span(draw.rng.u64(0..200_000_000)), draw.fault()));
            }
        }
        for _ in 0..draw.rng.usize(5..25) {
            faults.push((draw.instant(), draw.load()));
        }
        faults.extend(draw.membership());
        faults.extend(draw.death_in_a_flip());
        faults.extend(draw.planned_restart());
        faults.sort_by_key(|(at, _)| *at);
        let end = RealTime(0) + LIFE;
        Self {
            seed,
            nodes: draw.nodes,
            profile: Profile::Fast,
            rates,
            faults,
            end,
            recovers: true,
            lazy_disks: false,
        }
    }

    /// An otherwise quiet life of `nodes` machines with true clocks, for schedules that are written by hand.
    #[must_use]
    pub fn quiet(seed: u64, nodes: usize, lives: Span) -> Self {
        let rates = vec![Rate::TRUE; nodes];
        Self {
            seed,
            nodes,
            profile: Profile::Fast,
            rates,
            faults: Vec::new(),
            end: RealTime(0) + lives,
            recovers: false,
            lazy_disks: true,
        }
    }

    /// Adds what strikes `ms` milliseconds after the start.
    #[must_use]
    pub fn at(mut self, ms: u64, fault: Fault) -> Self {
        self.faults.push((RealTime::millis(ms), fault));
        self
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates: Vec<u64> = self.rates.iter().map(|r| r.0).collect();
        let Self { seed, nodes, profile, end, .. } = self;
        writeln!(
            f,
            "seed {seed}: {nodes} nodes, profile {profile:?}, clock rates {rates:?} permille, until {end:?}"
        )?;
        self.faults.iter().try_for_each(|(at, fault)| writeln!(f, "{:>14}  {fault}", format!("{at:?}")))
    }
}

struct Draw {
    rng: fastrand::Rng,
    nodes: usize,
    machines: usize,
}

impl Draw {
    fn rate(&mut self) -> Rate {
        // The ends of the range are where the inequality is tight.
        Rate(match self.rng.u8(0..4) {
            0 => 900,
            1 => 1_100,
            2 => 1_000,
            _ => self.rng.u64(900..=1_100),
        })
    }

    fn instant(&mut self) -> RealTime {
        RealTime(self.rng.u64(1_000_000_000..LIFE.0 - QUIET.0 - 3_500_000_000))
    }

    fn target(&mut self) -> Target {
        if self.rng.u8(0..4) == 0 { Target::Leader } else { Target::Machine(self.rng.usize(0..self.nodes)) }
    }

    fn machine(&mut self) -> Target {
        Target::Machine(self.rng.usize(0..self.nodes))
    }

    /// Short ones hide in a lease, long ones outlive it, a few outlive patience.
    fn span(&mut self) -> Span {
        Span::millis(match self.rng.u8(0..10) {
            0..=3 => self.rng.u64(5..150),
            4..=7 => self.rng.u64(100..800),
            8 => self.rng.u64(500..2_000),
            _ => self.rng.u64(2_000..3_500),
        })
    }

    fn traffic(&mut self) -> &'static [Traffic] {
        let kinds: [&'static [Traffic]; 6] =
            [Traffic::ALL, Traffic::LEASES, Traffic::TCP, Traffic::LOG, Traffic::RENEWALS, Traffic::GRANTS];
        kinds[self.rng.usize(0..kinds.len())]
    }

    fn fault(&mut self) -> Fault {
        match self.rng.u8(0..22) {
            0..=3 => Fault::Pause(self.target(), self.threads(), self.span()),
            4..=6 => Fault::Cut {
                from: self.machine(),
                to: self.target(),
                traffic: self.traffic(),
                lasts: self.span(),
            },
            7 | 8 => Fault::Cut {
                from: self.target(),
                to: self.machine(),
                traffic: self.traffic(),
                lasts: self.span(),
            },
            9 | 10 => Fault::Isolate(self.target(), self.span()),
            11 => Fault::Split(self.rng.u32(1..1 << self.nodes), self.span()),
            12 => Fault::Noise {
                loss: self.rng.u8(0..40),
                twice: self.rng.u8(0..30),
                jitter: Span::micros(self.rng.u64(0..60_000)),
                lasts: self.span(),
            },
            13 => Fault::Slow {
                from: self.machine(),
                to: self.machine(),
                traffic: self.traffic(),
                extra: Span::micros(self.rng.u64(1_000..150_000)),
                lasts: self.span(),
            },
            14..=16 => Fault::Restart(self.target(), self.down()),
            17 | 18 => Fault::Reboot(self.target(), self.down()),
            19 => Fault::SlowDisk(self.machine(), Span::millis(self.rng.u64(5..300)), self.span()),
            20 => Fault::SlowFlip(self.machine(), Span::millis(self.rng.u64(1..120)), self.span()),
            _ => Fault::Transfer(self.machine()),
        }
    }

    fn threads(&mut self) -> Threads {
        match self.rng.u8(0..4) {
            0 | 1 => Threads::All,
            2 => Threads::Lease,
            _ => Threads::Driver,
        }
    }

    fn down(&mut self) -> Span {
        Span::millis(if self.rng.bool() { self.rng.u64(1..40) } else { self.rng.u64(40..1_500) })
    }

    fn load(&mut self) -> Fault {
        match self.rng.u8(0..8) {
            0..=3 => Fault::Weight(self.machine(), [0, 30, 100, 100, 250][self.rng.usize(0..5)]),
            4..=6 => Fault::Touch,
            _ => Fault::Snapshot(self.machine()),
        }
    }

    /// A daemon dies while its filter takes its time with a new table: too rare to wait for it.
    fn death_in_a_flip(&mut self) -> [(RealTime, Fault); 3] {
        let (at, victim) = (self.instant(), self.machine());
        let dies = at + Span(self.rng.u64(5_000_000..150_000_000));
        let down = self.down();
        [
            (at, Fault::SlowFlip(victim, Span::millis(100), Span::millis(300))),
            (at, Fault::Touch),
            (dies, Fault::Restart(victim, down)),
        ]
    }

    /// A daemon is restarted as planned, or dies before, or stays away for longer than was planned.
    fn planned_restart(&mut self) -> [(RealTime, Fault); 4] {
        let (at, victim, down) = (self.instant(), self.machine(), self.down());
        let dies = at + Span::millis(self.rng.u64(10..300));
        let over = dies + down + Span::millis(self.rng.u64(10..300));
        // Whoever finds another restart open asks again and again; most of those are refused.
        let again = at + Span::millis(self.rng.u64(1..400));
        let other = if self.rng.bool() { victim } else { self.machine() };
        [
            (at, Fault::BeginRestart(victim)),
            (again, Fault::BeginRestart(other)),
            (dies, Fault::Restart(victim, down)),
            (over, Fault::EndRestart(victim)),
        ]
    }

    /// Sometimes a machine joins, sometimes one leaves.
    fn membership(&mut self) -> Vec<(RealTime, Fault)> {
        let mut changes = Vec::new();
        if self.rng.u8(0..3) == 0 {
            changes.push((self.instant(), Fault::Join(self.machines - 1)));
        }
        if self.nodes > 2 && self.rng.u8(0..3) == 0 {
            changes.push((self.instant(), Fault::Leave(self.machine())));
        }
        changes
    }
}
