//! P4: what moves, moves for a reason: a Prepare never gives to a node what it takes from the same, and a Move without
//! a Prepare takes nothing from a node that no fault has touched for long.

use std::collections::BTreeSet;

use farm_core::command::{Body, Transfer};
use farm_core::id::NodeId;
use farm_core::model::Phase;
use farm_core::state::ClusterState;

/// A leader proposes `body`; `healthy` says whether a node, the leader and what lies between were left alone for long.
///
/// # Errors
/// The fact, when a bucket moves without need.
pub fn proposed(body: &Body, state: &ClusterState, healthy: impl Fn(NodeId) -> bool) -> Result<(), String> {
    match body {
        Body::Prepare(transfers) => both_ways(transfers, state),
        Body::Move { transfers, .. } => taken_from_healthy(transfers, state, healthy),
        _ => Ok(()),
    }
}

fn both_ways(transfers: &[Transfer], state: &ClusterState) -> Result<(), String> {
    for module in state.modules.keys() {
        let of = || transfers.iter().filter(|t| t.module == *module);
        let gain: BTreeSet<NodeId> = of().map(|t| t.to).collect();
        let lose = of().flat_map(|t| owners(t, state)).find(|n| gain.contains(n));
        if let Some(node) = lose {
            return Err(format!(
                "one Prepare takes buckets of {module} from node {node} and gives it others"
            ));
        }
    }
    Ok(())
}

fn owners<'a>(transfer: &'a Transfer, state: &'a ClusterState) -> impl Iterator<Item = NodeId> + 'a {
    let assignment = state.modules.get(&transfer.module).map_or(&[][..], |m| &m.assignment);
    transfer.buckets.iter().filter_map(|b| assignment.get(b)?.current)
}

fn taken_from_healthy(
    transfers: &[Transfer],
    state: &ClusterState,
    healthy: impl Fn(NodeId) -> bool,
) -> Result<(), String> {
    for transfer in transfers {
        let Some(module) = state.modules.get(&transfer.module) else { continue };
        let unprepared = |b: &usize| module.assignment.get(*b).filter(|s| s.phase != Phase::Prepare);
        let loser = transfer.buckets.iter().filter_map(|b| unprepared(&b)?.loser()).find(|n| healthy(*n));
        if let Some(node) = loser {
            return Err(format!("a Move without Prepare takes buckets from node {node}, which is well"));
        }
    }
    Ok(())
}
