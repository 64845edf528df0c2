//! Rehearsals of a failure. The leader decides, one at a time, and orders the outage; what is taken out comes back by
//! itself, whatever happens to whoever asked for it.
//!
//! ```text
//! farmctl ─▶ any node ─▶ the leader: is one open? core::drill::objections ─▶ the node: stand still | kill the application
//! ```
//! A node fails as one that hangs does: its daemon stands still, its lease runs out in the kernel, the others take over
//! and, where it led, elect. Its kernel's timer ends that. An application fails as one that is killed does; supervision
//! starts it again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use farm_core::drill::{LENGTH, LENGTH_MAX, Target, View, objections};
use farm_core::id::NodeId;
use farm_core::model::{ModuleName, Readiness};
use farm_core::state::ClusterState;
use farm_core::time::Span;
use farm_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::api::{modules, status};
use crate::journal::Journal;
use crate::member::Member;
use crate::problem::Problem;

/// From the answer to the outage: who watches has something to compare with, and the answer is out.
const BEFORE: Span = Span::millis(1500);
/// How long another rehearsal waits for the end of the last one: what was taken out is seen again by all.
const AFTERWARDS: Span = Span::seconds(3);
/// Questions that may wait.
pub const CALLS_MAX: usize = 8;

/// A question to the leader.
pub struct Call {
    /// What is asked for.
    pub request: v1::DrillRequest,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<v1::DrillResponse, Problem>>,
}

/// Asks the conductor of this node, which leads.
///
/// # Errors
/// Its refusal, or that it has ended.
pub async fn ask(
    conductor: &mpsc::Sender<Call>,
    request: v1::DrillRequest,
) -> Result<v1::DrillResponse, Problem> {
    let (answer, answered) = oneshot::channel();
    let gone = || Problem::new("no_leader", "this node is stopping", "farmctl cluster status");
    conductor.send(Call { request, answer }).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?
}

/// Decides on rehearsals where this node leads.
pub struct Conductor {
    /// This node.
    pub member: Arc<Member>,
    /// What is asked.
    pub calls: mpsc::Receiver<Call>,
}

impl Conductor {
    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        let mut busy = Instant::now();
        while let Some(Call { request, answer }) = self.calls.recv().await {
            let decided = if Instant::now() < busy { Err(open(busy)) } else { self.decide(&request).await };
            if let Ok(drill) = &decided
                && !request.dry_run
            {
                busy = Instant::now() + duration(BEFORE + Span::millis(drill.for_ms) + AFTERWARDS);
            }
            // Whoever asked may have gone; what was ordered happens all the same.
            let _ = answer.send(decided);
        }
    }

    async fn decide(&self, request: &v1::DrillRequest) -> Result<v1::DrillResponse, Problem> {
        let member = &self.member;
        if member.role().leader != Some(member.me) {
            let fact = "the leader has just changed";
            return Err(Problem::new("no_leader", fact, "farmctl cluster status"));
        }
        let length = length(request.for_ms)?;
        let snapshot = member.snapshot();
        let state = &snapshot.state;
        let present: BTreeSet<NodeId> =
            state.nodes.keys().copied().filter(|node| member.absence(*node).is_none()).collect();
        let target = target(request, state, &present, member.me)?;
        let open = status::of(member).await.conditions;
        // A check that somebody switched off keeps nobody from serving.
        let open = open.iter().filter(|condition| condition.code != "check_off");
        let open: Vec<String> = open.map(|c| format!("{}: {}", c.resource, c.code)).collect();
        let (voters, loops_left) = (member.role().voters, self.loops_left(&target, state).await);
        let view = View { state, present: &present, voters: &voters, open: &open, loops_left };
        let found = objections(&target, &view);
        if !found.is_empty() {
            return Err(Problem::new("drill_unsafe", found.join("; "), "farmctl status"));
        }
        // An application is killed at once, and comes back when it does.
        let (node, before, length) = match &target {
            Target::Node(node) => (*node, BEFORE, length),
            Target::Application(_, node) => (*node, Span::ZERO, Span::ZERO),
        };
        let (after_ms, for_ms) = (before.as_millis(), length.as_millis());
        if !request.dry_run {
            self.carry_out(&target, v1::PauseRequest { after_ms, for_ms }).await?;
        }
        Ok(v1::DrillResponse { node: node.0, name: state.name_of(node), begins_in_ms: after_ms, for_ms })
    }

    async fn carry_out(&self, target: &Target, pause: v1::PauseRequest) -> Result<(), Problem> {
        match target {
            Target::Node(node) => self.member.pause(*node, pause).await,
            Target::Application(module, node) => {
                let action = v1::ModuleAction::Kill.into();
                let request = v1::ControlRequest { module: module.0.clone(), action, ..Default::default() };
                self.member.control(*node, request).await
            }
        }
    }

    /// Automatic actions that the application may still take; `None` where none is asked for, or nobody knows.
    async fn loops_left(&self, target: &Target, state: &ClusterState) -> Option<u32> {
        let Target::Application(module, node) = target else { return None };
        let most = modules::present(state, module).ok().flatten()?.maxloop;
        let look = self.member.look(*node).await?;
        let life = look.lives.iter().find(|life| life.module == module.0)?;
        Some(most.saturating_sub(life.loops))
    }
}

