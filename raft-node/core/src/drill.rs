//! Rehearsals of a failure: whether the cluster would survive it now. Pure: the leader asks before anything is taken out.

use std::collections::BTreeSet;

use crate::id::NodeId;
use crate::model::{ModuleKind, ModuleName, Readiness};
use crate::state::ClusterState;
use crate::survival;
use crate::time::Span;

/// How long something is out unless told otherwise: several times what any profile takes to hand its clients over.
pub const LENGTH: Span = Span::seconds(10);
/// The longest that may be asked for: a rehearsal is watched by somebody.
pub const LENGTH_MAX: Span = Span::seconds(120);
/// Automatic actions that have to be left where an application is killed: the one that starts it again, and one for
/// what may go wrong by itself.
const LOOPS_LEFT: u32 = 2;

/// What is to fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A node.
    Node(NodeId),
    /// The application of a module on a node.
    Application(ModuleName, NodeId),
}

/// What the leader sees.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The replicated state.
    pub state: &'a ClusterState,
    /// Who renews its lease, the leader too.
    pub present: &'a BTreeSet<NodeId>,
    /// Voters of Raft.
    pub voters: &'a BTreeSet<NodeId>,
    /// What is not green, one sentence each.
    pub open: &'a [String],
    /// Automatic actions that the application may still take on that node; `None` for a node as target.
    pub loops_left: Option<u32>,
}

/// Why it must not be rehearsed now, one sentence each; nothing where it may.
#[must_use]
pub fn objections(target: &Target, view: &View<'_>) -> Vec<String> {
    let mut found: Vec<String> =
        view.open.iter().map(|what| format!("not everything is green: {what}")).collect();
    match target {
        Target::Node(node) => without_node(*node, view, &mut found),
        Target::Application(module, node) => without_application(module, *node, view, &mut found),
    }
    found
}

fn without_node(node: NodeId, view: &View<'_>, found: &mut Vec<String>) {
    let name = view.state.name_of(node);
    if !view.present.contains(&node) {
        found.push(format!("{name} is not there"));
    }
    let survival = survival::View { state: view.state, present: view.present, voters: view.voters };
    found.extend(survival.without(&BTreeSet::from([node]), &name));
}

fn without_application(name: &ModuleName, node: NodeId, view: &View<'_>, found: &mut Vec<String>) {
    let node_name = view.state.name_of(node);
    let Some(module) = view.state.modules.get(name) else {
        return found.push(format!("there is no module {name}"));
    };
    if !module.has_application() {
        return found.push(format!("{name} has no application of its own"));
    }
    if module.readiness(node) != Readiness::Open || !view.present.contains(&node) {
        return found.push(format!("{name} is not up on {node_name}"));
    }
    let others =
        view.state.nodes.values().filter(|other| other.id != node && view.present.contains(&other.id));
    if module.kind == ModuleKind::Light
        || !others.into_iter().any(|other| view.state.may_serve(other, module))
    {
        found.push(format!("nobody but {node_name} could serve {name}"));
    }
    if let Some(left) = view.loops_left.filter(|left| *left < LOOPS_LEFT) {
        found
            .push(format!("{name} has {left} automatic actions left on {node_name}, and needs {LOOPS_LEFT}"));
    }
}
