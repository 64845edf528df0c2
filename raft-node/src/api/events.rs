//! `events`: what happened on a node or on all, and what follows; `why`: what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use farm_core::id::NodeId;
use farm_core::incident::{Open, Question, Told, story};
use farm_core::time::UnixTime;
use farm_proto::v1;
use futures::future::join_all;
use futures::stream::unfold;
use tokio::time::sleep;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{StreamExt, iter};
use tonic::{Code, Status};

use super::changes::named;
use super::refuse::status;
use super::{Streamed, status as cluster_status};
use crate::journal::now_ms;
use crate::member::Member;

/// Events shown when the client does not say how many.
const DEFAULT_LAST: u64 = 50;
/// Events of a node of which incidents are told: some hours of a farm that is changed, months of one that is not.
const TELLING: u64 = 1000;
/// Pace at which other nodes are asked for what is new: what a person can follow.
const AGAIN: Duration = Duration::from_millis(500);
/// Events of another node between two questions, at most; more are left out, and are in its own journal.
const NEWS_MAX: u64 = 200;

/// The stream a client asked for.
pub(super) async fn stream(
    member: Arc<Member>,
    request: v1::EventsRequest,
) -> Result<Streamed<v1::Event>, Status> {
    let last = if request.last == 0 { DEFAULT_LAST } else { request.last };
    let nodes = match (request.all, request.node.as_str()) {
        (true, _) => member.snapshot().state.nodes.keys().copied().collect(),
        (false, "") => vec![member.me],
        (false, name) => vec![named(&member, name)?],
    };
    if nodes == [member.me] {
        return Ok(own(&member, last, request.follow));
    }
    let mut tail = match nodes[..] {
        [node] => member.events_of(node, last).await.map_err(|p| status(Code::Unavailable, &p))?,
        _ => gathered(&member, &nodes, last).await.0,
    };
    let extra = tail.len().saturating_sub(usize::try_from(last).unwrap_or(usize::MAX));
    let seen: BTreeSet<String> = tail.iter().map(|e| e.id.clone()).collect();
    tail.drain(..extra);
    let tail = iter(tail.into_iter().map(Ok));
    if !request.follow {
        return Ok(Box::pin(tail));
    }
    let live = unfold((member, nodes, seen), |(member, nodes, mut seen)| async move {
        sleep(AGAIN).await;
        let mut news = gathered(&member, &nodes, NEWS_MAX).await.0;
        let ids = news.iter().map(|e| e.id.clone()).collect();
        news.retain(|event| !seen.contains(&event.id));
        // What is no more among the last ones does not come again.
        seen = ids;
        Some((iter(news.into_iter().map(Ok)), (member, nodes, seen)))
    });
    Ok(Box::pin(tail.chain(futures::StreamExt::flatten(live))))
}

fn own(member: &Member, last: u64, follow: bool) -> Streamed<v1::Event> {
    let (tail, followed) = member.journal.tail(usize::try_from(last).unwrap_or(usize::MAX));
    let tail = iter(tail.into_iter().map(|r| Ok(r.into())));
    if !follow {
        return Box::pin(tail);
    }
    // A follower that lagged misses some; the journal has them.
    let live = BroadcastStream::new(followed).filter_map(|r| r.ok().map(|r| Ok(r.into())));
    Box::pin(tail.chain(live))
}

/// The last events of these nodes in the order of their times, what several say once; and who did not answer.
async fn gathered(member: &Member, nodes: &[NodeId], last: u64) -> (Vec<v1::Event>, Vec<NodeId>) {
    let asked = nodes.iter().map(|node| async { (*node, member.events_of(*node, last).await) });
    let (mut events, mut silent) = (Vec::new(), Vec::new());
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(told) => events.extend(told),
            Err(_) => silent.push(node),
        }
    }
    events.sort_by(|a, b| (a.time_unix_ms, &a.id).cmp(&(b.time_unix_ms, &b.id)));
    let mut seen = BTreeSet::new();
    events.retain(|event| seen.insert(event.id.clone()));
    (events, silent)
}

/// Tells an incident.
pub(crate) async fn why(member: &Member, request: v1::WhyRequest) -> Result<v1::WhyResponse, Status> {
    let snapshot = member.snapshot();
    let nodes: Vec<NodeId> = snapshot.state.nodes.keys().copied().collect();
    let (events, silent) = gathered(member, &nodes, TELLING).await;
    let name = |id: u64| snapshot.state.name_of(NodeId(id));
    let told: Vec<Told> = events.iter().map(|event| told(event, name(event.node))).collect();
    let open = cluster_status::now(Some(member)).await.conditions.into_iter();
    let open: Vec<Open> = open.map(|c| Open { resource: c.resource, cause: c.cause, next: c.next }).collect();
    let at = (request.at_ms > 0).then_some(UnixTime(request.at_ms));
    let question = Question { about: request.about, at };
    let silent = silent.iter().map(|id| name(id.0)).collect();
    let Some(story) = story(&told, &open, &question, UnixTime(now_ms())) else {
        return Ok(v1::WhyResponse { silent, ..v1::WhyResponse::default() });
    };
    let ids: BTreeSet<&str> = story.events.iter().map(|t| t.id.as_str()).collect();
    let events = events.iter().filter(|e| ids.contains(e.id.as_str())).cloned().collect();
    Ok(v1::WhyResponse { lines: story.lines, next: story.next, events, silent })
}

fn told(event: &v1::Event, node: String) -> Told {
    Told {
        at: UnixTime(event.time_unix_ms),
        id: event.id.clone(),
        node,
        kind: event.kind.clone(),
        resource: event.resource.clone(),
        text: event.text.clone(),
        cause: event.cause.clone(),
    }
}
