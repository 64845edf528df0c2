//! The changes, in order. One more is one more variant.

use std::time::Duration;

use anyhow::Result;

use super::{NODES, PORT, TRIED_PORT, founders};
use crate::lab::Lab;
use crate::names::Place;
use crate::{Status, WEB_MODULE};

/// A planned change and its drain.
const LIMIT: Duration = Duration::from_secs(60);
/// Whose share changes.
const CHANGED: Place = Place::Node(2);
const KILLED: Place = Place::Node(3);
const JOINS: Place = Place::Node(NODES);

/// What happens to the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: what the machine does by itself.
    Calm,
    Join,
    Weight,
    /// The weight 0: every flow of the node's buckets stays where it is, new ones go elsewhere.
    Drain,
    Refill,
    /// Every daemon in turn.
    RollingRestart,
    /// A node loses its power.
    Kill,
}

impl Step {
    pub(super) const ALL: [Self; 7] =
        [Self::Calm, Self::Join, Self::Weight, Self::Drain, Self::Refill, Self::RollingRestart, Self::Kill];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Join => "join",
            Self::Weight => "weight-50",
            Self::Drain => "drain",
            Self::Refill => "weight-100",
            Self::RollingRestart => "rolling-restart",
            Self::Kill => "node-killed",
        }
    }

    /// Who dies.
    pub(super) fn victim(self) -> Option<Place> {
        match self {
            Self::Kill => Some(KILLED),
            Self::Calm | Self::Join | Self::Weight | Self::Drain | Self::Refill | Self::RollingRestart => {
                None
            }
        }
    }

    /// Is it one that nobody should notice?
    pub(super) fn is_planned(self) -> bool {
        match self {
            Self::Join | Self::Weight | Self::Drain | Self::Refill | Self::RollingRestart => true,
            Self::Calm | Self::Kill => false,
        }
    }

    /// Takes it, until the new flows of every bucket go where they shall.
    pub(super) fn take(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Calm => Ok(()),
            Self::Join => {
                lab.join(JOINS, Place::Node(1))?;
                await_shares(lab, "the new node has its share", &[100; NODES as usize])
            }
            Self::Weight => set_weight(lab, 50),
            Self::Drain => set_weight(lab, 0),
            Self::Refill => set_weight(lab, 100),
            Self::RollingRestart => lab.nodes().try_for_each(|node| restart(lab, node)),
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
    await_shares(lab, "every node has its share", &[100; NODES as usize - 1])
}

fn set_weight(lab: &Lab, weight: u32) -> Result<()> {
    let (node, text) = (CHANGED.to_string(), weight.to_string());
    lab.farmctl(Place::Node(1), &["module", "weight", WEB_MODULE, &node, &text])?;
    let mut weights = [100; NODES as usize];
    weights[1] = weight;
    await_shares(lab, "the shares follow the weight", &weights)
}

/// A planned restart: the daemon ends, and the next one takes over what it left.
fn restart(lab: &Lab, node: Place) -> Result<()> {
    lab.terminate_farmd(node)?;
    lab.start_farmd(node)?;
    await_shares(lab, "the node has its share again", &[100; NODES as usize])
}

/// Waits until the new flows of every bucket go where they shall: drains may go on.
fn await_shares(lab: &Lab, what: &str, weights: &[u32]) -> Result<()> {
    // Not the one that restarts or dies: it could not answer.
    let asked = Place::Node(1);
    lab.await_status(asked, what, LIMIT, |status| are_shared(status, weights)).map(drop)
}

/// Has every node (the first ones, by number) its share, and does every filter work with the newest epoch?
fn are_shared(status: &Status, weights: &[u32]) -> bool {
    let total: u32 = weights.iter().sum();
    let fair = |weight: u32| crate::BUCKETS * weight / total.max(1);
    let mut places = (1u8..).map(Place::Node).zip(weights);
    let shared = places.all(|(place, weight)| status.buckets(WEB_MODULE, place).abs_diff(fair(*weight)) <= 1);
    shared && status.nodes.iter().all(|node| node.heard && node.applied >= status.epoch)
}
