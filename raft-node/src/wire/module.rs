//! Modules and who owns their buckets.

use std::collections::BTreeMap;

use farm_core::id::{Epoch, NodeId};
use farm_core::model::{
    BUCKETS, BucketSet, BucketState, Criterion, Mode, Module, ModuleKind, ModuleName, Phase, Protocol,
    Service, VirtualIp, Weight,
};
use farm_core::time::Span;
use farm_proto::v1;

use super::{Wire, WireError, all_to_wire, parse_all, text};

/// The message for a module.
#[must_use]
pub fn module_to_wire(name: &ModuleName, module: &Module) -> v1::Module {
    let vip = |(vip, mode): (&VirtualIp, &Mode)| v1::VirtualIp {
        ip: vip.ip.to_string(),
        mode: mode.to_wire(),
        vlan: text::of_vlan(vip.vlan),
    };
    let weight =
        |(node, weight): (&NodeId, &Weight)| v1::NodeWeight { node: node.0, weight: weight.0.into() };
    v1::Module {
        name: name.0.clone(),
        kind: module.kind.to_wire(),
        vips: module.vips.iter().map(vip).collect(),
        services: module.services.iter().map(service_to_wire).collect(),
        weights: module.weights.iter().map(weight).collect(),
        assignment: Some(v1::Assignment { groups: groups(&module.assignment) }),
        slot: module.slot.into(),
        drain_ms: module.drain.map(Span::as_millis),
    }
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
