//! Modules and who owns their buckets.

use std::collections::BTreeMap;

use farm_core::id::{Epoch, NodeId};
use farm_core::model::{
    BUCKETS, BucketSet, BucketState, Criterion, Definition, Mode, Module, ModuleKind, ModuleName, Outline,
    Phase, Protocol, Readiness, Revision, Service, VirtualIp, Weight,
};
use farm_core::time::Span;
use farm_proto::v1;

use super::{Wire, WireError, all_to_wire, parse_all, required, text};

/// The message for a module.
#[must_use]
pub fn module_to_wire(name: &ModuleName, module: &Module) -> v1::Module {
    let vip = |(vip, mode): (&VirtualIp, &Mode)| v1::VirtualIp {
        ip: vip.ip.to_string(),
        mode: mode.to_wire(),
        vlan: text::of_vlan(vip.vlan),
    };
    v1::Module {
        name: name.0.clone(),
        kind: module.kind.to_wire(),
        vips: module.vips.iter().map(vip).collect(),
        services: module.services.iter().map(service_to_wire).collect(),
        weights: module.weights.iter().map(weight_to_wire).collect(),
        assignment: Some(v1::Assignment { groups: groups(&module.assignment) }),
        slot: module.slot.into(),
        drain_ms: module.drain.map(Span::as_millis),
        definition: module.definition.as_ref().map(definition_to_wire),
    }
}

fn definition_to_wire(definition: &Definition) -> v1::ModuleDefinition {
    let revision = |r: &Revision| v1::Revision { number: r.number, content: r.content.to_vec().into() };
    let on = definition.application.iter().flatten();
    v1::ModuleDefinition {
        revisions: definition.revisions.iter().map(revision).collect(),
        born: definition.born,
        application: definition.application.is_some(),
        readiness: on.map(|(node, r)| v1::NodeReadiness { node: node.0, readiness: r.to_wire() }).collect(),
    }
}

fn parse_definition(p: v1::ModuleDefinition) -> Result<Definition, WireError> {
    let revision = |r: v1::Revision| Revision { number: r.number, content: r.content.to_vec().into() };
    let on = p
        .readiness
        .into_iter()
        .map(|on| Ok((text::node("NodeReadiness.node", on.node)?, Readiness::from_wire(on.readiness)?)));
    let on = on.collect::<Result<BTreeMap<_, _>, WireError>>()?;
    let revisions: Vec<Revision> = p.revisions.into_iter().map(revision).collect();
    if revisions.is_empty() {
        return Err(WireError::Missing { field: "ModuleDefinition.revisions" });
    }
    Ok(Definition { revisions, born: p.born, application: p.application.then_some(on) })
}

impl Wire for Outline {
    type Proto = v1::ModuleApply;

    /// Without name and content.
    fn to_wire(&self) -> v1::ModuleApply {
        let service = |(service, mode): &(Service, Mode)| v1::ModuleService {
            service: Some(service.to_wire()),
            mode: mode.to_wire(),
        };
        v1::ModuleApply {
            module: String::new(),
            kind: self.kind.to_wire(),
            services: self.services.iter().map(service).collect(),
            weights: self.weights.iter().map(weight_to_wire).collect(),
            drain_ms: self.drain.map(Span::as_millis),
            application: self.application,
            content: Default::default(),
        }
    }

    fn from_wire(p: v1::ModuleApply) -> Result<Self, WireError> {
        let service = |s: v1::ModuleService| {
            Ok((required::<Service>("ModuleService.service", s.service)?, Mode::from_wire(s.mode)?))
        };
        Ok(Self {
            kind: ModuleKind::from_wire(p.kind)?,
            services: p.services.into_iter().map(service).collect::<Result<_, WireError>>()?,
            weights: p.weights.into_iter().map(parse_weight).collect::<Result<_, _>>()?,
            drain: p.drain_ms.map(|ms| Span::millis(ms.min(Span::MAX_MILLIS))),
            application: p.application,
        })
    }
}

fn weight_to_wire((node, weight): (&NodeId, &Weight)) -> v1::NodeWeight {
    v1::NodeWeight { node: node.0, weight: weight.0.into() }
}

