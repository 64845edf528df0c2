//! The clients: long-lived flows, each with a numbered question every other second, and new connections all the time. One
//! thread in the client's namespace.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{interval, sleep, timeout};

use super::tally::Seen;
use super::{PORT, TRIED_PORT};
use crate::demo::clients;
use crate::echo::BLOCK;
use crate::lab::Lab;
use crate::names::{Family, Place};
use crate::{FIRST_VIP, shell};

/// Between two questions of a flow.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// An answer that does not come by then never comes: the first retransmissions are long over.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// How fast flows are opened, and new connections are made.
const OPENED_EVERY: Duration = Duration::from_micros(500);
const TRIED_EVERY: Duration = Duration::from_millis(5);
/// How often this thread looks whether it was held up itself.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// To open them all takes five seconds, and as long again where a node died.
const LIMIT: Duration = Duration::from_secs(60);

/// What the flows share with who watches them.
#[derive(Debug, Default)]
struct Shared {
    open: u64,
    seen: Seen,
}

/// The running clients.
pub(super) struct Crowd {
    shared: Arc<Mutex<Shared>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Crowd {
    /// Starts opening `flows` flows; one that ends is opened anew.
    pub(super) fn start(lab: &Lab, flows: usize) -> Result<Self> {
        let shared: Arc<Mutex<Shared>> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let (namespace, noted) = (lab.namespace(Place::Client), Arc::clone(&shared));
        let work = move || {
            namespace.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(run(flows, noted, stopped));
                Ok(())
            })
        };
        let thread = std::thread::Builder::new().name("crowd".into()).spawn(work)?;
        Ok(Self { shared, stop, thread })
    }

    /// Waits until so many flows are open.
    pub(super) fn await_open(&self, flows: usize) -> Result<()> {
        shell::await_value(&format!("{flows} flows are open"), LIMIT, || {
            ensure!(!self.thread.is_finished(), "the clients have ended");
            Ok((locked(&self.shared).open >= flows as u64).then_some(()))
        })
    }

    /// A step begins: what was seen belongs to the last one.
    pub(super) fn next(&self) {
        let mut shared = locked(&self.shared);
        shared.seen = Seen { open: shared.open, ..Seen::default() };
    }

    pub(super) fn seen(&self) -> Seen {
        locked(&self.shared).seen.clone()
    }

    pub(super) fn stop(self) -> Result<()> {
        // It has ended by itself: then joining says why.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A panic of another holder leaves whole numbers behind.
fn locked(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(flows: usize, shared: Arc<Mutex<Shared>>, stopped: oneshot::Receiver<()>) {
    let ends = Arc::new(Mutex::new(clients(Place::Client.crowd(Family::V4).collect())));
    let mut pace = interval(OPENED_EVERY);
    let next = move || ends.lock().unwrap_or_else(PoisonError::into_inner).next();
    tokio::spawn(try_anew(next.clone(), Arc::clone(&shared)));
    tokio::spawn(watch_oneself(Arc::clone(&shared)));
    for _ in 0..flows {
        pace.tick().await;
        tokio::spawn(flow(next.clone(), Arc::clone(&shared)));
    }
    // An error says that nobody is left who could stop it.
    let _ = stopped.await;
}

/// One flow after the other, for ever.
async fn flow(next: impl Fn() -> Option<SocketAddr>, shared: Arc<Mutex<Shared>>) {
    while let Some(client) = next() {
        let Ok(Ok((stream, node))) = timeout(PATIENCE, open(client, PORT)).await else { continue };
        locked(&shared).open += 1;
        let waited = talk(stream, &shared).await;
        let mut shared = locked(&shared);
        shared.open -= 1;
        shared.seen.lost(node, waited);
    }
}

/// A connection from `client`, and who holds the other end, which says so first.
async fn open(client: SocketAddr, port: u16) -> Result<(TcpStream, Place)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(client)?;
    let mut stream = socket.connect(SocketAddr::new(FIRST_VIP, port)).await?;
    stream.set_nodelay(true)?;
    let mut number = [0];
    stream.read_exact(&mut number).await?;
    Ok((stream, Place::Node(number[0])))
}

/// Asks and checks until the connection is lost; how long the last question waited.
async fn talk(mut stream: TcpStream, shared: &Mutex<Shared>) -> Duration {
    for number in 0u64.. {
        let asked = Instant::now();
        match timeout(PATIENCE, round(&mut stream, number)).await {
            Ok(Ok(())) => locked(shared).seen.answered(asked.elapsed()),
            Ok(Err(_)) | Err(_) => return asked.elapsed(),
        }
        sleep(PAUSE).await;
    }
    Duration::ZERO
}

async fn round(stream: &mut TcpStream, number: u64) -> Result<()> {
    let (block, mut back) = (number.to_be_bytes(), [0; BLOCK]);
    stream.write_all(&block).await?;
    stream.read_exact(&mut back).await?;
    ensure!(block == back, "{back:?} instead of {block:?}");
    Ok(())
}

/// New connections at a steady rate, whatever became of those before.
async fn try_anew(next: impl Fn() -> Option<SocketAddr>, shared: Arc<Mutex<Shared>>) {
    let mut pace = interval(TRIED_EVERY);
    loop {
        pace.tick().await;
        let Some(client) = next() else { return };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let begun = Instant::now();
            let opened = timeout(PATIENCE, open(client, TRIED_PORT)).await.ok().and_then(Result::ok);
            locked(&shared).seen.connected(begun.elapsed(), opened.is_some());
            let Some((mut stream, _)) = opened else { return };
            // It says goodbye and waits for the other end's: no reset, and no node that waits for it.
            if stream.shutdown().await.is_ok() {
                let _ = timeout(PATIENCE, stream.read(&mut [0])).await;
            }
        });
    }
}

/// How late this thread is: no stall that it measures is surer than that.
async fn watch_oneself(shared: Arc<Mutex<Shared>>) {
    loop {
        let begun = Instant::now();
        sleep(LOOK_EVERY).await;
        locked(&shared).seen.was_late(begun.elapsed().saturating_sub(LOOK_EVERY));
    }
}
