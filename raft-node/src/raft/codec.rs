//! Between `farm/v1/peer.proto` and openraft's messages, and the bytes of what the store keeps.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::command::Command;
use farm_core::id::EntryId;
use farm_proto::v1;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use prost::Message;

use super::types::{
    Endpoint, Entry, LeaderId, LogId, Members, Payload, Proposal, SnapshotMeta, StoredMembers, Types, Vote,
    entry_id, log_id,
};
use crate::wire::{Wire, WireError, parse_all, required};

impl Wire for LogId {
    type Proto = v1::EntryId;

    fn to_wire(&self) -> v1::EntryId {
        entry_id(self).to_wire()
    }

    fn from_wire(p: v1::EntryId) -> Result<Self, WireError> {
        EntryId::from_wire(p).map(log_id)
    }
}

impl Wire for Vote {
    type Proto = v1::Vote;

    fn to_wire(&self) -> v1::Vote {
        v1::Vote { term: self.leader_id.term, node: self.leader_id.node_id, committed: self.committed }
    }

    fn from_wire(p: v1::Vote) -> Result<Self, WireError> {
        Ok(Self { leader_id: LeaderId { term: p.term, node_id: p.node }, committed: p.committed })
    }
}

impl Wire for Members {
    type Proto = v1::Membership;

    fn to_wire(&self) -> v1::Membership {
        let set = |ids: &BTreeSet<u64>| v1::NodeSet { ids: ids.iter().copied().collect() };
        let member =
            |(id, endpoint): (&u64, &Endpoint)| v1::Members { id: *id, endpoint: endpoint.to_string() };
        v1::Membership {
            configs: self.get_joint_config().iter().map(set).collect(),
            nodes: self.nodes().map(member).collect(),
        }
    }

    fn from_wire(p: v1::Membership) -> Result<Self, WireError> {
        if p.configs.is_empty() && p.nodes.is_empty() {
            return Ok(Self::default());
        }
        let configs: Vec<BTreeSet<u64>> =
            p.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
        let nodes = p.nodes.into_iter().map(parse_member).collect::<Result<BTreeMap<_, _>, _>>()?;
        let shown = format!("{configs:?} of {:?}", nodes.keys());
        Self::new(configs, nodes)
            .map_err(|_| WireError::invalid("Membership.configs", shown, "non-empty sets of known nodes"))
    }
}

fn parse_member(p: v1::Members) -> Result<(u64, Endpoint), WireError> {
    let endpoint = p
        .endpoint
        .parse()
        .map_err(|_| WireError::invalid("Members.endpoint", &p.endpoint, "ip:port, comma separated"))?;
    Ok((p.id, endpoint))
}

impl Wire for Entry {
    type Proto = v1::LogEntry;

    fn to_wire(&self) -> v1::LogEntry {
        let payload = match &self.payload {
            Payload::Blank => v1::log_entry::Payload::Blank(true),
            Payload::Normal(Proposal(command)) => v1::log_entry::Payload::Command(command.to_wire()),
            Payload::Membership(members) => v1::log_entry::Payload::Membership(members.to_wire()),
        };
        v1::LogEntry { id: Some(self.log_id.to_wire()), payload: Some(payload) }
    }

    fn from_wire(p: v1::LogEntry) -> Result<Self, WireError> {
        let log_id = required("LogEntry.id", p.id)?;
        let payload = match p.payload.ok_or(WireError::Missing { field: "LogEntry.payload" })? {
            v1::log_entry::Payload::Blank(_) => Payload::Blank,
            v1::log_entry::Payload::Command(command) => {
                Payload::Normal(Proposal(Command::from_wire(command)?))
            }
            v1::log_entry::Payload::Membership(members) => Payload::Membership(Members::from_wire(members)?),
        };
        Ok(Self { log_id, payload })
    }
}

impl Wire for SnapshotMeta {
    type Proto = v1::SnapshotMeta;

    fn to_wire(&self) -> v1::SnapshotMeta {
        v1::SnapshotMeta {
            last: maybe_to_wire(&self.last_log_id),
            membership_at: maybe_to_wire(self.last_membership.log_id()),
            membership: Some(self.last_membership.membership().to_wire()),
        }
    }

    fn from_wire(p: v1::SnapshotMeta) -> Result<Self, WireError> {
        let members = required("SnapshotMeta.membership", p.membership)?;
        Ok(Self {
            last_log_id: maybe(p.last)?,
            last_membership: StoredMembers::new(maybe(p.membership_at)?, members),
        })
    }
}

impl Wire for AppendEntriesRequest<Types> {
    type Proto = v1::AppendRequest;

    fn to_wire(&self) -> v1::AppendRequest {
        v1::AppendRequest {
            vote: Some(self.vote.to_wire()),
            prev: maybe_to_wire(&self.prev_log_id),
            entries: self.entries.iter().map(Wire::to_wire).collect(),
            commit: maybe_to_wire(&self.leader_commit),
        }
    }

    fn from_wire(p: v1::AppendRequest) -> Result<Self, WireError> {
        Ok(Self {
            vote: required("AppendRequest.vote", p.vote)?,
            prev_log_id: maybe(p.prev)?,
            entries: parse_all(p.entries)?,
            leader_commit: maybe(p.commit)?,
        })
    }
}

