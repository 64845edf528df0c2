//! openraft's way to the peers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_core::id::NodeId;
use farm_proto::v1;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::codec::transfer_from_wire;
use super::gate::Gate;
use super::link::{CallError, Client, Link};
use super::machine::Published;
use super::takeover::Overruled;
use super::types::{Endpoint, RaftSnapshot, Types, Vote};
use crate::wire::{Wire, WireError};

/// Between two tries to reach a peer that does not answer: short, so that one that comes back is used at once.
const BACKOFF: Duration = Duration::from_millis(50);
/// Part of a snapshot per message.
const CHUNK: usize = 256 << 10;

/// Makes the connections.
pub(crate) struct Network {
    pub(crate) me: u64,
    pub(crate) gate: Gate,
    /// How long an append with entries may take. openraft offers the heartbeat interval, which a slow fsync of the
    /// follower exceeds; each miss sends all entries again.
    pub(crate) append_timeout: Duration,
    /// The state, which knows where a member is now.
    pub(crate) published: Published,
    /// For whom this node votes itself.
    pub(crate) overruled: Overruled,
    /// How far each log has come.
    pub(crate) matched: Matched,
}

/// How far the log of each peer is known to be this leader's, under the vote that this leader sent by. Within one
/// leadership that cannot shrink: a peer that says otherwise has lost what it had acknowledged, and Raft must not be told,
/// which takes it for a fault of its own and ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched(Arc<Mutex<BTreeMap<u64, (Vote, u64)>>>);

impl Matched {
    /// `node` has all up to `index`.
    fn reached(&self, node: u64, vote: &Vote, index: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(node).or_insert((*vote, index));
        *known = if known.0 == *vote { (*vote, known.1.max(index)) } else { (*vote, index) };
    }

    /// Whether `node` has said that it has the entry at `index`.
    fn has_reached(&self, node: u64, vote: &Vote, index: u64) -> bool {
        // A panic elsewhere leaves the map whole.
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&node).is_some_and(|known| known.0 == *vote && index <= known.1)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = PeerNetwork;

    // Heartbeats and snapshots get connections of their own from this, too (openraft asks once for each).
    async fn new_client(&mut self, target: u64, endpoint: &Endpoint) -> PeerNetwork {
        PeerNetwork {
            me: self.me,
            target,
            link: Link::new(self.gate.clone(), Some(NodeId(target)), endpoint.clone()),
            joined_at: endpoint.clone(),
            append_timeout: self.append_timeout,
            published: self.published.clone(),
            overruled: self.overruled.clone(),
            matched: self.matched.clone(),
        }
    }
}

/// One connection of openraft to one peer.
pub(crate) struct PeerNetwork {
    me: u64,
    target: u64,
    link: Link,
    /// Where the peer was when it joined: all that Raft's own membership knows.
    joined_at: Endpoint,
    append_timeout: Duration,
    published: Published,
    overruled: Overruled,
    matched: Matched,
}

impl PeerNetwork {
    /// One call to where the peer is now.
    async fn call<T, F, Fut>(&mut self, timeout: Duration, call: F) -> Result<T, CallError>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let now = self.published.state.borrow().state.nodes.get(&NodeId(self.target)).map(Endpoint::of);
        // A mistyped address must not cost the majority that it takes to correct it.
        self.link.redirect(&now.unwrap_or_default().or(&self.joined_at));
        self.link.call(timeout, call).await
    }

    fn failed(&self, action: RPCTypes, error: &CallError) -> RPCError<Types> {
        tracing::debug!(target = self.target, ?action, "{error}");
        match error {
            CallError::Timeout { after, .. } => {
                RPCError::Timeout(Timeout { action, id: self.me, target: self.target, timeout: *after })
            }
            CallError::Unreachable { .. }
            | CallError::NoAddress
            | CallError::Refused { .. }
            | CallError::Answer { .. } => RPCError::Unreachable(Unreachable::new(error)),
            CallError::Status { .. } => RPCError::Network(NetworkError::new(error)),
        }
    }
}

fn garbled(error: WireError) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error))
}

