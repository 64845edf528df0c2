//! The way of a command into the log, from whichever member it starts.

use std::time::Duration;

use farm_core::command::{Body, Command};
use farm_core::id::{FeatureLevel, NodeId};
use farm_store::{DiskPressure, Gauge};

use crate::peer::{self, PeerClients, Proposed, Refused};
use crate::raft::{Handle, ProposeError};

/// Pause before a command that found no leader is tried again: an election of the fastest profile takes longer.
const RETRY: Duration = Duration::from_millis(50);
/// Tries of a command that found no leader: together longer than two elections of the slowest profile.
const TRIES: u32 = 100;

/// Puts commands into the log, here or through the leader.
#[derive(Clone)]
pub struct Proposer {
    /// This node.
    pub me: NodeId,
    /// The log.
    pub raft: Handle,
    /// The way to a leader elsewhere.
    pub peers: PeerClients,
    /// The log's disk: a full one refuses what can wait, so that what cannot goes on.
    pub disk: Gauge,
}

impl Proposer {
    /// Returns when `command` is committed and applied; waits for a leader for a while. What may be repeated is, where
    /// a leader dies over it.
    ///
    /// # Errors
    /// [`ProposeError`] when there is none, or the command's fate is unknown.
    pub async fn propose(&self, command: Command) -> Result<Proposed, ProposeError> {
        let mut role = self.raft.role();
        for _ in 0..TRIES {
            let leader = role.borrow_and_update().leader;
            match leader {
                Some(leader) if leader == self.me => match self.propose_here(command.clone()).await {
                    Err(ProposeError::NotLeader { .. }) => {}
                    Err(ProposeError::Unknown) if command.is_repeatable() => {}
                    done => return done,
                },
                Some(leader) => match self.peers.propose(leader, &command).await {
                    Ok(proposed) => return Ok(proposed),
                    Err(error) if command.is_repeatable() || peer::surely_not_proposed(&error) => {}
                    Err(_) => return Err(ProposeError::Unknown),
                },
                None => {}
            }
            // A new leader ends the wait early.
            let _ = tokio::time::timeout(RETRY, role.changed()).await;
        }
        Err(ProposeError::NotLeader { leader: None })
    }

    /// As [`Proposer::propose`], but only if this node leads.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose_here(&self, command: Command) -> Result<Proposed, ProposeError> {
        let founds = matches!(command.body, Body::Found { .. });
        if let Some(early) = self.too_early(command.level).filter(|_| !founds) {
            return Ok(Proposed::refused(early));
        }
        if can_wait(&command.body)
            && let Some(full) = self.disk_full()
        {
            return Ok(Proposed::refused(full));
        }
        self.raft.propose(command).await.map(|applied| Proposed::from(&applied))
    }

    /// What not every member can read must not get into the log at all. Asked of a command from elsewhere before it is
    /// read: this build may not know it.
    #[must_use]
    pub fn too_early(&self, needs: FeatureLevel) -> Option<Refused> {
        let level = self.raft.state().borrow().state.level;
        (needs > level).then(|| Refused {
            code: "level_not_final".into(),
            fact: format!("the command needs feature level {needs}, members share {level}"),
            cure: "farmctl cluster finalize".into(),
        })
    }

    fn disk_full(&self) -> Option<Refused> {
        // A file system that cannot be asked says nothing about its room; a write that fails ends the daemon anyway.
        let full = self.disk.pressure().is_ok_and(|p| p == DiskPressure::CommandsRefused);
        full.then(|| Refused {
            code: "disk_full".into(),
            fact: "the disk under the leader's log is nearly full; what is left is kept for fail-overs"
                .into(),
            cure: "df /var/lib/farm".into(),
        })
    }
}

/// Whether a command may be refused for want of disk: what an operator asks for, not what keeps the service up.
fn can_wait(body: &Body) -> bool {
    match body {
        Body::NodeJoin(_)
        | Body::ModulePut { .. }
        | Body::ModuleApply { .. }
        | Body::ModuleRemove(_)
        | Body::ServiceAdd { .. }
        | Body::ServiceRemove { .. }
        | Body::WeightSet { .. }
        | Body::DrainSet { .. }
        | Body::MaintenanceOn { .. }
        | Body::RestartBegin { .. }
        | Body::TieBreakSet(_)
        | Body::ProfileSet(_)
        | Body::FinalizeLevel(_) => true,
        #[cfg(feature = "next")]
        Body::ClusterRename(_) => true,
        Body::Found { .. }
        | Body::NodeUpdate(_)
        | Body::ModuleReadiness { .. }
        | Body::NodeAway(_)
        | Body::NodeBack(_)
        | Body::NodeLeave(_)
        | Body::NodeOverrule(_)
        | Body::TieBreakRehearsed { .. }
        | Body::TakeOver { .. }
        | Body::MaintenanceOff { .. }
        | Body::RestartEnd { .. }
        | Body::RestartForget { .. }
        | Body::NodeRemove(_)
        | Body::Prepare(_)
        | Body::Move { .. }
        | Body::Activate { .. }
        | Body::Settle(_)
        | Body::Cancel(_)
        | Body::ElectorsJoint(_)
        | Body::ElectorsSeal { .. }
        | Body::ElectorsFinal(_)
        | Body::ElectorsCancel => false,
    }
}
