//! Real HTTP load: a new connection for every request, each from another address and port of the client, at a
//! steady rate whatever the answers are.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{MissedTickBehavior, timeout};

use crate::lab::Lab;
use crate::names::{Family, Place};
use crate::node::WEB_PORT;

/// A request that is not answered by then has failed. Below the second after which a client's kernel would try
/// again by itself: a lost SYN counts as a failure and is not hidden.
pub const TIMEOUT: Duration = Duration::from_millis(900);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n";
/// How often due requests are started.
const TICK: Duration = Duration::from_millis(2);
/// A load that was not run for a while leaves out what it missed, beyond this share of a second: made up for at once,
/// it would flood servers that were not run either.
const BURSTS_PER_SECOND: u32 = 100;
/// First source port of the sweep, and the last: below those that the kernel picks by itself.
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=32_000;

/// What the load consists of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The machine that asks: `client` or `remote`.
    pub from: Place,
    /// The service.
    pub service: SocketAddr,
    /// Requests per second.
    pub rate: u32,
    /// The one address that asks; `None`: all of that machine's crowd.
    pub only: Option<IpAddr>,
}

impl Plan {
    /// Requests of `client` to the web service at `vip`.
    #[must_use]
    pub fn new(vip: IpAddr) -> Self {
        Self { from: Place::Client, service: SocketAddr::new(vip, WEB_PORT), rate: super::RATE, only: None }
    }
}

/// A request that has ended. Times count from the start of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it started.
    pub start: Duration,
    /// When it was answered or given up.
    pub end: Duration,
    /// Who answered; `None` if it failed.
    pub by: Option<Place>,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    begin: Instant,
    ended: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Starts asking.
    ///
    /// # Errors
    /// The namespace or the thread cannot be had.
    pub fn start(lab: &Lab, plan: Plan) -> Result<Self> {
        let begin = Instant::now();
        let (ended, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let driver = Driver { plan, begin, ended: Arc::clone(&ended), stop: Arc::clone(&stop) };
        let namespace = lab.namespace(plan.from);
        let work = move || namespace.run(|| driver.run());
        let thread =
            std::thread::Builder::new().name("load".into()).spawn(work).context("the load's thread")?;
        Ok(Self { begin, ended, stop, thread })
    }

    /// Time since the start of the load.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The requests that started at `from` or later and have ended, in order of their start.
    #[must_use]
    pub fn since(&self, from: Duration) -> Vec<Request> {
        let mut found = self.ended_since(from);
        found.retain(|r| r.start >= from);
        found.sort_by_key(|r| r.start);
        found
    }

    /// The requests that ended at `from` or later. They are noted when they end, so these are the last ones.
    #[must_use]
    pub fn ended_since(&self, from: Duration) -> Vec<Request> {
        let ended = lock(&self.ended);
        ended[ended.partition_point(|r| r.end < from)..].to_vec()
    }

    /// Ends the load.
    ///
    /// # Errors
    /// It had stopped before: the reason.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A panic of another holder leaves a whole list behind: pushing is all anybody does.
fn lock(ended: &Mutex<Vec<Request>>) -> MutexGuard<'_, Vec<Request>> {
    ended.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Driver {
    plan: Plan,
    begin: Instant,
    ended: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Driver {
    /// One thread for all: sockets belong to the namespace of the thread that opens them.
    fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
        runtime.block_on(self.drive())
    }

    async fn drive(self) -> Result<()> {
        let crowd = self.plan.from.crowd(Family::of(self.plan.service.ip()));
        let mut clients = clients(self.plan.only.map_or_else(|| crowd.collect(), |only| vec![only]));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut started = 0u32;
        let burst = self.plan.rate.div_ceil(BURSTS_PER_SECOND);
        while !self.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let due = (self.begin.elapsed().as_secs_f64() * f64::from(self.plan.rate)) as u32;
            let behind = due.saturating_sub(started).min(burst);
            for client in clients.by_ref().take(behind as usize) {
                tokio::spawn(note(client, self.plan.service, self.begin, Arc::clone(&self.ended)));
            }
            started = due.max(started);
        }
        Ok(())
    }
}

/// Every address of the crowd with a port, then with the next port, for ever: no pair comes again for a quarter of
/// an hour at any rate that the machine can serve.
pub(crate) fn clients(crowd: Vec<IpAddr>) -> impl Iterator<Item = SocketAddr> {
    PORTS.cycle().flat_map(move |port| crowd.clone().into_iter().map(move |ip| SocketAddr::new(ip, port)))
}

async fn note(client: SocketAddr, service: SocketAddr, begin: Instant, ended: Arc<Mutex<Vec<Request>>>) {
    let start = begin.elapsed();
    let answer = timeout(TIMEOUT, ask(client, service)).await;
    let by = answer.ok().and_then(Result::ok).flatten();
    lock(&ended).push(Request { start, end: begin.elapsed(), by });
}

/// One request; the node's name is the body of the answer.
pub(crate) async fn ask(client: SocketAddr, service: SocketAddr) -> std::io::Result<Option<Place>> {
    let socket = if service.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(client)?;
    let mut stream = socket.connect(service).await?;
    stream.write_all(GET).await?;
    let mut answer = Vec::with_capacity(512);
    stream.read_to_end(&mut answer).await?;
    Ok(node_of(&String::from_utf8_lossy(&answer)))
}

fn node_of(answer: &str) -> Option<Place> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let ok = head.starts_with("HTTP/1.1 200 ");
    if ok { body.trim_end().parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_names_the_node() {
        assert_eq!(node_of("HTTP/1.1 200 OK\r\nServer: x\r\n\r\nnode2\n"), Some(Place::Node(2)));
        for wrong in ["HTTP/1.1 502 Bad Gateway\r\n\r\nnode2\n", "HTTP/1.1 200 OK\r\n\r\n", "node2", ""] {
            assert_eq!(node_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn no_client_comes_twice() {
        let distinct: std::collections::BTreeSet<SocketAddr> =
            clients(Place::Client.crowd(Family::V4).collect()).take(100_000).collect();
        assert_eq!(distinct.len(), 100_000);
    }
}
