//! HTTP, for whoever speaks nothing else: health for load balancers, metrics for Prometheus, a page for people. It only
//! shows. It lives on the ordinary runtime, behind everything that keeps clients served, and the daemon does not need
//! it: an address that cannot be had is a condition, and is tried again.
//!
//! Tasks owned: one per address, given to the caller by [`serve`]; connections end with it.

mod live;
mod metrics;
mod page;
mod ready;
mod recent;
mod routes;
mod server;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::daemon::Daemon;
use server::Server;

/// Pause before an address is tried again. Nothing tells when another program gives a port up.
const AGAIN: Duration = Duration::from_secs(3);
/// Connections that may wait to be taken: a load balancer and some browsers that come at once.
const BACKLOG: i32 = 64;
/// A peer that acknowledges nothing for so long is gone, and with it its connection (TCP_USER_TIMEOUT, tcp(7)).
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// The addresses on which the server cannot listen, and why.
#[derive(Debug, Default)]
pub struct Listening(Mutex<BTreeMap<SocketAddr, String>>);

impl Listening {
    /// What is not served, with the system's word.
    #[must_use]
    pub fn refused(&self) -> Vec<(SocketAddr, String)> {
        self.lock().iter().map(|(at, why)| (*at, why.clone())).collect()
    }

    /// Notes a failure; says it in the log when it is news.
    fn failed(&self, at: SocketAddr, error: &io::Error) {
        let why = error.to_string();
        if self.lock().insert(at, why.clone()).as_ref() != Some(&why) {
            tracing::warn!(%at, %why, "HTTP cannot listen: tried again");
        }
    }

    fn bound(&self, at: SocketAddr) {
        self.lock().remove(&at);
        tracing::info!(%at, "HTTP listens");
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, String>> {
        // Every change of the map is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `daemon` on these addresses until the tasks are aborted.
#[must_use]
pub fn serve(daemon: &Arc<Daemon>, at: &[SocketAddr]) -> Vec<JoinHandle<()>> {
    let server = Server::new(routes::router(daemon.clone()));
    let listen = |at: &SocketAddr| tokio::spawn(listen(*at, server.clone(), daemon.http()));
    at.iter().map(listen).collect()
}

async fn listen(at: SocketAddr, server: Server, listening: Arc<Listening>) {
    loop {
        match bind(at) {
            Ok(listener) => {
                listening.bound(at);
                server.run(listener).await;
                return;
            }
            // This machine was started without that protocol: there is no such address that somebody could ask.
            Err(error) if at.ip().is_unspecified() && is(&error, Errno::EAFNOSUPPORT) => return,
            Err(error) => listening.failed(at, &error),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if at.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    // Connections of the run before do not keep the next one away.
    socket.set_reuse_address(true)?;
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_somebody_has_is_told_and_taken_when_it_is_free() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = other.local_addr().expect("its address");
        let listening = Arc::<Listening>::default();
        listening.failed(at, &bind(at).expect_err("it is taken"));
        let told = listening.refused();
        assert!(told.len() == 1 && told[0].0 == at && told[0].1.contains("in use"), "{told:?}");
        drop(other);
        bind(at).expect("it is free");
        listening.bound(at);
        assert!(listening.refused().is_empty());
    }

    #[tokio::test]
    async fn both_protocols_have_the_port_at_once() {
        let four = bind("0.0.0.0:0".parse().expect("address")).expect("IPv4");
        let port = four.local_addr().expect("its address").port();
        match bind(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)) {
            Ok(_) => {}
            Err(error) => assert!(is(&error, Errno::EAFNOSUPPORT), "{error}"),
        }
    }
}
