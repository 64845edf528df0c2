//! What the replicated log can say. `farmd::wire` converts to and from `farm/v1/command.proto`.

use std::sync::Arc;

use crate::id::{ClusterId, EntryId, Epoch, FeatureLevel, Generation, NodeId};
use crate::lease::Timing;
use crate::model::{
    BucketSet, HashKey, Maintenance, Mode, ModuleKind, ModuleName, Node, Outline, Profile, Readiness,
    Service, Weight,
};
use crate::tiebreak::{Rehearsal, TieBreak};
use crate::time::{Span, UnixTime};

/// One command of the log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Command {
    /// Smallest feature level that knows this command.
    pub level: FeatureLevel,
    /// For entries that make an epoch: the entry is a no-op unless this is the current epoch.
    pub base: Option<Epoch>,
    /// What to do.
    pub body: Body,
}

/// Buckets of one module that go to one node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Transfer {
    /// The module.
    pub module: ModuleName,
    /// New owner.
    pub to: NodeId,
    /// Which buckets.
    pub buckets: BucketSet,
}

/// Buckets of one module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModuleBuckets {
    /// The module.
    pub module: ModuleName,
    /// Which buckets.
    pub buckets: BucketSet,
}

/// Why a pending node no longer accepts (DESIGN L4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Evidence {
    /// The node itself renewed with an applied epoch of at least `epoch`.
    Released {
        /// The node that lost buckets.
        node: NodeId,
        /// Target epoch of the Move that took them.
        epoch: Epoch,
    },
    /// A majority of electors reported, for exactly `entry`, that the node's last grant has run out.
    Expired {
        /// The node that lost buckets.
        node: NodeId,
        /// The Move (or Seal) that took them.
        entry: EntryId,
    },
}

