//! Commands of the log.

use farm_core::command::{Body, Command, Evidence, ModuleBuckets, Transfer};
use farm_core::id::{ClusterId, EntryId, Epoch, FeatureLevel, Generation, NodeId};
use farm_core::model::{
    HashKey, Mode, ModuleKind, ModuleName, Node, Outline, Profile, Readiness, Service, Weight,
};
use farm_core::tiebreak::{Rehearsal, TieBreak};
use farm_core::time::{Span, UnixTime};
use farm_proto::v1;
use v1::command::Body as Proto;

use super::model::{maintenance_to_wire, parse_maintenance};

use super::{Wire, WireError, all_to_wire, parse_all, required, text};

impl Wire for Command {
    type Proto = v1::Command;

    fn to_wire(&self) -> v1::Command {
        v1::Command {
            feature_level: self.level.0,
            base: self.base.map(|e| e.0),
            body: Some(body_to_wire(&self.body)),
        }
    }

    fn from_wire(p: v1::Command) -> Result<Self, WireError> {
        // A body that this version does not know arrives as no body: then the level says how new it is.
        let level = p.feature_level;
        let body = p
            .body
            .ok_or_else(|| WireError::unknown("Command.body", format_args!("feature level {level}")))?;
        Ok(Self { level: FeatureLevel(level), base: p.base.map(Epoch), body: parse_body(body)? })
    }
}

impl Wire for Transfer {
    type Proto = v1::Transfer;

    fn to_wire(&self) -> v1::Transfer {
        v1::Transfer {
            module: self.module.0.clone(),
            to: self.to.0,
            buckets: self.buckets.as_bytes().to_vec().into(),
        }
    }

    fn from_wire(p: v1::Transfer) -> Result<Self, WireError> {
        Ok(Self {
            module: text::module("Transfer.module", p.module)?,
            to: text::node("Transfer.to", p.to)?,
            buckets: text::buckets("Transfer.buckets", &p.buckets)?,
        })
    }
}

impl Wire for ModuleBuckets {
    type Proto = v1::BucketSet;

    fn to_wire(&self) -> v1::BucketSet {
        v1::BucketSet { module: self.module.0.clone(), buckets: self.buckets.as_bytes().to_vec().into() }
    }

    fn from_wire(p: v1::BucketSet) -> Result<Self, WireError> {
        Ok(Self {
            module: text::module("BucketSet.module", p.module)?,
            buckets: text::buckets("BucketSet.buckets", &p.buckets)?,
        })
    }
}

impl Wire for Evidence {
    type Proto = v1::Evidence;

    fn to_wire(&self) -> v1::Evidence {
        match self {
            Self::Released { node, epoch } => {
                v1::Evidence { node: node.0, released: true, epoch: epoch.0, entry: None }
            }
            Self::Expired { node, entry } => {
                v1::Evidence { node: node.0, released: false, epoch: 0, entry: Some(entry.to_wire()) }
            }
        }
    }

    fn from_wire(p: v1::Evidence) -> Result<Self, WireError> {
        let node = text::node("Evidence.node", p.node)?;
        if p.released {
            return Ok(Self::Released { node, epoch: Epoch(p.epoch) });
        }
        Ok(Self::Expired { node, entry: required::<EntryId>("Evidence.entry", p.entry)? })
    }
}

