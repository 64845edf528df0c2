//! The state of the cluster for browsers and programs: once, or again and again as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use farm_proto::v1;
use farm_view::{Live, Stamped, Status};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::{BroadcastStream, IntervalStream};

use super::recent::Recent;
use crate::api::status;
use crate::daemon::Daemon;
use crate::journal::{Journal, Record};

/// Pages that may be open at once on one node: a team and its screens.
pub(super) const WATCHERS_MAX: usize = 64;
/// Pace at which a page is told: what a person takes for at once, and its sign that the node is still there.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// How old an answer may be: less than the pace, so that a page is told something new each time.
const FRESH: Duration = Duration::from_millis(400);
/// Events that a page begins with.
const BEGIN_WITH: usize = 50;

/// The last status, for all who ask.
#[derive(Debug)]
pub(super) struct Lately {
    status: Recent<v1::StatusResponse>,
    watchers: Arc<Semaphore>,
}

impl Default for Lately {
    fn default() -> Self {
        Self { status: Recent::new(FRESH), watchers: Arc::new(Semaphore::new(WATCHERS_MAX)) }
    }
}

impl Lately {
    /// At most [`FRESH`] old.
    async fn status(&self, daemon: &Daemon) -> Arc<v1::StatusResponse> {
        self.status.get(async { Arc::new(status::now(daemon).await) }).await
    }

    /// As `farmctl cluster status --json` prints it.
    pub(super) async fn json(&self, daemon: &Daemon) -> String {
        json(&Status::from(&*self.status(daemon).await))
    }

    /// A place among those who watch; `None` when there are enough.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.watchers.clone().try_acquire_owned().ok()
    }
}

/// The last events, oldest first, each a line as `farmctl events --json` prints it.
pub(super) fn past(journal: &Journal, last: usize) -> String {
    let (tail, _) = journal.tail(last);
    tail.into_iter().map(|record| event(record) + "\n").collect()
}

/// The status twice a second, and events as they happen, until the browser goes. The node may found, join or leave a
/// cluster meanwhile.
pub(super) fn stream(
    daemon: Arc<Daemon>,
    lately: Arc<Lately>,
    place: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
    let journal = daemon.journal();
    let ticks = IntervalStream::new(tokio::time::interval(TELL_EVERY));
    let states = ticks.then(move |_| {
        let (daemon, lately) = (daemon.clone(), lately.clone());
        async move {
            let status = lately.status(&daemon).await;
            Event::default().event("status").data(json(&Live::from(&*status)))
        }
    });
    let all = stream::select(states, happened(&journal)).map(move |event| {
        // The place is given back when the stream ends.
        let _ = &place;
        Ok(event)
    });
    Sse::new(all)
}

/// The last ones and what follows; one that lagged misses some, and finds them when it comes again.
fn happened(journal: &Journal) -> impl Stream<Item = Event> + use<> {
    let (tail, follow) = journal.tail(BEGIN_WITH);
    let live = BroadcastStream::new(follow).filter_map(|record| async { record.ok() });
    stream::iter(tail).chain(live).map(|record| Event::default().event("event").data(event(record)))
}

fn event(record: Record) -> String {
    json(&farm_view::Event::from(&v1::Event::from(record)))
}

fn json<T: Serialize>(body: &T) -> String {
    // These shapes have names for keys and nothing that can fail.
    serde_json::to_string(&Stamped::new(body)).unwrap_or_default()
}
