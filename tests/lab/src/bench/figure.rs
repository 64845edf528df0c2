//! A figure: what was measured, the budget for it, and whether it was met.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::group::Group;
use super::stats::{Part, Summary};

/// Bounds in the unit of the figure; a missing one bounds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Of the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Of the 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// Of every single value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Of the median, from below: for what should be large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
}

/// One bound of a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// The part is no larger.
    AtMost(Part, f64),
    /// The part is no smaller.
    AtLeast(Part, f64),
}

impl Bound {
    /// What is bounded.
    pub(super) fn part(self) -> Part {
        match self {
            Self::AtMost(part, _) | Self::AtLeast(part, _) => part,
        }
    }

    fn holds(self, value: &Summary) -> bool {
        match self {
            Self::AtMost(part, limit) => value.part(part) <= limit,
            Self::AtLeast(part, limit) => value.part(part) >= limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(part, limit) => write!(f, "{part} <= {limit}"),
            Self::AtLeast(part, limit) => write!(f, "{part} >= {limit}"),
        }
    }
}

impl Budget {
    const NONE: Self = Self { mean: None, p99: None, max: None, at_least: None };

    /// Bounds for mean and 99th percentile.
    pub(super) const fn mean_p99(mean: f64, p99: f64) -> Self {
        Self { mean: Some(mean), p99: Some(p99), ..Self::NONE }
    }

    /// A bound for the 99th percentile.
    pub(super) const fn p99(p99: f64) -> Self {
        Self { p99: Some(p99), ..Self::NONE }
    }

    /// No value is larger.
    pub(super) const fn at_most(limit: f64) -> Self {
        Self { max: Some(limit), ..Self::NONE }
    }

    /// The median is no smaller.
    pub(super) const fn at_least(limit: f64) -> Self {
        Self { at_least: Some(limit), ..Self::NONE }
    }

    /// It must not happen at all.
    pub(super) const NONE_AT_ALL: Self = Self::at_most(0.0);

    /// What is bounded, and by what.
    pub(super) fn bounds(self) -> impl Iterator<Item = Bound> {
        let above = [(Part::Mean, self.mean), (Part::P99, self.p99), (Part::Max, self.max)];
        let above = above.into_iter().filter_map(|(part, limit)| Some(Bound::AtMost(part, limit?)));
        above.chain(self.at_least.map(|limit| Bound::AtLeast(Part::P50, limit)))
    }

    fn met(self, value: &Summary) -> bool {
        self.bounds().all(|bound| bound.holds(value))
    }

    /// The bounds in words.
    pub(super) fn text(self) -> String {
        self.bounds().map(|bound| bound.to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Which.
    pub name: String,
    /// What exactly was measured.
    pub measured: String,
    /// Unit of budget and value.
    pub unit: String,
    /// The budget, if there is one.
    pub budget: Option<Budget>,
    /// What was measured; `None` if nothing could be.
    pub value: Option<Summary>,
    /// Runs that gave no value: the event did not come in the time it was waited for, or the run failed.
    pub without_value: usize,
    /// Was the budget met? `None` without a budget.
    pub met: Option<bool>,
    /// Command that measures it again.
    pub command: String,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
}

impl Figure {
    /// A figure of `group` from one sample per run; `None` stands for a run without value.
    pub(super) fn of(
        group: Group,
        name: &str,
        measured: impl Into<String>,
        unit: &str,
        samples: &[Option<f64>],
    ) -> Self {
        let values: Vec<f64> = samples.iter().flatten().copied().collect();
        Self {
            name: format!("{group}/{name}"),
            command: group.command(),
            measured: measured.into(),
            unit: unit.to_owned(),
            budget: None,
            value: Summary::of(&values),
            without_value: samples.len() - values.len(),
            met: None,
            complaints: Vec::new(),
        }
    }

    /// The same with a budget; runs without value miss it.
    pub(super) fn within(self, budget: Budget) -> Self {
        let bounded = Self { budget: Some(budget), ..self };
        Self { met: bounded.judged(), ..bounded }
    }

    /// Is the budget met? `None` without a budget; runs without value miss it.
    pub(super) fn judged(&self) -> Option<bool> {
        let budget = self.budget?;
        Some(self.without_value == 0 && self.value.is_some_and(|value| budget.met(&value)))
    }

    /// A measurement that failed: a figure all the same, so that it is missed by nobody.
    pub(super) fn failed(group: Group, why: &anyhow::Error) -> Self {
        let complaints = vec![format!("{why:#}")];
        Self { complaints, ..Self::of(group, "failed", "the measurement failed", "", &[None]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &[Option<f64>]) -> Figure {
        Figure::of(Group::Idle, "cut", "time", "ms", samples).within(Budget::mean_p99(150.0, 200.0))
    }

    #[test]
    fn both_bounds_count() {
        assert_eq!(figure(&[Some(120.0), Some(180.0)]).met, Some(true));
        assert_eq!(figure(&[Some(160.0), Some(160.0)]).met, Some(false), "mean");
        assert_eq!(figure(&[Some(20.0), Some(201.0)]).met, Some(false), "p99");
    }

    #[test]
    fn a_run_without_value_misses_the_budget() {
        let missed = figure(&[Some(100.0), None]);
        assert_eq!((missed.met, missed.without_value), (Some(false), 1));
        assert_eq!(figure(&[]).met, Some(false), "nothing was measured");
    }

    #[test]
    fn what_should_be_large_is_bounded_from_below() {
        let ratio =
            |sample| Figure::of(Group::Idle, "r", "", "ratio", &[Some(sample)]).within(Budget::at_least(3.0));
        assert_eq!((ratio(3.0).met, ratio(2.9).met), (Some(true), Some(false)));
        assert_eq!(Budget::at_least(3.0).text(), "p50 >= 3");
    }

    #[test]
    fn without_budget_nothing_is_met_or_missed() {
        let plain = Figure::of(Group::Idle, "cpu", "CPU", "%", &[Some(1.0)]);
        assert_eq!((plain.met, plain.budget), (None, None));
    }
}
