//! `status` and `watch`: what one node knows of the cluster, rendered for the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farm_core::condition::Absence;
use farm_core::id::NodeId;
use farm_core::model::{Module, ModuleName, Phase, Role, Weight};
use farm_core::state::ClusterState;
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use farm_proto::v1;
use futures::future::join_all;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::IntervalStream;

use super::Streamed;
use crate::daemon::Daemon;
use crate::journal::now_ms;
use crate::member::{Member, SILENT};
use crate::wire::{Wire, maintenance_to_wire};

/// Pace of `watch`: what a person can follow.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// The status as of now; of a daemon without a cluster only that, and whether it is on its way back into one.
pub(crate) async fn now(daemon: &Daemon) -> v1::StatusResponse {
    let member = daemon.member().borrow().clone();
    match member {
        Some(member) => of(&member).await,
        None => v1::StatusResponse {
            conditions: daemon.rejoining().into_iter().collect(),
            ..v1::StatusResponse::default()
        },
    }
}

/// The status again and again.
pub(super) fn stream(member: Arc<Member>) -> Streamed<v1::StatusResponse> {
    let ticks = IntervalStream::new(tokio::time::interval(WATCH_EVERY));
    Box::pin(ticks.then(move |_| {
        let member = member.clone();
        async move { Ok(of(&member).await) }
    }))
}

/// What nodes say of themselves.
type Looks = BTreeMap<NodeId, v1::LookResponse>;

/// Asks all that may answer, at once.
async fn looks(member: &Member, state: &ClusterState) -> Looks {
    let silent = |id: &NodeId| matches!(member.absence(*id), Some(Absence::Silent(_)));
    let asked = state.nodes.keys().filter(|id| !silent(id)).map(|id| async { (*id, member.look(*id).await) });
    join_all(asked).await.into_iter().filter_map(|(id, look)| Some((id, look?))).collect()
}

/// The state is one from before the nodes were asked: what it calls over, they show.
pub(crate) async fn of(member: &Member) -> v1::StatusResponse {
    let snapshot = member.snapshot();
    let state = &snapshot.state;
    let looks = looks(member, state).await;
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
        nodes: state.nodes.keys().map(|id| node(member, state, *id, looks.get(id))).collect(),
        modules: state.modules.iter().map(|(name, m)| module(state, name, m, &looks)).collect(),
        electors: state.electors.all().iter().map(|n| n.0).collect(),
        voters: role.voters.iter().map(|n| n.0).collect(),
        conditions: member
            .conditions()
            .into_iter()
            .chain(applications(state, looks.values().flat_map(|look| &look.lives)))
            .collect(),
        member: true,
        tie_break: state.tie_break.as_ref().map(Wire::to_wire),
        contest: super::tiebreak::standing(*member.contest.phase.borrow()),
    }
}

fn node(
    member: &Member,
    state: &ClusterState,
    id: NodeId,
    look: Option<&v1::LookResponse>,
) -> v1::NodeStatus {
    let heard = member.heard(id);
    let silent = heard.map(|h| BootTime(boot_now()).since(h.at));
    let buckets = || state.modules.values().flat_map(|m| &m.assignment);
    v1::NodeStatus {
        node: state.nodes.get(&id).map(Wire::to_wire),
        heard: look.is_some() || silent.is_some_and(|s| s <= SILENT),
        applied: look.map(|l| l.applied).or(heard.map(|h| h.applied.0)).unwrap_or_default(),
        voter: member.role().voters.contains(&id),
        lease_left_ms: look.map_or(0, |l| l.lease_left_ms),
        lease_known: look.is_some(),
        filter_ok: look.map(|l| l.filter_ok),
        silent_ms: silent.map_or(u64::MAX, Span::as_millis),
        maintenance: state.maintenance.get(&id).map(|m| maintenance_to_wire(id, m)),
        buckets: count(buckets().filter(|b| b.current == Some(id)).count()),
        buckets_draining: count(buckets().filter(|b| b.previous == Some(id)).count()),
        sockets_draining: look.map(|l| l.draining.iter().map(|m| m.sockets).sum()),
        feature_level: look.map_or(0, |l| l.feature_level),
        version: look.map(|l| l.version.clone()).unwrap_or_default(),
        run: look.map(|l| l.run.clone()).unwrap_or_default(),
        restarting: state.restarting(id).is_some(),
    }
}

