//! Schedules written by hand: each leads to the edge of one rule, along the shortest trace that breaks the cluster
//! without it. A seed only shifts instants by some milliseconds.
//!
//! In all of them machine 0 leads, and the machine numbers are those of the story.

use farm_core::planted::Bug;
use farm_core::time::Span;

use super::{Fault, Target, Threads, Traffic};
use crate::schedule::Schedule;

/// A schedule that is hard to survive with `bug`.
#[must_use]
pub fn schedule(bug: Bug, seed: u64) -> Schedule {
    let mut shift = Shift(fastrand::Rng::with_seed(seed));
    match bug {
        Bug::FenceOnlyCommitted => reboot_behind_a_move(seed),
        Bug::NoGrantReset => elector_forgets(seed, &mut shift),
        Bug::RestartForgotten => longer_lease_forgotten(seed, &mut shift, false),
        Bug::RefusedRestart => longer_lease_forgotten(seed, &mut shift, true),
        Bug::LongerBeforeSettled => longer_lease_by_an_old_state(seed, &mut shift),
        Bug::ForgottenByLaggard => laggard_with_a_longer_lease(seed, &mut shift),
        Bug::NoIncarnation => answers_to_an_older_run(seed, &mut shift),
        Bug::EvidenceByEpoch => report_without_the_entry(seed, &mut shift),
        Bug::NoBaseCheck => entry_in_between(seed, &mut shift),
        Bug::JointWithoutSeal => electors_of_long_ago(seed, &mut shift),
        Bug::ReportBeforeFlip => slow_flip(seed),
        Bug::LeaseFromAnswer
        | Bug::CheckApartFromStamp
        | Bug::ActivateWithoutWaiting
        | Bug::WaitEqualsLease
        | Bug::AcceptFromAnyone
        | Bug::LateClaim
        | Bug::PossessionByReceipt
        | Bug::ClaimAgain
        | Bug::NoHold
        | Bug::GapIgnored
        | Bug::LowerEpochAfterRestart => Schedule::random(seed),
    }
}

struct Shift(fastrand::Rng);

impl Shift {
    /// An instant between `from` and `to`, in milliseconds.
    fn within(&mut self, from: u64, to: u64) -> u64 {
        self.0.u64(from..=to)
    }
}

const LEADER: Target = Target::Machine(0);

fn cut(from: usize, to: usize, traffic: &'static [Traffic], lasts_ms: u64) -> Fault {
    Fault::Cut {
        from: Target::Machine(from),
        to: Target::Machine(to),
        traffic,
        lasts: Span::millis(lasts_ms),
    }
}

/// Both directions.
fn part(
    schedule: Schedule,
    at: u64,
    (a, b): (usize, usize),
    traffic: &'static [Traffic],
    lasts: u64,
) -> Schedule {
    schedule.at(at, cut(a, b, traffic, lasts)).at(at, cut(b, a, traffic, lasts))
}

/// 1 gives its buckets away as planned, says so, loses its memory, and finds an elector that has not heard of it.
fn reboot_behind_a_move(seed: u64) -> Schedule {
    let schedule = Schedule::quiet(seed, 3, Span::millis(3_000))
        .at(1_000, Fault::Pause(Target::Machine(2), Threads::Driver, Span::millis(5_000)))
        .at(1_020, Fault::Weight(Target::Machine(1), 0));
    part(schedule, 1_600, (0, 1), Traffic::ALL, 5_000)
        .at(1_600, Fault::Reboot(Target::Machine(1), Span::millis(20)))
}

