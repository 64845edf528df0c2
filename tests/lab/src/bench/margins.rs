//! Lease margins with every core busy: does a lease lapse, or is a node given up, that is only slow?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::figure::{Budget, Figure};
use super::filter::{InForce, Watch};
use super::group::Group;
use super::journal;
use crate::lab::Lab;
use crate::names::Place;
use crate::witness::BootTime;

/// Name of the group.
pub(super) const NAME: &str = "busy-cores";
/// How often the deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What was seen of one lease.
#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    smallest_ms: Option<f64>,
    lapsed: bool,
    lapses: u32,
}

impl Lease {
    fn see(&mut self, at: BootTime, in_force: InForce) {
        let margin = in_force.deadline.since(at);
        let ms = margin.as_secs_f64() * 1e3;
        self.smallest_ms = Some(self.smallest_ms.map_or(ms, |smallest| smallest.min(ms)));
        self.lapses += u32::from(margin.is_zero() && !self.lapsed);
        self.lapsed = margin.is_zero();
    }
}

/// Keeps every core busy for `busy` and watches the leases in the filters.
pub(super) fn measure(lab: &Lab, busy: Duration) -> Result<Vec<Figure>> {
    let began = SystemTime::now();
    let watch =
        Watch::start(lab, LOOK_EVERY, BTreeMap::<Place, Lease>::new(), |leases, node, at, in_force| {
            leases.entry(node).or_default().see(at, in_force);
        })?;
    keep_busy(busy)?;
    let leases = watch.stop();
    let mut silent = 0;
    for node in lab.nodes() {
        silent += journal::events(lab, node, began)?.iter().filter(|e| e.kind == "node_silent").count();
    }
    let smallest = leases.values().filter_map(|lease| lease.smallest_ms).min_by(f64::total_cmp);
    let lapses: Vec<Option<f64>> = leases.values().map(|lease| Some(f64::from(lease.lapses))).collect();
    let load = format!("a busy loop per core for {} s, {} nodes", busy.as_secs(), leases.len());
    let figure = |name: &str, what: &str, unit, samples: &[Option<f64>]| {
        Figure::of(Group::BusyCores, name, format!("{what}; {load}"), unit, samples)
    };
    Ok(vec![
        figure("false-expiries", "node_silent events in all journals", "events", &[Some(silent as f64)])
            .within(Budget::NONE_AT_ALL),
        figure(
            "lapses",
            "deadlines that passed in a filter's memory, looked at every ms; per node",
            "lapses",
            &lapses,
        )
        .within(Budget::NONE_AT_ALL),
        figure("smallest-margin", "smallest time left of any lease in a filter's memory", "ms", &[smallest]),
    ])
}

fn keep_busy(busy: Duration) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let spin = |stop: Arc<AtomicBool>| move || while !stop.load(Ordering::Relaxed) {};
    let cores = std::thread::available_parallelism()?.get();
    let spinning: Vec<_> = (0..cores).map(|_| std::thread::spawn(spin(Arc::clone(&stop)))).collect();
    std::thread::sleep(busy);
    stop.store(true, Ordering::Relaxed);
    for thread in spinning {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lapse_is_counted_once_until_the_lease_is_back() {
        let mut lease = Lease::default();
        let see = |lease: &mut Lease, at, deadline| {
            lease.see(BootTime(at), InForce { epoch: 1, deadline: BootTime(deadline) });
        };
        see(&mut lease, 0, 3_000_000);
        see(&mut lease, 1_000_000, 3_000_000);
        assert_eq!((lease.smallest_ms, lease.lapses), (Some(2.0), 0));
        see(&mut lease, 3_000_000, 3_000_000);
        see(&mut lease, 4_000_000, 3_000_000);
        see(&mut lease, 5_000_000, 9_000_000);
        see(&mut lease, 9_500_000, 9_000_000);
        assert_eq!((lease.smallest_ms, lease.lapses), (Some(0.0), 2));
    }
}