fn module(state: &ClusterState, name: &ModuleName, module: &Module, looks: &Looks) -> v1::ModuleStatus {
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
    for revision in shown.definition.iter_mut().flat_map(|d| &mut d.revisions) {
        revision.content.clear();
    }
    let lives = looks.values().flat_map(|look| &look.lives).filter(|life| life.module == name.0);
    v1::ModuleStatus {
        module: Some(shown),
        shares: servers.map(|n| share(n.id)).collect(),
        open_changes: count(open),
        sockets_draining: sockets_draining(name, module, looks),
        lives: lives.cloned().collect(),
    }
}

/// What is not green of the applications.
pub(crate) fn applications<'a>(
    state: &ClusterState,
    lives: impl Iterator<Item = &'a v1::ModuleLife>,
) -> Vec<v1::Condition> {
    lives.flat_map(|life| application(life, &state.name_of(NodeId(life.node)))).collect()
}

/// Stopped although nobody asked for that, or waiting; where it runs, what is down all the same, and what counts for
/// nothing.
fn application(life: &v1::ModuleLife, node: &str) -> Vec<v1::Condition> {
    let v1::ModuleLife { module, cause, .. } = life;
    let condition = |code: &str, since_ms: u64, cause: String, next: String| v1::Condition {
        code: code.into(),
        resource: module.clone(),
        since_ms: now_ms().saturating_sub(since_ms),
        cause,
        next,
        passing: farm_core::condition::is_passing(code),
    };
    let show = || format!("farmctl module show {module}");
    if life.failed {
        let fact = format!("{module} is stopped on {node}: {cause}");
        let next = format!("farmctl module applog {module} --node {node}");
        return vec![condition("application_stopped", life.since_ms, fact, next)];
    }
    if life.place() == v1::Place::Wait && life.status() == v1::LifeStatus::NotReady {
        let why = waits_for(life).unwrap_or_else(|| cause.clone());
        let fact = format!("{module} waits on {node}: {why}");
        return vec![condition("application_waits", life.since_ms, fact, show())];
    }
    let resource = |r: &v1::Resource| match (r.off, r.state()) {
        (true, _) => {
            let fact = format!("what {} of {module} says on {node} counts for nothing", r.name);
            Some(condition("check_off", r.since_ms, fact, format!("farmctl checker on {module} {}", r.name)))
        }
        (false, v1::ResourceState::Down) => {
            let fact = format!("{} of {module} is down on {node}: {}", r.name, r.detail);
            Some(condition("resource_down", r.since_ms, fact, show()))
        }
        (false, _) => None,
    };
    life.resources.iter().filter_map(resource).collect()
}

/// The resource for which it waits.
fn waits_for(life: &v1::ModuleLife) -> Option<String> {
    let down = |r: &&v1::Resource| !r.off && r.state() == v1::ResourceState::Down;
    life.resources.iter().find(down).map(|r| format!("{} is down: {}", r.name, r.detail))
}

/// Sockets of `name` on nodes that its buckets have not left yet; `None` when one of those did not tell.
fn sockets_draining(name: &ModuleName, module: &Module, looks: &Looks) -> Option<u64> {
    let from: BTreeSet<NodeId> = module.assignment.iter().filter_map(|b| b.previous).collect();
    let on = |id: NodeId| {
        let of = looks.get(&id)?.draining.iter().find(|m| m.module == name.0);
        Some(of.map_or(0, |m| m.sockets))
    };
    from.into_iter().map(on).sum()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
