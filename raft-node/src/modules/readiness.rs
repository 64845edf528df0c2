//! Tells the cluster whether a module's application serves on this node, and waits for what comes of it.

use std::sync::Arc;
use std::time::Duration;

use farm_core::command::{Body, Command};
use farm_core::id::NodeId;
use farm_core::model::{Module, ModuleName, Readiness};
use farm_core::state::ClusterState;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::member::Member;
use crate::raft::Snapshot;

/// How long a step waits for the cluster to know: without a majority this node has no lease either, and serves nobody.
const KNOWN_MAX: Duration = Duration::from_secs(5);
/// Pause after a refusal, or where the log cannot be reached.
const AGAIN: Duration = Duration::from_millis(200);

/// Says what `wanted` holds until the cluster has it, again whenever it has something else; nothing while it holds
/// nothing. Ends with Raft.
pub async fn publish(member: Arc<Member>, name: ModuleName, mut wanted: watch::Receiver<Option<Readiness>>) {
    let mut states = member.states();
    loop {
        let want = *wanted.borrow_and_update();
        let known = readiness(&states.borrow_and_update(), &name, member.me);
        let Some(want) = want.filter(|want| known.is_some_and(|known| known != *want)) else {
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = wanted.changed() => if changed.is_err() { return },
            }
            continue;
        };
        let body = Body::ModuleReadiness { module: name.clone(), node: member.me, readiness: want };
        // What is wanted by now counts, not what was wanted when a leader was looked for.
        let said = tokio::select! {
            said = member.propose(Command::any(body)) => said.is_ok_and(|p| p.refused.is_none()),
            changed = wanted.changed() => if changed.is_err() { return } else { true },
        };
        if !said {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Whether clients are sent to this node, as the cluster has it; `None` where it has no such application.
fn readiness(snapshot: &Snapshot, name: &ModuleName, me: NodeId) -> Option<Readiness> {
    let module = snapshot.state.modules.get(name)?;
    module.definition.as_ref()?.application.as_ref()?;
    Some(module.readiness(me))
}

/// The traffic of one module on this node.
#[derive(Clone)]
pub struct Gate {
    /// Where it is told.
    pub member: Arc<Member>,
    /// Which.
    pub name: ModuleName,
    /// What [`publish`] says.
    pub wanted: watch::Sender<Option<Readiness>>,
}

impl Gate {
    /// Lets clients in.
    pub async fn open(&self) {
        self.wanted.send_replace(Some(Readiness::Open));
        self.until(KNOWN_MAX, |_, m| m.readiness(self.member.me) == Readiness::Open).await;
    }

    /// Lets nobody new in; with a drain returns when connections that are open have ended, `drain` is over, or `hurry`.
    pub async fn close(&self, drain: Option<Duration>, mut hurry: watch::Receiver<bool>) {
        if let Some(limit) = drain {
            self.wanted.send_replace(Some(Readiness::Closing));
            tokio::select! {
                () = self.until(limit, |s, m| !is_party(m, self.member.me) || self.is_last(s, m)) => {}
                _ = hurry.wait_for(|hurried| *hurried) => {}
            }
        }
        self.shut();
        let me = self.member.me;
        let closed = |s: &ClusterState, m: &Module| {
            m.readiness(me) == Readiness::Closed && (!owns(m, me) || self.is_last(s, m))
        };
        self.until(KNOWN_MAX, closed).await;
    }

    /// Lets nobody in, without waiting for what comes of it.
    pub fn shut(&self) {
        self.wanted.send_replace(Some(Readiness::Closed));
    }

    /// Nobody else could take its clients: no other node has it open, or those that have are gone.
    fn is_last(&self, state: &ClusterState, module: &Module) -> bool {
        let member = &self.member;
        let others = state.nodes.values().filter(|node| node.id != member.me && state.takes_part(node));
        let serves = |id| module.readiness(id) == Readiness::Open && member.absence_in(state, id).is_none();
        !others.map(|node| node.id).any(serves)
    }

    async fn until(&self, limit: Duration, holds: impl Fn(&ClusterState, &Module) -> bool) {
        let mut states = self.member.states();
        let there = |s: &Arc<Snapshot>| s.state.modules.get(&self.name).is_none_or(|m| holds(&s.state, m));
        if timeout(limit, states.wait_for(there)).await.is_err() {
            tracing::warn!(module = %self.name, "the traffic of a module did not follow within {limit:?}");
        }
    }
}

fn owns(module: &Module, me: NodeId) -> bool {
    module.assignment.iter().any(|b| b.current == Some(me))
}

fn is_party(module: &Module, me: NodeId) -> bool {
    module.assignment.iter().any(|b| b.parties().any(|n| n == me))
}
