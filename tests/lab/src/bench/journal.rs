//! What the daemons noted: `farmctl events`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::lab::Lab;
use crate::names::Place;
use crate::witness::BootTime;

/// As many as a daemon keeps.
const LAST: &str = "2000";

/// An event, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Event {
    /// Wall clock of its node.
    pub(super) time_unix_ms: u64,
    /// Stable code.
    pub(super) kind: String,
    /// Raft index, 0 for local events.
    pub(super) index: u64,
    /// Epoch.
    pub(super) epoch: u64,
}

/// The journal of `node` since `from`.
///
/// # Errors
/// farmctl failed.
pub(super) fn events(lab: &Lab, node: Place, from: SystemTime) -> Result<Vec<Event>> {
    let text = lab.farmctl(node, &["events", "--last", LAST, "--json"])?;
    let from = u64::try_from(from.duration_since(UNIX_EPOCH)?.as_millis())?;
    let all: Vec<Event> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("farmctl events")?;
    Ok(all.into_iter().filter(|event| event.time_unix_ms >= from).collect())
}

/// When each epoch was committed: its entry was applied by the node that wrote this journal.
pub(super) fn commits(events: &[Event]) -> Result<BTreeMap<u64, BootTime>> {
    let real = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let boot = BootTime::now();
    let mut commits = BTreeMap::new();
    for event in events.iter().filter(|e| e.index > 0 && e.kind.starts_with("buckets_")) {
        let ago = real.saturating_sub(Duration::from_millis(event.time_unix_ms));
        commits.entry(event.epoch).or_insert(boot - ago);
    }
    Ok(commits)
}
