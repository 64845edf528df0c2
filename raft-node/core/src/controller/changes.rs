//! Which buckets take which step now.

use std::collections::{BTreeMap, BTreeSet};

use super::view::View;
use crate::assignment::{Group, batch_losers};
use crate::command::{Body, Evidence, ModuleBuckets, Transfer};
use crate::id::{Epoch, NodeId};
use crate::model::{BucketSet, Module, ModuleName, Phase, Readiness, Weight};
use crate::planner::{Claim, plan};
use crate::time::Span;

/// Renewals that a step waits for the rest of its change (fast: 50 ms), so that one entry serves all of it.
const GATHER_RENEWALS: u64 = 2;
/// Renewals after which the buckets without request sockets stop waiting for those that have some (fast: 200 ms).
const REQUESTS_RENEWALS: u64 = 8;
/// Renewals between two Activates, and between two Settles, of parts of one change (fast: 1 s).
const PART_RENEWALS: u64 = 40;

/// What a plan depends on: while it stays the same, so does the plan.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct PlanKey {
    epoch: Epoch,
    weights: BTreeMap<ModuleName, BTreeMap<NodeId, Weight>>,
}

/// Buckets per module.
#[derive(Default)]
struct Picked(BTreeMap<ModuleName, BucketSet>);

impl Picked {
    fn add(&mut self, module: &ModuleName, of: usize, buckets: impl IntoIterator<Item = usize>) {
        let mut buckets = buckets.into_iter().peekable();
        if buckets.peek().is_some() {
            let set = self.0.entry(module.clone()).or_insert_with(|| BucketSet::empty(of));
            buckets.for_each(|b| set.insert(b));
        }
    }

    fn done(self) -> Option<Vec<ModuleBuckets>> {
        let list = self.0.into_iter().map(|(module, buckets)| ModuleBuckets { module, buckets });
        Some(list.collect::<Vec<_>>()).filter(|l| !l.is_empty())
    }
}

