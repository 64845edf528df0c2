//! Checks against servers that behave as they like.

mod http;
mod link;
mod ping;
mod program;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use farm_host::check::{Check, Finding, Host, Target};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::namespace::{CABLE, Lab, PATIENCE, run, setting};

/// For what is to be answered.
const LONG: Duration = Duration::from_secs(60);
/// For what is to stay without an answer.
const SHORT: Duration = Duration::from_millis(300);

fn bad(text: impl Into<String>) -> Finding {
    Finding::Bad(text.into())
}

fn target(host: &str, port: u16) -> Target {
    Target { host: Host::from(host), port }
}

async fn tcp(host: &str, port: u16, limit: Duration) -> Finding {
    Check::Tcp { to: target(host, port) }.run(limit).await
}

/// A server for one client; what it does with it comes out of the handle.
async fn serve<T, F>(client: impl FnOnce(TcpStream) -> F + Send + 'static) -> (u16, JoinHandle<T>)
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { client(listener.accept().await.unwrap().0).await });
    (port, server)
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A server that greets first, as mail servers do: with its greeting unread, the end would come as a RST.
#[test]
fn a_connection_is_opened_and_closed_in_order() {
    let _lab = Lab::new();
    run(async {
        let (port, server) = serve(async |mut client| {
            client.write_all(b"220 mail\r\n").await.unwrap();
            let end = client.read(&mut [0; 16]).await;
            (end.map_err(|error| error.kind()), client.write_all(b"221 bye\r\n").await.is_ok())
        })
        .await;
        assert_eq!(tcp("127.0.0.1", port, LONG).await, Finding::Good);
        assert_eq!(server.await.unwrap(), (Ok(0), true));
    });
}

#[test]
fn a_port_that_is_closed_refuses_at_once() {
    let _lab = Lab::new();
    run(async {
        let port = free_port().await;
        let refused = bad(format!("127.0.0.1:{port} refused the connection"));
        assert_eq!(tcp("127.0.0.1", port, LONG).await, refused);
        assert_eq!(tcp("::1", port, LONG).await, bad(format!("[::1]:{port} refused the connection")));
    });
}

#[test]
fn who_says_nothing_is_waited_for_until_the_limit() {
    let lab = Lab::new();
    // Frames to it go to nobody.
    lab.node.ip(&format!("neighbour add 192.0.2.50 lladdr 02:00:00:00:00:50 dev {CABLE}"));
    run(async {
        let silent = bad("no answer from 192.0.2.50:80 within 300ms");
        assert_eq!(tcp("192.0.2.50", 80, SHORT).await, silent);
        let unreachable = bad("203.0.113.1:80 cannot be reached: Network is unreachable");
        assert_eq!(tcp("203.0.113.1", 80, LONG).await, unreachable);
    });
}

/// The kernel gives the connection the very port that it is to reach, which is free: nobody serves.
#[test]
fn a_connection_that_meets_itself_is_none_and_does_not_hold_the_port() {
    let _lab = Lab::new();
    setting("ipv4/ip_local_port_range", "40000 40000");
    run(async {
        let itself = bad("nobody listens on 127.0.0.1:40000: the connection met itself");
        for _ in 0..3 {
            assert_eq!(tcp("127.0.0.1", 40_000, LONG).await, itself);
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Without SO_REUSEADDR: a connection in TIME-WAIT would keep it from the port.
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)).into()).unwrap();
    });
}

/// `localhost` has an address in either family, the server in one.
#[test]
fn all_addresses_of_a_name_are_tried() {
    let _lab = Lab::new();
    run(async {
        let (port, _server) = serve(async |client| drop(client)).await;
        assert_eq!(tcp("localhost", port, LONG).await, Finding::Good);
        let port = free_port().await;
        match tcp("localhost", port, LONG).await {
            Finding::Bad(why) => {
                assert!(why.starts_with(&format!("localhost:{port}: ")), "{why}");
                assert!(why.contains(&format!("127.0.0.1:{port} refused the connection")), "{why}");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_name_that_nobody_knows_is_bad() {
    let _lab = Lab::new();
    run(async {
        let unknown = bad("the name no such host has no address, or no name server knows");
        assert_eq!(tcp("no such host", 80, LONG).await, unknown);
    });
}

/// Who is asked for nothing is to have nobody connected, either.
#[test]
fn a_check_that_nobody_waits_for_ends_its_connection() {
    let _lab = Lab::new();
    run(async {
        let (asked, is_asked) = tokio::sync::oneshot::channel();
        let (port, server) = serve(async move |mut client: TcpStream| {
            let mut request = [0; 1024];
            assert!(client.read(&mut request).await.unwrap() > 0);
            asked.send(()).unwrap();
            tokio::time::timeout(PATIENCE, client.read(&mut request)).await.expect("it stays connected")
        })
        .await;
        let check = http::get(port, 200..=200, None);
        tokio::select! { found = check.run(LONG) => panic!("{found:?}"), asked = is_asked => asked.unwrap() }
        assert!(matches!(server.await.unwrap(), Ok(0) | Err(_)));
    });
}
