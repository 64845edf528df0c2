//! How often something took how long: counts by bounds, as Prometheus wants them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of durations.
#[derive(Clone, PartialEq, Debug)]
pub struct Tally {
    /// Upper bounds in seconds, ascending.
    pub bounds: &'static [f64],
    /// How many were at most as long as the bound of the same place, and longer than the one before.
    pub counts: Vec<u64>,
    /// How many were longer than the last bound.
    pub beyond: u64,
    /// Sum of all, in seconds.
    pub sum: f64,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], beyond: 0, sum: 0.0 }
    }

    /// One more.
    pub fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        match place(self.bounds, seconds) {
            Some(at) => self.counts[at] += 1,
            None => self.beyond += 1,
        }
        self.sum += seconds;
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }

    /// Counts with their bounds; the last one has none.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounded = self.bounds.iter().copied().zip(self.counts.iter().copied());
        bounded.chain([(f64::INFINITY, self.beyond)]).collect()
    }
}

fn place(bounds: &[f64], seconds: f64) -> Option<usize> {
    bounds.iter().position(|bound| seconds <= *bound)
}

/// A tally that one thread writes without ever waiting, and others read; what they see may be one entry apart.
#[derive(Debug)]
pub struct SharedTally<const N: usize> {
    bounds: &'static [f64; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum_ns: AtomicU64,
}

impl<const N: usize> SharedTally<N> {
    /// Nothing yet.
    #[must_use]
    pub fn new(bounds: &'static [f64; N]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; N],
            beyond: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
        }
    }

    /// One more: two additions.
    pub fn add(&self, took: Duration) {
        let count = place(self.bounds, took.as_secs_f64()).map_or(&self.beyond, |at| &self.counts[at]);
        count.fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// As it is now.
    #[must_use]
    pub fn read(&self) -> Tally {
        Tally {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            beyond: self.beyond.load(Ordering::Relaxed),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 2] = [0.0, 0.5];

    #[test]
    fn each_duration_is_counted_once_where_it_belongs() {
        let (mut alone, shared) = (Tally::new(&BOUNDS), SharedTally::new(&BOUNDS));
        for ms in [0, 1, 500, 501] {
            alone.add(Duration::from_millis(ms));
            shared.add(Duration::from_millis(ms));
        }
        assert_eq!(alone.buckets(), [(0.0, 1), (0.5, 2), (f64::INFINITY, 1)]);
        assert_eq!((alone.count(), shared.read().count()), (4, 4));
        assert_eq!(shared.read().counts, alone.counts);
        assert!((alone.sum - 1.002).abs() < 1e-9 && (shared.read().sum - alone.sum).abs() < 1e-9);
    }
}
