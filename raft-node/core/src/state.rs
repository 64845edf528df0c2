//! The replicated state: what every member agrees on. [`ClusterState::apply`] is its only way to change.

use std::collections::{BTreeMap, BTreeSet};

use crate::electors::Electors;
use crate::id::{ClusterId, EntryId, Epoch, FeatureLevel, Generation, NodeId};
use crate::lease::AppliedFences;
use crate::model::{
    BUCKETS, HashKey, Maintenance, Membership, Module, ModuleName, Node, Pending, Profile, Protocol,
    Readiness, Role, VirtualIp,
};
use crate::restart::{self, Restart, Restarts};
use crate::tiebreak::TieBreak;
use crate::time::Span;

/// What identifies a service: virtual IP, protocol, port.
pub type ServiceKey = (VirtualIp, Protocol, u16);

/// The whole replicated state. `nodes` is empty until the cluster is founded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterState {
    /// Identity of the cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: Generation,
    /// Number of the current assignment; the founding makes epoch 1.
    pub epoch: Epoch,
    /// What all members can read.
    pub level: FeatureLevel,
    /// Timing.
    pub profile: Profile,
    /// Key of the bucket hash.
    pub hash_key: HashKey,
    /// Who grants leases.
    pub electors: Electors,
    /// Members.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Servers that are kept free of clients.
    pub maintenance: BTreeMap<NodeId, Maintenance>,
    /// Planned restarts of daemons, with what longer leases they allow.
    pub restarts: Restarts,
    /// Modules.
    pub modules: BTreeMap<ModuleName, Module>,
    /// Highest target epoch of a Move or Seal against each node. Those of former members stay: a machine that comes
    /// back with an old state must not be granted a lease for it.
    pub fences: BTreeMap<NodeId, Epoch>,
    /// Longest lease that was ever allowed. It never shrinks: what a shorter one saves is a wait after an elector's
    /// restart, what it would cost is a proof that every elector has seen the longer one end (L8).
    pub lease_bound: Span,
    /// Removed services that some node may not know to be removed.
    pub retired: BTreeMap<ServiceKey, Retired>,
    /// What decides when two voters have lost each other; `None`: nothing does.
    pub tie_break: Option<TieBreak>,
    /// Buckets of a module; [`BUCKETS`] but in small models.
    pub buckets: usize,
}

/// A removed service. Until every node that could accept for it is known not to, it cannot be added anew: with
/// other owners or another criterion two nodes might accept the same flow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Retired {
    /// Nodes that no Move has fenced since. The next Move names them among its losers.
    pub unfenced: BTreeSet<NodeId>,
    /// Nodes that are fenced and not yet evidenced; ascending. The next Activate may carry the evidence.
    pub pending: Vec<Pending>,
}

impl Default for ClusterState {
    fn default() -> Self {
        Self::unfounded(BUCKETS)
    }
}

impl ClusterState {
    /// The state before the first entry, for modules of `buckets` buckets.
    #[must_use]
    pub fn unfounded(buckets: usize) -> Self {
        Self {
            cluster: ClusterId::default(),
            name: String::new(),
            generation: Generation::default(),
            epoch: Epoch(0),
            level: FeatureLevel(0),
            profile: Profile::Standard,
            hash_key: HashKey::default(),
            electors: Electors::default(),
            nodes: BTreeMap::new(),
            maintenance: BTreeMap::new(),
            restarts: Restarts::new(),
            modules: BTreeMap::new(),
            fences: BTreeMap::new(),
            lease_bound: Span::ZERO,
            retired: BTreeMap::new(),
            tie_break: None,
            buckets,
        }
    }

    /// Whether the cluster was founded.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The module that serves `vip`.
    #[must_use]
    pub fn module_of(&self, vip: VirtualIp) -> Option<(&ModuleName, &Module)> {
        self.modules.iter().find(|(_, m)| m.vips.contains_key(&vip))
    }

    /// A node's name, or its number if it is no member.
    #[must_use]
    pub fn name_of(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| format!("node {node}"), |n| n.name.clone())
    }

    /// Whether `node` is there for clients, as far as people decide that.
    #[must_use]
    pub fn takes_part(&self, node: &Node) -> bool {
        node.membership == Membership::Member && !self.maintenance.contains_key(&node.id)
    }

    /// Whether clients of `module` may be sent to `node`, as far as it does not depend on how the node is.
    #[must_use]
    pub fn may_serve(&self, node: &Node, module: &Module) -> bool {
        node.role == Role::Server
            && self.takes_part(node)
            && module.readiness(node.id) == Readiness::Open
            && module.weight(node.id).0 > 0
            && module.vips.keys().all(|vip| node.reaches(*vip))
    }

    /// Longest lease that `node` may still hold.
    #[must_use]
    pub fn longest_lease(&self, node: NodeId) -> Span {
        self.lease_bound.max(restart::outstanding(&self.restarts, node).unwrap_or_default())
    }

    /// The planned restart of `node` that is under way.
    #[must_use]
    pub fn restarting(&self, node: NodeId) -> Option<&Restart> {
        self.restarts.get(&node).filter(|r| r.over.is_none())
    }

    /// Every Move or Seal that waits for evidence, with the node it is against and the epoch that would release it.
    #[must_use]
    pub fn pending(&self) -> BTreeSet<Pending> {
        let buckets = self.modules.values().flat_map(|m| &m.assignment).flat_map(|b| &b.pending);
        let retired = self.retired.values().flat_map(|r| &r.pending);
        buckets.chain(retired).copied().chain(self.sealed()).collect()
    }

    /// What an elector must know of this state; `index` is that of its last entry.
    #[must_use]
    pub fn applied_fences(&self, index: u64) -> AppliedFences {
        let open = self.pending().into_iter().map(|p| (p.entry, p.node)).collect();
        AppliedFences { index, fences: self.fences.clone(), open }
    }

    /// Nodes that a Move should fence because of removed services.
    #[must_use]
    pub fn unfenced(&self) -> BTreeSet<NodeId> {
        self.retired.values().flat_map(|r| &r.unfenced).copied().collect()
    }

    fn sealed(&self) -> impl Iterator<Item = Pending> + '_ {
        let seal = self.electors.change.as_ref().and_then(|c| c.seal.as_ref());
        seal.into_iter()
            .flat_map(|s| s.nodes.iter().map(|n| Pending { node: *n, epoch: s.epoch, entry: s.entry }))
    }

    pub(crate) fn fence(&mut self, entry_fences: &[(NodeId, Epoch)]) {
        for (node, epoch) in entry_fences {
            let fence = self.fences.entry(*node).or_default();
            *fence = (*fence).max(*epoch);
        }
    }

    pub(crate) fn next_at(&self, entry: EntryId) -> crate::assignment::At {
        crate::assignment::At { epoch: self.epoch.next(), entry }
    }
}
