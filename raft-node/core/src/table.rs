//! The filter's table of one node, rendered from the replicated state.

use std::collections::BTreeMap;

use core::net::{IpAddr, SocketAddr};

use farm_common::flow::{Address, protocol};
use farm_common::hash::Bucket;
use farm_common::image::{Image, ImageError, SlotBuilder};
use farm_common::{layout, verdict};

use crate::id::{ClusterId, NodeId};
use crate::model::{BucketState, Criterion, Link, Mode, Module, Node, Phase, Protocol, VirtualIp};
use crate::state::ClusterState;

/// Why a table cannot be rendered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RenderError {
    /// The node is no member.
    #[error("node {0} is no member: it has no table")]
    NotMember(NodeId),
    /// The state holds more than the table has room for, or two of the same key.
    #[error("the table has no room: {0}")]
    Image(ImageError),
}

impl From<ImageError> for RenderError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// The table with which `me` works in the state's epoch; closed (deadline 0). Nodes are numbered from 1 by
/// ascending id; link numbers are positions in the links of `me`; virtual IPs that none of its links covers are
/// left out, because their frames do not reach it.
///
/// # Errors
/// [`RenderError`].
pub fn render(state: &ClusterState, me: NodeId) -> Result<Image, RenderError> {
    let indices = indices(state);
    let (own, index) = state.nodes.get(&me).zip(indices.get(&me)).ok_or(RenderError::NotMember(me))?;
    let mut builder = SlotBuilder::new(state.generation.number, state.epoch.0, *index, hash_key(state))?;
    for node in state.nodes.values() {
        for (link, seen) in seen_links(own, node) {
            builder.node(link, indices[&node.id], seen_node(&own.links[usize::from(link)], seen))?;
        }
    }
    for module in state.modules.values() {
        render_module(&mut builder, state, own, module, &indices)?;
    }
    Ok(builder.finish()?)
}

/// The MAC to which a virtual IP resolves in flood mode: a local unicast address that no interface has.
#[must_use]
pub fn virtual_mac(cluster: ClusterId, vip: VirtualIp) -> [u8; 6] {
    let address = match vip.ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    // FNV-1a, 64 bits: what is asked of it is spread and the same bytes on every node.
    // Switches without a table for each VLAN would take one MAC in two of them for one that moves.
    let vlan = vip.vlan.ids().into_iter().flat_map(u16::to_be_bytes).filter(|_| !vip.vlan.is_none());
    let bytes = cluster.0.into_iter().chain(address.octets()).chain(vlan);
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
    [(a & 0xfc) | 0x02, b, c, d, e, f]
}

/// The bucket of a client of a service with this criterion.
#[must_use]
pub fn bucket_of(state: &ClusterState, client: SocketAddr, criterion: Criterion) -> Bucket {
    let (address, port) = criterion_of(criterion).hashed(&Address::from(client.ip()), client.port());
    Bucket::of(hash_key(state), &address, port)
}

fn render_module(
    builder: &mut SlotBuilder,
    state: &ClusterState,
    own: &Node,
    module: &Module,
    indices: &BTreeMap<NodeId, u8>,
) -> Result<(), RenderError> {
    for (vip, mode) in &module.vips {
        let Some(link) = link_for(own, *vip) else { continue };
        let id = builder.vip(vip.ip, module.slot, link, mode_of(*mode), virtual_mac(state.cluster, *vip))?;
        for ((_, protocol, port), criterion) in module.services.iter().filter(|((ip, _, _), _)| ip == vip) {
            builder.service(id, protocol_of(*protocol), *port, criterion_of(*criterion))?;
        }
    }
    for (bucket, bucket_state) in module.assignment.iter().enumerate() {
        builder.entry(module.slot, bucket, entry(bucket_state, indices))?;
    }
    Ok(())
}

fn entry(state: &BucketState, indices: &BTreeMap<NodeId, u8>) -> layout::Entry {
    let index = |node: Option<NodeId>| node.and_then(|n| indices.get(&n)).copied().unwrap_or(0);
    layout::Entry {
        current: index(state.current),
        previous: index(state.previous),
        phase: phase_of(state.phase).into(),
        reserved: 0,
    }
}

fn indices(state: &ClusterState) -> BTreeMap<NodeId, u8> {
    state.nodes.keys().copied().zip(1..).collect()
}

fn hash_key(state: &ClusterState) -> [u64; 2] {
    let [low, high] = [0, 8].map(|at| {
        let half = state.hash_key.0[at..].first_chunk::<8>().expect("a key has 16 bytes");
        u64::from_le_bytes(*half)
    });
    [low, high]
}

fn link_for(own: &Node, vip: VirtualIp) -> Option<u8> {
    own.links.iter().zip(0..).find(|(l, _)| l.covers(vip)).map(|(_, i)| i)
}

/// Which of a node's links lies in the network and the subnets of which of mine; each of its links at most once.
fn seen_links<'a>(own: &Node, node: &'a Node) -> Vec<(u8, &'a Link)> {
    let mut left: Vec<&Link> = node.links.iter().collect();
    let mut seen = Vec::new();
    for (mine, index) in own.links.iter().zip(0..) {
        // My own links are themselves, also where two of them share a subnet.
        let same = |l: &&Link| if own.id == node.id { l.name == mine.name } else { shares(mine, l) };
        if let Some(at) = left.iter().position(same) {
            seen.push((index, left.remove(at)));
        }
    }
    seen
}

fn shares(mine: &Link, other: &Link) -> bool {
    other.addresses.iter().any(|(ip, _)| mine.covers(VirtualIp { ip: *ip, vlan: other.vlan }))
}

fn seen_node(mine: &Link, seen: &Link) -> layout::Node {
    let addresses = || {
        seen.addresses
            .iter()
            .map(|(ip, _)| *ip)
            .filter(|ip| mine.covers(VirtualIp { ip: *ip, vlan: mine.vlan }))
    };
    let v4 = addresses().find_map(|ip| if let IpAddr::V4(v4) = ip { Some(v4.octets()) } else { None });
    let v6 = addresses().find_map(|ip| if let IpAddr::V6(v6) = ip { Some(v6.octets()) } else { None });
    layout::Node {
        address6: v6.unwrap_or_default(),
        address4: v4.unwrap_or_default(),
        mac: seen.mac,
        ..layout::Node::default()
    }
}

const fn phase_of(phase: Phase) -> verdict::Phase {
    match phase {
        Phase::Stable => verdict::Phase::Stable,
        Phase::Prepare => verdict::Phase::Prepare,
        Phase::Move => verdict::Phase::Move,
        Phase::MoveClosed => verdict::Phase::MoveClosed,
        Phase::Activate => verdict::Phase::Activate,
    }
}

const fn mode_of(mode: Mode) -> verdict::Mode {
    match mode {
        Mode::Directed => verdict::Mode::Directed,
        Mode::Flood => verdict::Mode::Flood,
    }
}

const fn criterion_of(criterion: Criterion) -> verdict::Criterion {
    match criterion {
        Criterion::SourceAddress => verdict::Criterion::SourceAddress,
        Criterion::SourcePort => verdict::Criterion::SourcePort,
        Criterion::SourceNetwork => verdict::Criterion::SourceNetwork,
    }
}

const fn protocol_of(transport: Protocol) -> u8 {
    match transport {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}
