//! The peer API of this node: Raft's own calls are answered here, the others by the daemon.

use std::sync::Arc;

use farm_proto::v1;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use tonic::{Request, Response, Status, Streaming};

use super::RaftOf;
use super::codec::transfer_to_wire;
use super::gate::{Caller, Gate};
use super::types::{RaftSnapshot, SnapshotMeta, Vote};
use crate::wire::{Wire, WireError};

/// Largest snapshot that is taken. A state of 32 nodes and 100 modules, every bucket in a state of its own, has 24 MiB.
const SNAPSHOT_MAX: usize = 64 << 20;

/// The calls of the peer API that Raft does not answer. The caller was admitted by the gate.
#[tonic::async_trait]
pub trait PeerHandler: Send + Sync + 'static {
    /// Appends a command, if this node leads.
    async fn propose(&self, from: Caller, request: v1::ProposeRequest)
    -> Result<v1::ProposeResponse, Status>;

    /// A node asks to become a member. The caller may be nobody yet.
    async fn join(&self, from: Caller, request: v1::JoinRequest) -> Result<v1::JoinResponse, Status>;

    /// Reports how long the last grant to a node may still be out.
    async fn expiry(&self, from: Caller, request: v1::ExpiryRequest) -> Result<v1::ExpiryResponse, Status>;

    /// A node reports the sockets of its open changes.
    async fn drain(&self, from: Caller, request: v1::DrainReport) -> Result<v1::DrainAck, Status>;

    /// What only this node itself knows of itself.
    async fn look(&self, from: Caller) -> Result<v1::LookResponse, Status>;

    /// Starts or stops this node's part of a module.
    async fn control(&self, from: Caller, request: v1::ControlRequest)
    -> Result<v1::ControlResponse, Status>;

    /// The last lines of a module's application log on this node, or what follows.
    async fn log(&self, from: Caller, request: v1::LogRequest) -> Result<v1::ModuleLogLines, Status>;

    /// The last events of this node.
    async fn tail(&self, from: Caller, request: v1::TailRequest) -> Result<v1::TailResponse, Status>;
    /// A failure is to be rehearsed; this node leads.
    async fn drill(&self, from: Caller, request: v1::DrillRequest) -> Result<v1::PeerDrillResponse, Status>;
    /// The daemon is to stand still for a while.
    async fn pause(&self, from: Caller, request: v1::PauseRequest) -> Result<v1::PauseResponse, Status>;

    /// A piece of what support needs to know of this node.
    async fn piece(&self, from: Caller, request: v1::PieceRequest) -> Result<v1::PieceResponse, Status>;

    /// Sends echoes as the address of the tie-break.
    async fn echoes(&self, from: Caller, request: v1::EchoesRequest) -> Result<v1::EchoesResponse, Status>;

    /// What keeps this node from working well.
    async fn examine(&self, from: Caller) -> Result<v1::ExamineResponse, Status>;
}

/// The service.
pub(crate) struct PeerService {
    pub(crate) raft: RaftOf,
    pub(crate) gate: Gate,
    pub(crate) handler: Arc<dyn PeerHandler>,
}

impl PeerService {
    /// An answer of Raft's, which others count as kept or voted.
    fn count<T>(&self, message: T) -> Result<Response<T>, Status> {
        if self.gate.is_hushed() {
            return Err(Status::unavailable("this node waits to see whether it has to go on alone"));
        }
        self.answer(message)
    }

    /// The answer says who gives it, in which generation.
    fn answer<T>(&self, message: T) -> Result<Response<T>, Status> {
        let mut response = Response::new(message);
        self.gate.stamp(response.metadata_mut());
        Ok(response)
    }
}

/// Who called. Every request has passed the gate, which leaves this behind.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("served without the gate"))
}

