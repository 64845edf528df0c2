//! Nanoseconds per verdict of the loaded program: an example of farm-dataplane measures them.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use super::figure::{Budget, Figure};
use super::group::Group;
use crate::{binaries, shell};

/// Name of the group.
pub(super) const NAME: &str = "verdict";
/// The example that measures.
const EXAMPLE: &str = "ns_per_verdict";

/// What a verdict may take in nanoseconds, beside the empty loop.
fn budget(kind: &str) -> Option<Budget> {
    let at_most = match kind {
        "drop_not_owner" => 20.0,
        "accept" => 60.0,
        "forward" => 65.0,
        "accept_with_socket_lookup" => 150.0,
        _ => return None,
    };
    Some(Budget::at_most(at_most))
}

/// One figure per family and kind of verdict.
pub(super) fn measure() -> Result<Vec<Figure>> {
    let printed = shell::run(&mut binaries::example("farm-dataplane", EXAMPLE))?;
    let line = printed.lines().last().context("the example printed nothing")?;
    let families: Map<String, Value> = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let kinds = families.iter().filter_map(|(family, kinds)| Some((family, kinds.as_object()?)));
    let numbers = kinds.flat_map(|(family, kinds)| {
        kinds.iter().filter_map(move |(kind, ns)| Some((family, kind, ns.as_f64()?)))
    });
    let figures: Vec<Figure> = numbers.map(|(family, kind, ns)| figure(family, kind, ns)).collect();
    ensure!(!figures.is_empty(), "the example printed no figure: {line}");
    Ok(figures)
}

fn figure(family: &str, kind: &str, ns: f64) -> Figure {
    let what = "BPF_PROG_TEST_RUN, best of several measurements, net of the loop around it";
    let name = format!("{family}-{kind}").replace('_', "-");
    let figure = Figure::of(Group::Verdict, &name, what, "ns", &[Some(ns)]);
    match budget(kind) {
        Some(budget) => figure.within(budget),
        None => figure,
    }
}
