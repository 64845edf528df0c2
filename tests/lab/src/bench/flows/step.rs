//! The changes, in order. One more is one more variant.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{NODES, PORT, TRIED_PORT, founders};
use crate::lab::Lab;
use crate::names::Place;
use crate::{Status, WEB_MODULE};

/// A planned change and its drain.
const LIMIT: Duration = Duration::from_secs(60);
/// Each question is a process: asked without a pause they would be most of the load.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Six times the damping of a node that joins.
const STILL: Duration = Duration::from_secs(3);
/// Whose weight changes. Not the node that is drained: buckets that drain do not move on to a third node.
const CHANGED: Place = Place::Node(1);
const DRAINED: Place = Place::Node(2);
/// Who is told and asked: not one that dies.
const ASKED: Place = Place::Node(1);
/// Weights of all nodes, by number, when nothing is changed.
const ALIKE: [u32; NODES as usize] = [100; NODES as usize];
const KILLED: Place = Place::Node(3);
const JOINS: Place = Place::Node(NODES);

/// What happens to the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: what the machine does by itself.
    Calm,
    Join,
    /// A node has half of its share.
    Weight,
    /// It has all of it again.
    Refill,
    /// A node is kept free of new flows; those it has stay.
    Drain,
    /// It takes part again.
    Return,
    /// Every daemon in turn is replaced, its filter goes on.
    RollingRestart,
    /// A node loses its power.
    Kill,
}

impl Step {
    pub(super) const ALL: [Self; 8] = [
        Self::Calm,
        Self::Join,
        Self::Weight,
        Self::Refill,
        Self::Drain,
        Self::Return,
        Self::RollingRestart,
        Self::Kill,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Join => "join",
            Self::Weight => "weight-50",
            Self::Refill => "weight-100",
            Self::Drain => "drain",
            Self::Return => "drain-over",
            Self::RollingRestart => "rolling-restart",
            Self::Kill => "node-killed",
        }
    }

    /// Who dies.
    pub(super) fn victim(self) -> Option<Place> {
        match self {
            Self::Kill => Some(KILLED),
            Self::Calm
            | Self::Join
            | Self::Weight
            | Self::Refill
            | Self::Drain
            | Self::Return
            | Self::RollingRestart => None,
        }
    }

    /// Is it one that nobody should notice?
    pub(super) fn is_planned(self) -> bool {
        match self {
            Self::Join | Self::Weight | Self::Refill | Self::Drain | Self::Return | Self::RollingRestart => {
                true
            }
            Self::Calm | Self::Kill => false,
        }
    }

    /// Takes it, until the new flows of every bucket go where they shall.
    pub(super) fn take(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Calm => Ok(()),
            Self::Join => {
                lab.join(JOINS, Place::Node(1))?;
                await_shares(lab, "the new node has its share", &ALIKE)
            }
            Self::Weight => set_weight(lab, 50),
            Self::Refill => set_weight(lab, 100),
            Self::Drain => {
                maintain(lab, "on")?;
                let mut weights = ALIKE;
                weights[1] = 0;
                await_shares(lab, "the node has no new flows", &weights)
            }
            Self::Return => {
                maintain(lab, "off")?;
                await_shares(lab, "the node has its share again", &ALIKE)
            }
            Self::RollingRestart => {
                lab.farmctl(ASKED, &["node", "restart", "--all"])?;
                await_shares(lab, "every node has its share", &ALIKE)
            }
            Self::Kill => lab.power_off(KILLED),
        }
    }
}

/// All nodes but the one that joins later, and the flows' service.
pub(super) fn found(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        lab.spawn_farmd(node)?;
    }
    lab.nodes().try_for_each(|node| lab.await_farmd(node))?;
    let first = Place::Node(1);
    lab.farmctl(first, &["cluster", "init", "--name", lab.spec().name.as_str(), "--profile", "fast"])?;
    founders().skip(1).try_for_each(|node| lab.join(node, first))?;
    [PORT, TRIED_PORT].into_iter().try_for_each(|port| lab.add_service(port))?;
    // Flows that live for ever shall not be cut off by the limit for those that do not end.
    lab.farmctl(first, &["module", "set", WEB_MODULE, "--drain", "1h"])?;
    await_shares(lab, "every node has its share", &[100; NODES as usize - 1])
}

fn set_weight(lab: &Lab, weight: u32) -> Result<()> {
    let (node, text) = (CHANGED.to_string(), weight.to_string());
    lab.farmctl(ASKED, &["module", "weight", WEB_MODULE, &node, &text])?;
    let mut weights = ALIKE;
    weights[0] = weight;
    await_shares(lab, "the shares follow the weight", &weights)
}

fn maintain(lab: &Lab, verb: &str) -> Result<()> {
    lab.farmctl(ASKED, &["node", "maintenance", verb, &DRAINED.to_string()]).map(drop)
}

/// Waits until the new flows of every bucket go where they shall, or nothing moves any more: buckets that drain do not
/// move on to a third node, and so some nodes may have to wait for their share.
fn await_shares(lab: &Lab, what: &str, weights: &[u32]) -> Result<()> {
    let last = Cell::new((0, Instant::now()));
    let still = |epoch: u64| {
        let (known, since) = last.get();
        if known != epoch {
            last.set((epoch, Instant::now()));
        }
        known == epoch && since.elapsed() >= STILL
    };
    let reached = |status: &Status| {
        std::thread::sleep(ASK_EVERY);
        let applied = status.nodes.iter().all(|node| node.heard && node.applied >= status.epoch);
        applied && (are_shared(status, weights) || still(status.epoch))
    };
    lab.await_status(ASKED, what, LIMIT, reached).map(drop)
}

/// Has every node (the first ones, by number) its share?
fn are_shared(status: &Status, weights: &[u32]) -> bool {
    let total: u32 = weights.iter().sum();
    let fair = |weight: u32| crate::BUCKETS * weight / total.max(1);
    let mut places = (1u8..).map(Place::Node).zip(weights);
    places.all(|(place, weight)| status.buckets(WEB_MODULE, place).abs_diff(fair(*weight)) <= 1)
}
