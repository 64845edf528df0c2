//! What leaders propose. They may propose whatever applies, at any time: the gates of the controller only make changes
//! smoother (P4), and nodes may be suspected wrongly. What needs evidence is bound to it.

use farm_core::assignment::batch_losers;
use farm_core::command::{Body, Command, Evidence, ModuleBuckets, Transfer};
use farm_core::id::{EntryId, Epoch, NodeId};
use farm_core::model::Pending;
use farm_core::planted::{Bug, is_planted};
use farm_core::state::ClusterState;

use super::book::moving;
use super::config::{Config, Intent};
use super::setup::{buckets, module};

/// Commands that need no evidence, whether they would do something or not.
#[must_use]
pub fn commands(state: &ClusterState, config: &Config) -> Vec<Command> {
    let bodies = config.intents.iter().flat_map(|intent| bodies(state, *intent));
    let command = |body| match body {
        Body::NodeUpdate(_) => Command::any(body),
        _ => Command::at(state.epoch, body),
    };
    bodies.map(command).collect()
}

fn bodies(state: &ClusterState, intent: Intent) -> Vec<Body> {
    match intent {
        Intent::Move(mask, to) => {
            let transfers = vec![transfer(mask, to)];
            let losers = batch_losers(&state.modules, &transfers).into_iter().collect();
            vec![Body::Move { losers, transfers }]
        }
        Intent::Prepare(mask, to) => vec![Body::Prepare(vec![transfer(mask, to)])],
        Intent::Settle(mask) => vec![Body::Settle(vec![named(mask)])],
        Intent::Cancel(mask) => vec![Body::Cancel(vec![named(mask)])],
        Intent::Touch => state.nodes.values().next().cloned().map(Body::NodeUpdate).into_iter().collect(),
        Intent::Electors(from, to) => electors(state, from, to),
        Intent::ElectorsCancel => vec![Body::ElectorsCancel],
    }
}

/// The next entry of a change of electors that needs no evidence.
fn electors(state: &ClusterState, from: u8, to: u8) -> Vec<Body> {
    let set = |mask: u8| nodes(mask).collect::<Vec<NodeId>>();
    let Some(change) = &state.electors.change else {
        let starts = state.electors.current.iter().copied().eq(nodes(from));
        return starts.then(|| Body::ElectorsJoint(set(to))).into_iter().collect();
    };
    let is_it = change.next.iter().copied().eq(nodes(to));
    if !is_it || change.seal.is_some() || is_planted(Bug::JointWithoutSeal) {
        return Vec::new();
    }
    vec![Body::ElectorsSeal { joint: change.joint, nodes: state.nodes.keys().copied().collect() }]
}

/// Steps for which `found` must know evidence. `heard` says whether a node reported an epoch, `followed` whether the
/// leases of a node are.
#[must_use]
pub fn evidenced(
    state: &ClusterState,
    found: impl Fn(&Pending) -> Option<Evidence>,
    heard: impl Fn(NodeId, Epoch) -> bool,
    followed: impl Fn(NodeId) -> bool,
) -> Vec<Command> {
    let mut mask = 0;
    let mut evidence = Vec::new();
    for (bucket, pending) in moving(state) {
        let all: Option<Vec<Evidence>> = pending.iter().map(&found).collect();
        if let Some(all) = all {
            mask |= 1 << bucket;
            evidence.extend(all);
        }
    }
    evidence.sort_unstable();
    evidence.dedup();
    let activate = (mask > 0).then(|| Body::Activate { buckets: vec![named(mask)], evidence });
    let last = finish(state, found, heard, followed).map(Body::ElectorsFinal);
    activate.into_iter().chain(last).map(|body| Command::at(state.epoch, body)).collect()
}

fn finish(
    state: &ClusterState,
    found: impl Fn(&Pending) -> Option<Evidence>,
    heard: impl Fn(NodeId, Epoch) -> bool,
    followed: impl Fn(NodeId) -> bool,
) -> Option<Vec<Evidence>> {
    let change = state.electors.change.as_ref()?;
    if is_planted(Bug::JointWithoutSeal) {
        // As the controller does: once everybody has said that it knows of the change.
        return state.nodes.keys().all(|n| !followed(*n) || heard(*n, change.joint)).then(Vec::new);
    }
    let seal = change.seal.as_ref()?;
    let pending = seal.nodes.iter().map(|n| Pending { node: *n, epoch: seal.epoch, entry: seal.entry });
    // A node whose lease is not followed renews whenever that helps: it may have said that it knows the Seal.
    let released = |p: &Pending| Evidence::Released { node: p.node, epoch: p.epoch };
    pending.map(|p| if followed(p.node) { found(&p) } else { Some(released(&p)) }).collect()
}

/// The next command of a change that nothing stands in the way of; `None` when it is done.
#[must_use]
pub fn next(state: &ClusterState, intent: Intent) -> Option<Command> {
    let released = |p: &Pending| Some(Evidence::Released { node: p.node, epoch: p.epoch });
    let last = evidenced(state, released, |_, _| true, |_| true).into_iter().next();
    let next = || bodies(state, intent).into_iter().next().map(|body| Command::at(state.epoch, body));
    let applies =
        |c: &Command| state.clone().apply(c, EntryId::default()).is_ok_and(|outcome| outcome.is_applied());
    last.or_else(next).filter(applies)
}

/// The nodes of a bitmap.
pub fn nodes(mask: u8) -> impl Iterator<Item = NodeId> {
    (0..8).filter(move |n| mask & (1 << n) != 0).map(|n| NodeId(n + 1))
}

fn transfer(mask: u8, to: u8) -> Transfer {
    Transfer { module: module(), to: NodeId(u64::from(to) + 1), buckets: buckets(mask) }
}

fn named(mask: u8) -> ModuleBuckets {
    ModuleBuckets { module: module(), buckets: buckets(mask) }
}
