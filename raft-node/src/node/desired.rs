//! What a state asks of this host: which virtual IPs on which interface, in which mode. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use farm_core::id::NodeId;
use farm_core::lease::Timing;
use farm_core::model::{Membership, Mode, Module, Node, Readiness, Role, VirtualIp, Weight};
use farm_core::state::ClusterState;

use crate::lease::{LeaseState, Routes};

/// One virtual IP as this host carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Index of the interface among this node's service links.
    pub link: usize,
    /// Name of the interface.
    pub interface: String,
    /// Delivery mode.
    pub mode: Mode,
    /// The virtual MAC of flood mode.
    pub vmac: [u8; 6],
    /// Whether this node serves or drains the module: then the address is local.
    pub local: bool,
}

/// Virtual IPs of `state` that this node's links cover.
#[must_use]
pub fn carried(state: &ClusterState, me: NodeId) -> BTreeMap<VirtualIp, Carried> {
    let Some(node) = state.nodes.get(&me) else { return BTreeMap::new() };
    let mut carried = BTreeMap::new();
    for module in state.modules.values() {
        for (vip, mode) in &module.vips {
            let Some((link, port)) = node.links.iter().enumerate().find(|(_, l)| l.covers(*vip)) else {
                continue;
            };
            carried.insert(
                *vip,
                Carried {
                    link,
                    interface: port.name.clone(),
                    mode: *mode,
                    vmac: farm_core::table::virtual_mac(state.cluster, *vip),
                    local: serves(node, module, me),
                },
            );
        }
    }
    carried
}

/// Whether `me` serves or drains `module`.
fn serves(node: &Node, module: &Module, me: NodeId) -> bool {
    let weight = module.weights.get(&me).copied().unwrap_or(Weight::DEFAULT);
    let open = module.readiness(me) == Readiness::Open;
    let willing = node.membership == Membership::Member && node.role == Role::Server && weight.0 > 0 && open;
    willing || module.assignment.iter().any(|b| b.current == Some(me) || b.previous == Some(me))
}

/// Nodes that are about to go and own no bucket any more.
#[must_use]
pub fn handed_over(state: &ClusterState) -> BTreeSet<NodeId> {
    let owners = owners(state);
    let goes = |n: &&Node| !state.takes_part(n) && !owners.contains(&n.id);
    state.nodes.values().filter(goes).map(|n| n.id).collect()
}

/// Who announces itself in the place of a node that goes: the first that stays and serves.
#[must_use]
pub fn stand_in(state: &ClusterState) -> Option<NodeId> {
    let owners = owners(state);
    let stays = |n: &&Node| state.takes_part(n) && owners.contains(&n.id);
    state.nodes.values().find(stays).map(|n| n.id)
}

fn owners(state: &ClusterState) -> BTreeSet<NodeId> {
    state.modules.values().flat_map(|m| &m.assignment).filter_map(|b| b.current).collect()
}

/// Where every member's lease port is.
#[must_use]
pub fn routes(state: &ClusterState) -> Routes {
    let of = |n: &Node| {
        n.addresses.iter().map(|(net, ip)| (net.clone(), SocketAddr::new(*ip, n.lease_port))).collect()
    };
    state.nodes.iter().map(|(id, n)| (*id, of(n))).collect()
}

/// The part of the state that leases depend on; `applied` is the index of its last entry.
#[must_use]
pub fn lease_state(state: &ClusterState, applied: u64) -> LeaseState {
    LeaseState {
        electors: state.electors.clone(),
        routes: routes(state),
        timing: Timing::of(state.profile),
        fences: state.applied_fences(applied),
        generation: state.generation,
        bound: state.lease_bound,
        restarts: state.restarts.clone(),
    }
}