/// What the peer itself is asked.
impl PeerNetwork {
    async fn ask_to_append(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let beat = request.entries.is_empty();
        let timeout = if beat { option.soft_ttl() } else { self.append_timeout };
        let (vote, from) = (request.vote, request.prev_log_id.map(|id| id.index));
        let last = request.entries.last().map(|entry| entry.log_id.index).or(from);
        let message = request.to_wire();
        let answer = self.call(timeout, |mut c| async move { c.append(message).await }).await;
        let answer = answer.map_err(|e| self.failed(RPCTypes::AppendEntries, &e))?;
        let answer = AppendEntriesResponse::from_wire(answer).map_err(garbled)?;
        let reached = match &answer {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(matching) => matching.map(|id| id.index),
            AppendEntriesResponse::Conflict => {
                if from.is_some_and(|index| self.matched.has_reached(self.target, &vote, index)) {
                    self.link.gate().tell_reverted(NodeId(self.target));
                    let error = io::Error::other("its log went back in time");
                    return Err(RPCError::Unreachable(Unreachable::new(&error)));
                }
                None
            }
            AppendEntriesResponse::HigherVote(_) => None,
        };
        if let Some(index) = reached {
            self.matched.reached(self.target, &vote, index);
        }
        Ok(answer)
    }

    async fn ask_to_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let message = request.to_wire();
        let answer = self.call(option.soft_ttl(), |mut c| async move { c.vote(message).await }).await;
        VoteResponse::from_wire(answer.map_err(|e| self.failed(RPCTypes::Vote, &e))?).map_err(garbled)
    }

    async fn ask_whether_to_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let message = request.to_wire();
        let answer = self.call(option.soft_ttl(), |mut c| async move { c.pre_vote(message).await }).await;
        VoteResponse::from_wire(answer.map_err(|e| self.failed(RPCTypes::Vote, &e))?).map_err(garbled)
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let chunks = futures::stream::iter(chunks(&vote, snapshot));
        let call = self.call(option.soft_ttl(), |mut c| async move { c.snapshot(chunks).await });
        let answer = tokio::select! {
            answer = call => answer,
            closed = cancel => return Err(closed.into()),
        };
        let answer = answer.map_err(|e| self.failed(RPCTypes::InstallSnapshot, &e))?;
        Ok(SnapshotResponse::from_wire(answer).map_err(garbled)?)
    }
}

/// What is asked of a peer that this node overrules, this node answers: it has kept what it sends, and votes for itself.
impl RaftNetworkV2<Types> for PeerNetwork {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let overruled = self.overruled.clone();
        tokio::select! {
            biased;
            () = overruled.contains(NodeId(self.target)) => Ok(AppendEntriesResponse::Success),
            answer = self.ask_to_append(request, option) => answer,
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let (overruled, vote) = (self.overruled.clone(), request.vote);
        tokio::select! {
            biased;
            () = overruled.contains(NodeId(self.target)) => Ok(VoteResponse::new(vote, None, true)),
            answer = self.ask_to_vote(request, option) => answer,
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let (overruled, vote) = (self.overruled.clone(), request.vote);
        tokio::select! {
            biased;
            () = overruled.contains(NodeId(self.target)) => Ok(VoteResponse::new(vote, None, true)),
            answer = self.ask_whether_to_vote(request, option) => answer,
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let overruled = self.overruled.clone();
        tokio::select! {
            biased;
            () = overruled.contains(NodeId(self.target)) => Ok(SnapshotResponse::new(vote)),
            answer = self.send_snapshot(vote, snapshot, cancel, option) => answer,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let message = request.to_wire();
        let answer =
            self.call(option.soft_ttl(), |mut c| async move { c.transfer_leader(message).await }).await;
        let answer = answer.map_err(|e| self.failed(RPCTypes::TransferLeader, &e))?;
        transfer_from_wire(answer, &request).map_err(garbled)
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// The first chunk carries vote and description, every chunk a part of the data. An empty snapshot is one chunk.
fn chunks(vote: &Vote, snapshot: RaftSnapshot) -> impl Iterator<Item = v1::SnapshotChunk> + Send + use<> {
    let head = v1::SnapshotChunk {
        vote: Some(vote.to_wire()),
        meta: Some(snapshot.meta.to_wire()),
        data: prost::bytes::Bytes::new(),
    };
    let data = prost::bytes::Bytes::from(snapshot.snapshot);
    let starts = (0..data.len()).step_by(CHUNK);
    let rest = starts.map(move |at| v1::SnapshotChunk {
        vote: None,
        meta: None,
        data: data.slice(at..data.len().min(at + CHUNK)),
    });
    std::iter::once(head).chain(rest)
}