fn open(until: Instant) -> Problem {
    let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
    Problem::new("drill_open", format!("a rehearsal is under way, for {left} s yet"), "farmctl status")
}

fn length(ms: u64) -> Result<Span, Problem> {
    if ms > LENGTH_MAX.as_millis() {
        let fact = format!("a rehearsal takes {LENGTH_MAX} at most");
        return Err(Problem::new("bad_request", fact, "farmctl drill --help"));
    }
    Ok(if ms == 0 { LENGTH } else { Span::millis(ms) })
}

const fn duration(span: Span) -> Duration {
    Duration::from_nanos(span.0)
}

fn target(
    request: &v1::DrillRequest,
    state: &ClusterState,
    present: &BTreeSet<NodeId>,
    leader: NodeId,
) -> Result<Target, Problem> {
    let named = |name: &str| {
        let found = state.nodes.values().find(|node| node.name == name).map(|node| node.id);
        let unknown =
            || Problem::new("unknown_node", format!("no node is called {name}"), "farmctl node list");
        found.ok_or_else(unknown)
    };
    if request.module.is_empty() {
        let node = if request.leader { Ok(leader) } else { named(&request.node) };
        return node.map(Target::Node);
    }
    let name = ModuleName(request.module.clone());
    if !request.node.is_empty() {
        return Ok(Target::Application(name, named(&request.node)?));
    }
    let serves =
        |node: &&NodeId| state.modules.get(&name).is_some_and(|m| m.readiness(**node) == Readiness::Open);
    // Where it is up nowhere the objections say so of whichever node.
    let node = present.iter().find(serves).or_else(|| present.first()).copied().unwrap_or(leader);
    Ok(Target::Application(name, node))
}

/// Has this daemon stand still, after so long for so long.
///
/// # Errors
/// `bad_request` for longer than a rehearsal may take.
pub fn stand_still(
    journal: &Arc<Journal>,
    me: NodeId,
    name: &str,
    order: &v1::PauseRequest,
) -> Result<(), Problem> {
    let after = duration(Span::millis(order.after_ms.min(BEFORE.as_millis())));
    let length = duration(length(order.for_ms)?);
    let (journal, name) = (journal.clone(), name.to_owned());
    let paused = std::thread::Builder::new().name("farm-drill".into()).spawn(move || {
        std::thread::sleep(after);
        let seconds = length.as_secs_f32();
        journal.note(
            me.0,
            "drill_began",
            &name,
            format!("a rehearsal: {name} stands still for {seconds} s"),
            "",
        );
        match farm_host::pause::stand_still(length) {
            Ok(()) => {
                journal.note(me.0, "drill_over", &name, format!("the rehearsal is over: {name} goes on"), "")
            }
            Err(error) => {
                journal.note(me.0, "drill_failed", &name, format!("{name} cannot stand still: {error}"), "")
            }
        };
    });
    let failed = |e: std::io::Error| Problem::new("no_runtime", e.to_string(), "systemctl status farmd");
    paused.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_is_bounded() {
        assert_eq!(length(0).unwrap(), LENGTH);
        assert_eq!(length(2500).unwrap(), Span::millis(2500));
        assert_eq!(length(3_600_000).unwrap_err().code, "bad_request");
    }
}
