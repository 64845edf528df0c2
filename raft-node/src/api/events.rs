//! `events`: the tail of this node's journal, and what follows.

use farm_proto::v1;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{StreamExt, iter};

use super::Streamed;
use crate::journal::Record;
use crate::member::Member;

/// Events shown when the client does not say how many.
const DEFAULT_LAST: u64 = 50;

/// The stream a client asked for.
pub(super) fn stream(member: &Member, request: &v1::EventsRequest) -> Streamed<v1::Event> {
    let last = if request.last == 0 { DEFAULT_LAST } else { request.last };
    let (tail, follow) = member.journal.tail(usize::try_from(last).unwrap_or(usize::MAX));
    let tail = iter(tail.into_iter().map(|r| Ok(to_proto(r))));
    if !request.follow {
        return Box::pin(tail);
    }
    // A follower that lagged misses some; the journal has them.
    let live = BroadcastStream::new(follow).filter_map(|r| r.ok().map(|r| Ok(to_proto(r))));
    Box::pin(tail.chain(live))
}

fn to_proto(r: Record) -> v1::Event {
    v1::Event {
        id: r.id,
        time_unix_ms: r.time_unix_ms,
        node: r.node,
        kind: r.kind,
        text: r.text,
        cause: r.cause,
        index: r.index,
        epoch: r.epoch,
        resource: r.resource,
    }
}
