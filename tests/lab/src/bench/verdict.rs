//! Nanoseconds per verdict of the loaded program: an example of farm-dataplane measures them.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::figure::Figure;
use super::group::Group;
use crate::{binaries, shell};

/// Name of the group.
pub(super) const NAME: &str = "verdict";
/// The example that measures.
const EXAMPLE: &str = "ns_per_verdict";

/// One figure per family and kind of verdict.
pub(super) fn measure() -> Result<Vec<Figure>> {
    let printed = shell::run(&mut binaries::example("farm-dataplane", EXAMPLE))?;
    let line = printed.lines().last().context("the example printed nothing")?;
    let families: Map<String, Value> = serde_json::from_str(line).with_context(|| line.to_owned())?;
    let kinds = families.iter().filter_map(|(family, kinds)| Some((family, kinds.as_object()?)));
    let numbers = kinds.flat_map(|(family, kinds)| {
        kinds.iter().filter_map(move |(kind, ns)| Some((format!("{family}-{kind}"), ns.as_f64()?)))
    });
    Ok(numbers
        .map(|(name, ns)| {
            let what = "BPF_PROG_TEST_RUN, best of several measurements, net of the loop around it";
            Figure::of(Group::Verdict, &name.replace('_', "-"), what, "ns", &[Some(ns)])
        })
        .collect())
}
