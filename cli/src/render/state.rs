//! The state of a node in the cell of a table.

use farm_proto::v1;

use super::span;
use super::table::Text;
use crate::view::State;

/// The word, for silence with its length, in its colour.
pub(super) fn text(state: State, node: &v1::NodeStatus) -> Text {
    let more = match (state, node.silent_ms) {
        (State::Silent, u64::MAX) => " (never heard)".into(),
        (State::Silent, ms) => format!(" for {}", span(ms)),
        (State::Maintenance, _) if !node.heard => ", silent".into(),
        (State::Maintenance | State::Leaving | State::Away, _) => draining(node),
        (
            State::Overruled
            | State::Restarting
            | State::Closed
            | State::NoFilter
            | State::Behind
            | State::Ready,
            _,
        ) => String::new(),
    };
    Text::level(&format!("{}{more}", state.word()), state.level())
}

/// What still has to leave a node that goes.
fn draining(node: &v1::NodeStatus) -> String {
    match (node.buckets + node.buckets_draining, node.sockets_draining) {
        (0, _) => String::new(),
        (buckets, None) => format!(", {buckets} buckets left"),
        (_, Some(_)) if node.buckets > 0 => ", handing over".into(),
        (_, Some(sockets)) => format!(", {sockets} connections left"),
    }
}
