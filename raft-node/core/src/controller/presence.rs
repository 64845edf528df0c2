//! Which nodes are there: silence, leases, lag, and damping of those that come and go.

use std::collections::BTreeMap;

use super::{Notice, Observed};
use crate::id::{Epoch, NodeId};
use crate::lease::{Timing, timing};
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

/// Renewals for which a node may be without a lease (fast: 150 ms). Twice those of a silence: a majority that is heard
/// may have stopped granting, and is missed only after a silence.
const UNLEASED_RENEWALS: u64 = 2 * timing::SILENT_RENEWALS;

/// What the leader believes about each node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Presence {
    started: BootTime,
    /// Before this nothing was observed: the leadership was not there, or this process was not running.
    awake_since: BootTime,
    last: BootTime,
    /// Whether there was a look before.
    looked: bool,
    nodes: BTreeMap<NodeId, Seen>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Seen {
    silent_since: Option<BootTime>,
    /// It is heard, and says that it holds no lease, since.
    unleased_since: Option<BootTime>,
    /// That has been told.
    idle: bool,
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
        Self { started: now, awake_since: now, last: now, looked: false, nodes: BTreeMap::new() }
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
        let served: BTreeMap<NodeId, bool> = self.nodes.iter().map(|(id, s)| (*id, s.serves())).collect();
        let mut notices = Vec::new();
        for id in state.nodes.keys() {
            notices.extend(self.listen(*id, now, state, observed, timing));
        }
        // Without a majority nobody can hold a lease, and that says nothing about anybody. An elector whose daemon is
        // being restarted grants nothing.
        let granted = state.electors.majority(|e| !self.is_silent(e) && state.restarting(e).is_none());
        let (damping, patience) = (self.damping(timing), unleased(timing));
        for (id, seen) in &mut self.nodes {
            if granted {
                let leased = observed.heard.get(id).is_none_or(|h| h.leased);
                notices.extend(seen.watch_lease(*id, now, leased, patience));
            } else if !seen.idle {
                seen.unleased_since = None;
            }
            // One that said it would go is not punished for it.
            let unannounced = state.nodes[id].membership == Membership::Member;
            let serves = seen.serves();
            match (served.get(id).copied().unwrap_or(serves), serves) {
                (true, false) => seen.flaps = (seen.flaps + u32::from(unannounced)).min(FLAPS_MAX),
                (false, true) => seen.is_back(now, damping),
                (true, true) | (false, false) => {}
            }
        }
        self.looked = true;
        notices
    }

    fn damping(&self, timing: &Timing) -> Damping {
        Damping { started: self.started, span: Span(timing.renewal.0 * DAMPING_RENEWALS) }
    }

    fn listen(
        &mut self,
        id: NodeId,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        timing: &Timing,
    ) -> Option<Notice> {
        let missed = now.since(self.last_heard(id, observed)) >= silence(state, id, timing);
        let heard = observed.heard.get(&id);
        let damping = self.damping(timing);
        // Who appears later has just joined.
        let joined = self.looked && heard.is_none();
        let seen = self.nodes.entry(id);
        let seen = seen.or_insert_with(|| Seen::new(now, state.epoch, owns(state, id), joined));
        seen.follow(heard.map(|h| h.applied), now, state.epoch, Span(timing.renewal.0 * LAG_RENEWALS));
        seen.damp(now, damping);
        let awaited = heard.is_none() && seen.silent_since.is_some();
        seen.listen(id, now, missed || awaited)
    }

    /// When `id` was last heard; at the earliest when this leader began to listen.
    pub(super) fn last_heard(&self, id: NodeId, observed: &Observed) -> BootTime {
        observed.heard.get(&id).map_or(self.awake_since, |h| h.at.max(self.awake_since))
    }

    pub(super) fn is_silent(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_none_or(|s| s.silent_since.is_some())
    }

    /// Whether `id` can serve clients: it is heard and holds a lease.
    pub(super) fn serves(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(Seen::serves)
    }

    pub(super) fn silent_for(&self, id: NodeId, now: BootTime) -> Span {
        self.nodes.get(&id).and_then(|s| s.silent_since).map_or(Span::ZERO, |since| now.since(since))
    }

    /// Whether `id` serves and follows the epochs.
    pub(super) fn is_current(&self, id: NodeId) -> bool {
        self.serves(id) && self.nodes.get(&id).is_some_and(|s| s.current)
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
        let idle = there.clone().filter_map(|(_, s)| Some(s.unleased_since? + unleased(timing)));
        let eligible = there.map(|(_, s)| s.eligible_at);
        silences.chain(idle).chain(eligible).filter(|at| *at > now).min()
    }
}

