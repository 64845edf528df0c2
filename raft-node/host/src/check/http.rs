//! One GET over HTTP/1.1 (RFC 9110, RFC 9112).

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;

use super::{Found, Limit, Target, bad, tcp, unknown};

/// Status line and fields of an answer; servers mostly send less than 1 KiB.
const HEAD_BYTES: usize = 64 << 10;
/// Of a body. A page that says how a service is, is small.
const BODY_BYTES: usize = 1 << 20;

/// What to ask for and what should come.
pub(super) struct Wanted<'a> {
    pub host: &'a str,
    pub path: &'a str,
    pub status: &'a RangeInclusive<u16>,
    pub body: Option<&'a Regex>,
}

pub(super) async fn check(to: &Target, wanted: &Wanted<'_>, limit: Limit) -> Found {
    let asked = format!("GET http://{to}{}", wanted.path);
    let request =
        request(to, wanted).or_else(|error| unknown(format!("{asked} cannot be asked: {error}")))?;
    let stream = tcp::connect(to, limit).await?;
    let exchange = async {
        let mut client = Builder::new();
        client.max_buf_size(HEAD_BYTES);
        let (sender, connection) =
            client.handshake(TokioIo::new(stream)).await.or_else(|e| bad(broken(&asked, &e)))?;
        // The connection moves what the exchange waits for. Once it has ended all of it has come.
        match select(Box::pin(converse(sender, request, wanted, &asked)), Box::pin(connection)).await {
            Either::Left((found, _)) => found,
            Either::Right((_, exchange)) => exchange.await,
        }
    };
    limit.of(exchange, || format!("{asked}: no complete answer within {limit}")).await
}

fn request(to: &Target, wanted: &Wanted<'_>) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let target = to.to_string();
    let host = if wanted.host.is_empty() { target.as_str() } else { wanted.host };
    let request = Request::get(wanted.path).header(HOST, host).header(USER_AGENT, "farm-check");
    request.header(CONNECTION, "close").body(Empty::new())
}

async fn converse(
    mut sender: SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    wanted: &Wanted<'_>,
    asked: &str,
) -> Found {
    let response = sender.send_request(request).await.or_else(|error| bad(broken(asked, &error)))?;
    let status = response.status();
    if !wanted.status.contains(&status.as_u16()) {
        return bad(format!("{asked}: {}, wanted {}", named(status), range(wanted.status)));
    }
    match wanted.body {
        Some(pattern) => body(response, pattern, asked).await,
        None => Ok(()),
    }
}

/// Looked through when it is complete: a pattern may ask for its end.
async fn body(mut response: Response<Incoming>, pattern: &Regex, asked: &str) -> Found {
    let mut body = Vec::new();
    while let Some(frame) = response.frame().await {
        let frame = frame.or_else(|error| bad(broken(asked, &error)))?;
        let data = frame.into_data().unwrap_or_default();
        let room = BODY_BYTES - body.len();
        body.extend_from_slice(&data[..room.min(data.len())]);
        if room <= data.len() {
            break;
        }
    }
    if pattern.is_match(&body) {
        return Ok(());
    }
    let part = if body.len() < BODY_BYTES { "the body" } else { "the first MiB of the body" };
    bad(format!("{asked}: {part} ({} bytes) does not match {pattern}", body.len()))
}

fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(_) => status.to_string(),
        None => status.as_str().to_owned(),
    }
}

fn range(status: &RangeInclusive<u16>) -> String {
    if status.start() == status.end() {
        return status.start().to_string();
    }
    format!("{}-{}", status.start(), status.end())
}

/// What was wrong with the answer.
fn broken(asked: &str, error: &hyper::Error) -> String {
    if error.is_parse() {
        let most = HEAD_BYTES >> 10;
        return format!("{asked}: the answer is no HTTP/1.1 with a head of {most} KiB at most: {error}");
    }
    format!("{asked}: the connection was closed before the answer was complete")
}
