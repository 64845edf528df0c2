//! Voters and electors follow the living, one node at a time.
//!
//! Raft's voters V and the electors E never differ by more than one node, so that every majority of the one meets
//! every majority of the other: a committed fence is then known to some elector of every lease.
//!
//! ```text
//! a node comes: AddLearner ─ caught up ─▶ SetVoters(V + n) ─▶ Joint ─▶ Seal ─▶ Final(E + n)
//! a node goes:  Joint ─▶ Seal ─▶ Final(E − n) ─▶ SetVoters(V − n) ─ (if it left) ▶ NodeRemove ─▶ RemoveFromRaft
//! ```

use std::collections::BTreeSet;

use super::view::View;
use super::{Controller, Effect, Observed};
use crate::command::{Body, Evidence};
use crate::electors::{Change, Seal};
use crate::id::NodeId;
use crate::lease::Timing;
use crate::model::{Membership, Pending};
use crate::state::ClusterState;
use crate::time::BootTime;

/// Most voters: with five, two may fail at once; more only slow the log down.
const VOTERS_MAX: usize = 5;
/// Renewals between two requests to change Raft's membership (fast: 500 ms): it takes a few round trips.
const RAFT_RENEWALS: u64 = 20;

impl Controller {
    pub(super) fn change_raft(
        &mut self,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        timing: &Timing,
    ) -> Vec<Effect> {
        let view = View::new(self, now, state, observed, timing);
        let recent = self.raft_asked.is_some_and(|at| now.since(at) < view.renewals(RAFT_RENEWALS));
        if recent || self.voters_in_flight {
            return Vec::new();
        }
        let effect = view.raft_effect();
        if let Some(effect) = &effect {
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
        let stays = self.state.nodes.values().filter(|n| n.membership != Membership::Leaving && !gone(n.id));
        stays.map(|n| n.id).take(VOTERS_MAX).collect()
    }

    fn raft_effect(&self) -> Option<Effect> {
        self.forget().or_else(|| self.learn()).or_else(|| self.set_voters()).or_else(|| self.hand_over())
    }

    fn forget(&self) -> Option<Effect> {
        let former = |id: &&NodeId| !self.state.nodes.contains_key(id);
        self.observed
            .learners
            .difference(&self.observed.voters)
            .find(former)
            .map(|id| Effect::RemoveFromRaft(*id))
    }

    fn learn(&self) -> Option<Effect> {
        let known = |id: &&NodeId| self.observed.voters.contains(id) || self.observed.learners.contains(id);
        self.state.nodes.keys().find(|id| !known(id)).map(|id| Effect::AddLearner(*id))
    }

    fn set_voters(&self) -> Option<Effect> {
        let (voters, electors) = (&self.observed.voters, &self.state.electors);
        // A Joint may be in flight: the electors must stand still.
        if voters.is_empty() || electors.change.is_some() || self.controller.in_flight {
            return None;
        }
        let wanted = self.wanted();
        let ready = |id: &&NodeId| wanted.contains(id) && self.observed.caught_up.contains(id);
        let goes = |id: &&NodeId| !wanted.contains(id) && **id != self.controller.me;
        if let Some(id) = voters.difference(&electors.current).find(goes) {
            return Some(Effect::SetVoters(without(voters, *id)));
        }
        if let Some(id) = electors.current.difference(voters).find(ready) {
            return Some(Effect::SetVoters(with(voters, *id)));
        }
        let new = wanted.difference(voters).find(ready)?;
        let free = *voters == electors.current && voters.len() < VOTERS_MAX;
        free.then(|| Effect::SetVoters(with(voters, *new)))
    }

    /// A leader that is about to go lets another voter lead, once nothing depends on it but its vote.
    fn hand_over(&self) -> Option<Effect> {
        let me = self.controller.me;
        let goes = self.state.nodes.get(&me).is_some_and(|n| n.membership != Membership::Member);
        if !goes || self.state.is_party(me) {
            return None;
        }
        let stays = |id: &&NodeId| {
            let member = self.state.nodes.get(id).is_some_and(|n| n.membership == Membership::Member);
            **id != me && member && !self.is_silent(**id)
        };
        self.observed.voters.iter().find(stays).map(|id| Effect::TransferLeader(*id))
    }

    /// The next entry of an elector change, or its first.
    pub(super) fn change_electors(&self) -> Option<Body> {
        match &self.state.electors.change {
            None => self.next_electors().map(|next| Body::ElectorsJoint(next.into_iter().collect())),
            Some(change) => match &change.seal {
                None => self.seal(change),
                Some(seal) => self.finish(seal),
            },
        }
    }

    fn next_electors(&self) -> Option<BTreeSet<NodeId>> {
        let (voters, current) = (&self.observed.voters, &self.state.electors.current);
        // Raft's voters must stand still.
        if voters.is_empty() || self.controller.voters_in_flight {
            return None;
        }
        let wanted = self.wanted();
        if let Some(id) = voters.difference(current).find(|id| wanted.contains(id)) {
            return Some(with(current, *id));
        }
        if let Some(id) = current.difference(voters).next() {
            return Some(without(current, *id)).filter(|next| !next.is_empty());
        }
        // Who comes, comes first.
        let ready = |id: &NodeId| self.observed.caught_up.contains(id);
        if voters != current || (voters.len() < VOTERS_MAX && wanted.difference(voters).any(ready)) {
            return None;
        }
        let leaves = current.iter().find(|id| self.must_go(**id, &wanted))?;
        Some(without(current, *leaves)).filter(|next| !next.is_empty())
    }

    /// An elector goes when it is gone or leaves, or to make room for a lower id that is ready. The leader does not
    /// remove itself: it hands over first.
    fn must_go(&self, id: NodeId, wanted: &BTreeSet<NodeId>) -> bool {
        if wanted.contains(&id) || id == self.controller.me {
            return false;
        }
        let leaves = self.state.nodes.get(&id).is_none_or(|n| n.membership == Membership::Leaving);
        let gone = self.controller.presence.silent_for(id, self.now) >= self.controller.patience.evict;
        let crowded = self.state.electors.current.len() >= VOTERS_MAX;
        let ready =
            wanted.difference(&self.state.electors.current).any(|n| self.observed.caught_up.contains(n));
        leaves || gone || (crowded && ready)
    }

    fn seal(&self, change: &Change) -> Option<Body> {
        if !self.all_reported(change.joint) {
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

    /// A member that left: it owns nothing, drains nothing, votes no more.
    pub(super) fn remove_node(&self) -> Option<Body> {
        let electors = &self.state.electors;
        let free = |id: NodeId| {
            !self.observed.voters.contains(&id) && !electors.current.contains(&id) && !self.state.is_party(id)
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
