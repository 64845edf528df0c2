//! One word for the state of a node.

use farm_proto::v1;

use super::span;
use super::table::{Level, Text};

/// The most important thing to say about a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nobody heard of it lately.
    Silent,
    /// On its way out.
    Leaving,
    /// Its daemon is being restarted; its filter goes on.
    Restarting,
    /// Kept free of clients.
    Maintenance,
    /// Stopped in a planned way.
    Away,
    /// Its lease has run out: it accepts nothing.
    Closed,
    /// Its filter or guard is not in place.
    NoFilter,
    /// Works with an older table.
    Behind,
    /// As it should be.
    Ready,
}

impl State {
    pub(super) fn of(node: &v1::NodeStatus, epoch: u64) -> Self {
        let inner = node.node.as_ref();
        let serves = inner.is_none_or(|n| n.role() != v1::NodeRole::Witness);
        match inner.map_or(v1::NodePhase::Unspecified, v1::Node::phase) {
            v1::NodePhase::Away => Self::Away,
            v1::NodePhase::Leaving => Self::Leaving,
            v1::NodePhase::Unspecified | v1::NodePhase::Member if node.restarting => Self::Restarting,
            v1::NodePhase::Unspecified | v1::NodePhase::Member if node.maintenance.is_some() => {
                Self::Maintenance
            }
            v1::NodePhase::Unspecified | v1::NodePhase::Member if !node.heard => Self::Silent,
            v1::NodePhase::Unspecified | v1::NodePhase::Member if serves => Self::of_server(node, epoch),
            v1::NodePhase::Unspecified | v1::NodePhase::Member => Self::Ready,
        }
    }

    fn of_server(node: &v1::NodeStatus, epoch: u64) -> Self {
        if node.filter_ok == Some(false) {
            Self::NoFilter
        } else if node.lease_known && node.lease_left_ms == 0 {
            Self::Closed
        } else if node.applied < epoch {
            Self::Behind
        } else {
            Self::Ready
        }
    }

    pub(super) const fn level(self) -> Level {
        match self {
            Self::Silent | Self::Closed | Self::NoFilter => Level::Red,
            Self::Leaving | Self::Restarting | Self::Maintenance | Self::Away | Self::Behind => Level::Yellow,
            Self::Ready => Level::Green,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Leaving => "leaving",
            Self::Restarting => "restarting",
            Self::Maintenance => "maintenance",
            Self::Away => "away",
            Self::Closed => "closed",
            Self::NoFilter => "no filter",
            Self::Behind => "behind",
            Self::Ready => "ready",
        }
    }

    /// What it means and where to look, when no condition of the daemon says so.
    pub(super) const fn cause(self) -> &'static str {
        match self {
            Self::Silent => "its machine, its daemon or the network is down; look on that node",
            Self::Leaving => "it hands its buckets over and is then forgotten",
            Self::Restarting => "its daemon is being restarted; its filter goes on",
            Self::Maintenance => "somebody works on it: it is kept free of clients",
            Self::Away => "it was stopped in a planned way",
            Self::Closed => "its lease has run out: it accepts nothing",
            Self::NoFilter => "its filter or guard is not in place: it accepts nothing",
            Self::Behind => "its filter works with an older table",
            Self::Ready => "it is as it should be",
        }
    }

    /// The command that shows more, alone.
    pub(super) const fn next(self) -> &'static str {
        match self {
            Self::Silent => "systemctl status farmd",
            Self::Closed | Self::NoFilter => "farmctl events",
            Self::Leaving
            | Self::Restarting
            | Self::Maintenance
            | Self::Away
            | Self::Behind
            | Self::Ready => "farmctl watch",
        }
    }

    /// The word, for silence with its length, in its colour.
    pub(super) fn text(self, node: &v1::NodeStatus) -> Text {
        let more = match (self, node.silent_ms) {
            (Self::Silent, u64::MAX) => " (never heard)".into(),
            (Self::Silent, ms) => format!(" for {}", span(ms)),
            (Self::Maintenance, _) if !node.heard => ", silent".into(),
            (Self::Maintenance | Self::Leaving | Self::Away, _) => draining(node),
            (Self::Restarting | Self::Closed | Self::NoFilter | Self::Behind | Self::Ready, _) => {
                String::new()
            }
        };
        Text::level(&format!("{}{more}", self.word()), self.level())
    }
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