/// How long `id` must say nothing to count as silent. One whose daemon is being restarted is expected to say nothing,
/// and its filter goes on, for as long as its lease.
fn silence(state: &ClusterState, id: NodeId, timing: &Timing) -> Span {
    state.restarting(id).map_or(timing.silence(), |restart| restart.lease.max(timing.silence()))
}

fn unleased(timing: &Timing) -> Span {
    Span(timing.renewal.0 * UNLEASED_RENEWALS)
}

/// How long nodes wait that come.
#[derive(Clone, Copy)]
struct Damping {
    started: BootTime,
    span: Span,
}

impl Seen {
    /// A node that already owns buckets was let in before; it is not made to wait again by a change of leader. One
    /// that just joined is not missed before it was heard.
    fn new(now: BootTime, epoch: Epoch, owner: bool, joined: bool) -> Self {
        let eligible_at = if owner { now } else { BootTime(u64::MAX) };
        Self {
            silent_since: joined.then_some(now),
            unleased_since: None,
            idle: false,
            target: (epoch, now),
            current: owner,
            since: now,
            eligible_at,
            flaps: 0,
        }
    }

    fn serves(&self) -> bool {
        self.silent_since.is_none() && !self.idle
    }

    fn listen(&mut self, node: NodeId, now: BootTime, silent: bool) -> Option<Notice> {
        if silent == self.silent_since.is_some() {
            return None;
        }
        self.silent_since = silent.then_some(now);
        Some(if silent { Notice::NodeSilent { node } } else { Notice::NodeHeard { node } })
    }

    /// A node without a lease serves nobody, however well it is heard.
    fn watch_lease(&mut self, node: NodeId, now: BootTime, leased: bool, patience: Span) -> Option<Notice> {
        let without = !leased && self.silent_since.is_none();
        self.unleased_since = without.then(|| self.unleased_since.unwrap_or(now));
        let idle = self.unleased_since.is_some_and(|since| now.since(since) >= patience);
        if idle == std::mem::replace(&mut self.idle, idle) || self.silent_since.is_some() {
            return None;
        }
        Some(if idle { Notice::NodeIdle { node } } else { Notice::NodeLeased { node } })
    }

    fn is_back(&mut self, now: BootTime, damping: Damping) {
        self.since = now;
        self.eligible_at = self.eligible_after(damping);
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

    fn damp(&mut self, now: BootTime, damping: Damping) {
        if self.current && self.eligible_at == BootTime(u64::MAX) {
            self.eligible_at = self.eligible_after(damping);
        }
        if self.serves() && now.since(self.since).0 > damping.span.0 * FORGIVEN_AFTER {
            self.flaps = 0;
        }
    }

    fn eligible_after(&self, damping: Damping) -> BootTime {
        let earliest = (self.since + Span(damping.span.0 << self.flaps)).since(damping.started).0;
        damping.started + Span(earliest.div_ceil(damping.span.0) * damping.span.0)
    }
}

fn owns(state: &ClusterState, id: NodeId) -> bool {
    state
        .modules
        .values()
        .flat_map(|m| &m.assignment)
        .any(|b| b.current == Some(id) || b.previous == Some(id))
}
