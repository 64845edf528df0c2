//! The result of a bench: its figures and where they were measured; as JSON and as tables.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::figure::{Budget, Figure};
use super::pivot::Pivot;
use super::stats::Summary;
use super::{flows, http, scale};

/// Version of the shape of the JSON; grows when a field changes its meaning or goes, not when one comes.
const SCHEMA: u32 = 1;
/// Figures that are read side by side.
const PIVOTS: [Pivot; 3] = [scale::TABLE, http::TABLE, flows::TABLE];
/// Unit of what is so many times something else.
pub(super) const RATIO: &str = "ratio";
/// Unit of frames per second of a core's time.
pub(super) const MEGAFRAMES: &str = "Mframes/s";
/// Units whose values are small.
const FINE: [&str; 2] = [RATIO, MEGAFRAMES];

/// Figures and where they were measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this shape.
    pub schema: u32,
    /// Where.
    pub machine: Machine,
    /// What.
    pub figures: Vec<Figure>,
}

/// Where figures were measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors: for three nodes, clients and the measuring itself.
    pub cores: usize,
    /// Version of the kernel.
    pub kernel: String,
    /// Profile that farm-lab was built with: `release` or `dev`.
    pub profile: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn this() -> Result<Self> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            // What follows the numbers names a build.
            kernel: kernel
                .split(|c: char| c != '.' && !c.is_ascii_digit())
                .next()
                .unwrap_or_default()
                .to_owned(),
            profile: profile.to_owned(),
        })
    }
}

impl Report {
    /// Without figures, from this machine.
    pub(super) fn begin() -> Result<Self> {
        Ok(Self { schema: SCHEMA, machine: Machine::this()?, figures: Vec::new() })
    }

    /// Reads what [`Report::write`] wrote.
    ///
    /// # Errors
    /// It cannot be read, has another shape, or a verdict does not follow from value and budget.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let report: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(report.schema == SCHEMA, "{} has schema {}, not {SCHEMA}", path.display(), report.schema);
        for figure in &report.figures {
            ensure!(figure.met == figure.judged(), "{}: met is {:?}", figure.name, figure.met);
        }
        Ok(report)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Every figure, as a Markdown table; but for those in [`Report::pivots`].
    #[must_use]
    pub fn table(&self) -> String {
        let head = "| figure | unit | runs | mean | p50 | p99 | max | budget | |\n|---|---|---|---|---|---|---|---|---|\n";
        self.figures
            .iter()
            .filter(|figure| PIVOTS.iter().all(|pivot| pivot.cell(&figure.name).is_none()))
            .fold(head.to_owned(), |mut text, figure| {
                let _ = writeln!(text, "{}", line(figure));
                text
            })
    }

    /// Every figure that has a budget, with what of its value is bounded, as a Markdown table; those that are read side
    /// by side follow in their own.
    #[must_use]
    pub fn budget_table(&self) -> String {
        let head = "| figure | runs | measured | budget | |\n|---|---|---|---|---|\n".to_owned();
        let bounded = self.figures.iter().filter_map(|figure| Some((figure, figure.budget?)));
        let (side_by_side, single): (Vec<_>, Vec<_>) =
            bounded.partition(|(figure, _)| PIVOTS.iter().any(|pivot| pivot.cell(&figure.name).is_some()));
        let table = single.into_iter().fold(head, |mut text, (figure, budget)| {
            let Figure { name, unit, .. } = figure;
            let (runs, measured, verdict) = (runs(figure), bounded_parts(figure, budget), verdict(figure));
            let _ = writeln!(text, "| {name} | {runs} | {measured} | {} {unit} | {verdict} |", budget.text());
            text
        });
        let has_budgets =
            |pivot: &&Pivot| side_by_side.iter().any(|(figure, _)| pivot.cell(&figure.name).is_some());
        PIVOTS.iter().filter(has_budgets).fold(table, |mut text, pivot| {
            let _ = write!(text, "\n{}; bold: budget missed:\n\n{}", pivot.group, pivot.table(&self.figures));
            text
        })
    }

    /// The tables of figures that are read side by side, by the name of their group.
    pub fn pivots(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        PIVOTS.iter().map(|pivot| (pivot.group, pivot.table(&self.figures)))
    }

    /// Where it was measured, in a sentence.
    #[must_use]
    pub fn machine_text(&self) -> String {
        let Machine { cores, kernel, profile } = &self.machine;
        format!(
            "Measured on {cores} cores that carried nodes, clients and the measuring; Linux {kernel}; {profile} build.\n"
        )
    }
}

