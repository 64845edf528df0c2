//! A client of TCP services, as strangers are: it connects again and again and keeps some connections open, and says
//! what it felt.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Pace of new connections to a service.
const EVERY: Duration = Duration::from_millis(20);
/// A client that has waited for so long has gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that are opened before anything happens, and kept.
const KEPT: usize = 16;
/// The kernel asks the other end of a quiet connection after a second, twice (tcp(7)): who is gone shows.
const ALIVE: Duration = Duration::from_secs(1);

/// One new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// How long it took; `None`: it failed.
    pub took: Option<Duration>,
}

/// What the client felt at one service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Felt {
    /// New connections, in the order in which they ended.
    pub attempts: Vec<Attempt>,
    /// Connections that were open before.
    pub kept: usize,
    /// How many of them have ended since.
    pub ended: usize,
}

/// Whether this machine has the address itself: then nothing it sends there leaves it.
#[must_use]
pub fn is_here(at: SocketAddr) -> bool {
    UdpSocket::bind((at.ip(), 0)).is_ok()
}

/// A client at work.
#[derive(Debug)]
pub struct Probe {
    at: SocketAddr,
    kept: Vec<TcpStream>,
    opened: usize,
    ended: usize,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    work: JoinSet<()>,
}

impl Probe {
    /// Begins to connect to `at`.
    pub async fn start(at: SocketAddr) -> Self {
        let mut kept = Vec::new();
        for _ in 0..KEPT {
            if let Ok(Ok(stream)) = timeout(PATIENCE, TcpStream::connect(at)).await
                && keep_alive(&stream).is_ok()
            {
                kept.push(stream);
            }
        }
        let attempts = Arc::<Mutex<Vec<Attempt>>>::default();
        let mut work = JoinSet::new();
        work.spawn(connect_on_and_on(at, attempts.clone()));
        let opened = kept.len();
        Self { at, kept, opened, ended: 0, attempts, work }
    }

    /// Where it connects to.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Closes what was kept: nodes wait with what is planned until such connections end.
    pub fn let_go(&mut self) {
        self.ended = self.kept.drain(..).filter(has_ended).count();
    }

    /// Ends it; connections that are still being opened are waited for no longer, and count as they are.
    #[must_use]
    pub fn finish(mut self) -> Felt {
        self.work.abort_all();
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Felt { attempts, kept: self.opened, ended: self.ended }
    }
}

async fn connect_on_and_on(at: SocketAddr, attempts: Arc<Mutex<Vec<Attempt>>>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let attempts = attempts.clone();
                open.spawn(async move {
                    let begun = Instant::now();
                    let connected = timeout(PATIENCE, TcpStream::connect(at)).await;
                    let took = matches!(connected, Ok(Ok(_))).then(|| begun.elapsed());
                    attempts.lock().unwrap_or_else(PoisonError::into_inner).push(Attempt { took });
                });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let asked = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE).with_retries(2);
    SockRef::from(stream).set_tcp_keepalive(&asked)
}

/// Whether the other end closed it, reset it or is gone; what it sent meanwhile is nobody's concern.
fn has_ended(stream: &TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.try_read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn it_says_what_it_felt() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = server.local_addr().unwrap();
        let mut probe = Probe::start(at).await;
        let mut streams = Vec::new();
        // Those that are kept are the first; two of them end.
        while streams.len() < KEPT + 5 {
            streams.push(server.accept().await.unwrap().0);
        }
        streams.drain(..2);
        drop(server);
        let refused = || probe.attempts.lock().unwrap().iter().any(|a| a.took.is_none());
        while !refused() {
            tokio::time::sleep(EVERY).await;
        }
        // What has arrived is seen once the runtime has looked.
        for stream in &probe.kept[..2] {
            stream.readable().await.unwrap();
        }
        probe.let_go();
        let felt = probe.finish();
        assert_eq!((felt.kept, felt.ended), (KEPT, 2));
        assert!(felt.attempts.iter().any(|a| a.took.is_some()), "{felt:?}");
    }

    #[test]
    fn the_own_address_is_no_clients_way() {
        assert!(is_here((Ipv4Addr::LOCALHOST, 80).into()));
        assert!(!is_here((Ipv4Addr::new(192, 0, 2, 1), 80).into()));
    }
}