fn body_to_wire(body: &Body) -> Proto {
    match body {
        Body::Found { cluster, name, hash_key, profile, node, nonce } => Proto::Found(v1::Found {
            cluster: cluster.0.to_vec().into(),
            name: name.clone(),
            hash_key: hash_key.0.to_vec().into(),
            profile: profile.to_wire(),
            node: Some(node.to_wire()),
            nonce: *nonce,
        }),
        Body::NodeJoin(node) => Proto::NodeJoin(v1::NodeJoin { node: Some(node.to_wire()) }),
        Body::NodeUpdate(node) => Proto::NodeUpdate(v1::NodeUpdate { node: Some(node.to_wire()) }),
        Body::NodeAway(node) => Proto::NodeAway(v1::NodeAway { node: node.0 }),
        Body::NodeBack(node) => Proto::NodeBack(v1::NodeBack { node: node.0 }),
        Body::NodeLeave(node) => Proto::NodeLeave(v1::NodeLeave { node: node.0 }),
        Body::NodeRemove(node) => Proto::NodeRemove(v1::NodeRemove { node: node.0 }),
        Body::NodeOverrule(node) => Proto::NodeOverrule(v1::NodeOverrule { node: node.0 }),
        Body::TakeOver { generation, overruled } => take_over_to_wire(generation, overruled),
        Body::ModulePut { name, kind } => {
            Proto::ModulePut(v1::ModulePut { name: name.0.clone(), kind: kind.to_wire() })
        }
        Body::ModuleApply { module, outline, content } => module_apply_to_wire(module, outline, content),
        Body::ModuleReadiness { module, node, readiness } => readiness_to_wire(module, *node, *readiness),
        Body::ModuleRemove(name) => Proto::ModuleRemove(v1::ModuleRemove { name: name.0.clone() }),
        Body::ServiceAdd { module, service, mode } => service_add_to_wire(module, service, *mode),
        Body::ServiceRemove { module, service } => Proto::ServiceRemove(v1::ServiceRemove {
            module: module.0.clone(),
            service: Some(service.to_wire()),
        }),
        Body::WeightSet { module, node, weight } => Proto::WeightSet(v1::WeightSet {
            module: module.0.clone(),
            node: node.0,
            weight: weight.0.into(),
        }),
        Body::DrainSet { module, limit } => {
            Proto::DrainSet(v1::DrainSet { module: module.0.clone(), drain_ms: limit.as_millis() })
        }
        Body::MaintenanceOn { node, maintenance } => Proto::MaintenanceOn(v1::MaintenanceOn {
            maintenance: Some(maintenance_to_wire(*node, maintenance)),
        }),
        Body::MaintenanceOff { node, due } => {
            Proto::MaintenanceOff(v1::MaintenanceOff { node: node.0, due_ms: due.map(|d| d.0) })
        }
        Body::RestartBegin { node, lease, everybody } => restart_begin_to_wire(*node, *lease, *everybody),
        Body::RestartEnd { node, begun } => restart_end_to_wire(*node, begun),
        Body::RestartForget { node, begun } => restart_forget_to_wire(*node, begun),
        #[cfg(feature = "next")]
        Body::ClusterRename(name) => Proto::ClusterRename(v1::ClusterRename { name: name.clone() }),
        Body::TieBreakSet(to) => tie_break_to_wire(to.as_ref()),
        Body::TieBreakRehearsed { tried, rehearsal } => rehearsed_to_wire(tried, rehearsal),
        Body::ProfileSet(profile) => Proto::ProfileSet(v1::ProfileSet { profile: profile.to_wire() }),
        Body::FinalizeLevel(level) => Proto::FinalizeLevel(v1::FinalizeLevel { feature_level: level.0 }),
        Body::Prepare(list) => Proto::Prepare(v1::Prepare { transfers: all_to_wire(list) }),
        Body::Move { losers, transfers } => move_to_wire(losers, transfers),
        Body::Activate { buckets, evidence } => {
            Proto::Activate(v1::Activate { buckets: all_to_wire(buckets), evidence: all_to_wire(evidence) })
        }
        Body::Settle(list) => Proto::Settle(v1::Settle { buckets: all_to_wire(list) }),
        Body::Cancel(list) => Proto::Cancel(v1::Cancel { buckets: all_to_wire(list) }),
        Body::ElectorsJoint(nodes) => Proto::ElectorsJoint(v1::ElectorsJoint { electors: ids(nodes) }),
        Body::ElectorsSeal { joint, nodes } => {
            Proto::ElectorsSeal(v1::ElectorsSeal { joint: joint.0, nodes: ids(nodes) })
        }
        Body::ElectorsFinal(evidence) => {
            Proto::ElectorsFinal(v1::ElectorsFinal { evidence: all_to_wire(evidence) })
        }
        Body::ElectorsCancel => Proto::ElectorsCancel(v1::ElectorsCancel {}),
    }
}

