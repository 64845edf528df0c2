//! Who leads, who votes, who has caught up: openraft's metrics, boiled down to what changes rarely.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farm_core::id::{Leadership, NodeId};
use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use tokio::sync::watch;

use super::types::{Types, leadership};
use super::{Fatal as FatalHook, RaftOf};

/// A member whose log ends at most this far behind the leader's counts as caught up: one append brings it level.
pub(crate) const CAUGHT_UP_LAG: u64 = super::ENTRIES_PER_APPEND;

/// This node's view of the group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Role {
    /// Who leads, as far as this node knows. Itself only from when it can take commands.
    pub leader: Option<NodeId>,
    /// The leadership this node follows or holds, once a majority has granted it. On the leader
    /// `leadership.leader` is itself; a leader that was cut off may still believe so.
    pub leadership: Option<Leadership>,
    /// Highest term seen.
    pub term: u64,
    /// Who votes, in the last membership of this node's log (both sets during a change).
    pub voters: BTreeSet<NodeId>,
    /// Who only follows.
    pub learners: BTreeSet<NodeId>,
    /// On the leader: itself and those whose log is at most one append behind. Empty elsewhere.
    pub caught_up: BTreeSet<NodeId>,
}

impl Role {
    pub(crate) fn of(metrics: &RaftMetrics<Types>) -> Self {
        let members = metrics.membership_config.membership();
        // Until a majority has answered its first message, a leader refuses every command.
        let ready = metrics.current_leader != Some(metrics.id) || metrics.last_quorum_acked.is_some();
        let leader = metrics.current_leader.filter(|_| ready);
        let granted = metrics.vote.is_committed().then(|| leadership(metrics.vote.leader_id()));
        Self {
            leader: leader.map(NodeId),
            leadership: granted.filter(|l| leader == Some(l.leader.0)),
            term: metrics.current_term,
            voters: members.voter_ids().map(NodeId).collect(),
            learners: members.learner_ids().map(NodeId).collect(),
            caught_up: caught_up(metrics),
        }
    }
}

fn caught_up(metrics: &RaftMetrics<Types>) -> BTreeSet<NodeId> {
    let (Some(replication), Some(last)) = (&metrics.replication, metrics.last_log_index) else {
        return BTreeSet::new();
    };
    let near = |index: u64| index + CAUGHT_UP_LAG >= last;
    let followers = replication.iter().filter(|(_, at)| at.as_ref().is_some_and(|id| near(id.index)));
    followers.map(|(node, _)| NodeId(*node)).chain([NodeId(metrics.id)]).collect()
}

/// Follows the metrics until Raft ends. If it ends by itself, `fatal` is told why.
pub(crate) async fn follow(
    raft: RaftOf,
    role: watch::Sender<Role>,
    stopping: Arc<AtomicBool>,
    fatal: FatalHook,
) {
    let mut metrics = raft.metrics();
    loop {
        // A borrow blocks Raft: it ends with this statement.
        let (now, running) = {
            let m = metrics.borrow_watched();
            (Role::of(&m), m.running_state.clone())
        };
        role.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        let ended = match running {
            Ok(()) => metrics.changed().await.err().map(|_| "its task ended".to_owned()),
            Err(Fatal::Stopped) => Some("it was stopped".to_owned()),
            Err(error @ (Fatal::StorageError(_) | Fatal::Panicked)) => Some(error.to_string()),
        };
        let Some(reason) = ended else { continue };
        if !stopping.load(Ordering::Acquire) {
            fatal(&format!("Raft cannot go on: {reason}; start the daemon again"));
        }
        return;
    }
}
