//! A figure: what was measured, the budget for it, and whether it was met.

use std::fmt::Write;

use serde::Serialize;

use super::group::Group;
use super::stats::Summary;

/// Upper bounds in the unit of the figure; a missing one bounds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Budget {
    /// Of the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Of the 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// Of every single value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl Budget {
    /// Bounds for mean and 99th percentile.
    pub(super) const fn mean_p99(mean: f64, p99: f64) -> Self {
        Self { mean: Some(mean), p99: Some(p99), max: None }
    }

    /// It must not happen at all.
    pub(super) const NONE_AT_ALL: Self = Self { mean: None, p99: None, max: Some(0.0) };

    fn met(&self, value: &Summary) -> bool {
        let within = |bound: Option<f64>, value: f64| bound.is_none_or(|bound| value <= bound);
        within(self.mean, value.mean) && within(self.p99, value.p99) && within(self.max, value.max)
    }

    fn text(&self) -> String {
        let bounds = [("mean", self.mean), ("p99", self.p99), ("max", self.max)];
        let bounds = bounds.iter().filter_map(|(name, bound)| Some(format!("{name} <= {}", (*bound)?)));
        bounds.collect::<Vec<_>>().join(", ")
    }
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Which.
    pub name: String,
    /// What exactly was measured.
    pub measured: String,
    /// Unit of budget and value.
    pub unit: &'static str,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
}

impl Figure {
    /// A figure of `group` from one sample per run; `None` stands for a run without value.
    pub(super) fn of(
        group: Group,
        name: &str,
        measured: impl Into<String>,
        unit: &'static str,
        samples: &[Option<f64>],
    ) -> Self {
        let values: Vec<f64> = samples.iter().flatten().copied().collect();
        Self {
            name: format!("{group}/{name}"),
            command: group.command(),
            measured: measured.into(),
            unit,
            budget: None,
            value: Summary::of(&values),
            without_value: samples.len() - values.len(),
            met: None,
            complaints: Vec::new(),
        }
    }

    /// The same with a budget; runs without value miss it.
    pub(super) fn within(self, budget: Budget) -> Self {
        let met = self.without_value == 0 && self.value.is_some_and(|value| budget.met(&value));
        Self { budget: Some(budget), met: Some(met), ..self }
    }

    /// A measurement that failed: a figure all the same, so that it is missed by nobody.
    pub(super) fn failed(group: Group, why: &anyhow::Error) -> Self {
        let complaints = vec![format!("{why:#}")];
        Self { complaints, ..Self::of(group, "failed", "the measurement failed", "", &[None]) }
    }
}

/// The figures as a Markdown table.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "| figure | unit | runs | mean | p50 | p99 | max | budget | met |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for figure in figures {
        let _ = writeln!(text, "{}", line(figure));
    }
    text
}

fn line(figure: &Figure) -> String {
    let value = |part: fn(&Summary) -> f64| {
        figure.value.as_ref().map_or("-".into(), |summary| format!("{:.1}", part(summary)))
    };
    let runs = figure.value.map_or(0, |summary| summary.runs);
    let without = if figure.without_value > 0 {
        format!(" + {} without value", figure.without_value)
    } else {
        String::new()
    };
    let budget = figure.budget.map_or("-".into(), |budget| budget.text());
    let met = match figure.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "-",
    };
    let [mean, p50, p99, max] = [value(|s| s.mean), value(|s| s.p50), value(|s| s.p99), value(|s| s.max)];
    let Figure { name, unit, .. } = figure;
    format!("| {name} | {unit} | {runs}{without} | {mean} | {p50} | {p99} | {max} | {budget} | {met} |")
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
        assert!(table(&[missed]).contains("| idle/cut | ms | 1 + 1 without value | 100.0 | 100.0 | 100.0 | 100.0 | mean <= 150, p99 <= 200 | NO |"));
    }

    #[test]
    fn without_budget_nothing_is_met_or_missed() {
        let plain = Figure::of(Group::Idle, "cpu", "CPU", "%", &[Some(1.0)]);
        assert_eq!((plain.met, plain.budget), (None, None));
        assert!(table(&[plain]).contains("| idle/cpu | % | 1 | 1.0 | 1.0 | 1.0 | 1.0 | - | - |"));
    }
}
