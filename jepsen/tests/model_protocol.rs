//! Every reachable state of small clusters keeps the promises, and every rule of leases that is taken away breaks one.
//!
//! `cargo test -p farm-chaos --test model_protocol -- --nocapture` prints the tables of docs/model.md. With
//! `FARM_MODEL_STATES=20000000` before it, searches are cut there and not earlier; each million takes some seconds and
//! some 100 MB. `FARM_MODEL=electors` takes only configurations with that in their name.

use std::sync::{Mutex, MutexGuard, PoisonError};

use farm_chaos::model::protocol::config::Config;
use farm_chaos::model::protocol::configs::{CHECKED, planted};
use farm_chaos::model::protocol::reached::Reached;
use farm_chaos::model::protocol::search::{Found, search, search_doubting};
use farm_core::planted::{Bug, plant};

/// Searches take all of a core and much memory: one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(config: &Config) -> usize {
    let states = std::env::var("FARM_MODEL_STATES").ok();
    states.map_or(config.states, |text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}")))
}

fn row(name: &str, found: &Found) -> String {
    let Found { states, depth, took, .. } = found;
    let end = if found.complete { "complete" } else { "cut" };
    format!("| {name} | {states} | {depth} | {end} | {:.1} |", took.as_secs_f64())
}

#[track_caller]
fn keeps(config: &Config, must: &[Reached]) -> (Found, Vec<String>) {
    let found = search(config);
    println!("{}", row(config.name, &found));
    let met: Vec<String> = found.tally.iter().map(|(what, n)| format!("{what:?} {n}")).collect();
    println!("  {}; machines {:?}, states {}", met.join(", "), found.machines, found.replicated);
    if let Some(trace) = &found.broken {
        panic!("{}: {}\n{}", config.name, trace.fact, trace.story);
    }
    let missing: Vec<&Reached> = must.iter().filter(|what| found.tally.of(**what) == 0).collect();
    (found, missing.into_iter().map(|what| format!("{}: {what:?}", config.name)).collect())
}

#[test]
fn no_reachable_state_breaks_a_promise() {
    let _turn = turn();
    let wanted = std::env::var("FARM_MODEL").unwrap_or_default();
    println!("| configuration | states | depth | end | seconds |\n|---|---|---|---|---|");
    let (mut largest, mut missing) = (0, Vec::new());
    for (config, must) in CHECKED.iter().filter(|(c, _)| c.name.contains(&wanted)) {
        let (found, never) = keeps(&Config { states: cut(config), ..*config }, must);
        missing.extend(never);
        largest = largest.max(found.states);
    }
    assert!(missing.is_empty(), "never met: {missing:?}");
    assert!(largest >= 1_000_000 || !wanted.is_empty(), "the largest search met {largest} states");
}

/// Searches tell machines apart by what is left of their time and the like. Wherever that made two of them one, both do
/// the same next, whatever it is.
#[test]
fn machines_that_look_the_same_are_the_same() {
    let _turn = turn();
    for (config, _) in CHECKED {
        let found = search_doubting(&Config { states: 20_000, ..config });
        assert!(found.broken.is_none(), "{}: {:?}", config.name, found.broken);
    }
}

#[track_caller]
fn breaks(bug: Bug) {
    let _turn = turn();
    let Some(config) = planted(bug) else { panic!("{bug:?} is no part of the model") };
    plant(Some(bug));
    let found = search(&config);
    plant(None);
    let Some(trace) = found.broken else {
        panic!("{bug:?} breaks nothing in {} states", found.states);
    };
    println!("| {bug:?} | {} | {} |\n{}", trace.actions.len(), found.states, trace.story);
    // It is the bug that was found: without it, as many states break nothing.
    let sound = search(&Config { states: found.states, ..config });
    assert!(sound.broken.is_none(), "{bug:?}: without it {:?}", sound.broken);
}

macro_rules! planted {
    ($($name:ident: $bug:ident;)+) => {
        $(#[test] fn $name() { breaks(Bug::$bug); })+

        #[test]
        fn no_bug_that_the_model_can_have_is_left_out() {
            let tried = [$(Bug::$bug),+];
            let can: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| planted(*bug).is_some()).collect();
            assert_eq!(tried.as_slice(), can);
        }
    };
}

planted! {
    lease_from_answer: LeaseFromAnswer;
    fence_only_committed: FenceOnlyCommitted;
    no_grant_reset: NoGrantReset;
    check_apart_from_stamp: CheckApartFromStamp;
    no_incarnation: NoIncarnation;
    activate_without_waiting: ActivateWithoutWaiting;
    evidence_by_epoch: EvidenceByEpoch;
    wait_equals_lease: WaitEqualsLease;
    no_base_check: NoBaseCheck;
    accept_from_anyone: AcceptFromAnyone;
    report_before_flip: ReportBeforeFlip;
    lower_epoch_after_restart: LowerEpochAfterRestart;
    joint_without_seal: JointWithoutSeal;
}
