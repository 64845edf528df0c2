//! `watch` where nothing can be redrawn: one line per change.

use std::collections::BTreeMap;

use farm_proto::v1;

use super::{Names, status::shares};
use crate::view::State;

/// What differs from `last` to `next`, one line each; everything when there is no `last`.
#[must_use]
pub fn changes(last: Option<&v1::StatusResponse>, next: &v1::StatusResponse) -> Vec<String> {
    let before = last.map(facts).unwrap_or_default();
    let after = facts(next);
    let prefix = format!("epoch {}", next.epoch);
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let came = changed.map(|(key, value)| match before.get(key) {
        Some(old) => format!("{prefix}  {key}: {value} (was {old})"),
        None => format!("{prefix}  {key}: {value}"),
    });
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    came.chain(gone.map(|key| format!("{prefix}  {key}: gone"))).collect()
}

/// What is worth a line when it changes: neither clocks nor indices.
fn facts(status: &v1::StatusResponse) -> BTreeMap<String, String> {
    let names = Names::of(status);
    let leader = if status.leader == 0 { "none".into() } else { names.name(status.leader) };
    let mut facts = BTreeMap::from([
        ("leader".to_owned(), leader),
        ("profile".to_owned(), crate::view::profile(status.profile)),
    ]);
    for (entry, node) in status.nodes.iter().filter_map(|n| Some((n, n.node.as_ref()?))) {
        facts.insert(format!("node {}", node.name), State::of(entry, status.epoch).word().into());
    }
    for (entry, module) in status.modules.iter().filter_map(|m| Some((m, m.module.as_ref()?))) {
        facts.insert(format!("module {}", module.name), shares(entry, &names));
    }
    for c in &status.conditions {
        facts
            .insert(format!("condition {} {}", c.resource, c.code), format!("{}; next: {}", c.cause, c.next));
    }
    facts
}
