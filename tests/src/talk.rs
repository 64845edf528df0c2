//! Long-lived TCP connections whose data is checked, and servers: for them, for UDP, for downloads.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farm_lab::{Family, Lab, NetNs, Place, shell};
use socket2::{Domain, Socket, Type};

use crate::download;
use crate::farm::LIMIT;
use crate::transfer;

/// A peer that says nothing for so long has lost the connection: longer than any repetition of the kernel's.
const SILENCE: Duration = Duration::from_secs(20);

/// First port of many clients: below those of the load.
const FIRST_PORT: u16 = 20_000;

/// Servers that live as long as this value.
#[derive(Debug)]
pub struct Servers {
    stop: Arc<AtomicBool>,
    wake: Vec<(NetNs, Wake)>,
    threads: Vec<JoinHandle<()>>,
}

/// How a server that waits is told to look at the stop flag.
#[derive(Clone, Copy, Debug)]
enum Wake {
    Tcp(SocketAddr),
    Udp(SocketAddr),
}

impl Servers {
    /// TCP servers for the service at `at` on every node, whether or not it has that virtual IP yet: they name their
    /// node, then send back what they get.
    ///
    /// # Errors
    /// A port is taken.
    pub fn echo_tcp(lab: &Lab, at: SocketAddr) -> Result<Self> {
        Self::tcp(lab, at, answer)
    }

    /// The same, but they send back as much at once as comes at once.
    ///
    /// # Errors
    /// A port is taken.
    pub fn mirrors(lab: &Lab, at: SocketAddr) -> Result<Self> {
        Self::tcp(lab, at, transfer::mirror)
    }

    /// The same, but they send a [`crate::download`].
    ///
    /// # Errors
    /// A port is taken.
    pub fn downloads(lab: &Lab, at: SocketAddr) -> Result<Self> {
        Self::tcp(lab, at, download::send)
    }

    /// The same in other namespaces, each of which belongs to a node.
    ///
    /// # Errors
    /// A port is taken.
    pub fn echo_tcp_in(namespaces: impl Iterator<Item = (Place, NetNs)>, at: SocketAddr) -> Result<Self> {
        Self::tcp_in(namespaces, at, answer)
    }

    fn tcp(lab: &Lab, at: SocketAddr, answer: fn(TcpStream, Place)) -> Result<Self> {
        Self::tcp_in(lab.nodes().map(|node| (node, lab.namespace(node))), at, answer)
    }

    fn tcp_in(
        namespaces: impl Iterator<Item = (Place, NetNs)>,
        at: SocketAddr,
        answer: fn(TcpStream, Place),
    ) -> Result<Self> {
        let mut servers = Self { stop: Arc::default(), wake: Vec::new(), threads: Vec::new() };
        let (any, own): (IpAddr, IpAddr) = match at {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
        };
        for (node, namespace) in namespaces {
            let listener = namespace.run(|| listen(SocketAddr::new(any, at.port())))?;
            let stop = Arc::clone(&servers.stop);
            servers.threads.push(std::thread::spawn(move || serve(&listener, node, answer, &stop)));
            servers.wake.push((namespace, Wake::Tcp(SocketAddr::new(own, at.port()))));
        }
        Ok(servers)
    }

    /// UDP servers on `at`, a virtual IP that every node has: they send back what they get.
    ///
    /// # Errors
    /// A node does not have it.
    pub fn echo_udp(lab: &Lab, at: SocketAddr) -> Result<Self> {
        let mut servers = Self { stop: Arc::default(), wake: Vec::new(), threads: Vec::new() };
        for node in lab.nodes() {
            let namespace = lab.namespace(node);
            let socket = namespace.run(|| UdpSocket::bind(at).with_context(|| format!("{at} on {node}")))?;
            let stop = Arc::clone(&servers.stop);
            servers.threads.push(std::thread::spawn(move || send_back(&socket, &stop)));
            servers.wake.push((namespace, Wake::Udp(at)));
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (namespace, wake) in &self.wake {
            let woken = namespace.run(|| match wake {
                Wake::Tcp(at) => Ok(TcpStream::connect(at).map(drop)?),
                Wake::Udp(at) => Ok(UdpSocket::bind((at.ip(), 0))?.send_to(&[0], at).map(drop)?),
            });
            if let Err(e) = woken {
                eprintln!("a server does not end: {e:#}");
                return;
            }
        }
        for thread in self.threads.drain(..) {
            // A panic of a server shows as a connection that its client misses.
            let _ = thread.join();
        }
    }
}

/// A listener of the family of `at` alone.
fn listen(at: SocketAddr) -> Result<TcpListener> {
    const BACKLOG: i32 = 128;
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into()).with_context(|| at.to_string())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn serve(listener: &TcpListener, node: Place, answer: fn(TcpStream, Place), stop: &AtomicBool) {
    for stream in listener.incoming().map_while(Result::ok) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::spawn(move || answer(stream, node));
    }
}

