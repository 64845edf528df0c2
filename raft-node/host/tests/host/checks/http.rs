//! Servers that speak HTTP as they like.

use std::ops::RangeInclusive;
use std::time::Duration;

use farm_host::check::{Check, Finding};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{LONG, SHORT, bad, serve, target};
use crate::namespace::{Lab, run};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";

pub fn get(port: u16, status: RangeInclusive<u16>, body: Option<&str>) -> Check {
    Check::Http {
        to: target("127.0.0.1", port),
        host: "www.example.org".into(),
        path: "/health?full=1".into(),
        status,
        body: body.map(|pattern| regex::bytes::Regex::new(pattern).unwrap()),
    }
}

/// All up to the empty line.
async fn request(client: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

/// What comes of a server that answers with `head` and `rest`, and closes.
async fn answered(head: &[u8], rest: &[u8], body: Option<&str>) -> Finding {
    let answer = [head, rest].concat();
    let (port, _server) = serve(async move |mut client: TcpStream| {
        request(&mut client).await;
        // Who has seen enough may have gone.
        let _ = client.write_all(&answer).await;
        let _ = client.shutdown().await;
        let _ = client.read(&mut [0; 1]).await;
    })
    .await;
    anonymous(port, get(port, 200..=299, body).run(LONG).await)
}

/// Without the port, which is another one each time.
fn anonymous(port: u16, finding: Finding) -> Finding {
    match finding {
        Finding::Bad(text) => bad(text.replace(&format!(":{port}"), ":80")),
        other => other,
    }
}

/// A server that goes on writing `piece` after `head`, each after `pause`, as long as somebody reads.
async fn endless(head: &'static [u8], piece: &'static [u8], pause: Duration, limit: Duration) -> Finding {
    let (port, server) = serve(async move |mut client: TcpStream| {
        request(&mut client).await;
        let mut next = head;
        while client.write_all(next).await.is_ok() {
            next = piece;
            sleep(pause).await;
        }
    })
    .await;
    let found = anonymous(port, get(port, 200..=299, Some("fine")).run(limit).await);
    server.abort();
    found
}

const ASKED: &str = "GET http://127.0.0.1:80/health?full=1";

fn bad_answer(text: &str) -> Finding {
    bad(format!("{ASKED}: {text}"))
}

fn assert_says(found: &Finding, text: &str) {
    assert!(matches!(found, Finding::Bad(said) if said.contains(text)), "{found:?} does not say {text}");
}

#[test]
fn it_asks_for_the_path_at_the_host() {
    let _lab = Lab::new();
    run(async {
        let (port, server) = serve(async |mut client: TcpStream| {
            let asked = request(&mut client).await;
            client.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            asked
        })
        .await;
        assert_eq!(get(port, 204..=204, None).run(LONG).await, Finding::Good);
        let asked = server.await.unwrap();
        assert!(asked.starts_with("GET /health?full=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("host: www.example.org\r\n"), "{asked}");
        assert!(asked.contains("connection: close\r\n"), "{asked}");
    });
}

#[test]
fn a_status_that_is_not_wanted_is_bad() {
    let _lab = Lab::new();
    run(async {
        let down =
            answered(b"HTTP/1.1 503 Service Unavailable\r\n", b"Content-Length: 0\r\n\r\n", None).await;
        assert_eq!(down, bad_answer("503 Service Unavailable, wanted 200-299"));
        // A redirect is an answer like any other.
        let moved = answered(b"HTTP/1.1 302 Found\r\n", b"Location: /\r\n\r\n", None).await;
        assert_eq!(moved, bad_answer("302 Found, wanted 200-299"));
        let odd = answered(b"HTTP/1.0 799 Oh\r\n", b"\r\n", None).await;
        assert_eq!(odd, bad_answer("799, wanted 200-299"));
        // Not the answer, but what precedes it.
        let first = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(answered(first, b"", None).await, Finding::Good);
    });
}

#[test]
fn a_body_is_found_however_it_is_sent() {
    let _lab = Lab::new();
    run(async {
        let whole = b"Content-Length: 11\r\n\r\nall is fine";
        assert_eq!(answered(OK, whole, Some("is fine$")).await, Finding::Good);
        let until_the_end = b"\r\nall is fine";
        assert_eq!(answered(OK, until_the_end, Some("^all is fine$")).await, Finding::Good);
        let chunked = b"Transfer-Encoding: chunked\r\n\r\n6\r\nall is\r\n5\r\n fine\r\n0\r\n\r\n";
        assert_eq!(answered(OK, chunked, Some("^all is fine$")).await, Finding::Good);
        let bytes = b"X-Odd: \xff\r\n\r\n\xfe\xffall is fine\xff";
        assert_eq!(answered(OK, bytes, Some("fine")).await, Finding::Good);
        let other = answered(OK, b"\r\nno", Some("fine")).await;
        assert_eq!(other, bad_answer("the body (2 bytes) does not match fine"));
    });
}

#[test]
fn an_answer_that_breaks_off_is_bad() {
    let _lab = Lab::new();
    run(async {
        let cut = "the connection was closed before the answer was complete";
        assert_eq!(answered(b"", b"", None).await, bad_answer(cut));
        assert_eq!(answered(b"HTTP/1.1 200", b"", None).await, bad_answer(cut));
        assert_eq!(
            answered(OK, b"Content-Length: 100\r\n\r\nall is fine", Some("fine")).await,
            bad_answer(cut)
        );
        let chunks = b"Transfer-Encoding: chunked\r\n\r\n6\r\nall is\r\n";
        assert_eq!(answered(OK, chunks, Some("all")).await, bad_answer(cut));
    });
}

#[test]
fn what_is_no_http_says_so() {
    let _lab = Lab::new();
    run(async {
        assert_says(&answered(b"SSH-2.0-OpenSSH_9.2\r\n", b"", None).await, "is no HTTP/1.1");
        assert_says(&answered(b"HTTP/1.1 2x0 OK\r\n", b"\r\n", None).await, "is no HTTP/1.1");
    });
}

#[test]
fn no_more_than_a_bounded_part_is_read() {
    let _lab = Lab::new();
    run(async {
        let head = endless(OK, b"X: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", Duration::ZERO, LONG);
        assert_says(&head.await, "too large");
        let line = endless(b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 4096], Duration::ZERO, LONG);
        assert_says(&line.await, "too large");
        let body = endless(b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 65_536], Duration::ZERO, LONG).await;
        assert_eq!(body, bad_answer("the first MiB of the body (1048576 bytes) does not match fine"));
    });
}

#[test]
fn who_takes_too_long_is_bad_at_the_limit() {
    let _lab = Lab::new();
    run(async {
        let late = bad_answer("no complete answer within 300ms");
        let second = Duration::from_secs(1);
        assert_eq!(endless(b"", b"", second, SHORT).await, late, "nothing at all");
        assert_eq!(endless(b"H", b"x", second, SHORT).await, late, "a head in drips");
        assert_eq!(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", second, SHORT).await, late, "a body in drips");
        // Every piece comes long before the limit, the end never.
        let quick = Duration::from_millis(10);
        assert_eq!(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", quick, SHORT).await, late, "a quick drip");
    });
}

#[test]
fn what_cannot_be_asked_is_unknown() {
    run(async {
        let http = |host: &str, path: &str| Check::Http {
            to: target("127.0.0.1", 80),
            host: host.into(),
            path: path.into(),
            status: 200..=299,
            body: None,
        };
        for check in [http("", "no path"), http("a\nb", "/")] {
            let found = check.run(LONG).await;
            assert!(matches!(found, Finding::Unknown(_)), "{found:?}");
        }
    });
}
