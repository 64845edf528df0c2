//! UDP with a socket per client, as DTLS and QUIC servers have it: who holds a client, and whether it stays there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farm_lab::{Lab, Place};
use socket2::{Domain, Socket, Type};

/// A datagram that is not answered for so long is lost: nothing on the way holds one longer than a change takes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Ends a chat; other questions are the number of the round.
const BYE: u64 = u64::MAX;

/// One server on each node: it connects a socket to each client that it hears, until that says good-bye.
#[derive(Debug)]
pub struct Switchboards {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Switchboards {
    /// Servers on `at`, a virtual IP that every node has.
    ///
    /// # Errors
    /// A node does not have it.
    pub fn start(lab: &Lab, at: SocketAddr) -> Result<Self> {
        let mut boards = Self { stop: Arc::default(), threads: Vec::new() };
        for node in lab.nodes() {
            let Place::Node(number) = node else { continue };
            let namespace = lab.namespace(node);
            let new = move || namespace.run(|| bound(at)).context(format!("{at} on {node}"));
            let (front, stop) = (new()?, Arc::clone(&boards.stop));
            boards.threads.push(std::thread::spawn(move || serve(&front, number, new, &stop)));
        }
        Ok(boards)
    }
}

impl Drop for Switchboards {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of a server shows as an answer that its client misses.
            let _ = thread.join();
        }
    }
}

fn bound(at: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket.into())
}

/// Among sockets that are bound alike the kernel takes the newest: clients come one after the other.
fn serve(front: &UdpSocket, node: u8, new: impl Fn() -> Result<UdpSocket>, stop: &Arc<AtomicBool>) {
    let mut lines = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let mut question = [0; 8];
        let Ok((_, client)) = front.recv_from(&mut question) else { continue };
        let line = new().and_then(|line| {
            line.connect(client)?;
            Ok(line)
        });
        let Ok(line) = line else { return };
        // A lost answer is missed by the client.
        let _ = line.send(&answer(node, question));
        let stop = Arc::clone(stop);
        lines.insert(client, std::thread::spawn(move || talk(&line, node, &stop)));
    }
    for (_, line) in lines {
        let _ = line.join();
    }
}

/// Ends with the client's good-bye, and says so.
fn talk(line: &UdpSocket, node: u8, stop: &AtomicBool) {
    let mut question = [0; 8];
    while !stop.load(Ordering::Relaxed) {
        match line.recv(&mut question) {
            Ok(_) => drop(line.send(&answer(node, question))),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        if u64::from_be_bytes(question) == BYE {
            return;
        }
    }
}

fn answer(node: u8, question: [u8; 8]) -> [u8; 9] {
    let mut answer = [node; 9];
    answer[1..].copy_from_slice(&question);
    answer
}

/// A client of the [`Switchboards`].
#[derive(Debug)]
pub struct Chat {
    socket: UdpSocket,
    /// The client's end.
    pub client: SocketAddr,
    /// Who has a socket for it.
    pub node: Place,
    next: u64,
    /// Length of a question.
    length: usize,
}

impl Chat {
    /// The first datagram from address and port `client` on `from` to `service`, and who answers.
    ///
    /// # Errors
    /// Nobody does.
    pub fn open(lab: &Lab, from: Place, client: SocketAddr, service: SocketAddr) -> Result<Self> {
        Self::of_length(lab, from, client, service, size_of::<u64>())
    }

    /// The same with questions of `length` bytes.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn of_length(
        lab: &Lab,
        from: Place,
        client: SocketAddr,
        service: SocketAddr,
        length: usize,
    ) -> Result<Self> {
        let socket = lab.namespace(from).run(|| Ok(UdpSocket::bind(client)?))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(service)?;
        let mut chat = Self { socket, client, node: Place::Node(0), next: 0, length };
        chat.node = chat.ask(0)?;
        Ok(chat)
    }

    /// A datagram there and back.
    ///
    /// # Errors
    /// It is lost, answered twice, or answered by somebody else.
    pub fn round(&mut self) -> Result<()> {
        self.next += 1;
        let node = self.ask(self.next)?;
        ensure!(node == self.node, "{} was held by {} and is answered by {node}", self.client, self.node);
        Ok(())
    }

    /// Lets the server close its socket.
    ///
    /// # Errors
    /// As [`Chat::round`].
    pub fn close(self) -> Result<()> {
        self.ask(BYE).map(drop)
    }

    fn ask(&self, question: u64) -> Result<Place> {
        let mut answer = [0; 9];
        let who = || format!("{} of {}, datagram {question}", self.client, self.node);
        let mut padded = question.to_be_bytes().to_vec();
        padded.resize(self.length, 0);
        self.socket.send(&padded).with_context(who)?;
        self.socket.recv(&mut answer).with_context(who)?;
        let [node, number @ ..] = answer;
        let number = u64::from_be_bytes(number);
        ensure!(number == question, "{}: the answer is to {number}", who());
        Ok(Place::Node(node))
    }
}
