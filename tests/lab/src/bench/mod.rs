//! The bench: every figure with its budget, the value and whether it was met. Failovers are judged from the wire,
//! by raw SYNs that know no retransmission; epochs and leases are read from the memory of the filters.

mod failover;
mod fault;
mod figure;
mod filter;
mod flips;
mod idle;
mod journal;
mod margins;
mod notice;
mod stats;
mod verdict;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, Mode, Spec};
use crate::names::{LabName, Place};
use failover::{CLIENTS, Sample};
use fault::Fault;
pub use figure::{Budget, Figure, table};
pub use stats::Summary;

/// Two survivors keep a majority when one dies.
const NODES: u8 = 3;

/// What to measure, and how thoroughly.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Runs of everything that is repeated.
    pub runs: usize,
    /// Only groups of figures whose name contains this, or of which this names a figure.
    pub only: Option<String>,
    /// How long every core is kept busy.
    pub busy: Duration,
    /// Name of the labs that the bench makes for itself, one after the other.
    pub name: LabName,
}

/// Measures what `plan` asks for. What cannot be measured becomes a figure without value.
///
/// # Errors
/// A lab does not come up.
pub fn run(plan: &Plan) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if plan.wants(verdict::NAME) {
        eprintln!("{} ...", verdict::NAME);
        figures.extend(verdict::measure().unwrap_or_else(|e| vec![Figure::failed(verdict::NAME, &e)]));
    }
    for mode in [Mode::Directed, Mode::Flood] {
        figures.extend(Stage { plan, mode, lab: None }.play()?);
    }
    Ok(figures)
}

impl Plan {
    fn wants(&self, group: &str) -> bool {
        self.only.as_ref().is_none_or(|only| group.contains(only.as_str()) || only.starts_with(group))
    }
}

/// The measurements in one mode, on one lab as long as it is sound.
struct Stage<'a> {
    plan: &'a Plan,
    mode: Mode,
    lab: Option<Lab>,
}

impl Stage<'_> {
    fn play(mut self) -> Result<Vec<Figure>> {
        let (runs, busy) = (self.plan.runs, self.plan.busy);
        let mut figures = Vec::new();
        // What does not depend on the mode is measured in the default one.
        if self.mode == Mode::Directed {
            figures.extend(self.once(idle::NAME, idle::measure)?);
            figures.extend(self.once(flips::NAME, |lab| flips::measure(lab, runs))?);
            figures.extend(self.once(margins::NAME, |lab| margins::measure(lab, busy))?);
        }
        for fault in Fault::ALL {
            figures.extend(self.failovers(fault)?);
        }
        self.lab.map_or(Ok(()), Lab::down)?;
        Ok(figures)
    }

    fn once(
        &mut self,
        group: &str,
        measure: impl FnOnce(&Lab) -> Result<Vec<Figure>>,
    ) -> Result<Vec<Figure>> {
        if !self.plan.wants(group) {
            return Ok(Vec::new());
        }
        eprintln!("{group} ...");
        let measured = measure(self.lab()?);
        measured.or_else(|e| self.gave_up(group, &e).map(|()| vec![Figure::failed(group, &e)]))
    }

    /// `runs` runs with the entry node among the survivors, and in directed mode as many with it as the victim.
    fn failovers(&mut self, fault: Fault) -> Result<Vec<Figure>> {
        let group = format!("failover/{}/{}", self.mode.name(), fault.name());
        if !self.plan.wants(&group) {
            return Ok(Vec::new());
        }
        let count = match self.mode {
            Mode::Directed => 2 * self.plan.runs,
            Mode::Flood => self.plan.runs,
        };
        let (mut samples, mut complaints) = (Vec::new(), Vec::new());
        for run in 0..count {
            eprintln!("{group}: run {} of {count}", run + 1);
            match failover::run(self.lab()?, fault, run) {
                Ok(found) => samples.extend(found),
                Err(e) => {
                    self.gave_up(&group, &e)?;
                    complaints.push(format!("run {}: {e:#}", run + 1));
                }
            }
        }
        Ok(figures_of(&group, fault, &samples, &complaints))
    }

    fn lab(&mut self) -> Result<&Lab> {
        if self.lab.is_none() {
            self.lab =
                Some(Lab::up(Spec::new(self.plan.name.clone(), NODES).mode(self.mode)).context("the lab")?);
        }
        self.lab.as_ref().context("made above")
    }

    /// A farm that did not come back is no ground for the next measurement.
    fn gave_up(&mut self, group: &str, why: &anyhow::Error) -> Result<()> {
        eprintln!("{group}: {why:#}");
        self.lab.take().map_or(Ok(()), Lab::down)
    }
}

/// Three figures for each machine of clients, and in directed mode for each place where its frames enter.
fn figures_of(group: &str, fault: Fault, samples: &[Sample], complaints: &[String]) -> Vec<Figure> {
    let kinds = CLIENTS.iter().flat_map(|from| [None, Some(true), Some(false)].map(|entry| (*from, entry)));
    let present = kinds.filter(|kind| samples.iter().any(|s| (s.from, s.entry) == *kind));
    let mut figures: Vec<Figure> = present
        .flat_map(|(from, entry)| {
            let those: Vec<Sample> =
                samples.iter().filter(|s| (s.from, s.entry) == (from, entry)).copied().collect();
            three_figures(group, fault, from, entry, &those)
        })
        .collect();
    if !complaints.is_empty() {
        let failed = Figure::of(
            format!("{group}/failed-runs"),
            "runs without a sample",
            "runs",
            &[Some(complaints.len() as f64)],
        );
        figures.push(Figure {
            complaints: complaints.to_vec(),
            ..failed.within(Budget::NONE_AT_ALL).measured_by(group)
        });
    }
    figures
}

fn three_figures(
    group: &str,
    fault: Fault,
    from: Place,
    entry: Option<bool>,
    samples: &[Sample],
) -> Vec<Figure> {
    let enters = match entry {
        None => "",
        Some(true) => "/entry-dies",
        Some(false) => "/entry-lives",
    };
    let ms = |part: fn(&Sample) -> Option<Duration>| -> Vec<Option<f64>> {
        samples.iter().map(|s| part(s).map(|d| d.as_secs_f64() * 1e3)).collect()
    };
    let figure = |name: &str, what: &str, samples: &[Option<f64>]| {
        Figure::of(format!("{group}/{from}{enters}/{name}"), what, "ms", samples).measured_by(group)
    };
    let taken = figure(
        "taken-over",
        "from the fault to the first SYN-ACK on another node's cable for a client of the victim",
        &ms(|s| s.taken_over),
    );
    let victims = figure(
        "gap",
        "longest time without an answer, clients of the victim, 250 SYNs per second",
        &ms(|s| s.victims),
    );
    let healthy = figure("gap-of-others", "the same for clients of the other nodes", &ms(|s| s.healthy));
    let bounded = |f: Figure| match fault.budget() {
        Some(budget) => f.within(budget),
        None => f,
    };
    // Where the entry node dies with the leader, others are cut off until the survivors announce themselves.
    let undisturbed = fault == Fault::LeaderCut && entry != Some(true);
    let healthy = if undisturbed { healthy.within(Budget::NONE_AT_ALL) } else { healthy };
    vec![bounded(taken), bounded(victims), healthy]
}
