//! Live frames per second of a core's time: an empty XDP program, our filter, and what netfilter offers for the same
//! selection, in turn on one veth pair.

mod rival;
mod road;
mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::rival::Rival;
use self::road::{Passed, Road};
use super::figure::{Budget, Figure};
use super::group::Group;
use super::report::{MEGAFRAMES, RATIO};
use crate::lab::{Lab, Spec};
use crate::names::{LabName, Place};

/// Name of the group.
pub(super) const NAME: &str = "live-frames";
/// How long frames come in one round of one rival.
const SPAN: Duration = Duration::from_millis(200);
/// Before that: rings, caches and page pools fill.
const WARM_UP: Duration = Duration::from_millis(30);
/// Of the frames that were received, so many must be in the rival's own count; neighbour discovery is in the rest.
const COUNTED_MIN: f64 = 0.999;

/// What each rival did, round by round.
type Rounds = BTreeMap<Rival, Vec<Passed>>;

/// Lets every rival drop frames in turn, `rounds` times.
pub(super) fn measure(name: &LabName, rounds: usize) -> Result<Vec<Figure>> {
    let lab = Lab::build(Spec::new(name.clone(), 1))?;
    let road = Road::lay(lab.namespace(Place::Node(1)))?;
    let mut found = Rounds::new();
    for _ in 0..rounds {
        for rival in Rival::ALL {
            let passed = round(&lab, &road, rival).with_context(|| rival.name())?;
            found.entry(rival).or_default().push(passed);
        }
    }
    lab.down()?;
    Ok(figures(&found))
}

fn round(lab: &Lab, road: &Road, rival: Rival) -> Result<Passed> {
    let bar = rival.put_up(lab, road)?;
    road.drive(WARM_UP)?;
    let before = bar.dropped(road)?;
    let passed = road.drive(SPAN)?;
    let dropped = bar.dropped(road)? - before;
    bar.remove(road)?;
    let counted = dropped as f64 / passed.frames as f64;
    ensure!(counted >= COUNTED_MIN, "it dropped {dropped} of {} frames", passed.frames);
    Ok(passed)
}

fn figures(found: &Rounds) -> Vec<Figure> {
    let own = Rival::ALL.into_iter().filter_map(|rival| Some((rival, found.get(&rival)?)));
    let own = own.flat_map(|(rival, rounds)| figures_of(rival, rounds));
    let ratios = [
        (Rival::Empty, Budget::at_least(0.8)),
        (Rival::Jhash, Budget::at_least(3.0)),
        (Rival::Cluster, Budget::at_least(5.0)),
    ];
    let ratios = ratios.into_iter().map(|(rival, budget)| ratio(found, rival).within(budget));
    own.chain(ratios).collect()
}

fn figures_of(rival: Rival, rounds: &[Passed]) -> [Figure; 2] {
    let values = |part: fn(&Passed) -> f64| rounds.iter().map(|p| Some(part(p))).collect::<Vec<_>>();
    let what = format!(
        "minimal SYNs of random clients, none of them this node's, dropped by {}; frames received per second of \
         processor time of the receiving thread (threaded NAPI of a veth with GRO, on a core of its own)",
        rival.what()
    );
    let busy =
        "share of a core that the receiving thread used; below 100 the sender, or other load, was the limit";
    let name = rival.name();
    [
        Figure::of(Group::LiveFrames, name, what, MEGAFRAMES, &values(Passed::megaframes_per_core)),
        Figure::of(Group::LiveFrames, &format!("{name}/busy"), busy, "%", &values(Passed::busy)),
    ]
}

/// Ours to `other`'s, round by round.
fn ratio(found: &Rounds, other: Rival) -> Figure {
    let rounds = |rival: Rival| found.get(&rival).into_iter().flatten();
    let pairs = rounds(Rival::Filter).zip(rounds(other));
    let values: Vec<Option<f64>> =
        pairs.map(|(ours, other)| Some(ours.megaframes_per_core() / other.megaframes_per_core())).collect();
    let what = "frames per core of our filter to those of the other in the same round";
    Figure::of(Group::LiveFrames, &format!("filter-to-{}", other.name()), what, RATIO, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(frames: u64) -> Passed {
        Passed { frames, busy: Duration::from_millis(100), taken: Duration::from_millis(200) }
    }

    #[test]
    fn rounds_are_compared_with_each_other() {
        let found = Rounds::from([
            (Rival::Filter, vec![passed(600_000), passed(300_000)]),
            (Rival::Jhash, vec![passed(200_000), passed(50_000)]),
        ]);
        let value = ratio(&found, Rival::Jhash).value.expect("two rounds");
        assert_eq!((value.runs, value.p50, value.max), (2, 3.0, 6.0));
        assert_eq!((passed(600_000).megaframes_per_core(), passed(1).busy()), (6.0, 50.0));
    }

    #[test]
    fn a_rival_that_was_not_measured_misses_its_budget() {
        let found = Rounds::from([(Rival::Filter, vec![passed(1)])]);
        let missed = figures(&found).into_iter().filter(|f| f.met == Some(false)).count();
        assert_eq!(missed, 3);
    }
}
