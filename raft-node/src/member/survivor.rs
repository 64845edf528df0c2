//! What this node has decided to do without others, said in the log.

use std::sync::Arc;

use super::Member;

impl Member {
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
                tracing::warn!(%error, "the take-over is not in the log yet");
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
