//! Changes of the group: one at a time, each only on top of the membership it was decided on.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::id::{Leadership, NodeId};
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::{ChangeMembershipRequest, Precondition};

use super::types::{Endpoint, StoredMembers, Types, Vote};
use super::{Handle, RaftOf};

/// Why the group was not changed, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// Another node leads, or nobody.
    #[error("this node does not lead; ask {}", leader.map_or("again when there is a leader".to_owned(), |n| format!("node {n}")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The node is no learner yet.
    #[error("node {node} is not in the group; add it as a learner first")]
    Unknown {
        /// The node.
        node: NodeId,
    },
    /// The node still lacks entries: as a voter it would hold up every command.
    #[error("node {node} has not caught up with the log yet; it can vote when it has")]
    NotCaughtUp {
        /// The node.
        node: NodeId,
    },
    /// The id belongs to another endpoint: ids are never given twice.
    #[error("id {node} already belongs to {endpoint}; a node that lost its data joins under a new id")]
    IdTaken {
        /// The id.
        node: NodeId,
        /// Whose it is.
        endpoint: Endpoint,
    },
    /// Nobody would vote any more.
    #[error("the last voter cannot be removed")]
    NoVoters,
    /// The group changed in the meantime, or a change is under way.
    #[error("the group is changing: {0}; try again")]
    Busy(String),
    /// No majority answered in time. The change may still come about.
    #[error("no majority confirmed the change in time; it may still come about")]
    Timeout,
    /// Raft has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

impl Handle {
    /// Founds a group of this node alone. Does nothing if the log already holds a membership.
    ///
    /// # Errors
    /// [`MembersError::Stopped`].
    pub async fn initialize(&self, endpoint: Endpoint) -> Result<(), MembersError> {
        let raft = self.raft();
        if raft.is_initialized().await.map_err(stopped)? {
            return Ok(());
        }
        let members = BTreeMap::from([(self.me().0, endpoint)]);
        match raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(error)) => Err(MembersError::Busy(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(stopped(error)),
        }
    }

    /// Lets `node` follow the log. Returns when that is committed, not when the node has caught up: see
    /// [`super::Role::caught_up`]. Adding it again is no error.
    ///
    /// # Errors
    /// [`MembersError`]; `IdTaken` if the id has another endpoint.
    pub async fn add_learner(&self, node: NodeId, endpoint: Endpoint) -> Result<(), MembersError> {
        let change = self.changing().await?;
        match change.members.get_node(&node.0) {
            Some(known) if *known == endpoint => Ok(()),
            Some(known) => Err(MembersError::IdTaken { node, endpoint: known.clone() }),
            None => change.commit(ChangeMembers::AddNodes(BTreeMap::from([(node.0, endpoint)]))).await,
        }
    }

    /// As [`Handle::set_voters`], but only in exactly this leadership: what was decided in one may be wrong in the next.
    ///
    /// # Errors
    /// [`MembersError`]; `NotLeader` also when this node leads again, in another term.
    pub async fn set_voters_as(
        &self,
        only: Leadership,
        voters: BTreeSet<NodeId>,
    ) -> Result<(), MembersError> {
        self.step_to(Some(only), voters).await
    }

