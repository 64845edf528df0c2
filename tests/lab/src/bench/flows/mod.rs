//! Long-lived connections whose data is checked, through one planned change after the other, and then a node's death:
//! what each step does to them, to new connections, and on the wire.

mod crowd;
mod step;
mod tally;
mod wire;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::crowd::{Crowd, PATIENCE, PAUSE};
use self::step::Step;
use self::tally::Seen;
use self::wire::{Counts, Wire};
use super::figure::{Budget, Figure};
use super::group::Group;
use super::pivot::Pivot;
use crate::lab::{Lab, Spec};
use crate::names::{LabName, Place};

/// Name of the group.
pub(super) const NAME: &str = "flows";
pub(super) const TABLE: Pivot = Pivot {
    group: NAME,
    rows: "step",
    columns: &[
        ("flows", "flows"),
        ("ended", "flows"),
        ("resets", "segments"),
        ("client-resets", "segments"),
        ("syn-retrans", "segments"),
        ("refused", "connections"),
        ("connect", "ms"),
        ("stall", "ms"),
        ("client-late", "ms"),
        ("rounds", "1/s"),
    ],
};
/// Connections that are kept open.
const FLOWS: usize = 10_000;
/// The last one joins in the first step.
const NODES: u8 = 4;
/// How long a step is watched after it is done: every flow asks, and gives up if it is not answered.
const WATCHED: Duration = Duration::from_millis(5_500);
const _: () = assert!(WATCHED.as_millis() > PAUSE.as_millis() + PATIENCE.as_millis());
/// Where the nodes' servers listen: for the flows, and for new connections that end at once. After an orderly end a
/// kernel may repeat its last ACK, and the other one, whose socket is gone, answers with a RST that harms nobody: so
/// resets are counted on the flows' port only; a new connection that gets one counts as refused.
const PORT: u16 = 7007;
const TRIED_PORT: u16 = 7008;
/// Files of the clients' process: one end of every flow, new connections, and what else the bench has open.
const FILES: u64 = FLOWS as u64 + 4_000;
const CONNECT_MAX_MS: f64 = 200.0;
const STALL_MAX_MS: f64 = 50.0;

/// What was seen of one step.
struct Watched {
    step: Step,
    seen: Seen,
    wire: Counts,
    lasted: Duration,
}

/// All steps, in one lab by the name `name`.
pub(super) fn measure(name: &LabName) -> Result<Vec<Figure>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(most >= FILES, "{most} open files are allowed, {FILES} are needed: raise ulimit -Hn");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("files for every flow")?;
    let lab = Lab::build(Spec::new(name.clone(), NODES))?;
    step::found(&lab)?;
    for port in [PORT, TRIED_PORT] {
        lab.nodes().try_for_each(|node| lab.start_echo(node, port))?;
    }
    let crowd = Crowd::start(&lab, FLOWS)?;
    crowd.await_open(FLOWS)?;
    let wire = Wire::tap(&lab)?;
    let mut watched = Vec::new();
    for step in Step::ALL {
        watched.push(watch(&lab, &crowd, &wire, step).with_context(|| step.name())?);
    }
    crowd.stop()?;
    lab.down()?;
    Ok(watched.iter().flat_map(figures).collect())
}

fn watch(lab: &Lab, crowd: &Crowd, wire: &Wire, step: Step) -> Result<Watched> {
    crowd.await_open(FLOWS)?;
    crowd.next();
    let (start, before) = (std::time::Instant::now(), wire.counts(lab)?);
    step.take(lab)?;
    std::thread::sleep(WATCHED);
    let (after, lasted) = (wire.counts(lab)?, start.elapsed());
    Ok(Watched { step, seen: crowd.seen(), wire: after.since(before), lasted })
}

fn figures(watched: &Watched) -> Vec<Figure> {
    let Watched { step, seen, wire, lasted } = watched;
    let figure = |column: &str, what: &str, value: f64| {
        Figure::of(
            Group::Flows,
            &format!("{}/{column}", step.name()),
            what,
            TABLE.unit(column),
            &[Some(value)],
        )
    };
    let bounded = |figure: Figure, budget| if step.is_planned() { figure.within(budget) } else { figure };
    let ended = |which: &str, count: u64| {
        figure("ended", &format!("flows {which} that got other data, a reset, or no answer"), count as f64)
    };
    let ended = match step.victim() {
        None => ended("of all nodes", seen.ended_in_all()),
        Some(victim) => ended("of the nodes that live", seen.ended_but_of(victim)),
    };
    let mut figures = vec![
        figure("flows", "open at the start, each with a checked round every other second", seen.open as f64),
        ended.within(Budget::NONE_AT_ALL),
        bounded(
            figure("resets", "RST of the virtual IP to flows, as the switch counts them", wire.resets as f64),
            Budget::NONE_AT_ALL,
        ),
        bounded(
            figure(
                "client-resets",
                "RST of flows to the virtual IP, counted there too",
                wire.client_resets as f64,
            ),
            Budget::NONE_AT_ALL,
        ),
        bounded(
            figure("syn-retrans", "TcpExtTCPSynRetrans in the client's namespace", wire.syn_retrans as f64),
            Budget::NONE_AT_ALL,
        ),
        bounded(
            figure("refused", "of 200 new connections per second, those that failed", seen.refused as f64),
            Budget::NONE_AT_ALL,
        ),
        bounded(
            figure("connect", "longest of 200 new connections per second", seen.connect_ms),
            Budget::at_most(CONNECT_MAX_MS),
        ),
        bounded(
            figure("stall", "longest time that a flow waited for an answer", seen.stall_ms),
            Budget::at_most(STALL_MAX_MS),
        ),
        figure("client-late", "how late the clients' own thread was run at most", seen.late_ms),
        figure(
            "rounds",
            "rounds of all flows per second of the step",
            seen.rounds as f64 / lasted.as_secs_f64(),
        ),
    ];
    if let Some(victim) = step.victim() {
        let what = "flows of the node that died that ended while it was watched";
        let name = format!("{}/ended-of-victim", step.name());
        let count = seen.ended_of(victim) as f64;
        figures.push(Figure::of(Group::Flows, &name, what, "flows", &[Some(count)]));
    }
    figures
}

/// The nodes that are there from the start.
fn founders() -> impl Iterator<Item = Place> {
    Place::nodes(NODES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(step: Step, seen: Seen, resets: u64) -> Vec<String> {
        let lasted = Duration::from_secs(1);
        let watched = Watched { step, seen, wire: Counts { resets, ..Counts::default() }, lasted };
        figures(&watched).into_iter().filter(|f| f.met == Some(false)).map(|f| f.name).collect()
    }

    #[test]
    fn a_planned_step_may_neither_reset_nor_stall_nor_end() {
        let seen = Seen { stall_ms: 51.0, ended: [(Place::Node(1), 1)].into(), ..Seen::default() };
        let expected = ["flows/join/ended", "flows/join/resets", "flows/join/stall"];
        assert_eq!(missed(Step::Join, seen, 1), expected);
        assert_eq!(missed(Step::Join, Seen::default(), 0), Vec::<String>::new());
    }

    #[test]
    fn a_death_may_end_the_flows_of_its_node_only() {
        let victim = Step::Kill.victim().expect("a node dies");
        let ended = |node| Seen { ended: [(node, 7)].into(), stall_ms: 900.0, ..Seen::default() };
        assert_eq!(missed(Step::Kill, ended(victim), 7), Vec::<String>::new());
        assert_eq!(missed(Step::Kill, ended(Place::Node(1)), 7), ["flows/node-killed/ended"]);
    }
}
