//! One word for the state of a node, and everything that is not green.

use farm_proto::v1;
use serde::Serialize;

/// How good a thing is. The text says it too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Green,
    /// Passes by itself, or was asked for.
    Yellow,
    /// Somebody should look.
    Red,
}

/// The most important thing to say about a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nobody heard of it lately.
    Silent,
    /// On its way out.
    Leaving,
    /// The cluster has gone on without it; it joins anew when it is back.
    Overruled,
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
    /// Of a node, in a cluster with this epoch.
    #[must_use]
    pub fn of(node: &v1::NodeStatus, epoch: u64) -> Self {
        let inner = node.node.as_ref();
        let serves = inner.is_none_or(|n| n.role() != v1::NodeRole::Witness);
        match inner.map_or(v1::NodePhase::Unspecified, v1::Node::phase) {
            v1::NodePhase::Away => Self::Away,
            v1::NodePhase::Leaving => Self::Leaving,
            v1::NodePhase::Overruled => Self::Overruled,
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

    /// How good that is.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Silent | Self::Overruled | Self::Closed | Self::NoFilter => Level::Red,
            Self::Leaving | Self::Restarting | Self::Maintenance | Self::Away | Self::Behind => Level::Yellow,
            Self::Ready => Level::Green,
        }
    }

    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Leaving => "leaving",
            Self::Overruled => "overruled",
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
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Silent => "its machine, its daemon or the network is down; look on that node",
            Self::Leaving => "it hands its buckets over and is then forgotten",
            Self::Overruled => "the cluster has gone on without it; it joins anew when it is back",
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
    #[must_use]
    pub const fn next(self) -> &'static str {
        match self {
            Self::Silent | Self::Overruled => "systemctl status farmd",
            Self::Closed | Self::NoFilter => "farmctl events",
            Self::Leaving
            | Self::Restarting
            | Self::Maintenance
            | Self::Away
            | Self::Behind
            | Self::Ready => "farmctl watch",
        }
    }
}

/// Something that is not green, with its next step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Open {
    /// What it is about.
    pub resource: String,
    /// A stable code, or the word for the state of a node.
    pub word: String,
    /// How bad it is.
    pub level: Level,
    /// For how long; 0 where nobody knows.
    pub since_ms: u64,
    /// Why.
    pub cause: String,
    /// What to do.
    pub next: String,
}

impl From<&v1::Condition> for Open {
    fn from(c: &v1::Condition) -> Self {
        Self {
            resource: c.resource.clone(),
            word: c.code.clone(),
            level: if c.passing { Level::Yellow } else { Level::Red },
            since_ms: c.since_ms,
            cause: c.cause.clone(),
            next: c.next.clone(),
        }
    }
}

impl Open {
    /// A node of which no condition says why.
    fn node(name: &str, state: State) -> Self {
        Self {
            resource: name.into(),
            word: state.word().into(),
            level: state.level(),
            since_ms: 0,
            cause: state.cause().into(),
            next: state.next().into(),
        }
    }

    /// Conditions first, then nodes that are not green although no condition names them.
    #[must_use]
    pub fn all(status: &v1::StatusResponse) -> Vec<Self> {
        let unexplained = status.nodes.iter().filter_map(|entry| {
            let name = entry.node.as_ref()?.name.as_str();
            let state = State::of(entry, status.epoch);
            let named = status.conditions.iter().any(|c| c.resource == name);
            (state != State::Ready && !named).then(|| Self::node(name, state))
        });
        status.conditions.iter().map(Self::from).chain(unexplained).collect()
    }
}

/// The state of a node, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeState {
    /// Its id.
    pub node: u64,
    /// How good it is.
    pub level: Level,
    /// In one word.
    pub word: &'static str,
    /// What that means.
    pub cause: &'static str,
    /// The command that shows more.
    pub next: &'static str,
}

impl NodeState {
    /// Of every node.
    #[must_use]
    pub fn all(status: &v1::StatusResponse) -> Vec<Self> {
        let of = |entry: &v1::NodeStatus| {
            let state = State::of(entry, status.epoch);
            let (level, word) = (state.level(), state.word());
            let node = entry.node.as_ref()?.id;
            Some(Self { node, level, word, cause: state.cause(), next: state.next() })
        };
        status.nodes.iter().filter_map(of).collect()
    }
}
