//! Many runs of one fault, and the figures that they make.

use std::time::Duration;

use anyhow::Result;

use super::Stage;
use super::failover::{self, CLIENTS, Sample};
use super::fault::Fault;
use super::figure::{Budget, Figure};
use super::group::Group;
use crate::names::Place;

/// A node that comes and goes waits longer each time before it gets buckets again, up to 32 s. A new lab has no past,
/// takes less, and each follower is a victim on it twice.
const RUNS_PER_LAB: usize = 4;

impl Stage<'_> {
    /// So many runs as are planned; in directed mode frames enter at the victim in every second one.
    pub(super) fn failovers(&mut self, group: Group, fault: Fault) -> Result<Vec<Figure>> {
        let count = self.plan.runs;
        let (mut samples, mut complaints) = (Vec::new(), Vec::new());
        for run in 0..count {
            if run.is_multiple_of(RUNS_PER_LAB) {
                self.clear()?;
            }
            self.say(&format!("{group}: run {} of {count}", run + 1));
            let lab = self.lab_with(group.mode(), fault.is_of_application())?;
            match failover::run(lab, fault, run) {
                Ok(found) => samples.extend(found),
                Err(e) => {
                    self.gave_up(group, &e)?;
                    complaints.push(format!("run {}: {e:#}", run + 1));
                }
            }
        }
        Ok(figures(group, fault, &samples, complaints))
    }
}

/// Runs of one machine of clients.
#[derive(Clone, Copy)]
struct Kind {
    from: Place,
    enters: Enters,
}

/// Where the frames of the clients enter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enters {
    /// Wherever they do: all runs.
    Anywhere,
    /// At the victim.
    Dies,
    /// At a survivor.
    Lives,
}

impl Enters {
    const ALL: [Self; 3] = [Self::Anywhere, Self::Dies, Self::Lives];

    fn holds(self, sample: &Sample) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Dies => sample.entry == Some(true),
            Self::Lives => sample.entry == Some(false),
        }
    }

    /// As part of a figure's name.
    fn part(self) -> &'static str {
        match self {
            Self::Anywhere => "",
            Self::Dies => "entry-dies/",
            Self::Lives => "entry-lives/",
        }
    }
}

/// For each machine of clients what its clients noticed, in all runs and for each place where its frames entered.
fn figures(group: Group, fault: Fault, samples: &[Sample], complaints: Vec<String>) -> Vec<Figure> {
    let kinds = CLIENTS.into_iter().flat_map(|from| Enters::ALL.map(|enters| Kind { from, enters }));
    let mut figures: Vec<Figure> = kinds.flat_map(|kind| figures_of(group, fault, kind, samples)).collect();
    if !complaints.is_empty() {
        let failed = Figure::of(
            group,
            "failed-runs",
            "runs without a sample",
            "runs",
            &[Some(complaints.len() as f64)],
        );
        figures.push(Figure { complaints, ..failed.within(Budget::NONE_AT_ALL) });
    }
    figures
}

fn figures_of(group: Group, fault: Fault, kind: Kind, samples: &[Sample]) -> Vec<Figure> {
    let those: Vec<&Sample> =
        samples.iter().filter(|s| s.from == kind.from && kind.enters.holds(s)).collect();
    if those.is_empty() {
        return Vec::new();
    }
    let figure = |name: &str, what: &str, part: fn(&Sample) -> Option<Duration>| {
        let ms: Vec<_> = those.iter().map(|s| part(s).map(|d| d.as_secs_f64() * 1e3)).collect();
        Figure::of(group, &format!("{}/{}{name}", kind.from, kind.enters.part()), what, "ms", &ms)
    };
    let taken = figure(
        "taken-over",
        "from the fault to the first SYN-ACK on another node's cable for a client of the victim",
        |s| s.taken_over,
    );
    let victims =
        figure("gap", "longest time without an answer, clients of the victim, 250 SYNs per second", |s| {
            s.victims
        });
    let others = figure("gap-of-others", "the same for clients of the other nodes", |s| s.healthy);
    // The budget is for all runs together, wherever frames enter.
    let budget = fault.budget().filter(|_| kind.enters == Enters::Anywhere);
    let bounded = |figure: Figure| match budget {
        Some(budget) => figure.within(budget),
        None => figure,
    };
    // Where the entry node dies with the leader, others are cut off until the survivors announce themselves.
    let undisturbed = fault == Fault::LeaderCut && kind.enters != Enters::Dies;
    let others = if undisturbed { others.within(Budget::NONE_AT_ALL) } else { others };
    // What others notice depends on the entry node alone: both kinds together would say nothing.
    let mixed = kind.enters == Enters::Anywhere && those.iter().any(|s| s.entry.is_some());
    [bounded(taken), bounded(victims)].into_iter().chain((!mixed).then_some(others)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Mode;

    fn sample(entry: Option<bool>, ms: u64) -> Sample {
        let time = Some(Duration::from_millis(ms));
        Sample { from: Place::Client, entry, taken_over: time, victims: time, healthy: Some(Duration::ZERO) }
    }

    fn leader_cut(mode: Mode, samples: &[Sample]) -> Vec<(String, Option<bool>)> {
        let group = Group::Failover(mode, Fault::LeaderCut);
        let name = |f: &Figure| f.name.trim_start_matches(&format!("{group}/")).to_owned();
        figures(group, Fault::LeaderCut, samples, Vec::new()).iter().map(|f| (name(f), f.met)).collect()
    }

    #[test]
    fn the_budget_is_for_all_runs_wherever_frames_enter() {
        let found = leader_cut(Mode::Directed, &[sample(Some(true), 350), sample(Some(false), 240)]);
        let expected = [
            ("client/taken-over", Some(true)),
            ("client/gap", Some(true)),
            ("client/entry-dies/taken-over", None),
            ("client/entry-dies/gap", None),
            ("client/entry-dies/gap-of-others", None),
            ("client/entry-lives/taken-over", None),
            ("client/entry-lives/gap", None),
            ("client/entry-lives/gap-of-others", Some(true)),
        ];
        assert_eq!(found, expected.map(|(name, met)| (name.to_owned(), met)));
        let missed = leader_cut(Mode::Directed, &[sample(Some(true), 450), sample(Some(false), 100)]);
        assert_eq!(missed[0].1, Some(false), "p99");
    }

    #[test]
    fn in_flood_mode_frames_enter_everywhere() {
        let found = leader_cut(Mode::Flood, &[sample(None, 240)]);
        let expected = ["client/taken-over", "client/gap", "client/gap-of-others"];
        assert_eq!(found, expected.map(|name| (name.to_owned(), Some(true))));
    }
}
