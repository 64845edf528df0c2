//! From the commit of an epoch to the flip of the last node's filter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use super::figure::Figure;
use super::filter::Watch;
use super::group::Group;
use super::journal;
use crate::WEB_MODULE;
use crate::lab::Lab;
use crate::names::Place;
use crate::witness::BootTime;

/// Name of the group.
pub(super) const NAME: &str = "commit-to-flip";
/// How often the filters are looked at.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// A planned change waits up to 3 s for request sockets and drains.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// What is measured.
pub(super) const TO_FLIP: &str = "from the entry's application on the leader (its journal, 1 ms) to the flipped word of the \
                                  last node's filter (its memory, 0.1 ms); every epoch of every change";

/// When each node's filter began to work with each epoch, in order of time.
type Flips = BTreeMap<Place, Vec<(u64, BootTime)>>;

/// What every epoch of every change took.
pub(super) fn measure(lab: &Lab, runs: usize) -> Result<Vec<Figure>> {
    let Taken { to_flip, acknowledged } = take(lab, runs)?;
    let asked_what = "farmctl module weight, from its start to its end (one process; committed and applied)";
    Ok(vec![
        Figure::of(Group::CommitToFlip, "all-filters", TO_FLIP, "ms", &to_flip),
        Figure::of(Group::CommitToFlip, "acknowledged", asked_what, "ms", &acknowledged),
    ])
}

/// Milliseconds.
pub(super) struct Taken {
    /// See [`TO_FLIP`].
    pub(super) to_flip: Vec<Option<f64>>,
    acknowledged: Vec<Option<f64>>,
}

/// Changes a weight `runs` times and follows each epoch of each change to the filters.
pub(super) fn take(lab: &Lab, runs: usize) -> Result<Taken> {
    let (asked, began) = (Place::Node(1), SystemTime::now());
    let watch = Watch::start(lab, LOOK_EVERY, Flips::new(), |flips, node, at, in_force| {
        let own = flips.entry(node).or_default();
        if own.last().is_none_or(|(epoch, _)| *epoch != in_force.epoch) {
            own.push((in_force.epoch, at));
        }
    })?;
    let acknowledged = (0..runs).map(|run| change_weight(lab, asked, run)).collect::<Result<Vec<_>>>();
    let flips = watch.stop();
    let acknowledged = acknowledged?;
    let leader = lab.status(asked)?.leader().context("no leader to ask when the epochs were committed")?;
    let commits = journal::commits(&journal::events(lab, leader, began)?)?;
    let to_flip = commits.iter().map(|(epoch, at)| last_flip(&flips, *epoch, *at)).collect();
    Ok(Taken { to_flip, acknowledged })
}

/// Halves the last node's weight or restores it; waits for the end of the change. Time to the acknowledgement in ms.
fn change_weight(lab: &Lab, asked: Place, run: usize) -> Result<Option<f64>> {
    let node = lab.nodes().last().context("a lab has nodes")?;
    let weight = if run.is_multiple_of(2) { "50" } else { "100" };
    let epoch = lab.status(asked)?.epoch;
    let start = Instant::now();
    lab.farmctl(asked, &["module", "weight", WEB_MODULE, &node.to_string(), weight])?;
    let taken = start.elapsed();
    lab.await_status(asked, "the change of weight is settled", CHANGE_LIMIT, |status| {
        status.epoch > epoch && status.module(WEB_MODULE).is_some_and(|m| m.open_changes == 0)
    })?;
    Ok(Some(taken.as_secs_f64() * 1e3))
}

/// Milliseconds from `commit` until every filter worked with `epoch` or a later one; `None` if one never did.
fn last_flip(flips: &Flips, epoch: u64, commit: BootTime) -> Option<f64> {
    let first = |own: &Vec<(u64, BootTime)>| own.iter().find(|(e, _)| *e >= epoch).map(|(_, at)| *at);
    let reached = flips.values().map(first).collect::<Option<Vec<_>>>()?;
    Some(reached.into_iter().max()?.since(commit).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_node_counts_and_epochs_may_be_skipped() {
        let at = |ms: u64| BootTime(ms * 1_000_000);
        let flips = Flips::from([
            (Place::Node(1), vec![(4, at(0)), (5, at(12)), (6, at(30))]),
            (Place::Node(2), vec![(4, at(0)), (6, at(25))]),
        ]);
        assert_eq!(last_flip(&flips, 5, at(10)), Some(15.0));
        assert_eq!(last_flip(&flips, 6, at(20)), Some(10.0));
        assert_eq!(last_flip(&flips, 7, at(20)), None);
    }
}
