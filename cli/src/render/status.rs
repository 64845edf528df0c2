//! `cluster status`: one screen.

use farm_proto::v1;

use super::state;
use super::table::{Paint, Table, Text};
use super::{BUCKETS, NO_CLUSTER, NO_SERVICE, Names, percent, service, span};
use crate::view::{self, Level, Open, State};

/// The whole screen.
#[must_use]
pub fn status(status: &v1::StatusResponse, colour: bool) -> String {
    if !status.member {
        return alone(status, colour);
    }
    let parts = [head(status), nodes(status, colour), modules(status, colour), open(status, colour)];
    parts.join("\n")
}

/// Of a node that is no member: what it is on the way to, or what to do.
pub(super) fn alone(status: &v1::StatusResponse, colour: bool) -> String {
    let said: String = Open::all(status).iter().map(|open| said(open, colour)).collect();
    if said.is_empty() { NO_CLUSTER.into() } else { format!("This node belongs to no cluster now.\n{said}") }
}

/// The nodes with their addresses.
#[must_use]
pub fn node_list(status: &v1::StatusResponse, colour: bool) -> String {
    if !status.member {
        return NO_CLUSTER.into();
    }
    let mut table = Table::new(&["NODE", "ID", "STATE", "ROLE", "RAFT", "ROOM", "ADDRESSES"]);
    for (entry, node) in status.nodes.iter().filter_map(|n| Some((n, n.node.as_ref()?))) {
        let addresses: Vec<_> = node.addresses.iter().map(|a| format!("{}={}", a.network, a.ip)).collect();
        table.row([
            Text::plain(&node.name),
            Text::plain(&node.id.to_string()),
            state::text(State::of(entry, status.epoch), entry),
            Text::plain(&view::role(node.role)),
            Text::plain(raft(status, entry)),
            Text::plain(if node.room.is_empty() { "-" } else { &node.room }),
            Text::plain(&addresses.join(" ")),
        ]);
    }
    table.draw(colour)
}

fn head(status: &v1::StatusResponse) -> String {
    let names = Names::of(status);
    let leader = if status.leader == 0 { "none".into() } else { names.name(status.leader) };
    let generation = status.generation.as_ref().map_or(0, |g| g.number);
    format!(
        "cluster {}   profile {}   epoch {}   leader {leader}   term {}   generation {generation}   (as {} knows it)\n",
        status.name,
        view::profile(status.profile),
        status.epoch,
        status.term,
        names.name(status.answered_by),
    )
}

pub(super) fn raft(status: &v1::StatusResponse, node: &v1::NodeStatus) -> &'static str {
    let id = node.node.as_ref().map_or(0, |n| n.id);
    match (id == status.leader, node.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    }
}

fn nodes(status: &v1::StatusResponse, colour: bool) -> String {
    let mut table = Table::new(&["NODE", "STATE", "ROLE", "RAFT", "LEASE", "APPLIED", "FILTER"]);
    for (entry, node) in status.nodes.iter().filter_map(|n| Some((n, n.node.as_ref()?))) {
        table.row([
            Text::plain(&node.name),
            state::text(State::of(entry, status.epoch), entry),
            Text::plain(&view::role(node.role)),
            Text::plain(raft(status, entry)),
            lease(entry),
            applied(entry, status.epoch),
            filter(entry),
        ]);
    }
    table.draw(colour)
}

/// Only what a node says itself is known of its lease.
fn lease(node: &v1::NodeStatus) -> Text {
    match (node.lease_known, node.lease_left_ms) {
        (false, _) => Text::plain("-"),
        (true, 0) => Text::level("expired", Level::Red),
        (true, ms) => Text::plain(&format!("{ms} ms left")),
    }
}

fn applied(node: &v1::NodeStatus, epoch: u64) -> Text {
    match epoch.saturating_sub(node.applied) {
        0 => Text::plain(&node.applied.to_string()),
        behind => Text::level(&format!("{} ({behind} behind)", node.applied), Level::Yellow),
    }
}

/// Only what a node says itself is known of its filter.
fn filter(node: &v1::NodeStatus) -> Text {
    let witness = node.node.as_ref().is_some_and(|n| n.role() == v1::NodeRole::Witness);
    match (witness, node.filter_ok) {
        (true, _) | (false, None) => Text::plain("-"),
        (false, Some(true)) => Text::plain("ok"),
        (false, Some(false)) => Text::level("not in place", Level::Red),
    }
}

fn modules(status: &v1::StatusResponse, colour: bool) -> String {
    if status.modules.iter().all(|m| m.module.as_ref().is_none_or(|m| m.services.is_empty())) {
        return NO_SERVICE.into();
    }
    let names = Names::of(status);
    let mut table = Table::new(&["MODULE", "SERVICE", "CRITERION", "MODE", "SHARES", "CHANGES"]);
    for (entry, module) in status.modules.iter().filter_map(|m| Some((m, m.module.as_ref()?))) {
        for (index, at) in module.services.iter().enumerate() {
            let mode = view::vip_of(module, at).map_or(0, |v| v.mode);
            // Shares are the module's: said once, beside its first service.
            let first = |text: String| if index == 0 { text } else { String::new() };
            table.row([
                Text::plain(&first(module.name.clone())),
                Text::plain(&service(at)),
                Text::plain(&view::criterion(at.criterion)),
                Text::plain(&view::mode(mode)),
                Text::plain(&first(shares(entry, &names))),
                Text::plain(&first(open_changes(entry))),
            ]);
        }
    }
    table.draw(colour)
}

/// `node1 33.3%, node2 66.7%`, with weights that are not the usual one, and what nobody owns.
pub(super) fn shares(module: &v1::ModuleStatus, names: &Names) -> String {
    let owned: u32 = module.shares.iter().map(|s| s.buckets).sum();
    let orphans = BUCKETS.saturating_sub(owned);
    let mut parts: Vec<String> = module.shares.iter().map(|s| share(s, names)).collect();
    if orphans > 0 {
        parts.push(format!("nobody {}", percent(orphans)));
    }
    parts.join(", ")
}

fn share(share: &v1::Share, names: &Names) -> String {
    let weight = if share.weight == 100 { String::new() } else { format!(" (weight {})", share.weight) };
    format!("{} {}{weight}", names.name(share.node), percent(share.buckets))
}

fn open_changes(module: &v1::ModuleStatus) -> String {
    match (module.open_changes, module.sockets_draining) {
        (0, None | Some(0)) => "none".into(),
        (open, None | Some(0)) => format!("{open} buckets"),
        (open, Some(sockets)) => format!("{open} buckets, {sockets} sockets draining"),
    }
}

/// What is not green, each with its next step.
fn open(status: &v1::StatusResponse, colour: bool) -> String {
    let text: String = Open::all(status).iter().map(|open| said(open, colour)).collect();
    if text.is_empty() { format!("{}\n", Level::Green.paint("All green.", colour)) } else { text }
}

fn said(open: &Open, colour: bool) -> String {
    let title = open.level.paint(&title(open), colour);
    format!("{title}\n  cause: {}\n  next: {}\n", open.cause, open.next)
}

/// What, and for how long: `node3: node_silent for 12s`.
pub(super) fn title(open: &Open) -> String {
    let since = if open.since_ms == 0 { String::new() } else { format!(" for {}", span(open.since_ms)) };
    format!("{}: {}{since}", open.resource, open.word)
}
