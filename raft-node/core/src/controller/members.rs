//! Voters and electors follow the living, one node at a time.
//!
//! Raft's voters V and the electors E never differ by more than one node, so that every majority of the one meets
//! every majority of the other: a committed fence is then known to some elector of every lease.
//!
//! ```text
//! a node comes: AddLearner ─ caught up ─▶ SetVoters(V + n) ─▶ Joint ─▶ Seal ─▶ Final(E + n)
//! a node goes:  Joint ─▶ Seal ─▶ Final(E − n) ─▶ SetVoters(V − n) ─ (if it left) ▶ NodeRemove ─▶ RemoveFromRaft
//! ```
//! No set is gone to of which no majority is heard: leases would end and no command could bring it back. A node that
//! leaves then waits, until those that are silent are heard again or have gone themselves; a change that is under way
//! is taken back (ElectorsCancel), which is safe at every step before Final.

use std::collections::BTreeSet;

use super::view::View;
use super::{Controller, Effect, Observed};
use crate::command::{Body, Evidence};
use crate::electors::{Change, Seal};
use crate::id::NodeId;
use crate::lease::Timing;
use crate::model::{Membership, Module, Node, Pending, Readiness, Role};
use crate::state::ClusterState;
use crate::time::BootTime;

/// Most voters: with five, two may fail at once; more only slow the log down.
const VOTERS_MAX: usize = 5;
/// Renewals between two requests to change Raft's membership (fast: 500 ms): it takes a few round trips.
const RAFT_RENEWALS: u64 = 20;
/// Renewals for which a leader that hears no majority of the electors leads on (fast: 500 ms).
const DEAF_RENEWALS: u64 = 20;

impl Controller {
    pub(super) fn change_raft(
        &mut self,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        timing: &Timing,
    ) -> Vec<Effect> {
        // A state without this leader's first entry may lack what its log holds: a Joint, for one.
        if observed.last_applied.by != self.leadership {
            return Vec::new();
        }
        let view = View::new(self, now, state, observed, timing);
        let recent = self.raft_asked.is_some_and(|at| now.since(at) < view.renewals(RAFT_RENEWALS));
        if recent || self.voters_in_flight {
            return Vec::new();
        }
        let effect = view.raft_effect();
        if let Some(effect) = &effect {
            if let Effect::TransferLeader(to) = effect {
                self.offered = Some(*to);
            }
            self.voters_in_flight = matches!(effect, Effect::SetVoters(_));
            self.raft_asked = Some(now);
        }
        effect.into_iter().collect()
    }
}