/// 1 holds a longer lease for its restart and is cut off; those who granted it are restarted, and its restart is called
/// over. Where somebody asks for it `twice`, the second time it is refused.
fn longer_lease_forgotten(seed: u64, shift: &mut Shift, twice: bool) -> Schedule {
    let mut schedule =
        Schedule::quiet(seed, 3, Span::millis(4_000)).at(1_000, Fault::BeginRestart(Target::Machine(1)));
    if twice {
        schedule = schedule.at(1_100, Fault::BeginRestart(Target::Machine(1)));
    }
    let schedule = part(schedule, 1_300, (0, 1), Traffic::ALL, 5_000);
    let schedule = part(schedule, 1_300, (2, 1), Traffic::ALL, 5_000);
    let dies = shift.within(1_310, 1_330);
    schedule
        .at(dies, Fault::Restart(Target::Machine(2), Span::millis(5)))
        .at(dies + 10, Fault::Restart(LEADER, Span::millis(5)))
        .at(dies + 400, Fault::EndRestart(Target::Machine(1)))
}

/// 1 serves everybody, and does not get to know that its restart is over. 2 does, restarts from a state of before, and
/// is to take over from 1, which is cut off.
fn longer_lease_by_an_old_state(seed: u64, shift: &mut Shift) -> Schedule {
    let schedule = Schedule::quiet(seed, 3, Span::millis(6_000))
        .at(1_000, Fault::Weight(LEADER, 0))
        .at(1_000, Fault::Weight(Target::Machine(2), 0))
        .at(2_000, Fault::BeginRestart(Target::Machine(1)))
        .at(2_090, Fault::Snapshot(Target::Machine(2)))
        .at(2_100, Fault::Pause(Target::Machine(1), Threads::Driver, Span::millis(10_000)))
        .at(2_150, Fault::EndRestart(Target::Machine(1)));
    let restarts = shift.within(3_250, 3_350);
    let schedule = schedule
        .at(restarts, Fault::Restart(Target::Machine(2), Span::millis(5)))
        .at(restarts, cut(0, 2, Traffic::LOG, 60))
        .at(restarts + 50, Fault::Weight(Target::Machine(2), 100));
    let schedule = part(schedule, restarts + 50, (0, 1), Traffic::ALL, 10_000);
    part(schedule, restarts + 50, (2, 1), Traffic::ALL, 10_000)
}

/// 1 has not followed for long when its restart is called over, and then it is cut off.
fn laggard_with_a_longer_lease(seed: u64, shift: &mut Shift) -> Schedule {
    let schedule = Schedule::quiet(seed, 3, Span::millis(14_000))
        .at(1_000, Fault::BeginRestart(Target::Machine(1)))
        .at(1_100, Fault::Pause(Target::Machine(1), Threads::Driver, Span::millis(20_000)))
        .at(1_150, Fault::Touch);
    let over = shift.within(11_500, 11_600);
    let schedule = schedule.at(over, Fault::EndRestart(Target::Machine(1)));
    let schedule = part(schedule, over + 5, (0, 1), Traffic::ALL, 20_000);
    part(schedule, over + 5, (2, 1), Traffic::ALL, 20_000)
}

/// 2 granted 1 a lease, restarts, and is asked about it.
fn elector_forgets(seed: u64, shift: &mut Shift) -> Schedule {
    let schedule =
        Schedule::quiet(seed, 3, Span::millis(2_000)).at(1_000, cut(1, 0, Traffic::RENEWALS, 5_000));
    let schedule = part(schedule, 1_000, (0, 1), Traffic::TCP, 5_000);
    let schedule = part(schedule, 1_000, (2, 1), Traffic::TCP, 5_000);
    let last = shift.within(1_028, 1_042);
    schedule
        .at(last, cut(1, 2, Traffic::RENEWALS, 5_000))
        .at(last + 3, Fault::Restart(Target::Machine(2), Span::millis(2)))
}

/// 1 restarts twice while answers to it are under way for long.
fn answers_to_an_older_run(seed: u64, shift: &mut Shift) -> Schedule {
    let slow = |from| Fault::Slow {
        from: Target::Machine(from),
        to: Target::Machine(1),
        traffic: Traffic::GRANTS,
        extra: Span::millis(150),
        lasts: Span::millis(5_000),
    };
    let schedule = Schedule::quiet(seed, 3, Span::millis(2_000)).at(1_000, slow(0)).at(1_000, slow(2));
    let second = shift.within(1_035, 1_060);
    let schedule = schedule
        .at(1_010, Fault::Restart(Target::Machine(1), Span::millis(2)))
        .at(second, Fault::Restart(Target::Machine(1), Span::millis(60)))
        .at(second, cut(1, 0, Traffic::RENEWALS, 5_000))
        .at(second, cut(1, 2, Traffic::RENEWALS, 5_000));
    let schedule = part(schedule, second, (0, 1), Traffic::TCP, 5_000);
    part(schedule, second, (2, 1), Traffic::TCP, 5_000)
}

