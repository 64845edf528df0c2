//! What the clients noticed: a pure function of their requests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::load::Request;
use crate::names::Place;

/// A farm has recovered from a fault if within this time after it ...
pub const RECOVERY: Duration = Duration::from_secs(3);
/// ... so many requests in a row succeeded ...
pub const CONSECUTIVE: usize = 500;
/// ... and each live node answered its share, within so many points of a hundred.
pub const TOLERANCE_POINTS: f64 = 2.0;
/// Failures further apart than this belong to different outages: many times the distance of two requests.
const SAME_OUTAGE: Duration = Duration::from_millis(100);

/// What was noticed of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Requests that started.
    pub requests: usize,
    /// Requests without answer in time.
    pub failed: usize,
    /// The longest time during which some clients got no answer.
    pub longest_gap: Duration,
    /// From the fault until the first of [`CONSECUTIVE`] successes in a row; `None` if there were none in time.
    pub recovered_after: Option<Duration>,
    /// Answers per node in percent, from the recovery to the end of the time allowed for it.
    pub shares: BTreeMap<Place, f64>,
    /// Did each live node, and no other, answer its share?
    pub fair: bool,
}

/// Judges `requests`, in order of their start: the fault was at `at`, and `live` shall share the load evenly.
#[must_use]
pub fn measure(requests: &[Request], at: Duration, live: &[Place]) -> Measured {
    let deadline = at + RECOVERY;
    let judged = || requests.iter().filter(|r| (at..=deadline).contains(&r.start));
    let in_time = |r: &Request| r.by.filter(|_| r.end <= deadline);
    let recovered = first_row(judged().map(|r| (r.start, in_time(r).is_some())));
    let afterwards = judged().filter(|r| recovered.is_some_and(|from| r.start >= from));
    let shares = shares(afterwards.filter_map(in_time));
    Measured {
        requests: requests.len(),
        failed: requests.iter().filter(|r| r.by.is_none()).count(),
        longest_gap: longest_gap(requests),
        recovered_after: recovered.map(|from| from - at),
        fair: is_fair(&shares, live),
        shares,
    }
}

/// Start of the first row of [`CONSECUTIVE`] successes.
fn first_row(requests: impl Iterator<Item = (Duration, bool)>) -> Option<Duration> {
    let mut row: Option<(Duration, usize)> = None;
    for (start, success) in requests {
        row = success.then(|| row.map_or((start, 1), |(from, length)| (from, length + 1)));
        if let Some((from, CONSECUTIVE)) = row {
            return Some(from);
        }
    }
    None
}

fn shares(answers: impl Iterator<Item = Place>) -> BTreeMap<Place, f64> {
    let mut counts: BTreeMap<Place, f64> = BTreeMap::new();
    answers.for_each(|node| *counts.entry(node).or_default() += 1.0);
    let total: f64 = counts.values().sum();
    counts.into_iter().map(|(node, count)| (node, 100.0 * count / total)).collect()
}

fn is_fair(shares: &BTreeMap<Place, f64>, live: &[Place]) -> bool {
    let wanted = 100.0 / live.len() as f64;
    let each = live.iter().all(|node| (shares.get(node).unwrap_or(&0.0) - wanted).abs() <= TOLERANCE_POINTS);
    each && shares.keys().all(|node| live.contains(node))
}

