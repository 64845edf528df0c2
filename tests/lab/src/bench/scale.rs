//! What grows with the cluster: plans, entries and tables in the pure core (an example of farmd measures them), and
//! renewals, commits and maps of real daemons as far as one machine carries them.

use std::time::Duration;

use anyhow::{Context, Result};
use farm_common::layout::{MAP_COUNTERS, MAP_EVENTS, MAP_IDENTITY, MAP_PORTS, MAP_TABLE, MAP_WORD};
use serde::Deserialize;
use serde_json::Value;

use super::figure::Figure;
use super::flips;
use super::group::Group;
use super::pivot::Pivot;
use crate::lab::{Lab, Spec};
use crate::names::{LabName, Place};
use crate::topology::in_switch;
use crate::{WEB_MODULE, WEB_PORT, binaries, shell};

/// Name of the group.
pub(super) const NAME: &str = "scale";
/// Nodes and services of the labs with real daemons.
const LIVE: [(u8, u16); 3] = [(3, 1), (3, 64), (8, 64)];
/// Changes of a weight per lab, at most: each makes four or five epochs.
const CHANGES_MAX: usize = 5;
/// How long datagrams are counted.
const SPAN: Duration = Duration::from_secs(5);
/// Each service is an epoch of its own.
const LIMIT: Duration = Duration::from_secs(60);
/// Leases and their answers.
const LEASE_PORT: u16 = 7601;
/// The columns of the table, as figures are named, with their units.
pub(super) const TABLE: Pivot = Pivot {
    group: NAME,
    rows: "size",
    columns: &[
        ("plan", "ms"),
        ("entry", "bytes"),
        ("apply", "ms"),
        ("render", "ms"),
        ("commit-to-applied", "ms"),
        ("lease-datagrams", "1/s"),
        ("maps", "KiB"),
    ],
};

/// What the example says of one size.
#[derive(Clone, Debug, Deserialize)]
struct Costs {
    nodes: u32,
    services: u32,
    modules: u32,
    buckets: u32,
    plan_ms: Vec<f64>,
    encode_ms: Vec<f64>,
    apply_ms: Vec<f64>,
    render_ms: Vec<f64>,
    entry_bytes: f64,
    renewals_per_s: f64,
    table_bytes: f64,
}

/// Pure sizes first, then labs by the name `name`.
pub(super) fn measure(name: &LabName, runs: usize) -> Result<Vec<Figure>> {
    let printed = shell::run(&mut binaries::example("farmd", "scale"))?;
    let costs: Vec<Costs> = serde_json::from_str(printed.trim()).context("the example's answer")?;
    let mut figures: Vec<Figure> = costs.iter().flat_map(pure).collect();
    for (nodes, services) in LIVE {
        figures.extend(live(name, nodes, services, runs.min(CHANGES_MAX))?);
    }
    Ok(figures)
}

fn pure(costs: &Costs) -> Vec<Figure> {
    let Costs { nodes, services, modules, buckets, .. } = costs;
    let size = format!("n{nodes}-s{services}-m{modules}-b{buckets}");
    let figure = |column: &str, what: &str, values: &[f64]| figure(&size, column, what, values);
    let written: Vec<f64> = costs.apply_ms.iter().zip(&costs.encode_ms).map(|(a, b)| a + b).collect();
    vec![
        figure("plan", "a node falls silent: the controller's step that proposes the Move", &costs.plan_ms),
        figure("entry", "that Move in the log: the bytes of the epoch", &[costs.entry_bytes]),
        figure("apply", "encoding it once and applying it once", &written),
        figure("render", "one node's table from the new state", &costs.render_ms),
        figure(
            "lease-datagrams",
            "worked out, not measured: renewals of every node to every elector, profile fast",
            &[costs.renewals_per_s],
        ),
        figure("maps", "both slots and the word, by their layout", &[costs.table_bytes / 1024.0]),
    ]
}

fn figure(size: &str, column: &str, what: &str, values: &[f64]) -> Figure {
    let samples: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
    Figure::of(Group::Scale, &format!("{size}/{column}"), what, TABLE.unit(column), &samples)
}

/// Real daemons: `nodes` of them, one module of `services` services.
fn live(name: &LabName, nodes: u8, services: u16, changes: usize) -> Result<Vec<Figure>> {
    let lab = Lab::up(Spec::new(name.clone(), nodes))?;
    for more in 1..services {
        lab.add_service(WEB_PORT + more)?;
    }
    let all: Vec<Place> = lab.nodes().collect();
    let settled = |s: &crate::Status| s.settled(WEB_MODULE, &all) && s.at_rest();
    lab.await_status(all[0], "every node has every service", LIMIT, settled)?;
    let size = format!("n{nodes}-s{services}-live");
    let datagrams = lease_datagrams(&lab)?;
    let maps = lab.nodes().map(|node| maps_kib(&lab, node)).collect::<Result<Vec<_>>>()?;
    let to_flip: Vec<f64> = flips::take(&lab, changes)?.to_flip.into_iter().flatten().collect();
    lab.down()?;
    Ok(vec![
        figure(&size, "commit-to-applied", flips::TO_FLIP, &to_flip),
        figure(
            &size,
            "lease-datagrams",
            "renewals and grants that crossed the switch; an elector's own do not",
            &[datagrams],
        ),
        figure(&size, "maps", "all pinned maps of a node, as the kernel accounts for them", &maps),
    ])
}

/// Per second, as the switch sees them.
fn lease_datagrams(lab: &Lab) -> Result<f64> {
    let rules = format!(
        "table bridge count {{\n chain forward {{\n  type filter hook forward priority -1\n  udp dport {LEASE_PORT} \
         counter\n }}\n}}\n"
    );
    shell::feed(lab.namespace(Place::Switch).command("nft")?.args(["-f", "-"]), &rules)?;
    let count = || -> Result<f64> {
        let text = in_switch(lab.spec(), "nft", &["list", "table", "bridge", "count"])?;
        let (_, rest) = text.split_once("counter packets ").with_context(|| text.clone())?;
        rest.split(' ').next().unwrap_or_default().parse().context("a count of packets")
    };
    let (start, before) = (std::time::Instant::now(), count()?);
    std::thread::sleep(SPAN);
    let rate = (count()? - before) / start.elapsed().as_secs_f64();
    in_switch(lab.spec(), "nft", &["delete", "table", "bridge", "count"])?;
    Ok(rate)
}

/// Memory of the pinned maps of `node`.
fn maps_kib(lab: &Lab, node: Place) -> Result<f64> {
    let pins = lab.spec().pin_dir(node);
    let of = |map: &str| -> Result<f64> {
        let pin = pins.join(map).display().to_string();
        let mut bpftool = lab.namespace(node).command("bpftool")?;
        let shown = shell::run(bpftool.args(["-j", "map", "show", "pinned", &pin]))?;
        let shown: Value = serde_json::from_str(&shown).with_context(|| shown.clone())?;
        shown["bytes_memlock"].as_f64().with_context(|| format!("no bytes_memlock in {shown}"))
    };
    let maps = [MAP_TABLE, MAP_WORD, MAP_PORTS, MAP_COUNTERS, MAP_EVENTS, MAP_IDENTITY];
    let bytes: f64 = maps.into_iter().map(of).sum::<Result<f64>>()?;
    Ok(bytes / 1024.0)
}
