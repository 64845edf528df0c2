//! Every way to break the protocol that is known must be noticed.

use std::rc::Rc;

use farm_chaos::campaign::{explain, hunt};
use farm_chaos::invariant::Property;
use farm_chaos::nemesis::directed::schedule;
use farm_chaos::world::sim::run;
use farm_core::planted::{Bug, plant};

/// Seeds within which each bug must be found.
const SEEDS: u64 = 40;

#[track_caller]
fn found(bug: Bug, properties: &[Property]) {
    let Some((seed, violation)) = hunt(bug, 0..SEEDS, |seed| schedule(bug, seed)) else {
        plant(Some(bug));
        panic!("{bug:?} is not noticed within {SEEDS} seeds\n{}", explain(&Rc::new(schedule(bug, 0))));
    };
    println!("{bug:?}: seed {seed}: {violation}");
    assert!(properties.contains(&violation.property), "{violation}");
    // Without the bug the same schedule does no harm: it is the bug that was found.
    let schedule = Rc::new(schedule(bug, seed));
    assert_eq!(run(&schedule, false).violation, None, "without the bug\n{}", explain(&schedule));
}

macro_rules! planted {
    ($($name:ident: $bug:ident => $($property:ident)|+;)+) => {
        $(#[test] fn $name() { found(Bug::$bug, &[$(Property::$property),+]); })+

        #[test]
        fn no_bug_is_left_out() {
            assert_eq!([$(Bug::$bug),+], Bug::ALL);
        }
    };
}

planted! {
    lease_from_answer: LeaseFromAnswer => Exclusive | Bound;
    fence_only_committed: FenceOnlyCommitted => Exclusive;
    no_grant_reset: NoGrantReset => Exclusive;
    check_apart_from_stamp: CheckApartFromStamp => Exclusive;
    no_incarnation: NoIncarnation => Exclusive | Bound;
    activate_without_waiting: ActivateWithoutWaiting => Exclusive;
    evidence_by_epoch: EvidenceByEpoch => Exclusive;
    wait_equals_lease: WaitEqualsLease => Exclusive;
    no_base_check: NoBaseCheck => Exclusive;
    accept_from_anyone: AcceptFromAnyone => Exclusive;
    report_before_flip: ReportBeforeFlip => Exclusive;
    lower_epoch_after_restart: LowerEpochAfterRestart => Exclusive | Epochs;
    restart_forgotten: RestartForgotten => Exclusive;
    refused_restart: RefusedRestart => Exclusive;
    longer_before_settled: LongerBeforeSettled => Exclusive;
    forgotten_by_laggard: ForgottenByLaggard => Exclusive;
    joint_without_seal: JointWithoutSeal => Exclusive;
}