fn parse_body(body: Proto) -> Result<Body, WireError> {
    Ok(match body {
        Proto::Found(p) => parse_found(p)?,
        Proto::NodeJoin(p) => Body::NodeJoin(required("NodeJoin.node", p.node)?),
        Proto::NodeUpdate(p) => Body::NodeUpdate(required("NodeUpdate.node", p.node)?),
        Proto::NodeAway(p) => Body::NodeAway(text::node("NodeAway.node", p.node)?),
        Proto::NodeBack(p) => Body::NodeBack(text::node("NodeBack.node", p.node)?),
        Proto::NodeLeave(p) => Body::NodeLeave(text::node("NodeLeave.node", p.node)?),
        Proto::NodeRemove(p) => Body::NodeRemove(text::node("NodeRemove.node", p.node)?),
        Proto::NodeOverrule(p) => Body::NodeOverrule(text::node("NodeOverrule.node", p.node)?),
        Proto::TakeOver(p) => parse_take_over(p)?,
        Proto::ModulePut(p) => parse_module_put(p)?,
        Proto::ModuleApply(p) => parse_module_apply(p)?,
        Proto::ModuleReadiness(p) => parse_readiness(p)?,
        Proto::ModuleRemove(p) => Body::ModuleRemove(text::module("ModuleRemove.name", p.name)?),
        Proto::ServiceAdd(p) => Body::ServiceAdd {
            module: text::module("ServiceAdd.module", p.module)?,
            service: required::<Service>("ServiceAdd.service", p.service)?,
            mode: Mode::from_wire(p.mode)?,
        },
        Proto::ServiceRemove(p) => Body::ServiceRemove {
            module: text::module("ServiceRemove.module", p.module)?,
            service: required::<Service>("ServiceRemove.service", p.service)?,
        },
        Proto::WeightSet(p) => Body::WeightSet {
            module: text::module("WeightSet.module", p.module)?,
            node: text::node("WeightSet.node", p.node)?,
            weight: Weight(text::u16("WeightSet.weight", p.weight)?),
        },
        Proto::DrainSet(p) => Body::DrainSet {
            module: text::module("DrainSet.module", p.module)?,
            limit: Span::millis(p.drain_ms.min(Span::MAX_MILLIS)),
        },
        Proto::MaintenanceOn(p) => {
            let p = p.maintenance.ok_or(WireError::Missing { field: "MaintenanceOn.maintenance" })?;
            let (node, maintenance) = parse_maintenance(p)?;
            Body::MaintenanceOn { node, maintenance }
        }
        Proto::MaintenanceOff(p) => Body::MaintenanceOff {
            node: text::node("MaintenanceOff.node", p.node)?,
            due: p.due_ms.map(UnixTime),
        },
        Proto::RestartBegin(p) => parse_restart_begin(&p)?,
        Proto::RestartEnd(p) => parse_restart_end(p)?,
        Proto::RestartForget(p) => parse_restart_forget(p)?,
        #[cfg(feature = "next")]
        Proto::ClusterRename(p) => Body::ClusterRename(text::name("ClusterRename.name", p.name)?),
        #[cfg(not(feature = "next"))]
        Proto::ClusterRename(_) => return Err(WireError::unknown("Command.body", "cluster_rename")),
        Proto::TieBreakSet(p) => Body::TieBreakSet(p.tie_break.map(TieBreak::from_wire).transpose()?),
        Proto::TieBreakRehearsed(p) => parse_rehearsed(p)?,
        Proto::ProfileSet(p) => Body::ProfileSet(Profile::from_wire(p.profile)?),
        Proto::FinalizeLevel(p) => Body::FinalizeLevel(FeatureLevel(p.feature_level)),
        Proto::Prepare(p) => Body::Prepare(parse_all(p.transfers)?),
        Proto::Move(p) => {
            Body::Move { losers: parse_nodes("Move.losers", p.losers)?, transfers: parse_all(p.transfers)? }
        }
        Proto::Activate(p) => {
            Body::Activate { buckets: parse_all(p.buckets)?, evidence: parse_all(p.evidence)? }
        }
        Proto::Settle(p) => Body::Settle(parse_all(p.buckets)?),
        Proto::Cancel(p) => Body::Cancel(parse_all(p.buckets)?),
        Proto::ElectorsJoint(p) => Body::ElectorsJoint(parse_nodes("ElectorsJoint.electors", p.electors)?),
        Proto::ElectorsSeal(p) => {
            Body::ElectorsSeal { joint: Epoch(p.joint), nodes: parse_nodes("ElectorsSeal.nodes", p.nodes)? }
        }
        Proto::ElectorsFinal(p) => Body::ElectorsFinal(parse_all(p.evidence)?),
        Proto::ElectorsCancel(v1::ElectorsCancel {}) => Body::ElectorsCancel,
    })
}

fn module_apply_to_wire(module: &ModuleName, outline: &Outline, content: &[u8]) -> Proto {
    Proto::ModuleApply(v1::ModuleApply {
        module: module.0.clone(),
        content: content.to_vec().into(),
        ..outline.to_wire()
    })
}

fn readiness_to_wire(module: &ModuleName, node: NodeId, readiness: Readiness) -> Proto {
    Proto::ModuleReadiness(v1::ModuleReadiness {
        module: module.0.clone(),
        node: node.0,
        readiness: readiness.to_wire(),
    })
}

fn service_add_to_wire(module: &ModuleName, service: &Service, mode: Mode) -> Proto {
    Proto::ServiceAdd(v1::ServiceAdd {
        module: module.0.clone(),
        service: Some(service.to_wire()),
        mode: mode.to_wire(),
    })
}

