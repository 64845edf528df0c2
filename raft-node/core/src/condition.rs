//! Everything that is not as it should be: what, since when, why, and what to do.

use std::collections::BTreeMap;

use crate::arbiter::Kind;
use crate::event::maintenance_text;
use crate::id::{Epoch, NodeId};
use crate::model::{BucketState, Maintenance, Membership, Module, ModuleKind, ModuleName, Phase};
use crate::state::ClusterState;
use crate::time::BootTime;

/// One thing that is not green.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Condition {
    /// Stable code for scripts.
    pub code: &'static str,
    /// A node or module by name, `electors`, or a service.
    pub resource: String,
    /// Since when, as far as it is known.
    pub since: Since,
    /// Why, in a sentence.
    pub cause: String,
    /// The command that ends it or shows more.
    pub next: String,
}

/// Whether a condition of this code was asked for, or ends by itself: yellow. Everything else is red, what is not known
/// too.
#[must_use]
pub fn is_passing(code: &str) -> bool {
    const PASSING: [&str; 12] = [
        "change_open",
        "check_off",
        "electors_changing",
        "node_away",
        "node_leaving",
        "node_maintenance",
        "node_restarting",
        "notify_failed",
        "rejoining",
        "resource_down",
        "service_retiring",
        "tie_break_plain",
    ];
    PASSING.contains(&code)
}

/// Since when a condition holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Since {
    /// Since this epoch.
    Epoch(Epoch),
    /// Since this instant of the asking node's clock.
    Time(BootTime),
    /// The state does not say.
    Unknown,
}

/// Why a node cannot serve, as others see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Absence {
    /// It is not heard, since this instant of the asking node's clock.
    Silent(BootTime),
    /// It is heard, and says that it holds no lease.
    Idle,
}

/// What is not green in `state`, and of the nodes that are `absent`.
#[must_use]
pub fn conditions(state: &ClusterState, absent: &BTreeMap<NodeId, Absence>) -> Vec<Condition> {
    let mut found: Vec<Condition> = state.modules.iter().filter_map(|(name, m)| unowned(name, m)).collect();
    let missed = absent.iter().filter(|(id, _)| is_missed(state, **id));
    found.extend(missed.map(|(node, absence)| away(state, *node, *absence)));
    found.extend(state.nodes.values().filter_map(|n| going(&n.name, n.membership)));
    found.extend(state.maintenance.iter().map(|(id, m)| maintained(&state.name_of(*id), m)));
    let open = state.restarts.iter().filter(|(_, restart)| restart.over.is_none());
    found.extend(open.map(|(id, _)| restarting(&state.name_of(*id))));
    found.extend(state.modules.iter().filter_map(|(name, m)| moving(name, m)));
    found.extend(electors(state));
    found.extend(tie_break(state));
    found.extend(state.retired.iter().map(|((vip, _, port), _)| Condition {
        code: "service_retiring",
        resource: vip.at(*port),
        since: Since::Unknown,
        cause: "the service was removed, and a node that may not know it yet has not been evidenced".into(),
        next: "farmctl node list".into(),
    }));
    found
}

fn unowned(name: &ModuleName, module: &Module) -> Option<Condition> {
    let count = module.assignment.iter().filter(|b| b.current.is_none()).count();
    (count > 0 && module.kind == ModuleKind::Farm && !module.services.is_empty()).then(|| Condition {
        code: "no_owner",
        resource: name.0.clone(),
        since: Since::Unknown,
        cause: format!("{count} buckets have no owner: no live member may serve {name}"),
        next: format!("farmctl module weight {name} NODE 100"),
    })
}

/// A node that people took out, and that has nothing left to serve, may be as silent as it likes.
fn is_missed(state: &ClusterState, id: NodeId) -> bool {
    state.nodes.get(&id).is_none_or(|node| state.takes_part(node)) || state.is_party(id)
}

