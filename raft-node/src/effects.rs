//! Carries out what the controller asks for. Each effect is its own task; its outcome goes back to the driver.

use std::sync::Arc;

use farm_core::command::Command;
use farm_core::controller::{Effect, Input, Notice};
use farm_core::id::{Leadership, NodeId};
use farm_core::lease::{Ask, Expiry};
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use tokio::sync::mpsc;

use crate::driver::Feedback;
use crate::journal::Journal;
use crate::lease::LeaseHandle;
use crate::peer::PeerClients;
use crate::raft::{Endpoint, Handle};

/// The executor of effects.
#[derive(Clone)]
pub struct Effects {
    inner: Arc<Means>,
}

/// What effects are carried out with.
pub struct Means {
    /// This node.
    pub me: NodeId,
    /// The log.
    pub raft: Handle,
    /// This node's elector.
    pub lease: LeaseHandle,
    /// The other members.
    pub peers: PeerClients,
    /// Where outcomes go.
    pub back: mpsc::Sender<Feedback>,
    /// Told when buckets were taken from a silent node.
    pub announce: mpsc::Sender<()>,
    /// The journal.
    pub journal: Arc<Journal>,
}

impl Effects {
    /// Acts with `means`.
    #[must_use]
    pub fn new(means: Means) -> Self {
        Self { inner: Arc::new(means) }
    }

    /// Starts `effect`, which takes over from a silent node or does not.
    pub fn execute(&self, leadership: Leadership, effect: Effect, takes_over: bool) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            match effect {
                Effect::Propose(command) => inner.propose(leadership, command, takes_over).await,
                Effect::AskExpiry { elector, ask } => inner.ask(leadership, elector, ask).await,
                Effect::SetVoters(voters) => {
                    log("voters", inner.raft.set_voters_as(leadership, voters).await);
                    inner.tell(leadership, Input::VotersDone).await;
                }
                Effect::AddLearner(node) => inner.add_learner(node).await,
                Effect::RemoveFromRaft(node) => log("removal", inner.raft.remove(node).await),
                Effect::TransferLeader(node) => log("transfer", inner.raft.transfer(node).await),
                Effect::Notice(notice) => inner.notice(notice),
            }
        });
    }
}

impl Means {
    async fn tell(&self, leadership: Leadership, input: Input) {
        // The driver is gone only when the daemon ends.
        let _ = self.back.send(Feedback::Core(leadership, input)).await;
    }

    async fn propose(&self, leadership: Leadership, command: Command, takes_over: bool) {
        match self.raft.propose_as(leadership, command).await {
            Ok(applied) => {
                if !applied.outcome.is_applied() {
                    return self.tell(leadership, Input::ProposalFailed).await;
                }
                if takes_over {
                    // Full: an announcement is already on its way.
                    let _ = self.announce.try_send(());
                }
                self.tell(leadership, Input::ProposalDone).await;
            }
            Err(error) => {
                tracing::debug!(%error, "proposal failed");
                self.tell(leadership, Input::ProposalFailed).await;
            }
        }
    }

    async fn ask(&self, leadership: Leadership, elector: NodeId, ask: Ask) {
        let answer = if elector == self.me {
            self.lease.expiry(ask).await
        } else {
            self.peers.expiry(elector, ask).await
        };
        // Counted from receipt.
        let received = BootTime(boot_now());
        let input = match answer {
            Some(Expiry::Remaining(left)) => Input::Expiry { elector, ask, expires_at: received + left },
            Some(Expiry::NotFenced) | None => Input::ExpiryUnknown { elector, ask },
        };
        self.tell(leadership, input).await;
    }

    fn notice(&self, notice: Notice) {
        let name = self.raft.state().borrow().state.name_of(notice.node());
        self.journal.note(self.me.0, notice.code(), &name, notice.text(&name), "");
    }

    async fn add_learner(&self, node: NodeId) {
        let state = self.raft.state().borrow().clone();
        let Some(member) = state.state.nodes.get(&node) else { return };
        log("learner", self.raft.add_learner(node, Endpoint::of(member)).await);
    }
}

fn log<E: std::fmt::Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        // The controller is level-triggered: it asks again.
        tracing::warn!(%error, "{what}: membership change failed");
    }
}