impl Wire for AppendEntriesResponse<Types> {
    type Proto = v1::AppendResponse;

    fn to_wire(&self) -> v1::AppendResponse {
        use v1::append_response::Result as Proto;
        let result = match self {
            Self::Success => Proto::Success(true),
            Self::PartialSuccess(matched) => {
                Proto::Partial(v1::PartialSuccess { matched: maybe_to_wire(matched) })
            }
            Self::Conflict => Proto::Conflict(true),
            Self::HigherVote(vote) => Proto::HigherVote(vote.to_wire()),
        };
        v1::AppendResponse { result: Some(result) }
    }

    fn from_wire(p: v1::AppendResponse) -> Result<Self, WireError> {
        use v1::append_response::Result as Proto;
        Ok(match p.result.ok_or(WireError::Missing { field: "AppendResponse.result" })? {
            Proto::Success(_) => Self::Success,
            Proto::Partial(p) => Self::PartialSuccess(maybe(p.matched)?),
            Proto::Conflict(_) => Self::Conflict,
            Proto::HigherVote(vote) => Self::HigherVote(Vote::from_wire(vote)?),
        })
    }
}

impl Wire for VoteRequest<Types> {
    type Proto = v1::VoteRequest;

    fn to_wire(&self) -> v1::VoteRequest {
        v1::VoteRequest {
            vote: Some(self.vote.to_wire()),
            last: maybe_to_wire(&self.last_log_id),
            leadership_transfer: self.leadership_transfer,
        }
    }

    fn from_wire(p: v1::VoteRequest) -> Result<Self, WireError> {
        Ok(Self {
            vote: required("VoteRequest.vote", p.vote)?,
            last_log_id: maybe(p.last)?,
            leadership_transfer: p.leadership_transfer,
        })
    }
}

impl Wire for VoteResponse<Types> {
    type Proto = v1::VoteResponse;

    fn to_wire(&self) -> v1::VoteResponse {
        v1::VoteResponse {
            vote: Some(self.vote.to_wire()),
            granted: self.vote_granted,
            last: maybe_to_wire(&self.last_log_id),
        }
    }

    fn from_wire(p: v1::VoteResponse) -> Result<Self, WireError> {
        let vote: Vote = required("VoteResponse.vote", p.vote)?;
        Ok(Self { vote, vote_granted: p.granted, last_log_id: maybe(p.last)? })
    }
}

impl Wire for SnapshotResponse<Types> {
    type Proto = v1::SnapshotResponse;

    fn to_wire(&self) -> v1::SnapshotResponse {
        v1::SnapshotResponse { vote: Some(self.vote.to_wire()) }
    }

    fn from_wire(p: v1::SnapshotResponse) -> Result<Self, WireError> {
        Ok(Self { vote: required("SnapshotResponse.vote", p.vote)? })
    }
}

impl Wire for TransferLeaderRequest<Types> {
    type Proto = v1::TransferRequest;

    fn to_wire(&self) -> v1::TransferRequest {
        v1::TransferRequest {
            from: Some(self.from_leader().to_wire()),
            to: *self.to_node_id(),
            last: self.last_log_id().map(Wire::to_wire),
        }
    }

    fn from_wire(p: v1::TransferRequest) -> Result<Self, WireError> {
        Ok(Self::new(required("TransferRequest.from", p.from)?, p.to, maybe(p.last)?))
    }
}

/// The answer to a transfer. What the target expected instead is not sent: the leader asked, it knows.
pub(crate) fn transfer_to_wire(answer: &TransferLeaderResponse<Types>) -> v1::TransferResponse {
    use v1::transfer_response::Refused;
    let refused = match answer {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => Some(Refused::Vote(actual.to_wire())),
        Err(TransferLeaderError::LogNotFlushed { actual: Some(at), .. }) => {
            Some(Refused::Flushed(at.to_wire()))
        }
        Err(TransferLeaderError::LogNotFlushed { actual: None, .. }) => Some(Refused::Empty(true)),
    };
    v1::TransferResponse { refused }
}

/// Parses the answer to `asked`.
pub(crate) fn transfer_from_wire(
    p: v1::TransferResponse,
    asked: &TransferLeaderRequest<Types>,
) -> Result<TransferLeaderResponse<Types>, WireError> {
    use v1::transfer_response::Refused;
    let behind =
        |actual| TransferLeaderError::LogNotFlushed { expected: asked.last_log_id().copied(), actual };
    Ok(match p.refused {
        None => Ok(()),
        Some(Refused::Vote(vote)) => Err(TransferLeaderError::VoteChanged {
            expected: *asked.from_leader(),
            actual: Vote::from_wire(vote)?,
        }),
        Some(Refused::Flushed(at)) => Err(behind(Some(LogId::from_wire(at)?))),
        Some(Refused::Empty(_)) => Err(behind(None)),
    })
}

/// The bytes of `value` for the store.
pub(crate) fn bytes<T>(value: &T) -> Vec<u8>
where
    T: Wire,
    T::Proto: Message,
{
    crate::wire::encode(value)
}

fn maybe<T: Wire>(p: Option<T::Proto>) -> Result<Option<T>, WireError> {
    p.map(T::from_wire).transpose()
}

fn maybe_to_wire<T: Wire>(value: &Option<T>) -> Option<T::Proto> {
    value.as_ref().map(Wire::to_wire)
}
