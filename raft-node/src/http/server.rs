//! Connections: how many, how long, how large.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Connections at once, on all addresses: many load balancers and people; each costs a few KiB and no thread.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to say what it wants, and a connection without a request stays.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request, without its body, which nobody reads: several times what browsers send.
const REQUEST_BYTES: usize = 16 << 10;
/// Lines of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a connection could not be taken, for the lack of a file descriptor mostly.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What answers, and for how many.
#[derive(Clone)]
pub(super) struct Server {
    router: Router,
    places: Arc<Semaphore>,
}

impl Server {
    pub(super) fn new(router: Router) -> Self {
        Self { router, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Takes connections for ever; they end with this future.
    pub(super) async fn run(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                taken = listener.accept() => match taken {
                    Ok((stream, _)) => self.take(stream, &mut connections),
                    Err(error) => {
                        tracing::debug!(%error, "a connection could not be taken");
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                },
                // A panic of one request ends its connection and nothing else.
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// One too many is closed at once: its client tries again, and nobody else waits for it.
    fn take(&self, stream: TcpStream, connections: &mut JoinSet<()>) {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            connections.spawn(answer(stream, self.router.clone(), place));
        }
    }
}

async fn answer(stream: TcpStream, router: Router, _place: OwnedSemaphorePermit) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN);
    builder.max_buf_size(REQUEST_BYTES).max_headers(HEADERS_MAX);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of HTTP ended");
    }
}
