//! What the leader's decisions are made from: one look at state and observations.

use std::collections::BTreeMap;

use super::{Controller, Observed};
use crate::assignment::Group;
use crate::command::Evidence;
use crate::id::{Epoch, NodeId};
use crate::lease::{Timing, timing};
use crate::model::{Module, ModuleKind, ModuleName, Node, Pending, Readiness, Weight};
use crate::state::ClusterState;
use crate::time::{BootTime, Span};

pub(super) struct View<'a> {
    pub(super) controller: &'a Controller,
    pub(super) now: BootTime,
    pub(super) state: &'a ClusterState,
    pub(super) observed: &'a Observed,
    pub(super) timing: &'a Timing,
}

impl<'a> View<'a> {
    pub(super) fn new(
        controller: &'a Controller,
        now: BootTime,
        state: &'a ClusterState,
        observed: &'a Observed,
        timing: &'a Timing,
    ) -> Self {
        Self { controller, now, state, observed, timing }
    }

    /// Farm modules with their groups of buckets.
    pub(super) fn modules(&self) -> impl Iterator<Item = (&'a ModuleName, &'a Module, &'a [Group])> {
        let groups = &self.controller.digest.groups;
        let farms = self.state.modules.iter().filter(|(_, m)| m.kind == ModuleKind::Farm);
        farms.map(|(name, m)| (name, m, groups.get(name).map_or(&[][..], Vec::as_slice)))
    }

    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        self.controller.presence.is_silent(node)
    }

    pub(super) fn serves(&self, node: NodeId) -> bool {
        self.controller.presence.serves(node)
    }

    /// Whether `node` can serve clients of `module`: its application runs there too.
    pub(super) fn serves_module(&self, module: &Module, node: NodeId) -> bool {
        self.serves(node) && module.readiness(node) != Readiness::Closed
    }

    pub(super) fn hears_majority(&self) -> bool {
        self.state.electors.majority(|e| !self.is_silent(e))
    }

    /// Nodes that may have buckets of `module` by plan, with their weights: members that serve, reach its clients, and
    /// are either let in or own some of it; an owner may lag for a while, for taking its buckets would end its lease.
    pub(super) fn weights(&self, module: &Module, groups: &[Group]) -> BTreeMap<NodeId, Weight> {
        let presence = &self.controller.presence;
        self.servers(module, |id| {
            presence.is_eligible(id, self.now)
                || (owns(groups, id) && (presence.is_current(id) || self.only_lags(id)))
        })
    }

    /// Nodes that may take over what a dead one leaves: those that follow the epochs and are let in or own some of the
    /// module. Where there is none, damping is forgotten, then lag too: any server is better than none.
    pub(super) fn rescuers(&self, module: &Module, groups: &[Group]) -> BTreeMap<NodeId, Weight> {
        let presence = &self.controller.presence;
        let first = |id| presence.is_eligible(id, self.now) || (presence.is_current(id) && owns(groups, id));
        let second = |id| presence.is_current(id);
        let last = |id| self.serves_module(module, id);
        let choices: [&dyn Fn(NodeId) -> bool; 3] = [&first, &second, &last];
        let found = choices.into_iter().map(|there| self.servers(module, there)).find(|w| !w.is_empty());
        found.unwrap_or_default()
    }

    fn servers(&self, module: &Module, there: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, Weight> {
        let may = |n: &&Node| self.state.may_serve(n, module) && there(n.id);
        self.state.nodes.values().filter(may).map(|n| (n.id, module.weight(n.id))).collect()
    }

    /// Lag alone ends nothing at once: the node gets as long as the previous owner's requests, and one whose daemon is
    /// being restarted as long as that takes.
    pub(super) fn only_lags(&self, node: NodeId) -> bool {
        let stays = self.state.nodes.get(&node).is_some_and(|n| self.state.takes_part(n));
        let lags_for = self.controller.presence.lags_for(node, self.now);
        let excused = self.state.restarting(node).is_some() || lags_for < self.controller.patience.requests;
        stays && self.serves(node) && excused
    }

    /// Whether `node` reported `epoch`.
    pub(super) fn reported(&self, node: NodeId, epoch: Epoch) -> bool {
        self.observed.heard.get(&node).is_some_and(|h| h.applied >= epoch)
    }

    /// Whether every node that may hold a lease reported `epoch`. A lease is over W after the last renewal that any
    /// elector can have granted, and this one hears what the others hear. One that is heard but does not follow is not
    /// waited for longer than connections are: fences keep it from harm, and the others must go on.
    pub(super) fn all_reported(&self, epoch: Epoch) -> bool {
        let (presence, now) = (&self.controller.presence, self.now);
        let wait = |id| timing::wait(self.state.longest_lease(id));
        let gone = |id| now.since(presence.last_heard(id, self.observed)) > wait(id);
        let stuck = |id| presence.lags_for(id, now) >= self.controller.patience.lag;
        self.state.nodes.keys().all(|id| self.reported(*id, epoch) || gone(*id) || stuck(*id))
    }

    /// Since when the leader has known an epoch.
    pub(super) fn known_for(&self, epoch: Epoch) -> Span {
        self.controller.first_seen.get(&epoch).map_or(Span::ZERO, |at| self.now.since(*at))
    }

    pub(super) fn evidence(&self, pending: &Pending) -> Option<Evidence> {
        self.controller.reports.evidence(pending, &self.state.electors, self.observed, self.now)
    }

    pub(super) fn renewals(&self, count: u64) -> Span {
        Span(self.timing.renewal.0 * count)
    }
}

fn owns(groups: &[Group], id: NodeId) -> bool {
    groups.iter().any(|g| g.state.current == Some(id))
}
