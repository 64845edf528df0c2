//! Going on without those who could not agree any more (DESIGN §5), and their coming back under new ids.

use std::collections::BTreeSet;

use super::nodes::busy;
use super::{Done, Refusal, ensure, happened};
use crate::electors::Electors;
use crate::event::Kind;
use crate::id::{Generation, NodeId};
use crate::model::Membership;
use crate::state::ClusterState;

impl ClusterState {
    /// The survivor alone votes and grants from now on. What it granted to the others before, its own elector knows.
    pub(super) fn take_over(&mut self, generation: Generation, overruled: &[NodeId]) -> Done {
        let survivor = self.member(generation.survivor)?;
        let name = survivor.name.clone();
        ensure(generation.number > self.generation.number, || {
            let fact = format!(
                "generation {} is not above {}, in which the cluster is",
                generation.number, self.generation.number
            );
            Refusal::new("bad_generation", fact, "farmctl cluster status")
        })?;
        ensure(!overruled.contains(&survivor.id), || {
            let fact = format!("{name} cannot take over from itself");
            Refusal::new("bad_generation", fact, "farmctl cluster status")
        })?;
        self.generation = generation;
        self.electors = Electors::new(BTreeSet::from([generation.survivor]));
        let known = overruled.iter().copied().filter(|id| self.nodes.contains_key(id));
        let known: BTreeSet<NodeId> = known.collect();
        for id in &known {
            self.nodes.entry(*id).and_modify(|n| n.membership = Membership::Overruled);
        }
        let overruled = self.names(&known);
        happened(Kind::TakenOver { name, overruled, generation: generation.number })
    }

    pub(super) fn node_overrule(&mut self, id: NodeId) -> Done {
        let name = self.member(id)?.name.clone();
        ensure(!self.electors.all().contains(&id), || busy(&name, format!("{name} still grants leases")))?;
        if self.nodes[&id].membership == Membership::Overruled {
            return Ok((Vec::new(), None));
        }
        self.nodes.entry(id).and_modify(|n| n.membership = Membership::Overruled);
        happened(Kind::NodeOverruled { name })
    }

    /// The overruled node whose name a newcomer has: its machine comes back.
    pub(super) fn former(&self, name: &str) -> Result<Option<NodeId>, Refusal> {
        let mut all = self.nodes.values();
        let former = all.find(|n| n.name == name && n.membership == Membership::Overruled).map(|n| n.id);
        former.map_or(Ok(None), |id| self.ensure_free(id).map(|()| Some(id)))
    }

    /// What people had said of `former` holds for `id`. Its applications have to be started there.
    pub(super) fn succeed(&mut self, former: NodeId, id: NodeId) {
        self.nodes.remove(&former);
        if let Some(maintenance) = self.maintenance.remove(&former) {
            self.maintenance.insert(id, maintenance);
        }
        for module in self.modules.values_mut() {
            if let Some(weight) = module.weights.remove(&former) {
                module.weights.insert(id, weight);
            }
            module.set_readiness(former, None);
        }
    }
}
