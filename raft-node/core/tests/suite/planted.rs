//! Each planted bug breaks a promise in a short scenario that holds without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use farm_core::id::NodeId;
use farm_core::planted::{Bug, plant};

use crate::world::World;

/// Plays `scenario` without and with `bug`: only the second may end with two acceptors.
fn breaks(bug: Bug, scenario: impl Fn(&mut World)) {
    let play = |planted: Option<Bug>| {
        let mut world = World::new(3, 12);
        world.service_add();
        world.run(2_000);
        plant(planted);
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario(&mut world)));
        plant(None);
        outcome
    };
    assert!(play(None).is_ok(), "the scenario breaks without {bug:?}");
    let said = play(Some(bug)).expect_err("the bug goes unnoticed");
    let said = said.downcast_ref::<String>().expect("an assertion with a message");
    assert!(said.contains("is accepted by"), "{said}");
}

fn cut(world: &mut World, node: u64, cut: bool) {
    world.servers.get_mut(&NodeId(node)).unwrap().cut = cut;
}

#[test]
fn activate_without_waiting() {
    breaks(Bug::ActivateWithoutWaiting, |world| {
        cut(world, 3, true);
        world.run(500);
    });
}

/// Silent until it is fenced, then back on the lease network while the log does not reach it yet.
fn returns_before_the_log(world: &mut World) {
    world.servers.get_mut(&NodeId(3)).unwrap().deaf = true;
    cut(world, 3, true);
    world.run(85);
    cut(world, 3, false);
    world.run(500);
}

#[test]
fn check_apart_from_stamp() {
    breaks(Bug::CheckApartFromStamp, returns_before_the_log);
}

#[test]
fn no_grant_reset() {
    breaks(Bug::NoGrantReset, |world| {
        world.run_to_grant(NodeId(3));
        cut(world, 3, true);
        world.restart(NodeId(2));
        world.run(3);
        assert!(world.elect(NodeId(2)));
        world.restart(NodeId(1));
        world.run(500);
    });
}

/// Its daemon was about to be restarted when it was cut off; then all who granted it its longer lease lose their memory.
fn granters_lose_their_memory(world: &mut World) {
    world.run(100);
    cut(world, 3, true);
    world.restart(NodeId(2));
    world.run(3);
    assert!(world.elect(NodeId(2)));
    world.restart(NodeId(1));
    world.run(300);
    world.end_restart(NodeId(3));
    world.run(2_000);
}

#[test]
fn restart_forgotten() {
    breaks(Bug::RestartForgotten, |world| {
        world.begin_restart(NodeId(3));
        granters_lose_their_memory(world);
    });
}

#[test]
fn refused_restart() {
    breaks(Bug::RefusedRestart, |world| {
        world.begin_restart(NodeId(3));
        world.run(100);
        world.begin_restart(NodeId(3));
        granters_lose_their_memory(world);
    });
}

#[test]
fn wait_equals_lease_and_a_late_stamp() {
    // Clocks run at the same rate here, so that W = L alone is not noticed; this pins where the margin is used.
    plant(Some(Bug::WaitEqualsLease));
    let lease = farm_core::time::Span::millis(100);
    let wait = farm_core::lease::timing::wait(lease);
    plant(None);
    assert_eq!(wait, lease);
    assert!(farm_core::lease::timing::wait(lease) > lease);
}