/// The commands. Those marked *epoch* carry a base epoch and make a new epoch when they apply.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Body {
    /// The first command of a cluster.
    Found {
        /// Identity of the cluster.
        cluster: ClusterId,
        /// Its name.
        name: String,
        /// Secret key of the bucket hash.
        hash_key: HashKey,
        /// Timing.
        profile: Profile,
        /// The founding node.
        node: Node,
        /// Part of the first generation.
        nonce: u64,
    },
    /// A node becomes a member (*epoch*: the filters learn its MACs).
    NodeJoin(Node),
    /// A node's addresses or links changed (*epoch*).
    NodeUpdate(Node),
    /// A node goes away for a while (planned restart): it gets no buckets until it is back.
    NodeAway(NodeId),
    /// A node that was away takes part again.
    NodeBack(NodeId),
    /// A node wants to go: it gets no buckets any more (its weights count as 0).
    NodeLeave(NodeId),
    /// The node holds nothing any more and is forgotten (*epoch*).
    NodeRemove(NodeId),
    /// A node that does not vote and is not heard has lost its store: what it had agreed to counts no more.
    NodeOverrule(NodeId),
    /// The survivor of `generation` goes on alone: it has voted for everybody else who could (*epoch*).
    TakeOver {
        /// Names the survivor.
        generation: Generation,
        /// Who else voted; ascending.
        overruled: Vec<NodeId>,
    },
    /// Creates a module or changes its kind (*epoch*).
    ModulePut {
        /// Its name.
        name: ModuleName,
        /// Its kind.
        kind: ModuleKind,
    },
    /// Makes a module what a definition says, whatever it was before (*epoch*).
    ModuleApply {
        /// The module.
        module: ModuleName,
        /// Its traffic.
        outline: Outline,
        /// Its files, packed.
        content: Arc<[u8]>,
    },
    /// The application of a module on a node serves clients, or does not any more.
    ModuleReadiness {
        /// The module.
        module: ModuleName,
        /// The node.
        node: NodeId,
        /// How it is.
        readiness: Readiness,
    },
    /// Removes a module and its services (*epoch*).
    ModuleRemove(ModuleName),
    /// Adds a service; creates the module (kind farm) if it is new (*epoch*).
    ServiceAdd {
        /// The module.
        module: ModuleName,
        /// The service.
        service: Service,
        /// Delivery mode of its virtual IP; must agree with the mode the virtual IP already has.
        mode: Mode,
    },
    /// Removes a service; the virtual IP goes with its last service (*epoch*).
    ServiceRemove {
        /// The module.
        module: ModuleName,
        /// The service.
        service: Service,
    },
    /// Weight of a node for a module.
    WeightSet {
        /// The module.
        module: ModuleName,
        /// The node.
        node: NodeId,
        /// 0 drains.
        weight: Weight,
    },
    /// How long connections may stay with their previous node after a planned change.
    DrainSet {
        /// The module.
        module: ModuleName,
        /// At most [`crate::limits::DRAIN`]; zero cuts them off at once.
        limit: Span,
    },
    /// A server is freed of clients and kept so, across restarts.
    MaintenanceOn {
        /// The server.
        node: NodeId,
        /// Since when, until when, why. It replaces what was said before.
        maintenance: Maintenance,
    },
    /// A server takes part again.
    MaintenanceOff {
        /// The server.
        node: NodeId,
        /// The end that has come; `None` when somebody asks for it. It does nothing when another end was set meanwhile.
        due: Option<UnixTime>,
    },
    /// A node's daemon is about to be restarted: its filter goes on under a longer lease ([`crate::restart`]).
    RestartBegin {
        /// The node.
        node: NodeId,
        /// At most [`crate::restart::RESTART_LEASE_MAX`].
        lease: Span,
        /// Whether all nodes get such leases: it must be where the others alone are no majority of the electors, and
        /// should be where those of them that live are none.
        everybody: bool,
    },
    /// The daemon is back, or will not come back: ordinary leases from now on (*epoch*).
    RestartEnd {
        /// The node.
        node: NodeId,
        /// The entry that began it.
        begun: EntryId,
    },
    /// Nobody holds a longer lease any more.
    RestartForget {
        /// The node that restarted.
        node: NodeId,
        /// The entry that began it.
        begun: EntryId,
    },
    /// The cluster gets another name. Of feature level 2.
    #[cfg(feature = "next")]
    ClusterRename(String),
    /// What decides when two voters have lost each other; `None`: nothing.
    TieBreakSet(Option<TieBreak>),
    /// What a trial of it came to. It does nothing when another one was set meanwhile.
    TieBreakRehearsed {
        /// The one that was tried, without an earlier trial.
        tried: TieBreak,
        /// What came of it.
        rehearsal: Rehearsal,
    },
    /// Timing profile.
    ProfileSet(Profile),
    /// Members use commands up to this level from now on.
    FinalizeLevel(FeatureLevel),
    /// Step 1 of a planned change (*epoch*).
    Prepare(Vec<Transfer>),
    /// Step 2, or the first step after a failure (*epoch*). From the moment it is in an elector's log it fences
    /// the losers at its own epoch.
    Move {
        /// Every node that loses buckets, or a retired service, by it; ascending. It must be what `transfers` says
        /// for the base epoch: an elector that has not applied that epoch cannot work it out.
        losers: Vec<NodeId>,
        /// What goes where.
        transfers: Vec<Transfer>,
    },
    /// Step 3 (*epoch*).
    Activate {
        /// Buckets whose pending set is evidenced.
        buckets: Vec<ModuleBuckets>,
        /// The evidence.
        evidence: Vec<Evidence>,
    },
    /// Step 4 (*epoch*).
    Settle(Vec<ModuleBuckets>),
    /// Takes a Prepare back (*epoch*).
    Cancel(Vec<ModuleBuckets>),
    /// Elector change, step 1: leases and evidence need a majority of both sets (*epoch*).
    ElectorsJoint(Vec<NodeId>),
    /// Step 2: in the log it fences every node at Joint (*epoch*).
    ElectorsSeal {
        /// Epoch of Joint.
        joint: Epoch,
        /// Every member; ascending.
        nodes: Vec<NodeId>,
    },
    /// Step 3 (*epoch*).
    ElectorsFinal(Vec<Evidence>),
    /// Takes a change of electors back that cannot be finished (*epoch*). Safe at any step before Final: until then
    /// every lease and all evidence rest on a majority of the old set, as they do after it.
    ElectorsCancel,
}

