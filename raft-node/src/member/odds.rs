//! Where members and this node go on without one another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use farm_core::id::NodeId;

use super::Member;
use crate::lease::Order;
use crate::raft::Denied;

/// Between two tries to say it: a fraction of what a client notices.
const SAY_AGAIN: Duration = Duration::from_millis(5);

impl Member {
    /// A peer with a higher generation, or another one of the same number: what this node knows may be over.
    pub(super) async fn close_at_odds(self: Arc<Self>) {
        let mut trouble = self.raft.gate().trouble();
        let Ok(denied) = trouble.wait_for(Option::is_some).await.map(|d| d.as_ref().map(ToString::to_string))
        else {
            return;
        };
        // For good: what was repaired here must not open it again.
        self.lease.give(Order::End);
        self.journal.note(self.me.0, "peers_at_odds", "cluster", denied.unwrap_or_default(), "");
    }

    /// Members whose log went back in time, as far as this node has seen as leader.
    #[must_use]
    pub fn reverted(&self) -> BTreeSet<NodeId> {
        let members = self.snapshot();
        let all = self.raft.gate().reverted();
        all.into_iter().filter(|id| members.state.nodes.contains_key(id)).collect()
    }

    /// Why peers and this node refuse each other, if they do.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.raft.gate().trouble().borrow().as_ref().map(ToString::to_string)
    }

    /// Returns when others have gone on without this node, or its store is a copy: what it knows is over, and why.
    pub async fn overruled(&self) -> String {
        let mut trouble = self.raft.gate().trouble();
        let over = |denied: &Option<Denied>| {
            matches!(denied, Some(Denied::HigherGeneration { .. } | Denied::Copied { .. }))
        };
        let why = trouble.wait_for(over).await.map(|denied| denied.as_ref().map(ToString::to_string));
        match why {
            Ok(Some(why)) => why,
            // Raft has ended.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Whenever this node leads, and the state does not say yet by which decision, proposes it. It ends with Raft.
    pub(super) async fn say_decisions(self: Arc<Self>) {
        let (mut role, mut state, mut decided) = (self.raft.role(), self.raft.state(), self.raft.decisions());
        loop {
            role.mark_unchanged();
            state.mark_unchanged();
            decided.mark_unchanged();
            let leads = role.borrow().leader == Some(self.me);
            if let Some(command) = self.raft.unsaid().filter(|_| leads)
                && let Err(error) = self.raft.propose(command).await
            {
                // A leader that has just had no majority takes nothing until it knows that it has one again.
                tracing::debug!(%error, "the take-over is not in the log yet");
                tokio::time::sleep(SAY_AGAIN).await;
                continue;
            }
            let changed = tokio::select! {
                changed = role.changed() => changed,
                changed = state.changed() => changed,
                changed = decided.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}
