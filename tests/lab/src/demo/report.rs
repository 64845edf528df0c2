//! The result of the demo: a row per step, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::measure::{CONSECUTIVE, Measured, RECOVERY, TOLERANCE_POINTS};
use crate::names::Place;

/// What a step did to the clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What happened.
    pub fault: String,
    /// The longest time during which some clients got no answer.
    pub longest_gap_ms: u64,
    /// Requests without answer in time.
    pub failed: usize,
    /// Requests.
    pub requests: usize,
    /// Answers per node in percent, after the recovery.
    pub shares: BTreeMap<String, f64>,
    /// Who should share the load evenly.
    pub live: Vec<String>,
    /// From the fault to the first of so many successes in a row; absent if there were none in time.
    pub recovered_ms: Option<u64>,
    /// Did the farm recover, shares included?
    pub recovered: bool,
}

impl Row {
    pub(super) fn new(fault: String, live: &[Place], measured: Measured) -> Self {
        let percent = |share: f64| (share * 10.0).round() / 10.0;
        Self {
            fault,
            longest_gap_ms: measured.longest_gap.as_millis() as u64,
            failed: measured.failed,
            requests: measured.requests,
            shares: measured.shares.iter().map(|(node, share)| (node.to_string(), percent(*share))).collect(),
            live: live.iter().map(Place::to_string).collect(),
            recovered_ms: measured.recovered_after.map(|time| time.as_millis() as u64),
            recovered: measured.recovered_after.is_some() && measured.fair,
        }
    }

    /// The row in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { fault, longest_gap_ms, failed, requests, .. } = self;
        let counts = format!("{failed} of {requests} requests failed, longest gap {longest_gap_ms} ms");
        let shares = self.shares_text();
        let verdict = match (self.recovered, self.recovered_ms) {
            (true, _) => format!("shares {shares}"),
            (false, Some(_)) => {
                format!("NOT RECOVERED: shares {shares}, not even within {TOLERANCE_POINTS} points")
            }
            (false, None) => {
                format!("NOT RECOVERED: no {CONSECUTIVE} successes in a row within {} s", RECOVERY.as_secs())
            }
        };
        format!("{fault}: {counts}; {verdict}")
    }

    fn shares_text(&self) -> String {
        let shares = self.shares.iter().map(|(node, share)| format!("{node} {share:.1} %"));
        shares.collect::<Vec<_>>().join(", ")
    }
}

/// Writes the rows as JSON.
///
/// # Errors
/// The file cannot be written.
pub fn write(rows: &[Row], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// It cannot be read, or has another shape.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The rows as a table in Markdown, which reads well in a terminal too.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what happens | longest gap | failed | shares afterwards | |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        let verdict = if row.recovered { "recovered" } else { "NOT RECOVERED" };
        let Row { fault, longest_gap_ms, failed, requests, .. } = row;
        let shares = row.shares_text();
        let _ = writeln!(
            text,
            "| {fault} | {longest_gap_ms} ms | {failed} of {requests} | {shares} | {verdict} |"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(recovered_after: Option<Duration>, fair: bool) -> Row {
        let shares = BTreeMap::from([(Place::Node(1), 49.96), (Place::Node(2), 50.04)]);
        let longest_gap = Duration::from_micros(120_400);
        let measured = Measured { requests: 9_000, failed: 12, longest_gap, recovered_after, shares, fair };
        Row::new("node3 is cut off".into(), &[Place::Node(1), Place::Node(2)], measured)
    }

    #[test]
    fn only_a_fair_recovery_is_one() {
        let soon = Some(Duration::from_millis(121));
        assert!(row(soon, true).recovered);
        assert!(!row(soon, false).recovered && row(soon, false).sentence().contains("NOT RECOVERED"));
        assert!(!row(None, true).recovered && row(None, true).sentence().contains("NOT RECOVERED"));
    }

    #[test]
    fn the_fields_have_the_documented_names() {
        let value = serde_json::to_value(row(Some(Duration::from_millis(121)), true)).expect("plain data");
        for field in ["fault", "longest_gap_ms", "failed", "requests", "shares"] {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert_eq!(value["shares"]["node1"], 50.0);
        assert_eq!(value["longest_gap_ms"], 120);
    }

    #[test]
    fn the_table_has_a_line_per_row() {
        let text = table(&[row(None, true), row(Some(Duration::ZERO), true)]);
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains(
            "| node3 is cut off | 120 ms | 12 of 9000 | node1 50.0 %, node2 50.0 % | NOT RECOVERED |"
        ));
    }
}