/// Ends with the connection.
fn answer(mut stream: TcpStream, node: Place) {
    let Place::Node(number) = node else { return };
    let mut block = [0; Talk::BLOCK];
    let mut alive = stream.write_all(&[number]).is_ok();
    while alive && stream.read_exact(&mut block).is_ok() {
        alive = stream.write_all(&block).is_ok();
    }
}

fn send_back(socket: &UdpSocket, stop: &AtomicBool) {
    let mut block = [0; 64];
    while let Ok((length, from)) = socket.recv_from(&mut block) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // A lost answer is missed by the client.
        let _ = socket.send_to(&block[..length], from);
    }
}

/// A connection from address and port `client` on `from`, and who holds the other end, which says so first.
pub(crate) fn connect(
    lab: &Lab,
    from: Place,
    client: SocketAddr,
    service: SocketAddr,
) -> Result<(TcpStream, Place)> {
    let socket = lab.namespace(from).run(|| {
        let socket = Socket::new(Domain::for_address(client), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&client.into()).with_context(|| client.to_string())?;
        socket.connect_timeout(&service.into(), SILENCE).with_context(|| format!("{client} to {service}"))?;
        Ok(socket)
    })?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SILENCE))?;
    let mut number = [0];
    stream.read_exact(&mut number).context("the name of the node")?;
    Ok((stream, Place::Node(number[0])))
}

/// A connection to one of the [`Servers::echo_tcp`].
#[derive(Debug)]
pub struct Talk {
    stream: TcpStream,
    /// The client's end.
    pub client: SocketAddr,
    /// Who holds the other end.
    pub node: Place,
    next: u64,
}

impl Talk {
    const BLOCK: usize = 8;

    /// Connects to `service` from address and port `client` on `from`.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn open(lab: &Lab, from: Place, client: SocketAddr, service: SocketAddr) -> Result<Self> {
        let (stream, node) = connect(lab, from, client, service)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, client, node, next: 0 })
    }

    /// Connects `count` clients on the link, each from an address and port of its own; every node holds some of them.
    ///
    /// # Errors
    /// Nobody answers one, or a node holds none.
    pub fn open_many(lab: &Lab, service: SocketAddr, count: u16) -> Result<Vec<Self>> {
        let crowd: Vec<IpAddr> = Place::Client.crowd(Family::of(service.ip())).collect();
        let clients =
            (0..count).map(|i| SocketAddr::new(crowd[usize::from(i) % crowd.len()], FIRST_PORT + i));
        let talks: Vec<Self> =
            clients.map(|client| Self::open(lab, Place::Client, client, service)).collect::<Result<_>>()?;
        ensure!(
            lab.nodes().all(|node| talks.iter().any(|t| t.node == node)),
            "every node holds a connection"
        );
        Ok(talks)
    }

    /// One block there and back.
    ///
    /// # Errors
    /// The connection is lost, or other data comes back.
    pub fn round(&mut self) -> Result<()> {
        let block = self.next.to_be_bytes();
        let mut back = [0; Self::BLOCK];
        let who = format!("{} with {}", self.client, self.node);
        self.stream.write_all(&block).with_context(|| format!("{who} after {} blocks", self.next))?;
        self.stream.read_exact(&mut back).with_context(|| format!("{who} after {} blocks", self.next))?;
        ensure!(block == back, "{who}: {back:?} instead of {block:?}");
        self.next += 1;
        Ok(())
    }
}

/// Connections that talk without pause.
#[derive(Debug)]
pub struct Talking {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<Result<Vec<Talk>>>,
}

impl Talking {
    /// Lets `talks` talk, in turn.
    #[must_use]
    pub fn start(mut talks: Vec<Talk>) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                talks.iter_mut().try_for_each(Talk::round)?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(talks)
        });
        Self { stop, rounds, thread }
    }

    /// Waits until every connection has talked `rounds` times more.
    ///
    /// # Errors
    /// One was lost.
    pub fn await_rounds(&self, rounds: u64) -> Result<()> {
        let wanted = self.rounds.load(Ordering::Relaxed) + rounds;
        shell::await_value(&format!("{rounds} rounds"), LIMIT, || {
            ensure!(!self.thread.is_finished(), "a connection was lost");
            Ok((self.rounds.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
    }

    /// Ends the talk and gives the connections back, open.
    ///
    /// # Errors
    /// One was lost: which, and after how many blocks.
    pub fn stop(self) -> Result<Vec<Talk>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
