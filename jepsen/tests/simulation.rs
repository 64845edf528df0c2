//! Random schedules: nothing may go wrong, and everything must have been tried.
//!
//! `FARM_SEEDS=5000 cargo test -p farm-chaos --test simulation` tries more, `FARM_SEED=17 cargo test -p farm-chaos
//! replay -- --nocapture` tells one seed's story.

use std::rc::Rc;
use std::time::Instant;

use farm_chaos::campaign::{campaign, explain};
use farm_chaos::schedule::{FAULTS_MIN, LIFE, Schedule};
use farm_chaos::world::sim::run;

/// Seeds without FARM_SEEDS.
const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

#[test]
fn no_schedule_breaks_a_promise() {
    let seeds = number("FARM_SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let summary = campaign(0..seeds, Schedule::random);
    println!(
        "{seeds} seeds, {} s simulated, {} faults (at least {} each), {} events, {:.1} s\n{}",
        summary.lived.as_millis() / 1_000,
        summary.faults,
        summary.faults_min,
        summary.events,
        began.elapsed().as_secs_f64(),
        summary.coverage,
    );
    if let Some((seed, _)) = summary.failed.first() {
        let all: Vec<u64> = summary.failed.iter().map(|(seed, _)| *seed).collect();
        panic!("{} seeds fail: {all:?}\n{}", all.len(), explain(&Rc::new(Schedule::random(*seed))));
    }
    assert_eq!(summary.passed, seeds);
    assert!(summary.lived.0 >= seeds * LIFE.0, "every run lasts a minute");
    assert!(summary.faults_min >= FAULTS_MIN, "every run has its faults");
    let missing = summary.coverage.missing();
    assert!(missing.is_empty(), "never met: {missing:?}");
}

#[test]
fn a_seed_replays_to_the_byte() {
    for seed in [3, 14, 15] {
        let schedule = Rc::new(Schedule::random(seed));
        assert_eq!(schedule, Rc::new(Schedule::random(seed)));
        let (first, second) = (run(&schedule, true), run(&schedule, true));
        assert!(first.timeline.len() > 10_000, "the timeline tells something");
        assert!(first == second, "seed {seed} took another course the second time");
    }
}

#[test]
fn replay() {
    if let Some(seed) = number("FARM_SEED") {
        println!("{}", explain(&Rc::new(Schedule::random(seed))));
    }
}
