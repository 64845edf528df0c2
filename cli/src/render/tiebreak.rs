//! What decides when two voters have lost each other.

use farm_proto::v1;

use crate::view;

/// What is set, and what its last trial came to. `contest`: how the answering node stands with it; may be empty.
#[must_use]
pub fn tie_break(set: Option<&v1::TieBreak>, contest: &str) -> String {
    let Some(set) = set else {
        return "Nothing decides when two voters lose each other: without a majority nobody goes on.\n  next: farmctl cluster tie-break --help\n".into();
    };
    let routers: Vec<String> =
        set.routers.iter().map(|r| format!("{} ({})", r.ip, view::mac(&r.mac))).collect();
    let mut text =
        format!("tie-break {}\n  routers   {}\n", view::tie_break_kind(set.kind), routers.join(", "));
    if !set.address.is_empty() {
        text += &format!("  address   {}\n  rehearsed {}\n", set.address, rehearsed(set.rehearsed.as_ref()));
    }
    if !contest.is_empty() {
        text += &format!("  this node {contest}\n");
    }
    text
}

fn rehearsed(rehearsed: Option<&v1::Rehearsal>) -> String {
    match rehearsed {
        None => "not yet: all servers must be there; it decides nothing before".into(),
        Some(r) if r.failure.is_empty() => format!("{}: it decides", super::time(r.at_ms)),
        Some(r) => format!("{}: it would not decide: {}", super::time(r.at_ms), r.failure),
    }
}
