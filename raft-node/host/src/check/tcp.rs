//! Opens TCP connections.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Finding, Found, Host, Limit, Target, bad, name, unreachable};

/// How long the other side gets to close its half.
const FAREWELL: Duration = Duration::from_millis(100);

pub(super) async fn check(to: &Target, limit: Limit) -> Found {
    close(connect(to, limit).await?, limit).await;
    Ok(())
}

/// The first address that can be connected to. Each is tried for its share of the time that is left, so that a silent
/// one hides no other.
pub(super) async fn connect(to: &Target, limit: Limit) -> Found<TcpStream> {
    let addresses = match &to.host {
        Host::Address(ip) => vec![*ip],
        Host::Name(name) => name::lookup(name, limit).await?,
    };
    let mut failures = Vec::new();
    for (tried, ip) in addresses.iter().enumerate() {
        match connect_to(*ip, to.port, limit.share(addresses.len() - tried)).await {
            Ok(stream) => return Ok(stream),
            Err(finding) => failures.push(finding),
        }
    }
    Err(together(to, failures))
}

async fn connect_to(ip: IpAddr, port: u16, limit: Limit) -> Found<TcpStream> {
    let to = SocketAddr::new(ip, port);
    let open = async { TcpStream::connect(to).await.map_err(|error| unreachable(to, &error)) };
    let stream = limit.of(open, || format!("no answer from {to} within {limit}")).await?;
    if is_own(&stream) {
        // Closed in order, it would hold the port for a minute (TIME-WAIT) and keep the service from starting. This ends it
        // at once, even where a process that is just being forked has the descriptor too (connect(2), `AF_UNSPEC`).
        let _ = rustix::net::connect_unspec(&stream);
        return bad(format!("nobody listens on {to}: the connection met itself"));
    }
    Ok(stream)
}

/// A connection from a port to itself: the kernel gave it the very port it is to reach, and two SYNs that cross make a
/// connection (RFC 9293 §3.5). Happens where a service of this host with a port of the ephemeral range does not run.
fn is_own(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// Ours first, then what the other side still says is read: with something unread, close(2) would send a RST, which
/// servers log as an error.
async fn close(mut stream: TcpStream, limit: Limit) {
    let mut heard = [0; 4096];
    let goodbye = async {
        let _ = stream.shutdown().await;
        while stream.read(&mut heard).await.is_ok_and(|length| length > 0) {}
    };
    let _ = timeout(FAREWELL.min(limit.left()), goodbye).await;
}

/// Unknown where one of them could not be tried.
fn together(to: &Target, mut failures: Vec<Finding>) -> Finding {
    if matches!(to.host, Host::Address(_)) && failures.len() == 1 {
        return failures.remove(0);
    }
    let tried = !failures.iter().any(|failure| matches!(failure, Finding::Unknown(_)));
    let texts: Vec<&str> = failures
        .iter()
        .filter_map(|failure| match failure {
            Finding::Bad(text) | Finding::Unknown(text) => Some(text.as_str()),
            Finding::Good => None,
        })
        .collect();
    let text = format!("{to}: {}", texts.join("; "));
    if tried { Finding::Bad(text) } else { Finding::Unknown(text) }
}
