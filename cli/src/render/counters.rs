//! `node counters`: what the filter did, and why.

use farm_proto::v1;

use super::Names;
use super::table::{Table, Text};

/// What to say where there is no filter.
const NO_FILTER: &str = "No filter on this node: no service is configured, or the node is being set up.\n  next: farmctl service list\n";

/// The reasons that occurred, in the order of the protocol.
#[must_use]
pub fn counters(answer: &v1::CountersResponse, names: &Names) -> String {
    if !answer.attached {
        return NO_FILTER.into();
    }
    let mut table = Table::new(&["VERDICT", "REASON", "PACKETS", "MEANING"]);
    for c in answer.counters.iter().filter(|c| c.packets > 0) {
        table.row([&c.verdict, &c.reason, &c.packets.to_string(), &c.meaning].map(|t| Text::plain(t)));
    }
    let by = names.name(answer.answered_by);
    format!("on {by}, since its filter was attached:\n{}", table.draw(false))
}
