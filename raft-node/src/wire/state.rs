//! The whole replicated state, as a snapshot holds it. Equal states give equal bytes.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::electors::{Change, Electors, Seal};
use farm_core::id::{ClusterId, EntryId, Epoch, FeatureLevel, Generation, NodeId};
use farm_core::model::{BUCKETS, HashKey, ModuleName, Node, Pending, Profile, Protocol};
use farm_core::restart::Restart;
use farm_core::state::{ClusterState, Retired, ServiceKey};
use farm_core::tiebreak::TieBreak;
use farm_core::time::Span;
use farm_proto::v1;

use super::model::{maintenance_to_wire, parse_maintenance};
use super::module::{module_to_wire, parse_module};
use super::{Wire, WireError, all_to_wire, parse_all, required, text};

impl Wire for ClusterState {
    type Proto = v1::State;

    fn to_wire(&self) -> v1::State {
        assert_eq!(
            self.buckets, BUCKETS,
            "only small models have another number of buckets, and they stay in memory"
        );
        v1::State {
            cluster: self.cluster.0.to_vec().into(),
            name: self.name.clone(),
            generation: Some(self.generation.to_wire()),
            epoch: self.epoch.0,
            feature_level: self.level.0,
            profile: self.profile.to_wire(),
            hash_key: self.hash_key.0.to_vec().into(),
            electors: Some(self.electors.to_wire()),
            nodes: self.nodes.values().map(Wire::to_wire).collect(),
            modules: self.modules.iter().map(|(name, module)| module_to_wire(name, module)).collect(),
            fences: self.fences.iter().map(|(n, e)| v1::Fence { node: n.0, epoch: e.0 }).collect(),
            lease_bound_ns: self.lease_bound.0,
            retired: self.retired.iter().map(retired_to_wire).collect(),
            restarts: self.restarts.iter().map(restart_to_wire).collect(),
            maintenance: self.maintenance.iter().map(|(n, m)| maintenance_to_wire(*n, m)).collect(),
            tie_break: self.tie_break.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(p: v1::State) -> Result<Self, WireError> {
        Ok(Self {
            cluster: ClusterId(text::array("State.cluster", &p.cluster)?),
            name: p.name,
            generation: required::<Generation>("State.generation", p.generation)?,
            epoch: Epoch(p.epoch),
            level: FeatureLevel(p.feature_level),
            profile: Profile::from_wire(p.profile)?,
            hash_key: HashKey(text::array("State.hash_key", &p.hash_key)?),
            electors: required::<Electors>("State.electors", p.electors)?,
            nodes: parse_nodes(p.nodes)?,
            modules: p
                .modules
                .into_iter()
                .map(parse_module)
                .collect::<Result<BTreeMap<ModuleName, _>, _>>()?,
            fences: p.fences.into_iter().map(parse_fence).collect::<Result<_, _>>()?,
            lease_bound: Span(p.lease_bound_ns),
            retired: p.retired.into_iter().map(parse_retired).collect::<Result<_, _>>()?,
            restarts: p.restarts.into_iter().map(parse_restart).collect::<Result<_, _>>()?,
            maintenance: p.maintenance.into_iter().map(parse_maintenance).collect::<Result<_, _>>()?,
            tie_break: p.tie_break.map(TieBreak::from_wire).transpose()?,
            buckets: BUCKETS,
        })
    }
}

impl Wire for Electors {
    type Proto = v1::Electors;

    fn to_wire(&self) -> v1::Electors {
        let mut proto = v1::Electors { current: ids(&self.current), ..Default::default() };
        if let Some(change) = &self.change {
            proto.next = ids(&change.next);
            proto.joint = change.joint.0;
            if let Some(seal) = &change.seal {
                proto.seal = seal.epoch.0;
                proto.seal_entry = Some(seal.entry.to_wire());
                proto.seal_nodes = ids(&seal.nodes);
            }
        }
        proto
    }

    fn from_wire(p: v1::Electors) -> Result<Self, WireError> {
        let current = parse_ids("Electors.current", p.current)?;
        if p.next.is_empty() {
            return Ok(Self { current, change: None });
        }
        let entry = p.seal_entry.map(EntryId::from_wire).transpose()?;
        let nodes = parse_ids("Electors.seal_nodes", p.seal_nodes)?;
        let seal = entry.map(|entry| Seal { epoch: Epoch(p.seal), entry, nodes });
        let next = parse_ids("Electors.next", p.next)?;
        Ok(Self { current, change: Some(Change { next, joint: Epoch(p.joint), seal }) })
    }
}

impl Wire for Pending {
    type Proto = v1::Pending;

    fn to_wire(&self) -> v1::Pending {
        v1::Pending { node: self.node.0, epoch: self.epoch.0, entry: Some(self.entry.to_wire()) }
    }

    fn from_wire(p: v1::Pending) -> Result<Self, WireError> {
        let entry = required::<EntryId>("Pending.entry", p.entry)?;
        Ok(Self { node: text::node("Pending.node", p.node)?, epoch: Epoch(p.epoch), entry })
    }
}

fn parse_nodes(list: Vec<v1::Node>) -> Result<BTreeMap<NodeId, Node>, WireError> {
    let nodes: Vec<Node> = parse_all(list)?;
    Ok(nodes.into_iter().map(|node| (node.id, node)).collect())
}

fn parse_fence(p: v1::Fence) -> Result<(NodeId, Epoch), WireError> {
    Ok((text::node("Fence.node", p.node)?, Epoch(p.epoch)))
}

fn restart_to_wire((node, restart): (&NodeId, &Restart)) -> v1::Restart {
    v1::Restart {
        node: node.0,
        begun: Some(restart.entry.to_wire()),
        lease_ms: restart.lease.as_millis(),
        everybody: restart.everybody,
        over: restart.over.map_or(0, |epoch| epoch.0),
    }
}

fn parse_restart(p: v1::Restart) -> Result<(NodeId, Restart), WireError> {
    let restart = Restart {
        entry: required::<EntryId>("Restart.begun", p.begun)?,
        lease: Span::millis(p.lease_ms.min(Span::MAX_MILLIS)),
        everybody: p.everybody,
        over: (p.over != 0).then_some(Epoch(p.over)),
    };
    Ok((text::node("Restart.node", p.node)?, restart))
}

fn retired_to_wire((key, retired): (&ServiceKey, &Retired)) -> v1::Retired {
    let (vip, protocol, port) = key;
    v1::Retired {
        vip: vip.ip.to_string(),
        protocol: protocol.to_wire(),
        port: (*port).into(),
        unfenced: ids(&retired.unfenced),
        pending: all_to_wire(&retired.pending),
        vlan: text::of_vlan(vip.vlan),
    }
}

fn parse_retired(p: v1::Retired) -> Result<(ServiceKey, Retired), WireError> {
    let port = text::port("Retired.port", p.port)?;
    let key = (text::vip("Retired.vip", &p.vip, &p.vlan)?, Protocol::from_wire(p.protocol)?, port);
    let unfenced = parse_ids("Retired.unfenced", p.unfenced)?;
    Ok((key, Retired { unfenced, pending: parse_all(p.pending)? }))
}

fn ids(nodes: &BTreeSet<NodeId>) -> Vec<u64> {
    nodes.iter().map(|n| n.0).collect()
}

fn parse_ids(field: &'static str, ids: Vec<u64>) -> Result<BTreeSet<NodeId>, WireError> {
    ids.into_iter().map(|id| text::node(field, id)).collect()
}
