//! HTTP for those who only look: load balancers (`ready.txt`), supervisors (`/healthz`), Prometheus (`/metrics`). Shows,
//! changes nothing, asks for no login; see docs/operate/seeing.md.
//!
//! Tasks owned: one that accepts per address. They end when [`Listeners`] is dropped.

mod health;
mod metrics;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::journal::Journal;
use crate::member::Member;

/// Connections at once to one address: some load balancers and a Prometheus. More wait.
const CONNECTIONS: usize = 64;
/// A request that has not come whole by then is dropped.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Longest life of a connection: who asks again connects again.
const LIFE: Duration = Duration::from_secs(60);
/// Bytes of a request's head; no browser sends more to a page without cookies.
const HEAD_BYTES: usize = 16 << 10;
/// Pause before a port that is taken is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How old an answer to `/metrics` may be: who asks more often costs no more.
const FRESH: Duration = Duration::from_secs(1);

/// Content type of the text format of Prometheus (OpenMetrics 1.0).
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The addresses that are listened on; nobody does any more when it is dropped.
pub struct Listeners(Vec<JoinHandle<()>>);

impl Drop for Listeners {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What the answers are made from.
#[derive(Clone)]
struct Source {
    member: watch::Receiver<Option<Arc<Member>>>,
    metrics: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Source {
    fn member(&self) -> Option<Arc<Member>> {
        self.member.borrow().clone()
    }
}

/// Listens on `port` of all addresses; nowhere, where it is 0. A port that is taken is told, and tried again.
pub fn listen(
    addresses: impl Iterator<Item = IpAddr>,
    port: u16,
    member: watch::Receiver<Option<Arc<Member>>>,
    journal: &Arc<Journal>,
) -> Listeners {
    let routes = router(Source { member, metrics: Arc::default() });
    let addresses = addresses.filter(|_| port > 0).map(|ip| SocketAddr::new(ip, port));
    let serving = addresses.map(|at| tokio::spawn(serve(at, routes.clone(), journal.clone())));
    Listeners(serving.collect())
}

fn router(source: Source) -> Router {
    Router::new()
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok\n") }))
        .route("/var/modules/{name}/ready.txt", get(ready))
        .route("/metrics", get(measured))
        .with_state(source)
}

type Text = (StatusCode, [(HeaderName, &'static str); 2], String);

fn text(status: StatusCode, body: impl Into<String>) -> Text {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")], body.into())
}

async fn ready(State(source): State<Source>, Path(name): Path<String>) -> Text {
    let verdict = match source.member() {
        Some(member) => health::serves(&member, &name),
        None => Err("this node belongs to no cluster".into()),
    };
    match verdict {
        Ok(()) => text(StatusCode::OK, "ready\n"),
        Err(why) => text(StatusCode::NOT_FOUND, format!("not ready: {why}\n")),
    }
}

async fn measured(State(source): State<Source>) -> Text {
    let Some(member) = source.member() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "this node belongs to no cluster\n");
    };
    // Held while it is made: whoever else asks meanwhile gets the same.
    let mut kept = source.metrics.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, body)| body.clone());
    let body = fresh.unwrap_or_else(|| metrics::of(&member));
    if kept.as_ref().is_none_or(|(at, _)| at.elapsed() >= FRESH) {
        *kept = Some((Instant::now(), body.clone()));
    }
    (StatusCode::OK, [(CONTENT_TYPE, METRICS), (CACHE_CONTROL, "no-store")], body)
}

async fn serve(at: SocketAddr, routes: Router, journal: Arc<Journal>) {
    let listener = bind(at, &journal).await;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answering = answer(stream, routes.clone());
                tokio::spawn(async move {
                    // Whoever is too slow, or went away, has no answer.
                    let _ = timeout(LIFE, answering).await;
                    drop(place);
                });
            }
            // No descriptor is left, mostly: some may be in a moment.
            Err(error) => {
                tracing::warn!(%error, %at, "no connection is taken");
                sleep(AGAIN).await;
            }
        }
    }
}

async fn bind(at: SocketAddr, journal: &Journal) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(at).await {
            Ok(listener) => return listener,
            Err(error) if !told => {
                let fact =
                    format!("nobody can look at http://{at}/: {error}; [ports] http may name another port");
                journal.note(0, "http_unavailable", "http", fact, "");
                told = true;
            }
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}

async fn answer(stream: TcpStream, routes: Router) -> Result<(), hyper::Error> {
    let service = TowerToHyperService::new(routes);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