type ServiceEntry<'a> = (&'a (VirtualIp, Protocol, u16), &'a Criterion);

fn service_to_wire((key, criterion): ServiceEntry<'_>) -> v1::Service {
    let (vip, protocol, port) = *key;
    Service { vip, protocol, port, criterion: *criterion }.to_wire()
}

pub(super) fn parse_module(p: v1::Module) -> Result<(ModuleName, Module), WireError> {
    let name = text::module("Module.name", p.name)?;
    let slot = u8::try_from(p.slot).map_err(|_| WireError::invalid("Module.slot", p.slot, "at most 255"))?;
    let services: Vec<Service> = parse_all(p.services)?;
    let assignment = p.assignment.ok_or(WireError::Missing { field: "Module.assignment" })?;
    let module = Module {
        kind: ModuleKind::from_wire(p.kind)?,
        slot,
        vips: p.vips.into_iter().map(parse_vip).collect::<Result<_, _>>()?,
        services: services.into_iter().map(|s| ((s.vip, s.protocol, s.port), s.criterion)).collect(),
        weights: p.weights.into_iter().map(parse_weight).collect::<Result<_, _>>()?,
        drain: p.drain_ms.map(|ms| Span::millis(ms.min(Span::MAX_MILLIS))),
        definition: p.definition.map(parse_definition).transpose()?,
        assignment: parse_groups(assignment.groups)?,
    };
    Ok((name, module))
}

fn parse_vip(p: v1::VirtualIp) -> Result<(VirtualIp, Mode), WireError> {
    Ok((text::vip("VirtualIp.ip", &p.ip, &p.vlan)?, Mode::from_wire(p.mode)?))
}

fn parse_weight(p: v1::NodeWeight) -> Result<(NodeId, Weight), WireError> {
    Ok((text::node("NodeWeight.node", p.node)?, Weight(text::u16("NodeWeight.weight", p.weight)?)))
}

/// Buckets in the same state as one bitmap: thousands of buckets are in a handful of states.
fn groups(assignment: &[BucketState]) -> Vec<v1::BucketGroup> {
    let mut groups: BTreeMap<&BucketState, BucketSet> = BTreeMap::new();
    for (bucket, state) in assignment.iter().enumerate() {
        groups.entry(state).or_insert_with(|| BucketSet::empty(BUCKETS)).insert(bucket);
    }
    groups.into_iter().map(|(state, buckets)| group_to_wire(state, &buckets)).collect()
}

fn group_to_wire(state: &BucketState, buckets: &BucketSet) -> v1::BucketGroup {
    v1::BucketGroup {
        phase: state.phase.to_wire(),
        current: state.current.unwrap_or_default().0,
        previous: state.previous.unwrap_or_default().0,
        changed: state.changed.0,
        pending: all_to_wire(&state.pending),
        buckets: buckets.as_bytes().to_vec().into(),
    }
}

/// Every bucket is in exactly one group, or the module has none.
fn parse_groups(groups: Vec<v1::BucketGroup>) -> Result<Vec<BucketState>, WireError> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let mut assignment: Vec<Option<BucketState>> = vec![None; BUCKETS];
    for group in groups {
        let buckets = text::buckets("BucketGroup.buckets", &group.buckets)?;
        let state = parse_group(group)?;
        for bucket in buckets.iter() {
            if assignment[bucket].replace(state.clone()).is_some() {
                return Err(WireError::invalid(
                    "Assignment.groups",
                    format!("bucket {bucket} twice"),
                    "each bucket once",
                ));
            }
        }
    }
    let missing = || WireError::invalid("Assignment.groups", "without some buckets", "each bucket once");
    assignment.into_iter().collect::<Option<_>>().ok_or_else(missing)
}

fn parse_group(p: v1::BucketGroup) -> Result<BucketState, WireError> {
    Ok(BucketState {
        current: text::maybe_node(p.current),
        previous: text::maybe_node(p.previous),
        phase: Phase::from_wire(p.phase)?,
        changed: Epoch(p.changed),
        pending: parse_all(p.pending)?,
    })
}