    /// Makes exactly `voters` vote, one node after the other. Leavers go first: the rest can confirm that alone,
    /// while a newcomer that dies half-way would hold up whatever follows. Ended early by an error, it may have
    /// done a part; call it again.
    ///
    /// # Errors
    /// [`MembersError`]; a newcomer must be a learner that has caught up.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembersError> {
        self.step_to(None, voters).await
    }

    async fn step_to(&self, only: Option<Leadership>, voters: BTreeSet<NodeId>) -> Result<(), MembersError> {
        let wanted: BTreeSet<u64> = voters.iter().map(|n| n.0).collect();
        if wanted.is_empty() {
            return Err(MembersError::NoVoters);
        }
        while let Some(step) = self.next_step(only, &wanted).await? {
            step.0.commit(step.1).await?;
        }
        Ok(())
    }

    /// Takes `node` out of the group for ever; a voter stops voting first.
    ///
    /// # Errors
    /// [`MembersError`].
    pub async fn remove(&self, node: NodeId) -> Result<(), MembersError> {
        let voters: BTreeSet<NodeId> = self.changing().await?.members.voter_ids().map(NodeId).collect();
        if voters.contains(&node) {
            self.set_voters(voters.into_iter().filter(|n| *n != node).collect()).await?;
        }
        let change = self.changing().await?;
        match change.members.get_node(&node.0) {
            None => Ok(()),
            Some(_) => change.commit(ChangeMembers::RemoveNodes(BTreeSet::from([node.0]))).await,
        }
    }

    /// Hands the leadership to `to`, a voter, and waits until this node follows somebody else.
    ///
    /// # Errors
    /// [`MembersError`]; `Timeout` when the target did not take over, and this node leads on.
    pub async fn transfer(&self, to: NodeId) -> Result<(), MembersError> {
        if to == self.me() {
            return Ok(());
        }
        let change = self.changing().await?;
        if !change.members.voter_ids().any(|id| id == to.0) {
            return Err(MembersError::Unknown { node: to });
        }
        self.raft().trigger().transfer_leader(to.0).await.map_err(stopped)?;
        let mut role = self.role();
        let led = role.wait_for(|r| r.leader.is_some_and(|leader| leader != self.me()));
        match tokio::time::timeout(self.patience(), led).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MembersError::Stopped("it was shut down".to_owned())),
            Err(_) => Err(MembersError::Timeout),
        }
    }

    /// The next single change on the way to `wanted`: a leaver, except the last one, then a newcomer.
    async fn next_step(
        &self,
        only: Option<Leadership>,
        wanted: &BTreeSet<u64>,
    ) -> Result<Option<(Changing<'_>, Step)>, MembersError> {
        let change = self.changing().await?;
        let leads = Leadership { term: change.vote.leader_id().term, leader: self.me() };
        if only.is_some_and(|only| only != leads) {
            return Err(MembersError::NotLeader { leader: Some(self.me()) });
        }
        let now: BTreeSet<u64> = change.members.voter_ids().collect();
        if let Some(leaver) = now.difference(wanted).next().filter(|_| now.len() > 1) {
            return Ok(Some((change, ChangeMembers::RemoveVoters(BTreeSet::from([*leaver])))));
        }
        let Some(newcomer) = wanted.difference(&now).next().copied() else { return Ok(None) };
        let node = NodeId(newcomer);
        if change.members.get_node(&newcomer).is_none() {
            return Err(MembersError::Unknown { node });
        }
        if !self.role().borrow().caught_up.contains(&node) {
            return Err(MembersError::NotCaughtUp { node });
        }
        Ok(Some((change, ChangeMembers::AddVoterIds(BTreeSet::from([newcomer])))))
    }

    /// Waits for its turn and looks at the membership as it then is.
    async fn changing(&self) -> Result<Changing<'_>, MembersError> {
        let turn = self.membership_turn().await;
        let (vote, leader, members) = {
            let metrics = self.raft().metrics();
            let m = metrics.borrow_watched();
            (m.vote, m.current_leader, m.membership_config.as_ref().clone())
        };
        if leader != Some(self.me().0) {
            return Err(MembersError::NotLeader { leader: leader.map(NodeId) });
        }
        let patience = self.patience();
        Ok(Changing { raft: self.raft().clone(), vote, members, patience, _turn: turn })
    }
}

type Step = ChangeMembers<u64, Endpoint>;

/// A change that is decided but not made; nobody else makes one meanwhile.
struct Changing<'a> {
    raft: RaftOf,
    vote: Vote,
    members: StoredMembers,
    patience: std::time::Duration,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Changing<'_> {
    /// Refused unless this node still leads, in the same term, over the same membership.
    async fn commit(self, step: Step) -> Result<(), MembersError> {
        let preconditions = [
            Precondition::CommittedLeaderId { committed_leader_id: *self.vote.leader_id() },
            Precondition::LastMembershipLogId { last_membership_log_id: *self.members.log_id() },
        ];
        let request = ChangeMembershipRequest::<Types>::new(step, true).with_preconditions(preconditions);
        let made =
            tokio::time::timeout(self.patience, self.raft.change_membership_with_payload(request)).await;
        match made.map_err(|_| MembersError::Timeout)? {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(error)) => Err(stopped(error)),
            Err(RaftError::APIError(error)) => Err(refused(error)),
        }
    }
}

fn refused(error: ClientWriteError<Types>) -> MembersError {
    match error {
        ClientWriteError::ForwardToLeader(to) => MembersError::NotLeader { leader: to.leader_id.map(NodeId) },
        ClientWriteError::LogEntryDiscarded(_) => MembersError::Timeout,
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            MembersError::Busy(error.to_string())
        }
    }
}

fn stopped(error: impl std::fmt::Display) -> MembersError {
    MembersError::Stopped(error.to_string())
}
