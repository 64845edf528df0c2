//! `farmctl cluster check`: what the loss of each node and room would do.

use std::collections::BTreeSet;

use farm_core::id::NodeId;
use farm_core::survival::{Loss, Lost, View, losses, notes};
use farm_proto::v1;

use super::status;
use crate::member::Member;

pub(super) async fn check(member: &Member) -> v1::ClusterCheckResponse {
    // Who grants no leases hears of the others only what they say when asked.
    let seen = status::of(member).await.nodes;
    let heard = seen.into_iter().filter(|node| node.heard);
    let present: BTreeSet<NodeId> = heard.filter_map(|node| Some(NodeId(node.node?.id))).collect();
    let (snapshot, voters) = (member.snapshot(), member.role().voters);
    let view = View { state: &snapshot.state, present: &present, voters: &voters };
    let losses = losses(&view).into_iter().map(|loss| wire(loss, &view)).collect();
    v1::ClusterCheckResponse { losses, notes: notes(&view) }
}

fn wire(loss: Loss, view: &View<'_>) -> v1::Loss {
    let Loss { lost, gone, reasons, cure } = loss;
    let (node, room) = match lost {
        Lost::Node(id) => (view.state.name_of(id), String::new()),
        Lost::Room(room) => (String::new(), room),
    };
    v1::Loss { node, room, gone, reasons, cure }
}