impl View<'_> {
    /// Takes buckets from nodes that cannot serve them, gives first owners to new ones, and fences nodes because of removed services:
    /// all in one entry.
    pub(super) fn move_now(&self) -> Option<Body> {
        let transfers: Vec<Transfer> =
            self.modules().flat_map(|(name, module, groups)| self.rescue(name, module, groups)).collect();
        self.moving(transfers)
    }

    /// The second step of a planned change: the new owner knows of it.
    pub(super) fn move_prepared(&self) -> Option<Body> {
        let mut transfers = Vec::new();
        for (name, module, groups) in self.modules() {
            let prepared: Vec<&Group> = groups.iter().filter(|g| g.state.phase == Phase::Prepare).collect();
            let ready = |g: &&&Group| g.state.current.is_some_and(|to| self.reported(to, g.state.changed));
            let gathered = prepared.iter().all(|g| ready(&g))
                || prepared.iter().any(|g| self.known_for(g.state.changed) >= self.renewals(GATHER_RENEWALS));
            let moves = prepared
                .iter()
                .filter(ready)
                .flat_map(|g| g.buckets.iter().zip(g.state.current.into_iter().cycle()));
            if gathered {
                transfers.extend(transfers_of(name, module, moves));
            }
        }
        if transfers.is_empty() { None } else { self.moving(transfers) }
    }

    /// The third step: nobody else accepts, and the previous owner has no handshake half done and no connected UDP
    /// socket. True when it is a part of a change whose rest still waits.
    pub(super) fn activate(&self) -> Option<(Body, bool)> {
        let paused = self.now.since(self.controller.activated_part) < self.renewals(PART_RENEWALS);
        let mut part = false;
        let mut picked = Picked::default();
        let mut evidence = BTreeSet::new();
        for (name, module, groups) in self.modules() {
            for group in groups.iter().filter(|g| matches!(g.state.phase, Phase::Move | Phase::MoveClosed)) {
                let found: Option<Vec<Evidence>> =
                    group.state.pending.iter().map(|p| self.evidence(p)).collect();
                let Some(found) = found else { continue };
                // One that lost its lease finishes no handshake: there is nothing to wait for.
                let expired = found.iter().any(|e| matches!(e, Evidence::Expired { .. }));
                let ready = if expired { group.buckets.iter().collect() } else { self.released(name, group) };
                let whole = ready.len() == group.buckets.len();
                if !ready.is_empty() && (whole || !paused) {
                    part |= !whole;
                    picked.add(name, module.assignment.len(), ready);
                    evidence.extend(found);
                }
            }
        }
        let retired = self.state.retired.values().flat_map(|r| &r.pending);
        evidence.extend(retired.filter_map(|p| self.evidence(p)));
        let buckets = picked.done().unwrap_or_default();
        let evidence: Vec<Evidence> = evidence.into_iter().collect();
        (!evidence.is_empty()).then_some((Body::Activate { buckets, evidence }, part))
    }

    /// The last step; true when it is a part of a change whose rest still drains.
    pub(super) fn settle(&self) -> Option<(Body, bool)> {
        let paused = self.now.since(self.controller.settled_part) < self.renewals(PART_RENEWALS);
        let mut picked = Picked::default();
        let mut part = false;
        for (name, module, groups) in self.modules() {
            for group in groups.iter().filter(|g| g.state.phase == Phase::Activate) {
                let ready = self.drained(name, group);
                let whole = ready.len() == group.buckets.len();
                if whole || !paused {
                    part |= !whole && !ready.is_empty();
                    picked.add(name, module.assignment.len(), ready);
                }
            }
        }
        picked.done().map(|list| (Body::Settle(list), part))
    }

    /// Takes back what was prepared for a node that can no longer have it.
    pub(super) fn cancel(&self) -> Option<Body> {
        let mut picked = Picked::default();
        for (name, module, groups) in self.modules() {
            let prepared: Vec<&Group> = groups.iter().filter(|g| g.state.phase == Phase::Prepare).collect();
            if prepared.is_empty() {
                continue;
            }
            let weights = self.weights(module, groups);
            let stays = |c| module.readiness(c) == Readiness::Open && self.only_lags(c);
            let void = |g: &&&Group| {
                let may = g.state.current.is_some_and(|c| weights.contains_key(&c) || stays(c));
                !may && g.state.previous.is_some_and(|p| self.serves_module(module, p))
            };
            picked.add(
                name,
                module.assignment.len(),
                prepared.iter().filter(void).flat_map(|g| g.buckets.iter()),
            );
        }
        picked.done().map(Body::Cancel)
    }

    /// The first step of a planned change; or, when there is none to make, what that was decided from.
    pub(super) fn prepare(&self) -> (Option<Body>, Option<PlanKey>) {
        let weights =
            self.modules().map(|(name, m, groups)| (name.clone(), self.weights(m, groups))).collect();
        let key = PlanKey { epoch: self.state.epoch, weights };
        if self.controller.at_rest.as_ref() == Some(&key) {
            return (None, Some(key));
        }
        let mut waits = false;
        let mut transfers = Vec::new();
        for (name, module, groups) in self.modules() {
            let (moves, waiting) = self.planned(&key.weights[name], module, groups);
            waits |= waiting;
            transfers.extend(transfers_of(name, module, moves));
        }
        match (transfers.is_empty(), waits) {
            (true, false) => (None, Some(key)),
            (true, true) => (None, None),
            (false, _) => (Some(Body::Prepare(transfers)), None),
        }
    }

    fn moving(&self, transfers: Vec<Transfer>) -> Option<Body> {
        let losers = &batch_losers(&self.state.modules, &transfers) | &self.state.unfenced();
        let body = Body::Move { losers: losers.iter().copied().collect(), transfers };
        match &body {
            Body::Move { losers, transfers } if losers.is_empty() && transfers.is_empty() => None,
            _ => Some(body),
        }
    }

    /// Who takes over buckets that their owner cannot serve, and buckets that never had an owner.
    fn rescue(&self, name: &ModuleName, module: &Module, groups: &[Group]) -> Vec<Transfer> {
        if !groups.iter().any(|g| self.needs_rescue(module, g)) {
            return Vec::new();
        }
        let weights = self.rescuers(module, groups);
        let mut claims = vec![Claim::Free; module.assignment.len()];
        let mut moves = BTreeMap::new();
        let mut free = BTreeSet::new();
        for group in groups {
            let heir = self.heir(module, group).filter(|h| weights.contains_key(h));
            match (self.needs_rescue(module, group), heir) {
                (true, Some(heir)) => moves.extend(group.buckets.iter().map(|b| (b, heir))),
                (true, None) => free.extend(group.buckets.iter()),
                (false, _) => {}
            }
            let claim = if self.needs_rescue(module, group) {
                heir.map_or(Claim::Free, Claim::Held)
            } else {
                claim(group)
            };
            group.buckets.iter().for_each(|b| claims[b] = claim);
        }
        moves.extend(plan(&weights, &claims).into_iter().filter(|(b, _)| free.contains(b)));
        transfers_of(name, module, moves)
    }

    /// Whether nobody serves new flows of these buckets, or soon would. A leader that does not hear a majority of
    /// the electors is itself the one that is cut off: what it proposed would only hurt when its network comes back.
    fn needs_rescue(&self, module: &Module, group: &Group) -> bool {
        group.state.loser().is_none_or(|n| !self.serves_module(module, n) && self.hears_majority())
    }

    /// Who gets a bucket whose owner died in an open change: the other party, if it lives.
    fn heir(&self, module: &Module, group: &Group) -> Option<NodeId> {
        let other = match group.state.phase {
            Phase::Stable => None,
            Phase::Prepare => group.state.current,
            Phase::Move | Phase::MoveClosed | Phase::Activate => group.state.previous,
        };
        other.filter(|n| self.serves_module(module, *n))
    }

    fn planned(
        &self,
        weights: &BTreeMap<NodeId, Weight>,
        module: &Module,
        groups: &[Group],
    ) -> (BTreeMap<usize, NodeId>, bool) {
        let mut claims = vec![Claim::Free; module.assignment.len()];
        let mut waits = false;
        for group in groups {
            let known = self.all_reported(group.state.changed);
            waits |= !known;
            let claim =
                if known { claim(group) } else { group.state.current.map_or(Claim::Free, Claim::Held) };
            group.buckets.iter().for_each(|b| claims[b] = claim);
        }
        let live =
            |b: &usize| module.assignment[*b].current.is_some_and(|owner| self.serves_module(module, owner));
        (plan(weights, &claims).into_iter().filter(|(b, _)| live(b)).collect(), waits)
    }

    /// Buckets of a Move for whose new flows the previous owner need not be asked any more.
    fn released(&self, module: &ModuleName, group: &Group) -> Vec<usize> {
        let all = || group.buckets.iter().collect();
        let Some(previous) = group.state.previous else { return all() };
        let known_for = self.known_for(group.state.changed);
        let closed = group.state.phase == Phase::MoveClosed;
        // An application that does not run finishes no handshake, whatever is left of it in the kernel.
        let stopped =
            self.state.modules.get(module).is_some_and(|m| m.readiness(previous) == Readiness::Closed);
        if closed || stopped || self.is_silent(previous) {
            return all();
        }
        let (handshakes, datagrams) = (self.controller.patience.requests, self.drain_limit(module));
        let report = self.observed.drains.get(&(previous, module.clone()));
        let Some(report) = report.filter(|r| r.epoch >= group.state.changed) else {
            return if known_for >= handshakes { all() } else { Vec::new() };
        };
        let waits = |b: &usize| {
            (report.requests.contains(*b) && known_for < handshakes)
                || (report.datagrams.contains(*b) && known_for < datagrams)
        };
        let clear: Vec<usize> = group.buckets.iter().filter(|b| !waits(b)).collect();
        let patient = known_for < self.renewals(REQUESTS_RENEWALS);
        if patient && clear.len() < group.buckets.len() { Vec::new() } else { clear }
    }

    /// How long connections of `module` may stay with their previous node.
    fn drain_limit(&self, module: &ModuleName) -> Span {
        let said = self.state.modules.get(module).and_then(|m| m.drain);
        said.unwrap_or(self.controller.patience.drain)
    }

    fn drained(&self, module: &ModuleName, group: &Group) -> Vec<usize> {
        let all = || group.buckets.iter().collect();
        let Some(previous) = group.state.previous else { return all() };
        if !self.all_reported(group.state.changed) {
            return Vec::new();
        }
        let known_for = self.known_for(group.state.changed);
        let patience = &self.controller.patience;
        let limit = if self.is_silent(previous) { patience.hold } else { self.drain_limit(module) };
        if known_for >= limit {
            return all();
        }
        let report = self.observed.drains.get(&(previous, module.clone()));
        let fresh = report.filter(|r| r.epoch >= group.state.changed && !self.is_silent(previous));
        let empty = |r: &super::DrainState, b: usize| !r.requests.contains(b) && !r.established.contains(b);
        fresh.map_or(Vec::new(), |r| group.buckets.iter().filter(|b| empty(r, *b)).collect())
    }
}

/// A bucket with an open change counts for the node it goes to, and stays with it until the change is over.
fn claim(group: &Group) -> Claim {
    match (group.state.phase, group.state.current) {
        (_, None) => Claim::Free,
        (Phase::Stable, Some(owner)) => Claim::Kept(owner),
        (Phase::Prepare | Phase::Move | Phase::MoveClosed | Phase::Activate, Some(to)) => Claim::Held(to),
    }
}

fn transfers_of(
    name: &ModuleName,
    module: &Module,
    moves: impl IntoIterator<Item = (usize, NodeId)>,
) -> Vec<Transfer> {
    let mut to: BTreeMap<NodeId, BucketSet> = BTreeMap::new();
    for (bucket, node) in moves {
        to.entry(node).or_insert_with(|| BucketSet::empty(module.assignment.len())).insert(bucket);
    }
    to.into_iter().map(|(to, buckets)| Transfer { module: name.clone(), to, buckets }).collect()
}
