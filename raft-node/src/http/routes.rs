//! What is where.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use farm_core::model::ModuleName;
use serde::Deserialize;

use super::live::{self, Lately};
use super::metrics::{self, Metrics};
use super::{page, ready};
use crate::daemon::Daemon;
use crate::member::Member;

/// JSON, and a line of it for each event.
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
/// Events that are told where nobody says how many.
const EVENTS: usize = 50;
/// How long an answer may take to begin; a node that is asked for a status answers within a fraction of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the answers are made from.
#[derive(Clone)]
pub(super) struct Shown {
    daemon: Arc<Daemon>,
    metrics: Arc<Metrics>,
    lately: Arc<Lately>,
}

impl Shown {
    /// The membership, if there is one.
    pub(super) fn member(&self) -> Option<Arc<Member>> {
        self.daemon.member().borrow().clone()
    }
}

/// All that can be asked.
pub(super) fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/", get(async || page::page()))
        .route("/api/status", get(status))
        .route("/api/events", get(events))
        .route("/api/live", get(follow))
        .route("/healthz", get(healthz))
        .route("/metrics", get(numbers))
        .route("/var/modules/{module}/ready.txt", get(ready_txt))
        .layer(middleware::from_fn(bounded))
        .with_state(Shown { daemon, metrics: Arc::default(), lately: Arc::default() })
}

/// No answer is a copy, none is taken for something else, none takes for ever to begin.
async fn bounded(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await;
    let mut answer = answer.unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response());
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The daemon answers: that is all it says. Whether this node serves is said by `ready.txt`, module by module.
async fn healthz(State(shown): State<Shown>) -> String {
    let member = shown.member().map_or("of no cluster".into(), |m| format!("node {}", m.config.name));
    format!("farmd {}, {member}\n", env!("CARGO_PKG_VERSION"))
}

/// 200 where this node accepts clients of the module, 404 elsewhere.
async fn ready_txt(State(shown): State<Shown>, Path(module): Path<String>) -> (StatusCode, String) {
    let Some(member) = shown.member() else {
        return (StatusCode::NOT_FOUND, "no: this node belongs to no cluster\n".into());
    };
    match ready::serves(&member, &ModuleName(module)) {
        Ok(()) => (StatusCode::OK, "ready\n".into()),
        Err(idle) => (StatusCode::NOT_FOUND, format!("no: {idle}\n")),
    }
}

/// This node in numbers.
async fn numbers(State(shown): State<Shown>) -> Response {
    let text = shown.metrics.text(shown.member()).await;
    ([(CONTENT_TYPE, metrics::TYPE)], text.to_string()).into_response()
}

/// The cluster as this node knows it.
async fn status(State(shown): State<Shown>) -> Response {
    let text = shown.lately.json(&shown.daemon).await;
    ([(CONTENT_TYPE, JSON)], text).into_response()
}

/// How many events are asked for.
#[derive(Deserialize)]
struct Last {
    last: Option<usize>,
}

async fn events(State(shown): State<Shown>, Query(asked): Query<Last>) -> Response {
    let last = asked.last.unwrap_or(EVENTS);
    let text = live::past(&shown.daemon.journal(), last);
    ([(CONTENT_TYPE, LINES)], text).into_response()
}

/// As long as the browser stays.
async fn follow(State(shown): State<Shown>) -> Response {
    match shown.lately.place() {
        Some(place) => live::stream(shown.daemon.clone(), shown.lately.clone(), place).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many watch this node\n").into_response(),
    }
}
