//! What a command does to the replicated state. Pure and deterministic; validation here is the authority.

mod changes;
mod cluster;
mod definition;
mod electors;
mod maintenance;
mod modules;
mod nodes;
mod restart;
mod survivor;
mod tiebreak;

use crate::command::{Body, Command};
use crate::event::{Event, Kind};
use crate::id::{EntryId, Epoch, FeatureLevel, NodeId};
use crate::state::ClusterState;

/// What this build knows. A command above it ends its part in the cluster until it is upgraded.
pub const LEVEL: FeatureLevel = FeatureLevel(if cfg!(feature = "next") { 2 } else { 1 });

/// The log holds a command that this build does not know. The state is unchanged and from here on not the
/// cluster's: stop applying and close.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the log needs feature level {needs}, this build knows {knows}; upgrade farmd on this node")]
pub struct UnknownLevel {
    /// Level of the command.
    pub needs: FeatureLevel,
    /// [`LEVEL`].
    pub knows: FeatureLevel,
}

/// What applying a command came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The change, or why there is none.
    pub result: Result<Applied, Refusal>,
    /// What happened; nothing when refused.
    pub events: Vec<Event>,
}

impl Outcome {
    /// Whether the command changed the state.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.result.is_ok()
    }

    /// Why it did not.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.result.as_ref().err()
    }
}

/// A command that was applied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Applied {
    /// The epoch after it.
    pub epoch: Epoch,
    /// The node that it admitted (`Found`, `NodeJoin`).
    pub node: Option<NodeId>,
}

/// Why a command changed nothing at all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
#[error("{fact}")]
pub struct Refusal {
    /// Stable code for scripts.
    pub code: &'static str,
    /// The observed fact.
    pub fact: String,
    /// The command that cures it or shows more.
    pub cure: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, fact: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code, fact: fact.into(), cure: cure.into() }
    }
}

/// What a group of commands returns: what happened, and whom it admitted.
type Done = Result<(Vec<Event>, Option<NodeId>), Refusal>;

/// One event that a person asked for.
fn happened(kind: Kind) -> Done {
    Ok((vec![Event { kind, cause: None }], None))
}

/// Holds when `condition`, else refuses.
fn ensure(condition: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if condition { Ok(()) } else { Err(refusal()) }
}

impl ClusterState {
    /// Applies `command`, which is `entry` of the log. A refused command changes nothing.
    ///
    /// # Errors
    /// [`UnknownLevel`], also where a level is finalised that this build does not know: the caller must stop applying.
    pub fn apply(&mut self, command: &Command, entry: EntryId) -> Result<Outcome, UnknownLevel> {
        // Nothing else in here may depend on what this build knows: all builds must come to the same state.
        let needs = match command.body {
            Body::FinalizeLevel(level) => level.max(command.level),
            _ => command.level,
        };
        if needs > LEVEL {
            return Err(UnknownLevel { needs, knows: LEVEL });
        }
        let done = self.admit(command).and_then(|()| self.dispatch(command, entry));
        Ok(match done {
            Ok((events, node)) => {
                if command.makes_epoch() {
                    self.epoch = self.epoch.next();
                }
                Outcome { result: Ok(Applied { epoch: self.epoch, node }), events }
            }
            Err(refusal) => Outcome { result: Err(refusal), events: Vec::new() },
        })
    }

    fn admit(&self, command: &Command) -> Result<(), Refusal> {
        let founds = matches!(command.body, Body::Found { .. });
        ensure(self.is_founded() || founds, || {
            Refusal::new("not_founded", "the cluster is not founded yet", "farmctl cluster init")
        })?;
        ensure(founds || command.level <= self.level, || {
            let fact =
                format!("the command needs feature level {}, members share {}", command.level, self.level);
            Refusal::new("level_not_final", fact, "farmctl cluster finalize")
        })?;
        match command.base {
            Some(base) => self.check_base(base),
            None => ensure(!command.is_step(), || {
                Refusal::new(
                    "base_missing",
                    "a step of a change must name its base epoch",
                    "farmctl cluster status",
                )
            }),
        }
    }

    fn check_base(&self, base: Epoch) -> Result<(), Refusal> {
        ensure(base == self.epoch || planted!(NoBaseCheck), || {
            let fact = format!("made for epoch {base}, the cluster is at {}: it does nothing", self.epoch);
            Refusal::new("stale_epoch", fact, "farmctl cluster status")
        })
    }

    fn dispatch(&mut self, command: &Command, entry: EntryId) -> Done {
        match &command.body {
            Body::Found { cluster, name, hash_key, profile, node, nonce } => {
                let level = command.level;
                let founding =
                    cluster::Founding { cluster: *cluster, name, hash_key: *hash_key, nonce: *nonce, level };
                self.found(&founding, *profile, node, entry)
            }
            Body::NodeJoin(node) => self.node_join(node, entry),
            Body::NodeUpdate(node) => self.node_update(node),
            Body::NodeAway(node) => self.node_away(*node),
            Body::NodeBack(node) => self.node_back(*node),
            Body::NodeLeave(node) => self.node_leave(*node),
            Body::NodeRemove(node) => self.node_remove(*node),
            Body::NodeOverrule(node) => self.node_overrule(*node),
            Body::TakeOver { generation, overruled } => self.take_over(*generation, overruled),
            Body::ModulePut { name, kind } => self.module_put(name, *kind),
            Body::ModuleApply { module, outline, content } => {
                self.module_apply(module, outline, content, entry)
            }
            Body::ModuleReadiness { module, node, readiness } => {
                self.module_readiness(module, *node, *readiness)
            }
            Body::ModuleRemove(name) => self.module_remove(name),
            Body::ServiceAdd { module, service, mode } => self.service_add(module, service, *mode),
            Body::ServiceRemove { module, service } => self.service_remove(module, service),
            Body::WeightSet { module, node, weight } => self.weight_set(module, *node, *weight),
            Body::DrainSet { module, limit } => self.drain_set(module, *limit),
            Body::MaintenanceOn { node, maintenance } => self.maintenance_on(*node, maintenance),
            Body::MaintenanceOff { node, due } => self.maintenance_off(*node, *due),
            Body::RestartBegin { node, lease, everybody } => {
                self.restart_begin(*node, *lease, *everybody, entry)
            }
            Body::RestartEnd { node, begun } => self.restart_end(*node, *begun),
            Body::RestartForget { node, begun } => self.restart_forget(*node, *begun),
            #[cfg(feature = "next")]
            Body::ClusterRename(name) => self.cluster_rename(name),
            Body::TieBreakSet(tie_break) => self.tie_break_set(tie_break.as_ref()),
            Body::TieBreakRehearsed { tried, rehearsal } => self.tie_break_rehearsed(tried, rehearsal),
            Body::ProfileSet(profile) => self.profile_set(*profile),
            Body::FinalizeLevel(level) => self.finalize_level(*level),
            Body::Prepare(transfers) => self.prepare(transfers, entry),
            Body::Move { losers, transfers } => self.move_buckets(losers, transfers, entry),
            Body::Activate { buckets, evidence } => self.activate(buckets, evidence, entry),
            Body::Settle(buckets) => self.settle(buckets, entry),
            Body::Cancel(buckets) => self.cancel(buckets, entry),
            Body::ElectorsJoint(next) => self.electors_joint(next),
            Body::ElectorsSeal { joint, nodes } => self.electors_seal(*joint, nodes, entry),
            Body::ElectorsFinal(evidence) => self.electors_final(evidence),
            Body::ElectorsCancel => self.electors_cancel(),
        }
    }
}