impl Command {
    /// A command of the first feature level that makes an epoch, if the epoch is still `base` when it applies.
    #[must_use]
    pub fn at(base: Epoch, body: Body) -> Self {
        Self { level: FeatureLevel(1), base: Some(base), body }
    }

    /// A command of the first feature level that applies whatever the epoch is.
    #[must_use]
    pub fn any(body: Body) -> Self {
        Self { level: FeatureLevel(1), base: None, body }
    }

    /// Whether it makes an epoch when it applies.
    #[must_use]
    pub fn makes_epoch(&self) -> bool {
        match self.body {
            Body::NodeAway(_)
            | Body::NodeBack(_)
            | Body::NodeLeave(_)
            | Body::NodeOverrule(_)
            | Body::WeightSet { .. }
            | Body::DrainSet { .. }
            | Body::ModuleReadiness { .. }
            | Body::MaintenanceOn { .. }
            | Body::MaintenanceOff { .. }
            | Body::RestartBegin { .. }
            | Body::RestartForget { .. }
            | Body::TieBreakSet(_)
            | Body::TieBreakRehearsed { .. }
            | Body::ProfileSet(_)
            | Body::FinalizeLevel(_) => false,
            #[cfg(feature = "next")]
            Body::ClusterRename(_) => false,
            Body::Found { .. }
            | Body::NodeJoin(_)
            | Body::NodeUpdate(_)
            | Body::NodeRemove(_)
            | Body::TakeOver { .. }
            | Body::ModulePut { .. }
            | Body::ModuleApply { .. }
            | Body::ModuleRemove(_)
            | Body::ServiceAdd { .. }
            | Body::ServiceRemove { .. }
            | Body::RestartEnd { .. } => true,
            Body::Prepare(_)
            | Body::Move { .. }
            | Body::Activate { .. }
            | Body::Settle(_)
            | Body::Cancel(_)
            | Body::ElectorsJoint(_)
            | Body::ElectorsSeal { .. }
            | Body::ElectorsFinal(_)
            | Body::ElectorsCancel => true,
        }
    }

    /// Whether it is a step of a change: such an entry makes no sense without a base epoch.
    #[must_use]
    pub fn is_step(&self) -> bool {
        matches!(
            self.body,
            Body::Prepare(_)
                | Body::Move { .. }
                | Body::Activate { .. }
                | Body::Settle(_)
                | Body::Cancel(_)
                | Body::ElectorsJoint(_)
                | Body::ElectorsSeal { .. }
                | Body::ElectorsFinal(_)
                | Body::ElectorsCancel
        )
    }

    /// Whether twice, one after the other, is the same as once: who does not know what became of it may ask again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(
            self.body,
            Body::ModuleApply { .. }
                | Body::ModuleReadiness { .. }
                | Body::WeightSet { .. }
                | Body::DrainSet { .. }
        )
    }

    /// Whom an elector must not grant below which epoch from the moment this command is in its durable log,
    /// committed or not (DESIGN L2, L7).
    #[must_use]
    pub fn fences(&self) -> Vec<(NodeId, Epoch)> {
        match (&self.body, self.base) {
            (Body::Move { losers, .. }, Some(base)) => losers.iter().map(|n| (*n, base.next())).collect(),
            (Body::ElectorsSeal { joint, nodes }, Some(_)) => nodes.iter().map(|n| (*n, *joint)).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it changes what leases electors may grant.
    #[must_use]
    pub fn changes_leases(&self) -> bool {
        let restart = matches!(
            self.body,
            Body::RestartBegin { .. } | Body::RestartEnd { .. } | Body::RestartForget { .. }
        );
        restart || self.lease().is_some()
    }

    /// The lease that electors may grant once this command applied. An elector that restarts takes the longest of
    /// the state's bound and of this over the whole of its log.
    #[must_use]
    pub fn lease(&self) -> Option<Span> {
        match &self.body {
            Body::Found { profile, .. } | Body::ProfileSet(profile) => Some(Timing::of(*profile).lease),
            _ => None,
        }
    }
}
