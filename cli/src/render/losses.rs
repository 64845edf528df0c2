//! `cluster check`: what each loss would do.

use farm_proto::v1;

use super::table::{Table, Text};
use crate::view::Level;

/// A line for each node and room; below, why and what would help.
#[must_use]
pub fn losses(answer: &v1::ClusterCheckResponse, colour: bool) -> String {
    let mut table = Table::new(&["WITHOUT", "THE SERVICE"]);
    for loss in &answer.losses {
        table.row([Text::plain(&what(loss)), outcome(loss)]);
    }
    let mut text = table.draw(colour);
    let ends = answer.losses.iter().filter(|loss| !loss.reasons.is_empty());
    for loss in ends {
        text += &format!("\n{}: {}\n  next: {}\n", what(loss), loss.reasons.join("; "), loss.cure);
    }
    for note in &answer.notes {
        text += &format!("\nnote: {note}\n");
    }
    text
}

fn what(loss: &v1::Loss) -> String {
    if loss.room.is_empty() { loss.node.clone() } else { format!("room {}", loss.room) }
}

fn outcome(loss: &v1::Loss) -> Text {
    match (loss.gone, loss.reasons.is_empty()) {
        (true, _) => Text::level("goes on: it is gone already", Level::Yellow),
        (false, true) => Text::level("goes on", Level::Green),
        (false, false) => Text::level("ends, in whole or in part", Level::Red),
    }
}