impl View<'_> {
    /// The members that should vote: up to five that live and stay, lowest ids first.
    fn wanted(&self) -> BTreeSet<NodeId> {
        let gone = |id| self.controller.presence.silent_for(id, self.now) >= self.controller.patience.evict;
        let stays = self.state.nodes.values().filter(|n| n.membership.stays() && !gone(n.id));
        stays.map(|n| n.id).take(VOTERS_MAX).collect()
    }

    fn raft_effect(&self) -> Option<Effect> {
        self.forget()
            .or_else(|| self.learn())
            .or_else(|| self.set_voters())
            .or_else(|| self.hand_over())
            .or_else(|| self.give_up())
    }

    fn forget(&self) -> Option<Effect> {
        let overruled = self.overruled();
        let former = |id: &&NodeId| !self.state.nodes.contains_key(id) || overruled.contains(id);
        self.observed
            .learners
            .difference(&self.observed.voters)
            .find(former)
            .map(|id| Effect::RemoveFromRaft(*id))
    }

    fn learn(&self) -> Option<Effect> {
        let known = |id: &&NodeId| self.observed.voters.contains(id) || self.observed.learners.contains(id);
        let overruled = self.overruled();
        let mut counted = self.state.nodes.keys().filter(|id| !overruled.contains(id));
        counted.find(|id| !known(id)).map(|id| Effect::AddLearner(*id))
    }

    fn set_voters(&self) -> Option<Effect> {
        let (voters, electors) = (&self.observed.voters, &self.state.electors);
        let gone = self.overruled();
        if !gone.is_disjoint(voters) {
            // This leader has their votes, and nobody hears them any more.
            return Some(Effect::SetVoters(voters - &gone));
        }
        // A Joint may be in flight: the electors must stand still.
        if voters.is_empty() || electors.change.is_some() || self.controller.in_flight {
            return None;
        }
        let wanted = self.wanted();
        let ready = |id: &&NodeId| wanted.contains(id) && self.is_ready(**id);
        let goes = |id: &&NodeId| !wanted.contains(id) && **id != self.controller.me;
        let former = voters.difference(&electors.current).find(goes).map(|id| without(voters, *id));
        let missing = || electors.current.difference(voters).find(ready).map(|id| with(voters, *id));
        let free = *voters == electors.current && voters.len() < VOTERS_MAX;
        let new = || wanted.difference(voters).find(ready).filter(|_| free).map(|id| with(voters, *id));
        former.or_else(missing).or_else(new).filter(|next| self.is_viable(next)).map(Effect::SetVoters)
    }

    fn overruled(&self) -> BTreeSet<NodeId> {
        let nodes = self.state.nodes.values();
        nodes.filter(|n| n.membership == Membership::Overruled).map(|n| n.id).collect()
    }

    /// Whether a node could vote at once: it has the log, and is heard.
    fn is_ready(&self, id: NodeId) -> bool {
        self.observed.caught_up.contains(&id) && !self.is_silent(id)
    }

    /// Whether a majority of `set` is heard, and did not say that it goes away.
    fn is_viable(&self, set: &BTreeSet<NodeId>) -> bool {
        let away = |id| self.state.nodes.get(id).is_some_and(|n| n.membership == Membership::Away);
        set.iter().filter(|id| !self.is_silent(**id) && !away(id)).count() * 2 > set.len()
    }

    /// A leader that is about to go lets another voter lead, once nothing depends on it but its vote. A witness leads
    /// where only it has the log, and no longer: it may be a small machine far away.
    fn hand_over(&self) -> Option<Effect> {
        let me = self.controller.me;
        let own = self.state.nodes.get(&me)?;
        let goes = !self.state.takes_part(own) && !self.state.is_party(me);
        let must = goes || self.state.restarting(me).is_some();
        // Whose clients nobody serves come first.
        let would = own.role == Role::Witness && self.controller.digest.pending.is_empty();
        let heir = || self.heirs().find(|n| n.role == Role::Server && self.is_ready(n.id));
        let any = || self.heirs().next().filter(|_| must);
        let next = (must || would).then(|| heir().or_else(any)).flatten();
        next.map(|n| Effect::TransferLeader(n.id))
    }

    /// Other voters that stay and are heard.
    fn heirs(&self) -> impl Iterator<Item = &Node> {
        let others = self.observed.voters.iter().filter(|id| **id != self.controller.me);
        let nodes = others.filter_map(|id| self.state.nodes.get(id));
        nodes.filter(|n| self.state.takes_part(n) && !self.is_silent(n.id))
    }

    /// A leader that hears no majority of the electors cannot tell who lives, though its log may go on: leases travel
    /// by other ways. Whoever has the log is offered the lead in turn.
    fn give_up(&self) -> Option<Effect> {
        let me = self.controller.me;
        let deaf =
            self.controller.deaf_since.is_some_and(|at| self.now.since(at) >= self.renewals(DEAF_RENEWALS));
        let last = self.controller.offered.unwrap_or(me);
        let others = || self.observed.voters.intersection(&self.observed.caught_up).filter(|id| **id != me);
        let next = || others().find(|id| **id > last).or_else(|| others().next());
        deaf.then(next).flatten().map(|id| Effect::TransferLeader(*id))
    }

    /// The next entry of an elector change, or its first.
    pub(super) fn change_electors(&self) -> Option<Body> {
        match &self.state.electors.change {
            None => self.next_electors().map(|next| Body::ElectorsJoint(next.into_iter().collect())),
            Some(change) => {
                let finish = || change.seal.as_ref().and_then(|seal| self.finish(seal));
                self.take_back(change).or_else(finish).or_else(|| self.seal(change))
            }
        }
    }

    fn next_electors(&self) -> Option<BTreeSet<NodeId>> {
        let (voters, current) = (&self.observed.voters, &self.state.electors.current);
        // Raft's voters must stand still.
        if voters.is_empty() || self.controller.voters_in_flight {
            return None;
        }
        let wanted = self.wanted();
        let viable = |next: &BTreeSet<NodeId>| self.is_viable(next);
        if let Some(id) = voters.difference(current).find(|id| wanted.contains(id)) {
            return Some(with(current, *id)).filter(viable);
        }
        if let Some(id) = current.difference(voters).next() {
            return Some(without(current, *id)).filter(viable);
        }
        // Who comes, comes first.
        let ready = |id: &NodeId| self.is_ready(*id);
        if voters != current || (voters.len() < VOTERS_MAX && wanted.difference(voters).any(ready)) {
            return None;
        }
        let leavers = current.iter().filter(|id| self.must_go(**id, &wanted));
        leavers.map(|id| without(current, *id)).find(viable)
    }

    /// An elector goes when it is gone or leaves, or to make room for a lower id that is ready. The leader does not
    /// remove itself: it hands over first.
    fn must_go(&self, id: NodeId, wanted: &BTreeSet<NodeId>) -> bool {
        if wanted.contains(&id) || id == self.controller.me {
            return false;
        }
        let leaves = self.state.nodes.get(&id).is_none_or(|n| !n.membership.stays());
        let gone = self.controller.presence.silent_for(id, self.now) >= self.controller.patience.evict;
        let crowded = self.state.electors.current.len() >= VOTERS_MAX;
        let ready = wanted.difference(&self.state.electors.current).any(|n| self.is_ready(*n));
        leaves || gone || (crowded && ready)
    }

    /// A set without a majority that is heard grants no lease.
    fn take_back(&self, change: &Change) -> Option<Body> {
        let better = !self.is_viable(&change.next) && self.is_viable(&self.state.electors.current);
        better.then_some(Body::ElectorsCancel)
    }

    fn seal(&self, change: &Change) -> Option<Body> {
        if change.seal.is_some() || !self.all_reported(change.joint) {
            return None;
        }
        if planted!(JointWithoutSeal) {
            return Some(Body::ElectorsFinal(Vec::new()));
        }
        let nodes = self.state.nodes.keys().copied().collect();
        Some(Body::ElectorsSeal { joint: change.joint, nodes })
    }

    fn finish(&self, seal: &Seal) -> Option<Body> {
        let pending = seal.nodes.iter().map(|n| Pending { node: *n, epoch: seal.epoch, entry: seal.entry });
        let evidence: Option<Vec<Evidence>> = pending.map(|p| self.evidence(&p)).collect();
        evidence.map(Body::ElectorsFinal)
    }

    /// A member that left: it owns nothing, drains nothing, votes no more, and no application serves there, unless it
    /// cannot say so any more.
    pub(super) fn remove_node(&self) -> Option<Body> {
        let electors = &self.state.electors;
        let free = |id: NodeId| {
            let silent = self.is_silent(id);
            let serves = |m: &Module| m.has_application() && m.readiness(id) != Readiness::Closed;
            let rests = silent || !self.state.modules.values().any(serves);
            rests
                && !self.observed.voters.contains(&id)
                && !electors.current.contains(&id)
                && !self.state.is_party(id)
        };
        let leaving = self.state.nodes.values().filter(|n| n.membership == Membership::Leaving).map(|n| n.id);
        leaving.filter(|_| electors.change.is_none()).find(|id| free(*id)).map(Body::NodeRemove)
    }
}

fn with(set: &BTreeSet<NodeId>, id: NodeId) -> BTreeSet<NodeId> {
    set.iter().copied().chain([id]).collect()
}

fn without(set: &BTreeSet<NodeId>, id: NodeId) -> BTreeSet<NodeId> {
    set.iter().copied().filter(|n| *n != id).collect()
}