fn line(figure: &Figure) -> String {
    let value = |part: fn(&Summary) -> f64| {
        figure.value.as_ref().map_or("-".into(), |summary| shown(part(summary), &figure.unit))
    };
    let [mean, p50, p99, max] = [value(|s| s.mean), value(|s| s.p50), value(|s| s.p99), value(|s| s.max)];
    let budget = figure.budget.map_or("-".into(), |budget| budget.text());
    let Figure { name, unit, .. } = figure;
    let (runs, verdict) = (runs(figure), verdict(figure));
    format!("| {name} | {unit} | {runs} | {mean} | {p50} | {p99} | {max} | {budget} | {verdict} |")
}

/// Small numbers need their second digit.
fn shown(value: f64, unit: &str) -> String {
    if FINE.contains(&unit) { format!("{value:.2}") } else { format!("{value:.1}") }
}

fn runs(figure: &Figure) -> String {
    let runs = figure.value.map_or(0, |summary| summary.runs);
    match figure.without_value {
        0 => runs.to_string(),
        without => format!("{runs} + {without} without value"),
    }
}

fn verdict(figure: &Figure) -> &'static str {
    match figure.met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "-",
    }
}

/// The parts of the value that the budget bounds.
fn bounded_parts(figure: &Figure, budget: Budget) -> String {
    let Some(value) = figure.value else { return "nothing".into() };
    let parts = budget
        .bounds()
        .map(|bound| format!("{} {}", bound.part(), shown(value.part(bound.part()), &figure.unit)));
    format!("{} {}", parts.collect::<Vec<_>>().join(", "), figure.unit)
}

#[cfg(test)]
mod tests {
    use super::super::group::Group;
    use super::*;

    fn report(samples: &[Option<f64>]) -> Report {
        let plain = Figure::of(Group::Idle, "cpu", "CPU", "%", &[Some(1.0)]);
        let cut =
            Figure::of(Group::Idle, "cut", "time", "ms", samples).within(Budget::mean_p99(150.0, 200.0));
        Report { figures: vec![plain, cut], ..Report::begin().expect("this machine") }
    }

    #[test]
    fn the_table_has_every_figure() {
        let table = report(&[Some(100.0), None]).table();
        assert!(table.contains("| idle/cpu | % | 1 | 1.0 | 1.0 | 1.0 | 1.0 | - | - |"), "{table}");
        let missed = "| idle/cut | ms | 1 + 1 without value | 100.0 | 100.0 | 100.0 | 100.0 | mean <= 150, p99 <= 200 | **missed** |";
        assert!(table.contains(missed), "{table}");
    }

    #[test]
    fn the_table_of_budgets_shows_hits_and_misses() {
        let table = report(&[Some(100.0), Some(120.0)]).budget_table();
        let met = "| idle/cut | 2 | mean 110.0, p99 120.0 ms | mean <= 150, p99 <= 200 ms | met |";
        assert!(table.contains(met) && !table.contains("idle/cpu"), "{table}");
        let table = report(&[None]).budget_table();
        let missed = "| idle/cut | 0 + 1 without value | nothing | mean <= 150, p99 <= 200 ms | **missed** |";
        assert!(table.contains(missed), "{table}");
    }

    #[test]
    fn what_is_read_side_by_side_stands_in_its_own_table() {
        let reset = Figure::of(Group::Flows, "join/resets", "", "segments", &[Some(3.0)]);
        let reset = reset.within(Budget::NONE_AT_ALL);
        let report = Report { figures: vec![reset], ..Report::begin().expect("this machine") };
        let (budgets, all) = (report.budget_table(), report.table());
        assert!(budgets.contains("| join | - | - | **3** |"), "{budgets}");
        assert!(!budgets.contains("flows/join") && !all.contains("flows/join"), "{budgets}{all}");
    }

    #[test]
    fn ratios_are_shown_with_two_digits() {
        let ratio = Figure::of(Group::Idle, "share", "", RATIO, &[Some(0.79)]).within(Budget::at_least(0.8));
        let report = Report { figures: vec![ratio], ..Report::begin().expect("this machine") };
        let row = "| idle/share | 1 | p50 0.79 ratio | p50 >= 0.8 ratio | **missed** |";
        assert!(report.budget_table().contains(row), "{}", report.budget_table());
    }

    #[test]
    fn what_is_written_is_read_and_a_forged_verdict_is_not() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut report = report(&[Some(250.0)]);
        report.write(file.path()).expect("written");
        assert_eq!(Report::read(file.path()).expect("read"), report);
        report.figures[1].met = Some(true);
        report.write(file.path()).expect("written");
        assert!(Report::read(file.path()).is_err());
    }
}
