//! The change of electors (DESIGN L7): Joint, Seal, Final; or Cancel in the place of one of the last two.

use std::collections::BTreeSet;

use super::{Done, Refusal, ensure, happened};
use crate::command::Evidence;
use crate::electors::{Change, Electors, Seal};
use crate::event::Kind;
use crate::id::{EntryId, Epoch, NodeId};
use crate::model::Pending;
use crate::state::ClusterState;

impl ClusterState {
    pub(super) fn electors_joint(&mut self, next: &[NodeId]) -> Done {
        ensure(self.electors.change.is_none(), || refuse("the electors are being changed already"))?;
        next.iter().try_for_each(|n| self.member(*n).map(|_| ()))?;
        let next: BTreeSet<NodeId> = next.iter().copied().collect();
        ensure(!next.is_empty(), || refuse("there must be an elector"))?;
        // Majorities of two sets that differ by one node always meet, whichever of the two the Raft voters are.
        let differ = next.symmetric_difference(&self.electors.current).count();
        ensure(differ == 1, || refuse("electors come and go one at a time"))?;
        let kind = Kind::ElectorsJoint { from: self.names(&self.electors.current), to: self.names(&next) };
        self.electors.change = Some(Change { next, joint: self.epoch.next(), seal: None });
        happened(kind)
    }

    pub(super) fn electors_seal(&mut self, joint: Epoch, nodes: &[NodeId], entry: EntryId) -> Done {
        let members: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        let named: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let epoch = self.epoch.next();
        let change = self.electors.change.as_mut().ok_or_else(|| refuse("no change of electors is open"))?;
        ensure(change.seal.is_none(), || refuse("the change of electors is sealed already"))?;
        ensure(change.joint == joint, || refuse("the Seal names another change"))?;
        ensure(named == members && nodes.len() == members.len(), || {
            refuse("the Seal must name every member")
        })?;
        change.seal = Some(Seal { epoch, entry, nodes: members });
        let fences: Vec<_> = nodes.iter().map(|n| (*n, joint)).collect();
        self.fence(&fences);
        happened(Kind::ElectorsSealed)
    }

    pub(super) fn electors_final(&mut self, evidence: &[Evidence]) -> Done {
        let change = self.electors.change.as_ref().ok_or_else(|| refuse("no change of electors is open"))?;
        if !planted!(JointWithoutSeal) {
            let seal = change.seal.as_ref().ok_or_else(|| refuse("the change of electors is not sealed"))?;
            let missing = seal.missing(evidence);
            ensure(missing.is_none(), || refuse(&format!("no evidence that {missing:?} knows the Seal")))?;
        }
        self.electors = Electors::new(change.next.clone());
        happened(Kind::ElectorsChanged { electors: self.names(&self.electors.current) })
    }

    pub(super) fn electors_cancel(&mut self) -> Done {
        self.electors.change.take().ok_or_else(|| refuse("no change of electors is open"))?;
        happened(Kind::ElectorsKept { electors: self.names(&self.electors.current) })
    }

    /// The names of `nodes`, as [`ClusterState::name_of`] gives them.
    #[must_use]
    pub fn names(&self, nodes: &BTreeSet<NodeId>) -> Vec<String> {
        nodes.iter().map(|n| self.name_of(*n)).collect()
    }
}

impl Seal {
    /// The first member that `evidence` does not cover.
    #[must_use]
    pub fn missing(&self, evidence: &[Evidence]) -> Option<NodeId> {
        let covered =
            |n: &NodeId| Pending { node: *n, epoch: self.epoch, entry: self.entry }.is_evidenced(evidence);
        self.nodes.iter().copied().find(|n| !covered(n))
    }
}

fn refuse(fact: &str) -> Refusal {
    Refusal::new("electors", fact, "farmctl cluster status")
}
