//! What the loss of a node, or of all that stands in one room, would do now. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;
use crate::model::Role;
use crate::state::ClusterState;

/// The cluster as one of its nodes sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The replicated state.
    pub state: &'a ClusterState,
    /// Who is heard.
    pub present: &'a BTreeSet<NodeId>,
    /// Voters of Raft.
    pub voters: &'a BTreeSet<NodeId>,
}

/// What may be lost at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lost {
    /// One node.
    Node(NodeId),
    /// Every node of a room.
    Room(String),
}

/// What a loss would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// What is lost.
    pub lost: Lost,
    /// All of it is lost already.
    pub gone: bool,
    /// Why clients would not be served any more, a sentence each; none: the service goes on.
    pub reasons: Vec<String>,
    /// What would change that; empty where nothing needs to.
    pub cure: String,
}

/// Every node and every room, with what its loss would do.
#[must_use]
pub fn losses(view: &View<'_>) -> Vec<Loss> {
    let nodes = view.state.nodes.keys().map(|id| (Lost::Node(*id), BTreeSet::from([*id])));
    let mut rooms: BTreeMap<&str, BTreeSet<NodeId>> = BTreeMap::new();
    for node in view.state.nodes.values().filter(|n| !n.room.is_empty()) {
        rooms.entry(&node.room).or_default().insert(node.id);
    }
    let rooms = rooms.into_iter().map(|(room, nodes)| (Lost::Room(room.to_owned()), nodes));
    nodes.chain(rooms).map(|(lost, nodes)| view.loss(lost, &nodes)).collect()
}

/// What is on the way, and may change the answers by itself, a sentence each.
#[must_use]
pub fn notes(view: &View<'_>) -> Vec<String> {
    let electors = &view.state.electors;
    let mut found = Vec::new();
    if electors.change.is_some() || electors.current != *view.voters {
        found.push("the voters are being changed: ask again in a moment".to_owned());
    }
    for id in view.voters.difference(view.present) {
        let name = view.state.name_of(*id);
        found.push(format!(
            "{name} is silent and still votes: it is let go when the others can do without it"
        ));
    }
    found
}

impl View<'_> {
    /// Why the cluster would not serve everybody without `lost`, called `who`; nothing where it would.
    #[must_use]
    pub fn without(&self, lost: &BTreeSet<NodeId>, who: &str) -> Vec<String> {
        let mut found = Vec::new();
        let stays = |id: &NodeId| !lost.contains(id) && self.present.contains(id);
        let (stay, all) = (self.voters.iter().filter(|id| stays(id)).count(), self.voters.len());
        let decided = self.decided(stays);
        if stay * 2 <= all && !decided {
            found.push(format!("without {who} {stay} of {all} voters are left, which is no majority"));
        }
        if !self.state.electors.majority(|id| stays(&id)) && !decided {
            found.push(format!("without {who} no majority of the electors is left to grant leases"));
        }
        for (name, module) in &self.state.modules {
            let owns =
                module.assignment.iter().any(|bucket| bucket.current.is_some_and(|id| lost.contains(&id)));
            let mut others = self.state.nodes.values().filter(|other| stays(&other.id));
            if owns && !others.any(|other| self.state.may_serve(other, module)) {
                found.push(format!("no other node could serve the clients of {name}"));
            }
        }
        found
    }

    /// Whether the tie-break lets the one server go on that is left of two voters.
    fn decided(&self, stays: impl Fn(&NodeId) -> bool) -> bool {
        let electors = &self.state.electors;
        let left: Vec<&NodeId> = electors.current.iter().filter(|id| stays(id)).collect();
        let server = |id: &NodeId| self.state.nodes.get(id).is_some_and(|n| n.role == Role::Server);
        let pair =
            electors.change.is_none() && electors.current.len() == 2 && electors.current == *self.voters;
        let works = self
            .state
            .tie_break
            .as_ref()
            .is_some_and(|t| t.idle(&electors.current, self.state.profile).is_none());
        pair && works && matches!(left[..], [one] if server(one))
    }

    fn loss(&self, lost: Lost, nodes: &BTreeSet<NodeId>) -> Loss {
        let gone = nodes.is_disjoint(self.present);
        let who = match &lost {
            Lost::Node(id) => self.state.name_of(*id),
            Lost::Room(room) => format!("room {room}"),
        };
        let reasons = if gone { Vec::new() } else { self.without(nodes, &who) };
        let cure = if reasons.is_empty() { String::new() } else { self.cure(&lost, nodes) };
        Loss { lost, gone, reasons, cure }
    }

    /// The nearest thing that would let the service go on.
    fn cure(&self, lost: &Lost, nodes: &BTreeSet<NodeId>) -> String {
        let stays = self.state.nodes.values().filter(|n| n.membership.stays());
        let servers = stays.clone().filter(|n| n.role == Role::Server).count();
        let absent = stays.clone().find(|n| !self.present.contains(&n.id));
        let late = stays.clone().find(|n| self.present.contains(&n.id) && !self.voters.contains(&n.id));
        let idle = stays.clone().find(|n| {
            n.role == Role::Server && !nodes.contains(&n.id) && self.state.maintenance.contains_key(&n.id)
        });
        if servers < 2 {
            return "let a second server join, and a third vote: farmctl node join PEER there".to_owned();
        }
        if let Some(node) = absent {
            return format!("bring {} back: systemctl status farmd there", node.name);
        }
        if let Some(node) = late.filter(|_| self.voters.len().is_multiple_of(2)) {
            return format!("wait until {} votes: farmctl watch", node.name);
        }
        if let Some(node) = idle {
            return format!("farmctl node maintenance off {}", node.name);
        }
        match lost {
            Lost::Node(_) if self.voters.len() == 2 => {
                "let a third vote join (farmd --role witness), or have a router decide: farmctl cluster tie-break --help".to_owned()
            }
            Lost::Node(_) => "farmctl doctor".to_owned(),
            Lost::Room(_) => {
                "spread the voters over three rooms, a witness in the third: farmd --role witness".to_owned()
            }
        }
    }
}