/// Outages are runs of failures close together; the longest, from its first failure to the start of the first
/// request after its last one.
pub(crate) fn longest_gap(requests: &[Request]) -> Duration {
    let mut longest = Duration::ZERO;
    let mut outage: Option<(Duration, Duration)> = None;
    for (i, r) in requests.iter().enumerate().filter(|(_, r)| r.by.is_none()) {
        let from =
            outage.filter(|(_, last)| r.start - *last <= SAME_OUTAGE).map_or(r.start, |(from, _)| from);
        let until = requests.get(i + 1).map_or(r.end, |next| next.start);
        longest = longest.max(until - from);
        outage = Some((from, r.start));
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Place = Place::Node(1);
    const TWO: Place = Place::Node(2);
    const THREE: Place = Place::Node(3);

    /// One request per millisecond from `from_ms`, answered within a millisecond by the nodes in turn.
    fn answered(from_ms: u64, count: u64, nodes: &[Place]) -> Vec<Request> {
        let one = |i: u64| Request {
            start: Duration::from_millis(from_ms + i),
            end: Duration::from_millis(from_ms + i + 1),
            by: Some(nodes[i as usize % nodes.len()]),
        };
        (0..count).map(one).collect()
    }

    /// The same, every second one failing after the time-out.
    fn half_failing(from_ms: u64, count: u64) -> Vec<Request> {
        let mut requests = answered(from_ms, count, &[TWO]);
        for r in requests.iter_mut().step_by(2) {
            (r.end, r.by) = (r.start + super::super::TIMEOUT, None);
        }
        requests
    }

    #[test]
    fn a_short_outage_is_recovered_from() {
        let run = [
            answered(0, 1_000, &[ONE, TWO, THREE]),
            half_failing(1_000, 150),
            answered(1_150, 2_500, &[TWO, THREE]),
        ];
        let measured = measure(&run.concat(), Duration::from_secs(1), &[TWO, THREE]);
        assert_eq!((measured.requests, measured.failed), (3_650, 75));
        assert_eq!(measured.longest_gap, Duration::from_millis(149));
        assert_eq!(measured.recovered_after, Some(Duration::from_millis(149)));
        assert!(measured.fair, "{measured:?}");
    }

    #[test]
    fn a_share_that_is_off_is_not_fair() {
        let uneven = measure(&answered(0, 2_999, &[ONE, ONE, TWO]), Duration::ZERO, &[ONE, TWO]);
        assert!(!uneven.fair && uneven.recovered_after.is_some());
        let ghost = measure(&answered(0, 2_999, &[ONE, TWO, THREE]), Duration::ZERO, &[ONE, TWO]);
        assert!(!ghost.fair, "a dead node answers");
        let absent = measure(&answered(0, 2_999, &[ONE]), Duration::ZERO, &[ONE, TWO]);
        assert!(!absent.fair);
    }

    #[test]
    fn a_row_that_comes_too_late_is_no_recovery() {
        let late = RECOVERY.as_millis() as u64 - CONSECUTIVE as u64 + 2;
        let run = [half_failing(0, late), answered(late, 3_000, &[TWO])].concat();
        assert_eq!(measure(&run, Duration::ZERO, &[TWO]).recovered_after, None);
        let run = [half_failing(0, late - 200), answered(late - 200, 3_000, &[TWO])].concat();
        assert!(measure(&run, Duration::ZERO, &[TWO]).recovered_after.is_some());
    }

    #[test]
    fn a_request_that_fails_after_the_deadline_breaks_the_row() {
        let mut run = answered(0, 3_000, &[TWO]);
        for r in run.iter_mut().skip(2_500).step_by(100) {
            (r.end, r.by) = (r.start + super::super::TIMEOUT, None);
        }
        let after = |from: u64| measure(&run, Duration::from_millis(from), &[TWO]).recovered_after;
        assert!(after(0).is_some());
        let only_tail: Vec<Request> = run[2_450..].to_vec();
        assert_eq!(measure(&only_tail, Duration::ZERO, &[TWO]).recovered_after, None);
    }

    #[test]
    fn separate_outages_are_not_added_up() {
        let run = [
            half_failing(0, 50),
            answered(50, 500, &[TWO]),
            half_failing(550, 80),
            answered(630, 900, &[TWO]),
        ];
        assert_eq!(measure(&run.concat(), Duration::ZERO, &[TWO]).longest_gap, Duration::from_millis(79));
        assert_eq!(measure(&answered(0, 900, &[TWO]), Duration::ZERO, &[TWO]).longest_gap, Duration::ZERO);
    }
}
