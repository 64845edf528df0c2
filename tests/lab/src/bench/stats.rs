//! Statistics of repeated measurements: pure functions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What repeated measurements say, in the unit of the figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of measurements.
    pub runs: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile; with fewer than 100 measurements the largest.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// A part of a summary that can be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Mean,
    P50,
    P99,
    Max,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Max => "max",
        })
    }
}

impl Summary {
    /// One of its parts.
    pub(super) fn part(&self, part: Part) -> f64 {
        match part {
            Part::Mean => self.mean,
            Part::P50 => self.p50,
            Part::P99 => self.p99,
            Part::Max => self.max,
        }
    }

    /// Sums up `samples`, in any order; `None` if there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let max = *sorted.last()?;
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let (p50, p99) = (percentile(&sorted, 50), percentile(&sorted, 99));
        Some(Self { runs: sorted.len(), mean, p50, p99, max })
    }
}

/// Nearest rank: the smallest sample that at least `percent` of all do not exceed. Never interpolated, so every
/// percentile is a value that was measured.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let summary = Summary::of(&samples).expect("not empty");
        assert_eq!((summary.p50, summary.p99, summary.max, summary.mean), (100.0, 198.0, 200.0, 100.5));
    }

    #[test]
    fn the_worst_of_few_runs_is_their_99th_percentile() {
        let summary = Summary::of(&[3.0, 1.0, 2.0]).expect("not empty");
        assert_eq!(summary, Summary { runs: 3, mean: 2.0, p50: 2.0, p99: 3.0, max: 3.0 });
        let one = Summary::of(&[7.0]).expect("not empty");
        assert_eq!((one.p50, one.p99), (7.0, 7.0));
    }

    #[test]
    fn nothing_measured_is_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }
}
