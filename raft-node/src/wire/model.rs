//! Nodes, modules, services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use farm_core::id::NodeId;
use farm_core::model::{
    Criterion, Link, Maintenance, Membership, Mode, ModuleKind, Node, Phase, Profile, Protocol, Readiness,
    Role, Service,
};
use farm_core::time::UnixTime;
use farm_proto::v1;

use super::{Wire, WireError, all_to_wire, parse_all, text};

wire_enum!(Role = NodeRole, "Node.role", { Server, Witness });
wire_enum!(Membership = NodePhase, "Node.phase", { Member, Leaving, Away, Overruled });
wire_enum!(ModuleKind = ModuleKind, "Module.kind", { Farm, Light });
wire_enum!(Protocol = Protocol, "Service.protocol", { Tcp, Udp });
wire_enum!(Criterion = Criterion, "Service.criterion", { SourceAddress, SourcePort, SourceNetwork });
wire_enum!(Mode = Mode, "VirtualIp.mode", { Directed, Flood });
wire_enum!(Profile = Profile, "State.profile", { Fast, Standard, Virtual });
wire_enum!(Readiness = Readiness, "NodeReadiness.readiness", { Closed, Closing, Open });
wire_enum!(Phase = Phase, "BucketGroup.phase", { Stable, Prepare, Move, MoveClosed, Activate });

impl Wire for Link {
    type Proto = v1::Link;

    fn to_wire(&self) -> v1::Link {
        v1::Link {
            name: self.name.clone(),
            mac: self.mac.to_vec().into(),
            addresses: self.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect(),
            vlan: text::of_vlan(self.vlan),
        }
    }

    fn from_wire(p: v1::Link) -> Result<Self, WireError> {
        Ok(Self {
            name: text::name("Link.name", p.name)?,
            mac: text::array("Link.mac", &p.mac)?,
            addresses: p
                .addresses
                .iter()
                .map(|a| text::prefixed("Link.addresses", a))
                .collect::<Result<_, _>>()?,
            vlan: text::vlan("Link.vlan", &p.vlan)?,
        })
    }
}

impl Wire for Node {
    type Proto = v1::Node;

    fn to_wire(&self) -> v1::Node {
        let address =
            |(network, ip): (&String, &IpAddr)| v1::Address { network: network.clone(), ip: ip.to_string() };
        v1::Node {
            id: self.id.0,
            name: self.name.clone(),
            role: self.role.to_wire(),
            phase: self.membership.to_wire(),
            addresses: self.addresses.iter().map(address).collect(),
            links: all_to_wire(&self.links),
            peer_port: self.peer_port.into(),
            lease_port: self.lease_port.into(),
            api_port: self.api_port.into(),
            room: self.room.clone(),
        }
    }

    fn from_wire(p: v1::Node) -> Result<Self, WireError> {
        Ok(Self {
            id: NodeId(p.id),
            name: text::name("Node.name", p.name)?,
            role: Role::from_wire(p.role)?,
            membership: Membership::from_wire(p.phase)?,
            addresses: addresses(p.addresses)?,
            links: parse_all(p.links)?,
            peer_port: text::port("Node.peer_port", p.peer_port)?,
            lease_port: text::port("Node.lease_port", p.lease_port)?,
            api_port: text::port("Node.api_port", p.api_port)?,
            room: p.room,
        })
    }
}

fn addresses(list: Vec<v1::Address>) -> Result<BTreeMap<String, IpAddr>, WireError> {
    let mut map = BTreeMap::new();
    for address in list {
        let ip = text::ip("Address.ip", &address.ip)?;
        let network = text::name("Address.network", address.network)?;
        if map.insert(network.clone(), ip).is_some() {
            return Err(WireError::invalid("Node.addresses", network, "one address per network"));
        }
    }
    Ok(map)
}

impl Wire for Service {
    type Proto = v1::Service;

    fn to_wire(&self) -> v1::Service {
        v1::Service {
            vip: self.vip.ip.to_string(),
            protocol: self.protocol.to_wire(),
            port: self.port.into(),
            criterion: self.criterion.to_wire(),
            vlan: text::of_vlan(self.vip.vlan),
        }
    }

    fn from_wire(p: v1::Service) -> Result<Self, WireError> {
        Ok(Self {
            vip: text::vip("Service.vip", &p.vip, &p.vlan)?,
            protocol: Protocol::from_wire(p.protocol)?,
            port: text::port("Service.port", p.port)?,
            criterion: Criterion::from_wire(p.criterion)?,
        })
    }
}

/// The message for a maintenance of `node`.
#[must_use]
pub fn maintenance_to_wire(node: NodeId, maintenance: &Maintenance) -> v1::Maintenance {
    v1::Maintenance {
        node: node.0,
        since_ms: maintenance.since.0,
        until_ms: maintenance.until.map(|until| until.0),
        reason: maintenance.reason.clone(),
    }
}

pub(super) fn parse_maintenance(p: v1::Maintenance) -> Result<(NodeId, Maintenance), WireError> {
    let node = text::node("Maintenance.node", p.node)?;
    let (since, until) = (UnixTime(p.since_ms), p.until_ms.map(UnixTime));
    Ok((node, Maintenance { since, until, reason: p.reason }))
}
