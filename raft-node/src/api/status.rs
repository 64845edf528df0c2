//! `status` and `watch`: what one node knows of the cluster, rendered for the wire.

use std::sync::Arc;
use std::time::Duration;

use farm_core::id::NodeId;
use farm_core::model::{Module, ModuleName, Phase, Role, Weight};
use farm_core::state::ClusterState;
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use farm_proto::v1;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::IntervalStream;

use super::Streamed;
use crate::member::{Member, SILENT};
use crate::wire::Wire;

/// Pace of `watch`: what a person can follow.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// The status as of now; of a daemon without a cluster only that.
pub(super) fn now(member: Option<&Member>) -> v1::StatusResponse {
    member.map_or_else(v1::StatusResponse::default, of)
}

/// The status again and again.
pub(super) fn stream(member: Arc<Member>) -> Streamed<v1::StatusResponse> {
    let ticks = IntervalStream::new(tokio::time::interval(WATCH_EVERY));
    Box::pin(ticks.map(move |_| Ok(of(&member))))
}

fn of(member: &Member) -> v1::StatusResponse {
    let snapshot = member.snapshot();
    let state = &snapshot.state;
    let role = member.role();
    v1::StatusResponse {
        cluster: state.cluster.0.to_vec().into(),
        name: state.name.clone(),
        generation: Some(state.generation.to_wire()),
        epoch: state.epoch.0,
        profile: state.profile.to_wire(),
        feature_level: state.level.0,
        term: role.term,
        leader: role.leader.map_or(0, |l| l.0),
        answered_by: member.me.0,
        commit_index: snapshot.last_applied.index,
        nodes: state.nodes.keys().map(|id| node(member, state, *id)).collect(),
        modules: state.modules.iter().map(|(name, m)| module(state, name, m)).collect(),
        electors: state.electors.all().iter().map(|n| n.0).collect(),
        voters: role.voters.iter().map(|n| n.0).collect(),
        conditions: member.conditions(),
        member: true,
    }
}

fn node(member: &Member, state: &ClusterState, id: NodeId) -> v1::NodeStatus {
    let own = id == member.me;
    let heard = member.heard(id);
    let now = BootTime(boot_now());
    let silent = heard.map(|h| now.since(h.at));
    let applied = if own { member.lease.applied().0 } else { heard.map_or(0, |h| h.applied.0) };
    v1::NodeStatus {
        node: state.nodes.get(&id).map(Wire::to_wire),
        heard: own || silent.is_some_and(|s| s <= SILENT),
        applied,
        voter: member.role().voters.contains(&id),
        lease_left_ms: if own { BootTime(member.lease.deadline()).since(now).as_millis() } else { 0 },
        lease_known: own,
        filter_ok: own.then(|| member.host.sound()),
        silent_ms: silent.map_or(u64::MAX, Span::as_millis),
    }
}

fn module(state: &ClusterState, name: &ModuleName, module: &Module) -> v1::ModuleStatus {
    let open = module.assignment.iter().filter(|b| b.phase != Phase::Stable).count();
    let servers = state.nodes.values().filter(|n| n.role == Role::Server);
    let share = |id: NodeId| v1::Share {
        node: id.0,
        buckets: count(module.assignment.iter().filter(|b| b.current == Some(id)).count()),
        weight: module.weights.get(&id).copied().unwrap_or(Weight::DEFAULT).0.into(),
    };
    let mut shown = crate::wire::module_to_wire(name, module);
    // Groups of buckets are for machines of the cluster, not for clients.
    shown.assignment = None;
    v1::ModuleStatus {
        module: Some(shown),
        shares: servers.map(|n| share(n.id)).collect(),
        open_changes: count(open),
        sockets_draining: None,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