fn away(state: &ClusterState, node: NodeId, absence: Absence) -> Condition {
    let name = state.name_of(node);
    let owns = |b: &&BucketState| b.loser() == Some(node);
    let left = state.modules.values().flat_map(|m| &m.assignment).filter(owns).count();
    let rest = if left > 0 { format!("; nobody serves its {left} buckets yet") } else { String::new() };
    let (code, since, fact) = match absence {
        Absence::Silent(heard) => ("node_silent", Since::Time(heard), "does not renew its lease"),
        Absence::Idle => ("node_idle", Since::Unknown, "is heard, but holds no lease and accepts nothing"),
    };
    let cause = format!("{name} {fact}{rest}");
    Condition { code, resource: name, since, cause, next: "farmctl node list".into() }
}

fn going(name: &str, membership: Membership) -> Option<Condition> {
    let (code, cause) = match membership {
        Membership::Member => return None,
        Membership::Away => ("node_away", format!("{name} was stopped; it takes part again when it starts")),
        Membership::Leaving => ("node_leaving", format!("{name} hands its buckets over and leaves")),
        Membership::Overruled => (
            "node_overruled",
            format!("the cluster has gone on without {name}; when it is back, it joins anew by itself"),
        ),
    };
    let next = "farmctl node list".into();
    Some(Condition { code, resource: name.to_owned(), since: Since::Unknown, cause, next })
}

fn maintained(name: &str, maintenance: &Maintenance) -> Condition {
    let Maintenance { since, until, reason } = maintenance;
    Condition {
        code: "node_maintenance",
        resource: name.to_owned(),
        since: Since::Unknown,
        cause: format!("{name} has been in maintenance since {since}{}", maintenance_text(*until, reason)),
        next: format!("farmctl node maintenance off {name}"),
    }
}

fn restarting(name: &str) -> Condition {
    Condition {
        code: "node_restarting",
        resource: name.to_owned(),
        since: Since::Unknown,
        cause: format!("the daemon of {name} is being restarted; its filter goes on meanwhile"),
        next: "farmctl watch".into(),
    }
}

fn moving(name: &ModuleName, module: &Module) -> Option<Condition> {
    let open = || module.assignment.iter().filter(|b| b.phase != Phase::Stable);
    let since = open().map(|b| b.changed).min()?;
    let closed = open().filter(|b| b.phase == Phase::MoveClosed).count();
    let rest = if closed > 0 {
        format!(", {closed} of them closed until it is clear who lost them")
    } else {
        String::new()
    };
    Some(Condition {
        code: "change_open",
        resource: name.0.clone(),
        since: Since::Epoch(since),
        cause: format!("{} buckets are being moved{rest}", open().count()),
        next: "farmctl watch".into(),
    })
}

/// Only between two does it matter.
fn tie_break(state: &ClusterState) -> Option<Condition> {
    let nodes = &state.electors.current;
    let tie_break = state.tie_break.as_ref().filter(|_| nodes.len() == 2)?;
    let (code, cause, next) = match (tie_break.kind, tie_break.idle(nodes, state.profile)) {
        (Kind::Plain, _) => (
            "tie_break_plain",
            "the tie-break is plain: two nodes that reach a router and not each other both go on".to_owned(),
            "farmctl cluster tie-break --help",
        ),
        (Kind::Exclusive, Some(why)) => (
            "tie_break_idle",
            format!("the tie-break would not decide, and nobody goes on alone: {why}"),
            "farmctl cluster tie-break rehearse",
        ),
        (Kind::Exclusive, None) => return None,
    };
    Some(Condition { code, resource: "tie-break".into(), since: Since::Unknown, cause, next: next.into() })
}

fn electors(state: &ClusterState) -> Option<Condition> {
    let change = state.electors.change.as_ref()?;
    let step = if change.seal.is_some() {
        "waits for every node to know the Seal"
    } else {
        "waits for the live nodes"
    };
    Some(Condition {
        code: "electors_changing",
        resource: "electors".into(),
        since: Since::Epoch(change.joint),
        cause: format!("the change of electors {step}"),
        next: "farmctl cluster status".into(),
    })
}
