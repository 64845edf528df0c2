//! `events`: what happened on a node or on all, and what follows; `why`: what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use farm_core::chronicle::{Noted, chronicle};
use farm_core::id::NodeId;
use farm_core::incident::{Open, Question, Told, story};
use farm_core::model::ModuleName;
use farm_core::time::UnixTime;
use farm_proto::v1;
use futures::future::join_all;
use futures::stream::unfold;
use tokio::time::sleep;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{StreamExt, iter};
use tonic::{Code, Status};

use super::changes::named_or_all;
use super::modules::module;
use super::refuse::status;
use super::{Streamed, status as cluster_status};
use crate::journal::{KEPT, now_ms};
use crate::member::Member;

/// Events shown when the client does not say how many.
const DEFAULT_LAST: u64 = 50;
/// Events of a node of which incidents are told: some hours of a farm that is changed, months of one that is not.
const TELLING: u64 = 1000;
/// Pace at which other nodes are asked for what is new: what a person can follow.
const AGAIN: Duration = Duration::from_millis(500);
/// Events of another node between two questions, at most; more are left out, and are in its own journal.
const NEWS_MAX: u64 = 200;
/// Events that a follower is known to have been told: those that nodes are asked for, many times over.
const SEEN_MAX: usize = 20_000;

/// The stream a client asked for.
pub(super) async fn stream(
    member: Arc<Member>,
    request: v1::EventsRequest,
) -> Result<Streamed<v1::Event>, Status> {
    let last = if request.last == 0 { DEFAULT_LAST } else { request.last };
    let of_module = !request.module.is_empty();
    let nodes = match request.node.as_str() {
        "" if !request.all && !of_module => vec![member.me],
        name => named_or_all(&member, name)?,
    };
    if nodes == [member.me] && !of_module {
        return Ok(own(&member, last, request.follow));
    }
    if let [node] = nodes[..] {
        // Whether it answers is what one wants to know first.
        member.events_of(node, 1).await.map_err(|p| status(Code::Unavailable, &p))?;
    }
    // Those of one module are found among all.
    let depth = if of_module { KEPT as u64 } else { last.max(NEWS_MAX) };
    let mut tail = gathered(&member, &nodes, depth).await.of(&request.module);
    if of_module && tail.is_empty() {
        // Of one that was removed there is still something to tell.
        module(&member.snapshot().state, &ModuleName(request.module.clone()))?;
    }
    let seen: BTreeSet<String> = tail.iter().map(|e| e.id.clone()).collect();
    let extra = tail.len().saturating_sub(usize::try_from(last).unwrap_or(usize::MAX));
    tail.drain(..extra);
    let tail = iter(tail.into_iter().map(Ok));
    if !request.follow {
        return Ok(Box::pin(tail));
    }
    let live =
        unfold((member, nodes, request.module, seen), |(member, nodes, module, mut seen)| async move {
            sleep(AGAIN).await;
            let mut news = gathered(&member, &nodes, NEWS_MAX).await.of(&module);
            if seen.len() > SEEN_MAX {
                // What is no more among the last ones does not come again.
                seen.retain(|id| news.iter().any(|event| event.id == *id));
            }
            news.retain(|event| seen.insert(event.id.clone()));
            Some((iter(news.into_iter().map(Ok)), (member, nodes, module, seen)))
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

/// What nodes have told.
struct Gathered {
    /// In order, each once, and when it was by the clocks put right.
    events: Vec<(UnixTime, v1::Event)>,
    /// By how many ms the clock of the node that gathers is ahead.
    ahead: i64,
    /// Who did not answer.
    silent: Vec<NodeId>,
}

impl Gathered {
    /// What has to do with `module`: is about it, or comes of what is; all without a name.
    fn of(self, module: &str) -> Vec<v1::Event> {
        let mut ids: BTreeSet<String> = BTreeSet::new();
        let events = self.events.into_iter().map(|(_, event)| event);
        let of_it = |event: &v1::Event| {
            let is = module.is_empty() || event.resource == module || ids.contains(&event.cause);
            if is {
                // An entry's first event stands for it.
                let first = (event.index > 0).then(|| format!("log-{}.0", event.index));
                ids.extend(first.into_iter().chain([event.id.clone()]));
            }
            is
        };
        events.filter(of_it).collect()
    }
}

/// The last events of these nodes.
async fn gathered(member: &Member, nodes: &[NodeId], last: u64) -> Gathered {
    let asked = nodes.iter().map(|node| async { (*node, member.events_of(*node, last).await) });
    let (mut events, mut silent) = (Vec::new(), Vec::new());
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(told) => events.extend(told),
            Err(_) => silent.push(node),
        }
    }
    let noted: Vec<Noted> = events.iter().map(noted).collect();
    let chronicle = chronicle(&noted);
    let ahead = |node| chronicle.ahead.get(&node).copied().unwrap_or(0);
    let event = |(i, at): &(usize, UnixTime)| {
        let clock_ahead_ms = ahead(NodeId(events[*i].node));
        (*at, v1::Event { clock_ahead_ms, ..events[*i].clone() })
    };
    let ordered = chronicle.order.iter().map(event).collect();
    Gathered { events: ordered, ahead: ahead(member.me), silent }
}

/// An event of the log has its place in the id.
fn noted(event: &v1::Event) -> Noted {
    let place = event.id.strip_prefix("log-").and_then(|id| id.split_once('.'));
    let log = place.and_then(|(index, place)| Some((index.parse().ok()?, place.parse().ok()?)));
    Noted { node: NodeId(event.node), at: UnixTime(event.time_unix_ms), log }
}

/// Tells an incident.
pub(crate) async fn why(member: &Member, request: v1::WhyRequest) -> Result<v1::WhyResponse, Status> {
    let snapshot = member.snapshot();
    let nodes = named_or_all(member, "")?;
    let Gathered { events, ahead, silent } = gathered(member, &nodes, TELLING).await;
    let name = |id: u64| snapshot.state.name_of(NodeId(id));
    let told: Vec<Told> = events.iter().map(|(at, event)| told(*at, event, name(event.node))).collect();
    let open = cluster_status::of(member).await.conditions.into_iter();
    let open: Vec<Open> = open.map(|c| Open { resource: c.resource, cause: c.cause, next: c.next }).collect();
    let at = (request.at_ms > 0).then_some(UnixTime(request.at_ms));
    let question = Question { about: request.about, at };
    let silent = silent.iter().map(|id| name(id.0)).collect();
    let now = UnixTime(now_ms().saturating_add_signed(-ahead));
    let Some(story) = story(&told, &open, &question, now) else {
        return Ok(v1::WhyResponse { silent, ..v1::WhyResponse::default() });
    };
    let ids: BTreeSet<&str> = story.events.iter().map(|t| t.id.as_str()).collect();
    let events = events.iter().map(|(_, e)| e).filter(|e| ids.contains(e.id.as_str())).cloned().collect();
    Ok(v1::WhyResponse { lines: story.lines, next: story.next, events, silent })
}

fn told(at: UnixTime, event: &v1::Event, node: String) -> Told {
    Told {
        at,
        id: event.id.clone(),
        node,
        kind: event.kind.clone(),
        resource: event.resource.clone(),
        text: event.text.clone(),
        cause: event.cause.clone(),
    }
}
