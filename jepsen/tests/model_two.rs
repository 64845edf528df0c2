//! Of two nodes that have lost each other never both go on, and every rule of the contest that is taken away breaks that.
//!
//! `cargo test -p farm-chaos --test model_two -- --nocapture` prints the table of docs/model.md; `FARM_MODEL_STATES` cuts
//! later.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use farm_chaos::model::two::{ALL, Config, Found, search};
use farm_core::planted::{Bug, plant};

/// Searches take much memory: one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const STATES: usize = 3_000_000;

const EVEN: Config = Config {
    name: "even clocks",
    rates: [10, 10],
    ticks: 14,
    surprises: 5,
    crashes: 0,
    forgets: 0,
    states: STATES,
};
const FIRST_FAST: Config = Config { name: "the first clock fast, the second slow", rates: [11, 9], ..EVEN };
const SECOND_FAST: Config = Config { name: "the second clock fast, the first slow", rates: [9, 11], ..EVEN };
const CRASH: Config = Config { name: "a crash", surprises: 2, crashes: 1, ..EVEN };
const FORGETS: Config = Config { name: "the router restarts", surprises: 3, forgets: 1, ..EVEN };

fn cut(config: &Config) -> Config {
    let states = std::env::var("FARM_MODEL_STATES").ok();
    let states = states.map_or(config.states, |text| text.parse().unwrap_or_else(|e| panic!("{text}: {e}")));
    Config { states, ..*config }
}

fn searched(config: &Config) -> Found {
    let begun = Instant::now();
    let found = search(config);
    let end = if found.complete { "complete" } else { "cut" };
    let Found { states, depth, .. } = found;
    println!("| {} | {states} | {depth} | {end} | {:.1} |", config.name, begun.elapsed().as_secs_f64());
    found
}

#[test]
fn never_both_go_on() {
    let _turn = turn();
    println!("| configuration | states | depth | end | seconds |\n|---|---|---|---|---|");
    let (mut met, mut states) = (Vec::new(), 0);
    for config in [EVEN, FIRST_FAST, SECOND_FAST, CRASH, FORGETS] {
        let found = searched(&cut(&config));
        if let Some((broken, steps, story)) = found.broken {
            panic!("{}: {broken:?} in {steps} steps\n{story}", config.name);
        }
        met.extend(found.met);
        states += found.states;
    }
    let never: Vec<_> = ALL.iter().filter(|what| !met.contains(what)).collect();
    assert!(never.is_empty(), "never met: {never:?}");
    assert!(states >= 1_000_000, "{states} states in all");
}

#[track_caller]
fn breaks(bug: Bug, config: &Config) {
    let _turn = turn();
    plant(Some(bug));
    let found = search(config);
    plant(None);
    let Some((broken, steps, story)) = found.broken else {
        panic!("{bug:?} breaks nothing in {} states to depth {}", found.states, found.depth)
    };
    println!("| {bug:?} | {broken:?} | {steps} | {} |\n{story}", found.states);
}

#[test]
fn late_claim() {
    breaks(Bug::LateClaim, &EVEN);
}

#[test]
fn no_hold() {
    breaks(Bug::NoHold, &EVEN);
}

#[test]
fn gap_ignored() {
    breaks(Bug::GapIgnored, &EVEN);
}

#[test]
fn claim_again() {
    breaks(Bug::ClaimAgain, &EVEN);
}

#[test]
fn possession_by_receipt() {
    breaks(Bug::PossessionByReceipt, &EVEN);
}

#[test]
fn every_planted_bug_is_tried() {
    let tried = [Bug::LateClaim, Bug::PossessionByReceipt, Bug::ClaimAgain, Bug::NoHold, Bug::GapIgnored];
    assert_eq!(tried, Bug::ARBITER);
}
