//! Many seeds at once.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use farm_core::planted::{Bug, plant};
use farm_core::time::Span;

use crate::coverage::Coverage;
use crate::invariant::Violation;
use crate::schedule::Schedule;
use crate::world::sim::run;

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs without a violation.
    pub passed: u64,
    /// The seeds that failed, ascending.
    pub failed: Vec<(u64, Violation)>,
    /// Situations met by all runs.
    pub coverage: Coverage,
    /// Simulated time of all runs.
    pub lived: Span,
    /// Faults of all runs.
    pub faults: usize,
    /// Fewest faults of a run.
    pub faults_min: usize,
    /// Events of all runs.
    pub events: u64,
}

/// Runs the schedules that `schedule` draws from `seeds`, on every processor.
#[must_use]
pub fn campaign(seeds: core::ops::Range<u64>, schedule: impl Fn(u64) -> Schedule + Sync) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary { faults_min: usize::MAX, ..Summary::default() });
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = run(&Rc::new(schedule(seed)), false);
                    let mut summary = summary.lock().expect("no worker panics while it holds the lock");
                    summary.coverage += &report.coverage;
                    summary.lived = summary.lived + report.lived;
                    summary.faults += report.faults;
                    summary.faults_min = summary.faults_min.min(report.faults);
                    summary.events += report.events;
                    match report.violation {
                        Some(violation) => summary.failed.push((seed, violation)),
                        None => summary.passed += 1,
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().expect("every worker ended well");
    summary.failed.sort_by_key(|(seed, _)| *seed);
    summary
}

/// The first of `seeds` whose schedule shows `bug`, with what it shows. Runs on the calling thread.
#[must_use]
pub fn hunt(
    bug: Bug,
    seeds: core::ops::Range<u64>,
    schedule: impl Fn(u64) -> Schedule,
) -> Option<(u64, Violation)> {
    plant(Some(bug));
    let found =
        seeds.into_iter().find_map(|seed| Some((seed, run(&Rc::new(schedule(seed)), false).violation?)));
    plant(None);
    found
}

/// The seed, the schedule and what happened in a run that failed.
#[must_use]
pub fn explain(schedule: &Rc<Schedule>) -> String {
    /// The violation is at the end.
    const LINES: usize = 150;
    let report = run(schedule, true);
    let lines: Vec<&str> = report.timeline.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LINES)..];
    let what = report.violation.map_or_else(|| "no violation".into(), |v| v.to_string());
    format!(
        "{schedule}\n{}\n\n{what}\nreplay: FARM_SEED={} cargo test -p farm-chaos replay -- --nocapture",
        tail.join("\n"),
        schedule.seed
    )
}
