//! Which nodes are there: silence, lag, and damping of those that come and go.

use std::collections::BTreeMap;

use super::{Notice, Observed};
use crate::id::{Epoch, NodeId};
use crate::lease::Timing;
use crate::model::Membership;
use crate::state::ClusterState;
use crate::time::{BootTime, Span};

/// Renewals for which a node must be there before it gets buckets (fast: 500 ms). Instants are rounded up to
/// multiples of it, so that nodes that come together are served by one change.
const DAMPING_RENEWALS: u64 = 20;
/// A node that keeps going away waits up to 2^6 = 64 times as long (fast: 32 s).
const FLAPS_MAX: u32 = 6;
/// After so many damping times without a silence a node's past is forgotten.
const FORGIVEN_AFTER: u64 = 128;
/// Renewals within which a node must catch up with an epoch (fast: 250 ms) to count as current.
const LAG_RENEWALS: u64 = 10;

/// What the leader believes about each node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Presence {
    started: BootTime,
    /// Before this nothing was observed: the leadership was not there, or this process was not running.
    awake_since: BootTime,
    last: BootTime,
    nodes: BTreeMap<NodeId, Seen>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Seen {
    silent_since: Option<BootTime>,
    /// The epoch it has to reach next, and since when.
    target: (Epoch, BootTime),
    current: bool,
    /// There and current since.
    since: BootTime,
    eligible_at: BootTime,
    flaps: u32,
}

impl Presence {
    pub(super) fn new(now: BootTime) -> Self {
        Self { started: now, awake_since: now, last: now, nodes: BTreeMap::new() }
    }

    /// Counts what was heard since `since`, before this leadership.
    pub(super) fn listened_since(&mut self, since: BootTime) {
        self.awake_since = self.awake_since.min(since);
    }

    /// Looks at what was heard. Nodes are called silent only for a time in which this leader was listening.
    pub(super) fn update(
        &mut self,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        timing: &Timing,
    ) -> Vec<Notice> {
        if now.since(self.last) >= timing.silence() {
            self.awake_since = now;
        }
        self.last = now;
        self.nodes.retain(|id, _| state.nodes.contains_key(id));
        let mut notices = Vec::new();
        for id in state.nodes.keys() {
            notices.extend(self.look(*id, now, state, observed, timing));
        }
        notices
    }

    fn look(
        &mut self,
        id: NodeId,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        timing: &Timing,
    ) -> Option<Notice> {
        let damping = Span(timing.renewal.0 * DAMPING_RENEWALS);
        let silent = now.since(self.last_heard(id, observed)) >= timing.silence();
        let applied = observed.heard.get(&id).map(|h| h.applied);
        let started = self.started;
        // One that said it would go is not punished for it.
        let unannounced = state.nodes.get(&id).is_some_and(|n| n.membership == Membership::Member);
        let seen = self.nodes.entry(id).or_insert_with(|| Seen::new(now, state.epoch, owns(state, id)));
        seen.follow(applied, now, state.epoch, Span(timing.renewal.0 * LAG_RENEWALS));
        seen.damp(now, started, damping);
        match (seen.silent_since, silent) {
            (None, true) => {
                seen.silent_since = Some(now);
                seen.flaps = (seen.flaps + u32::from(unannounced)).min(FLAPS_MAX);
                Some(Notice::NodeSilent { node: id })
            }
            (Some(_), false) => {
                seen.silent_since = None;
                seen.since = now;
                seen.eligible_at = seen.eligible_after(started, damping);
                Some(Notice::NodeHeard { node: id })
            }
            (None, false) | (Some(_), true) => None,
        }
    }

    /// When `id` was last heard; at the earliest when this leader began to listen.
    pub(super) fn last_heard(&self, id: NodeId, observed: &Observed) -> BootTime {
        observed.heard.get(&id).map_or(self.awake_since, |h| h.at.max(self.awake_since))
    }

    pub(super) fn is_silent(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_none_or(|s| s.silent_since.is_some())
    }

    pub(super) fn silent_for(&self, id: NodeId, now: BootTime) -> Span {
        self.nodes.get(&id).and_then(|s| s.silent_since).map_or(Span::ZERO, |since| now.since(since))
    }

    /// Whether `id` follows the epochs.
    pub(super) fn is_current(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|s| s.silent_since.is_none() && s.current)
    }

    /// For how long `id` has failed to reach an epoch.
    pub(super) fn lags_for(&self, id: NodeId, now: BootTime) -> Span {
        self.nodes.get(&id).map_or(Span::ZERO, |s| now.since(s.target.1))
    }

    /// Whether `id` has been there long enough to get its first buckets.
    pub(super) fn is_eligible(&self, id: NodeId, now: BootTime) -> bool {
        self.is_current(id) && self.nodes.get(&id).is_some_and(|s| now >= s.eligible_at)
    }

    /// When the next node that is there will become silent or eligible, if nothing is heard.
    pub(super) fn next(&self, now: BootTime, observed: &Observed, timing: &Timing) -> Option<BootTime> {
        let there = self.nodes.iter().filter(|(_, s)| s.silent_since.is_none());
        let silences = there.clone().map(|(id, _)| self.last_heard(*id, observed) + timing.silence());
        let eligible = there.map(|(_, s)| s.eligible_at);
        silences.chain(eligible).filter(|at| *at > now).min()
    }
}

impl Seen {
    /// A node that already owns buckets was let in before; it is not made to wait again by a change of leader.
    fn new(now: BootTime, epoch: Epoch, owner: bool) -> Self {
        let eligible_at = if owner { now } else { BootTime(u64::MAX) };
        Self { silent_since: None, target: (epoch, now), current: owner, since: now, eligible_at, flaps: 0 }
    }

    fn follow(&mut self, applied: Option<Epoch>, now: BootTime, epoch: Epoch, lag: Span) {
        let reached = applied.is_some_and(|a| a >= self.target.0);
        if reached {
            self.target = (epoch, now);
        }
        let lags = now.since(self.target.1) > lag;
        if reached && !self.current {
            self.current = true;
            self.since = now;
            self.eligible_at = BootTime(u64::MAX);
        } else if lags {
            self.current = false;
        }
    }

    fn damp(&mut self, now: BootTime, started: BootTime, damping: Span) {
        if self.current && self.eligible_at == BootTime(u64::MAX) {
            self.eligible_at = self.eligible_after(started, damping);
        }
        if self.silent_since.is_none() && now.since(self.since).0 > damping.0 * FORGIVEN_AFTER {
            self.flaps = 0;
        }
    }

    fn eligible_after(&self, started: BootTime, damping: Span) -> BootTime {
        let earliest = (self.since + Span(damping.0 << self.flaps)).since(started).0;
        started + Span(earliest.div_ceil(damping.0) * damping.0)
    }
}

fn owns(state: &ClusterState, id: NodeId) -> bool {
    state
        .modules
        .values()
        .flat_map(|m| &m.assignment)
        .any(|b| b.current == Some(id) || b.previous == Some(id))
}