/// Only who named this cluster may take part in it.
fn member<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = caller(request)?;
    if caller.member {
        Ok(caller)
    } else {
        Err(Status::permission_denied("only a member may call this: join first"))
    }
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Raft has stopped: to the peer that is the same as a dead node.
fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl v1::peer_server::Peer for PeerService {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        member(&request)?;
        let request = AppendEntriesRequest::from_wire(request.into_inner()).map_err(malformed)?;
        self.count(self.raft.append_entries(request).await.map_err(stopped)?.to_wire())
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::VoteResponse>, Status> {
        member(&request)?;
        let request = VoteRequest::from_wire(request.into_inner()).map_err(malformed)?;
        self.count(self.raft.vote(request).await.map_err(stopped)?.to_wire())
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        member(&request)?;
        let request = VoteRequest::from_wire(request.into_inner()).map_err(malformed)?;
        self.count(self.raft.pre_vote(request).await.map_err(stopped)?.to_wire())
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        member(&request)?;
        let (vote, snapshot) = receive(request.into_inner()).await?;
        self.count(self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?.to_wire())
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferRequest>,
    ) -> Result<Response<v1::TransferResponse>, Status> {
        member(&request)?;
        let request = TransferLeaderRequest::from_wire(request.into_inner()).map_err(malformed)?;
        self.count(transfer_to_wire(&self.raft.handle_transfer_leader(request).await.map_err(stopped)?))
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeRequest>,
    ) -> Result<Response<v1::ProposeResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.propose(from, request.into_inner()).await?)
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let from = caller(&request)?;
        self.answer(self.handler.join(from, request.into_inner()).await?)
    }

    async fn expiry(
        &self,
        request: Request<v1::ExpiryRequest>,
    ) -> Result<Response<v1::ExpiryResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.expiry(from, request.into_inner()).await?)
    }

    async fn drain(&self, request: Request<v1::DrainReport>) -> Result<Response<v1::DrainAck>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.drain(from, request.into_inner()).await?)
    }

    async fn look(&self, request: Request<v1::LookRequest>) -> Result<Response<v1::LookResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.look(from).await?)
    }

    async fn control(
        &self,
        request: Request<v1::ControlRequest>,
    ) -> Result<Response<v1::ControlResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.control(from, request.into_inner()).await?)
    }

    async fn log(&self, request: Request<v1::LogRequest>) -> Result<Response<v1::ModuleLogLines>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.log(from, request.into_inner()).await?)
    }

    async fn drill(
        &self,
        request: Request<v1::DrillRequest>,
    ) -> Result<Response<v1::PeerDrillResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.drill(from, request.into_inner()).await?)
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::PauseResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.pause(from, request.into_inner()).await?)
    }

    async fn tail(&self, request: Request<v1::TailRequest>) -> Result<Response<v1::TailResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.tail(from, request.into_inner()).await?)
    }

    async fn piece(&self, request: Request<v1::PieceRequest>) -> Result<Response<v1::PieceResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.piece(from, request.into_inner()).await?)
    }

    async fn echoes(
        &self,
        request: Request<v1::EchoesRequest>,
    ) -> Result<Response<v1::EchoesResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.echoes(from, request.into_inner()).await?)
    }

    async fn examine(
        &self,
        request: Request<v1::ExamineRequest>,
    ) -> Result<Response<v1::ExamineResponse>, Status> {
        let from = member(&request)?;
        self.answer(self.handler.examine(from).await?)
    }
}

async fn receive(mut chunks: Streaming<v1::SnapshotChunk>) -> Result<(Vote, RaftSnapshot), Status> {
    let head =
        chunks.message().await?.ok_or_else(|| Status::invalid_argument("a snapshot without chunks"))?;
    let vote = crate::wire::required::<Vote>("SnapshotChunk.vote", head.vote).map_err(malformed)?;
    let meta = crate::wire::required::<SnapshotMeta>("SnapshotChunk.meta", head.meta).map_err(malformed)?;
    let mut data = head.data.to_vec();
    while let Some(chunk) = chunks.message().await? {
        if data.len() + chunk.data.len() > SNAPSHOT_MAX {
            return Err(Status::resource_exhausted(format!("a snapshot of more than {SNAPSHOT_MAX} bytes")));
        }
        data.extend_from_slice(&chunk.data);
    }
    Ok((vote, RaftSnapshot { meta, snapshot: data }))
}