fn parse_readiness(p: v1::ModuleReadiness) -> Result<Body, WireError> {
    Ok(Body::ModuleReadiness {
        module: text::module("ModuleReadiness.module", p.module)?,
        node: text::node("ModuleReadiness.node", p.node)?,
        readiness: Readiness::from_wire(p.readiness)?,
    })
}

fn parse_module_apply(mut p: v1::ModuleApply) -> Result<Body, WireError> {
    let module = text::module("ModuleApply.module", std::mem::take(&mut p.module))?;
    let content = std::mem::take(&mut p.content).to_vec().into();
    Ok(Body::ModuleApply { module, outline: Outline::from_wire(p)?, content })
}

fn move_to_wire(losers: &[NodeId], transfers: &[Transfer]) -> Proto {
    Proto::Move(v1::Move { losers: ids(losers), transfers: all_to_wire(transfers) })
}

fn tie_break_to_wire(to: Option<&TieBreak>) -> Proto {
    Proto::TieBreakSet(v1::TieBreakSet { tie_break: to.map(Wire::to_wire) })
}

fn rehearsed_to_wire(tried: &TieBreak, rehearsal: &Rehearsal) -> Proto {
    let (tried, rehearsal) = (Some(tried.to_wire()), Some(rehearsal.to_wire()));
    Proto::TieBreakRehearsed(v1::TieBreakRehearsed { tried, rehearsal })
}

fn parse_rehearsed(p: v1::TieBreakRehearsed) -> Result<Body, WireError> {
    Ok(Body::TieBreakRehearsed {
        tried: required("TieBreakRehearsed.tried", p.tried)?,
        rehearsal: required("TieBreakRehearsed.rehearsal", p.rehearsal)?,
    })
}

fn parse_module_put(p: v1::ModulePut) -> Result<Body, WireError> {
    Ok(Body::ModulePut {
        name: text::module("ModulePut.name", p.name)?,
        kind: ModuleKind::from_wire(p.kind)?,
    })
}

fn take_over_to_wire(generation: &Generation, overruled: &[NodeId]) -> Proto {
    Proto::TakeOver(v1::TakeOver { generation: Some(generation.to_wire()), overruled: ids(overruled) })
}

fn parse_take_over(p: v1::TakeOver) -> Result<Body, WireError> {
    Ok(Body::TakeOver {
        generation: required("TakeOver.generation", p.generation)?,
        overruled: parse_nodes("TakeOver.overruled", p.overruled)?,
    })
}

fn restart_begin_to_wire(node: NodeId, lease: Span, everybody: bool) -> Proto {
    Proto::RestartBegin(v1::RestartBegin { node: node.0, lease_ms: lease.as_millis(), everybody })
}

fn restart_end_to_wire(node: NodeId, begun: &EntryId) -> Proto {
    Proto::RestartEnd(v1::RestartEnd { node: node.0, begun: Some(begun.to_wire()) })
}

fn restart_forget_to_wire(node: NodeId, begun: &EntryId) -> Proto {
    Proto::RestartForget(v1::RestartForget { node: node.0, begun: Some(begun.to_wire()) })
}

fn parse_restart_begin(p: &v1::RestartBegin) -> Result<Body, WireError> {
    Ok(Body::RestartBegin {
        node: text::node("RestartBegin.node", p.node)?,
        lease: Span::millis(p.lease_ms.min(Span::MAX_MILLIS)),
        everybody: p.everybody,
    })
}

fn parse_restart_end(p: v1::RestartEnd) -> Result<Body, WireError> {
    Ok(Body::RestartEnd {
        node: text::node("RestartEnd.node", p.node)?,
        begun: required::<EntryId>("RestartEnd.begun", p.begun)?,
    })
}

fn parse_restart_forget(p: v1::RestartForget) -> Result<Body, WireError> {
    Ok(Body::RestartForget {
        node: text::node("RestartForget.node", p.node)?,
        begun: required::<EntryId>("RestartForget.begun", p.begun)?,
    })
}

fn parse_found(p: v1::Found) -> Result<Body, WireError> {
    Ok(Body::Found {
        cluster: ClusterId(text::array("Found.cluster", &p.cluster)?),
        name: text::name("Found.name", p.name)?,
        hash_key: HashKey(text::array("Found.hash_key", &p.hash_key)?),
        profile: Profile::from_wire(p.profile)?,
        node: required::<Node>("Found.node", p.node)?,
        nonce: p.nonce,
    })
}

fn ids(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|n| n.0).collect()
}

fn parse_nodes(field: &'static str, ids: Vec<u64>) -> Result<Vec<NodeId>, WireError> {
    ids.into_iter().map(|id| text::node(field, id)).collect()
}
