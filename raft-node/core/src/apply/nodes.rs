//! Commands about members.

use core::net::IpAddr;

use super::{Done, Refusal, ensure, happened};
use crate::event::Kind;
use crate::id::{EntryId, NodeId};
use crate::limits;
use crate::model::{Membership, Node, Role, is_name};
use crate::state::ClusterState;

/// A DNS label (RFC 1123 §2.1) in lower case that starts with a letter.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    ensure(is_name(name), || {
        let fact = format!(
            "{name:?} is no {what} name: 1 to {} of a-z 0-9 -, a letter first, no - at the end",
            limits::NAME
        );
        Refusal::new("bad_name", fact, "farmctl help")
    })
}

impl ClusterState {
    pub(super) fn node_join(&mut self, node: &Node, entry: EntryId) -> Done {
        ensure(node.id == NodeId(0), || {
            let fact =
                format!("{} asks to join as node {}, but ids are given by the cluster", node.name, node.id);
            Refusal::new("bad_node_id", fact, "farmctl node join PEER")
        })?;
        ensure(self.nodes.len() < limits::NODES, || {
            Refusal::new(
                "too_many_nodes",
                format!("the cluster has {} nodes, the most", limits::NODES),
                "farmctl node list",
            )
        })?;
        let mut node = Node { id: NodeId(entry.index), membership: Membership::Member, ..node.clone() };
        let former = self.former(&node.name)?;
        if let Some(former) = former {
            node.room.clone_from(&self.nodes[&former].room);
        }
        self.check_node(&node)?;
        let (id, name) = (node.id, node.name.clone());
        if let Some(former) = former {
            self.succeed(former, id);
        }
        self.nodes.insert(id, node);
        let (events, _) = happened(Kind::NodeJoined { node: id, name })?;
        Ok((events, Some(id)))
    }

    pub(super) fn node_update(&mut self, node: &Node) -> Done {
        let membership = self.member(node.id)?.membership;
        let node = Node { membership, ..node.clone() };
        self.check_node(&node)?;
        let name = node.name.clone();
        self.nodes.insert(node.id, node);
        happened(Kind::NodeUpdated { name })
    }

    pub(super) fn node_away(&mut self, id: NodeId) -> Done {
        self.set_membership(id, Membership::Away, |name| Kind::NodeAway { name })
    }

    pub(super) fn node_back(&mut self, id: NodeId) -> Done {
        self.set_membership(id, Membership::Member, |name| Kind::NodeBack { name })
    }

    pub(super) fn node_leave(&mut self, id: NodeId) -> Done {
        let node = self.member(id)?;
        let name = node.name.clone();
        let stays = |n: &Node| n.id != id && n.membership.stays() && n.role == Role::Server;
        ensure(node.role == Role::Witness || self.nodes.values().any(stays), || {
            let fact = format!("{name} is the last server of cluster {}", self.name);
            Refusal::new("last_node", fact, "farmctl node list")
        })?;
        self.nodes.entry(id).and_modify(|n| n.membership = Membership::Leaving);
        happened(Kind::NodeLeaving { name })
    }

    /// Only when the node owns nothing, drains nothing, waits for no evidence and grants nothing.
    pub(super) fn node_remove(&mut self, id: NodeId) -> Done {
        let node = self.member(id)?;
        let name = node.name.clone();
        ensure(node.membership == Membership::Leaving, || {
            busy(&name, format!("{name} was not told to leave"))
        })?;
        self.ensure_free(id)?;
        ensure(self.electors.change.is_none(), || busy(&name, "the electors are being changed".into()))?;
        self.nodes.remove(&id);
        self.maintenance.remove(&id);
        for module in self.modules.values_mut() {
            module.weights.remove(&id);
            module.set_readiness(id, None);
        }
        happened(Kind::NodeRemoved { node: id, name })
    }

    /// That it neither owns, drains nor waits for evidence, nor grants.
    pub(super) fn ensure_free(&self, id: NodeId) -> Result<(), Refusal> {
        let name = self.name_of(id);
        ensure(!self.is_party(id), || busy(&name, format!("{name} still takes part in the assignment")))?;
        ensure(!self.electors.all().contains(&id), || busy(&name, format!("{name} still grants leases")))
    }

    /// Whether a bucket or a removed service still names the node.
    #[must_use]
    pub fn is_party(&self, id: NodeId) -> bool {
        let in_bucket =
            self.modules.values().flat_map(|m| &m.assignment).any(|b| b.parties().any(|n| n == id));
        let in_retired =
            self.retired.values().any(|r| r.unfenced.contains(&id) || r.pending.iter().any(|p| p.node == id));
        in_bucket || in_retired
    }

