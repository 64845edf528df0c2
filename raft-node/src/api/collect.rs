//! `snapshot`: what support needs to know, from all nodes that answer.

use std::sync::Arc;

use farm_core::id::NodeId;
use farm_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::changes::named_or_all;
use super::{Streamed, status};
use crate::collect::{json, redact};
use crate::member::Member;

/// Pieces that may wait for the client: each may be some MiB.
const WAITING: usize = 4;

type Parts = mpsc::Sender<Result<v1::CollectedPart, Status>>;

/// The pieces of one node or of all, as they come; those of a node in their order.
pub(super) fn collect(
    member: Arc<Member>,
    request: v1::CollectRequest,
) -> Result<Streamed<v1::CollectedPart>, Status> {
    let snapshot = member.snapshot();
    let nodes = named_or_all(&member, &request.node)?;
    let (parts, stream) = mpsc::channel(WAITING);
    tokio::spawn(of_cluster(member.clone(), parts.clone()));
    for node in nodes {
        let name = snapshot.state.name_of(node);
        tokio::spawn(of_node(member.clone(), node, name, parts.clone()));
    }
    Ok(Box::pin(ReceiverStream::new(stream)))
}

async fn of_cluster(member: Arc<Member>, parts: Parts) {
    let status = farm_view::Status::from(&status::of(&member).await);
    let text = String::from_utf8_lossy(&json(&status)).into_owned();
    let part = v1::CollectedPart {
        path: "status.json".into(),
        content: redact(&text).into_bytes().into(),
        ..Default::default()
    };
    // Whoever asked may have gone.
    let _ = parts.send(Ok(part)).await;
}

async fn of_node(member: Arc<Member>, id: NodeId, node: String, parts: Parts) {
    let names = match member.piece(id, "").await {
        Ok(answer) => answer.names,
        Err(problem) => {
            let _ =
                parts.send(Ok(v1::CollectedPart { node, missing: problem.fact, ..Default::default() })).await;
            return;
        }
    };
    for path in names {
        let mut part = v1::CollectedPart { node: node.clone(), path, ..Default::default() };
        match member.piece(id, &part.path).await {
            Ok(answer) => (part.content, part.missing) = (answer.content, answer.missing),
            Err(problem) => part.missing = problem.fact,
        }
        if parts.send(Ok(part)).await.is_err() {
            return;
        }
    }
}