/// 2 is asked about a Move that it does not hold, and grants a lease to its loser, 1, afterwards.
fn report_without_the_entry(seed: u64, shift: &mut Shift) -> Schedule {
    let silent = 1_000;
    let schedule = Schedule::quiet(seed, 3, Span::millis(2_000))
        .at(silent, cut(1, 0, Traffic::RENEWALS, 5_000))
        .at(silent, cut(1, 2, Traffic::RENEWALS, shift.within(80, 95)))
        // 2 gets the Move late, but long before it would call an election.
        .at(silent + 45, cut(0, 2, Traffic::LOG, 65));
    // 1 acknowledges the Move and does not hear that it is committed.
    let deaf = silent + shift.within(55, 85);
    part(schedule, deaf, (0, 1), Traffic::TCP, 5_000)
}

/// A Move of the silent 1 lands behind epochs that it was not made for; 1 gets to know those but not the Move, and 2
/// holds the Move but has not applied it.
fn entry_in_between(seed: u64, shift: &mut Shift) -> Schedule {
    let silent = 1_100;
    let disk = |m| Fault::SlowDisk(Target::Machine(m), Span::millis(30), Span::millis(120));
    let mut schedule = Schedule::quiet(seed, 3, Span::millis(2_000))
        .at(1_000, cut(0, 1, Traffic::LOG, 200))
        .at(1_050, disk(0))
        .at(1_050, disk(2))
        .at(silent, cut(1, 0, Traffic::RENEWALS, 5_000));
    schedule = part(schedule, 1_000, (1, 2), Traffic::TCP, 5_000);
    let burst = silent + shift.within(44, 49);
    for _ in 0..4 {
        schedule = schedule.at(burst, Fault::Touch);
    }
    let back = Fault::Slow {
        from: Target::Machine(1),
        to: LEADER,
        traffic: Traffic::LOG,
        extra: Span::millis(30),
        lasts: Span::millis(5_000),
    };
    schedule
        // 2 has got the Move, and does not hear that it is committed.
        .at(silent + 52, cut(0, 2, Traffic::LOG, 148))
        // The log comes through to 1 for a moment: for one step of catching up.
        .at(1_190, back)
        .at(1_200 + shift.within(30, 60), cut(0, 1, Traffic::TCP, 5_000))
}

/// 2 comes back from before two changes of electors and meets 1, who is an elector no more.
fn electors_of_long_ago(seed: u64, shift: &mut Shift) -> Schedule {
    let mut schedule = Schedule::quiet(seed, 3, Span::millis(8_000));
    schedule.rates.push(schedule.rates[0]);
    let alone = shift.within(1_000, 1_040);
    for (pair, lasts) in [((0, 1), 20_000), ((3, 1), 20_000), ((2, 1), 5_500)] {
        schedule = part(schedule, alone, pair, Traffic::ALL, lasts);
    }
    schedule = schedule.at(5_000, Fault::Join(3));
    let schedule = part(schedule, 5_800, (0, 2), Traffic::ALL, 20_000);
    part(schedule, 5_800, (3, 2), Traffic::ALL, 20_000)
        .at(6_300, Fault::Reboot(Target::Machine(2), Span::millis(50)))
}

/// The filter of 1 takes its time while 1 gives its buckets away.
fn slow_flip(seed: u64) -> Schedule {
    Schedule::quiet(seed, 3, Span::millis(2_500))
        .at(1_000, Fault::SlowFlip(Target::Machine(1), Span::millis(80), Span::millis(5_000)))
        .at(1_020, Fault::Weight(Target::Machine(1), 0))
}