    pub(super) fn member(&self, id: NodeId) -> Result<&Node, Refusal> {
        self.nodes.get(&id).ok_or_else(|| {
            Refusal::new("unknown_node", format!("the cluster has no node {id}"), "farmctl node list")
        })
    }

    fn set_membership(&mut self, id: NodeId, to: Membership, kind: impl FnOnce(String) -> Kind) -> Done {
        let node = self.member(id)?;
        let name = node.name.clone();
        ensure(node.membership.stays(), || {
            Refusal::new("node_leaving", format!("{name} is leaving the cluster"), "farmctl node list")
        })?;
        if node.membership == to {
            return Ok((Vec::new(), None));
        }
        self.nodes.entry(id).and_modify(|n| n.membership = to);
        happened(kind(name))
    }

    /// What must hold of a member beside all others.
    pub(super) fn check_node(&self, node: &Node) -> Result<(), Refusal> {
        check_name("node", &node.name)?;
        if !node.room.is_empty() {
            check_name("room", &node.room)?;
        }
        ensure(!node.addresses.is_empty(), || {
            let fact = format!("{} has no cluster address", node.name);
            Refusal::new("no_address", fact, format!("farmctl node set {} --address NAME=IP", node.name))
        })?;
        ensure(node.peer_port > 0 && node.lease_port > 0, || {
            Refusal::new("bad_port", format!("{} has port 0", node.name), "farmctl node list")
        })?;
        ensure(node.links.len() <= limits::LINKS, || {
            let fact = format!("{} has more than {} service links", node.name, limits::LINKS);
            Refusal::new("too_many_links", fact, "farmctl node list")
        })?;
        ensure(node.role == Role::Server || node.links.is_empty(), || {
            let fact = format!("{} is a witness: it has no service links", node.name);
            Refusal::new("witness", fact, "farmctl node list")
        })?;
        check_macs(node)?;
        // Whom it follows under a new id does not count beside it.
        let former = |n: &Node| n.membership == Membership::Overruled && n.name == node.name;
        let mut others = self.nodes.values().filter(|n| n.id != node.id && !former(n));
        others.try_for_each(|other| check_pair(node, other))?;
        own_addresses(node).try_for_each(|ip| {
            // It would be on lo beside the node's own, whatever its VLAN.
            let taken = self.modules.values().flat_map(|m| m.vips.keys()).any(|vip| vip.ip == ip);
            ensure(!taken, || {
                let fact = format!("{ip} of {} is a virtual IP of this cluster", node.name);
                Refusal::new("address_is_vip", fact, "farmctl service list")
            })
        })
    }
}

pub(super) fn busy(name: &str, fact: String) -> Refusal {
    Refusal::new("node_busy", fact, format!("farmctl node leave {name}"))
}

/// Every address of a node, in cluster networks and on links.
pub(super) fn own_addresses(node: &Node) -> impl Iterator<Item = IpAddr> + '_ {
    let links = node.links.iter().flat_map(|l| l.addresses.iter().map(|(ip, _)| *ip));
    node.addresses.values().copied().chain(links)
}

fn check_macs(node: &Node) -> Result<(), Refusal> {
    let odd = node.links.iter().find(|l| l.mac == [0; 6] || l.mac[0] & 1 == 1);
    odd.map_or(Ok(()), |link| {
        let fact = format!("the MAC of {} on {} is zero or a group address", link.name, node.name);
        Err(Refusal::new("bad_mac", fact, "farmctl node list"))
    })
}

fn check_pair(node: &Node, other: &Node) -> Result<(), Refusal> {
    ensure(node.name != other.name, || {
        let fact = format!("the cluster already has a node {} (node {})", other.name, other.id);
        Refusal::new("name_taken", fact, "farmctl node list")
    })?;
    let shared = own_addresses(node).find(|ip| own_addresses(other).any(|o| o == *ip));
    if let Some(ip) = shared {
        let fact = format!("{ip} of {} is also an address of {}", node.name, other.name);
        return Err(Refusal::new("address_taken", fact, "farmctl node list"));
    }
    let twin = node.links.iter().find(|l| other.links.iter().any(|o| o.mac == l.mac));
    twin.map_or(Ok(()), |link| {
        let fact =
            format!("{} of {} has the same MAC as an interface of {}", link.name, node.name, other.name);
        Err(Refusal::new("mac_taken", fact, "farmctl node list"))
    })
}
