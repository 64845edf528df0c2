//! The bench: every figure with its budget, the value and whether it was met. Failovers are judged from the wire,
//! by raw SYNs that know no retransmission; epochs and leases are read from the memory of the filters.

mod failover;
mod fault;
mod figure;
mod filter;
mod flips;
mod flows;
mod frames;
mod group;
mod http;
mod idle;
mod journal;
mod margins;
mod notice;
mod pivot;
mod report;
mod scale;
mod series;
mod stats;
mod verdict;
mod vrrp;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::app::App;
use crate::lab::{Lab, Mode, Spec};
use crate::names::LabName;
use crate::{FIRST_VIP, WEB_MODULE, WEB_PORT};
pub use figure::{Budget, Figure};
use group::Group;
pub use group::commands;
pub use report::{Machine, Report};
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

/// Measures what `plan` asks for, and hands what there is so far to `note` after each group. What cannot be measured
/// becomes a figure without value.
///
/// # Errors
/// A lab does not come up or go down, or `note` fails.
pub fn run(plan: &Plan, note: impl Fn(&Report) -> Result<()>) -> Result<Report> {
    let mut stage = Stage { plan, begin: Instant::now(), lab: None, cared_for: false };
    let mut report = Report::begin()?;
    for group in Group::all().filter(|group| plan.wants(*group)) {
        report.figures.extend(stage.measure(group)?);
        note(&report)?;
    }
    stage.clear()?;
    stage.say("done");
    Ok(report)
}

impl Plan {
    fn wants(&self, group: Group) -> bool {
        self.only.as_ref().is_none_or(|only| group.is_meant_by(only))
    }
}

/// A farm with the project's module for nginx, which is helped as often as it dies.
fn application(spec: Spec) -> Result<Lab> {
    let (lab, app) = (Lab::build(spec)?, App::nginx(WEB_MODULE, FIRST_VIP, WEB_PORT)?);
    let mode = format!("mode = \"{}\"", lab.spec().mode.name());
    app.edit("module.toml", |text| {
        text.replace("kind = \"farm\"", "kind = \"farm\"\nloop_interval = \"0s\"")
            .replace("mode = \"directed\"", &mode)
    })?;
    lab.run_cluster()?;
    app.run(&lab)?;
    Ok(lab)
}

/// Where is measured: on one lab as long as it is sound and of the right mode.
struct Stage<'a> {
    plan: &'a Plan,
    begin: Instant,
    lab: Option<Lab>,
    /// Are the web servers of that lab an application in the farm's care?
    cared_for: bool,
}

impl Stage<'_> {
    fn measure(&mut self, group: Group) -> Result<Vec<Figure>> {
        let (runs, busy) = (self.plan.runs, self.plan.busy);
        match group {
            Group::Failover(_, fault) => self.failovers(group, fault),
            Group::CommitToFlip => self.once(group, |lab| flips::measure(lab, runs)),
            Group::Idle => self.once(group, idle::measure),
            Group::BusyCores => self.once(group, |lab| margins::measure(lab, busy)),
            Group::Verdict => self.apart(group, |_| verdict::measure()),
            Group::Http => self.apart(group, |name| http::measure(name, runs)),
            Group::Flows => self.apart(group, flows::measure),
            Group::Scale => self.apart(group, |name| scale::measure(name, runs)),
            Group::Vrrp(rival) => self.apart(group, |name| vrrp::measure(name, runs, rival)),
            Group::LiveFrames => self.apart(group, |name| frames::measure(name, runs)),
        }
    }

    fn once(
        &mut self,
        group: Group,
        measure: impl FnOnce(&Lab) -> Result<Vec<Figure>>,
    ) -> Result<Vec<Figure>> {
        self.say(&group.to_string());
        let measured = measure(self.lab(group.mode())?);
        measured.or_else(|e| self.gave_up(group, &e).map(|()| vec![Figure::failed(group, &e)]))
    }

    /// What needs no farm, or one of its own by the name that it is given. Nothing else runs meanwhile.
    fn apart(
        &mut self,
        group: Group,
        measure: impl FnOnce(&LabName) -> Result<Vec<Figure>>,
    ) -> Result<Vec<Figure>> {
        self.clear()?;
        self.say(&group.to_string());
        let measured = measure(&self.plan.name);
        measured.or_else(|e| self.gave_up(group, &e).map(|()| vec![Figure::failed(group, &e)]))
    }

    fn lab(&mut self, mode: Mode) -> Result<&Lab> {
        self.lab_with(mode, false)
    }

    /// A lab whose web servers the farm keeps alive, if they are `cared_for`.
    fn lab_with(&mut self, mode: Mode, cared_for: bool) -> Result<&Lab> {
        if self.lab.as_ref().is_some_and(|lab| (lab.spec().mode, self.cared_for) != (mode, cared_for)) {
            self.clear()?;
        }
        if self.lab.is_none() {
            let spec = Spec::new(self.plan.name.clone(), NODES).mode(mode);
            let lab = if cared_for { application(spec) } else { Lab::up(spec) };
            (self.lab, self.cared_for) = (Some(lab.context("the lab")?), cared_for);
        }
        self.lab.as_ref().context("made above")
    }

    fn clear(&mut self) -> Result<()> {
        self.lab.take().map_or(Ok(()), Lab::down)
    }

    /// A farm that did not come back is no ground for the next measurement.
    fn gave_up(&mut self, group: Group, why: &anyhow::Error) -> Result<()> {
        self.say(&format!("{group}: {why:#}"));
        self.clear()
    }

    /// Tells how far it is, with the time since the start.
    fn say(&self, what: &str) {
        let seconds = self.begin.elapsed().as_secs();
        eprintln!("{}:{:02}:{:02} {what}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
}
