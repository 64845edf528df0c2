//! Connections that carry as much as they can, both ways at once, and are checked to the last byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use farm_lab::{Lab, Place, shell};
use socket2::SockRef;

use crate::farm::LIMIT;
use crate::talk::connect;

/// Written and read at once: many packets, which the kernel may cut as late as it likes.
const CHUNK: usize = 64 * 1024;
/// The pattern repeats with it: a prime, so not with packets or pages.
const PERIOD: usize = 251;

/// The `length` bytes from `at` of what is sent.
fn pattern(at: u64, length: usize) -> Vec<u8> {
    let first = (at % PERIOD as u64) as usize;
    (first..first + length).map(|byte| (byte % PERIOD) as u8).collect()
}

/// What a server does: it names its node and sends back everything, until its client has no more.
pub(crate) fn mirror(mut stream: TcpStream, node: Place) {
    let Place::Node(number) = node else { return };
    let mut chunk = vec![0; CHUNK];
    let mut alive = stream.write_all(&[number]).is_ok();
    while alive {
        alive = match stream.read(&mut chunk) {
            Ok(0) | Err(_) => false,
            Ok(length) => stream.write_all(&chunk[..length]).is_ok(),
        };
    }
}

/// A transfer that goes on until it is stopped.
#[derive(Debug)]
pub struct Transfer {
    /// The client's end.
    pub client: SocketAddr,
    /// Who holds the other end.
    pub node: Place,
    stop: Arc<AtomicBool>,
    back: Arc<AtomicU64>,
    writer: JoinHandle<Result<u64>>,
    reader: JoinHandle<Result<u64>>,
}

impl Transfer {
    /// From address and port `client` on `from` to one of [`crate::talk::Servers::mirrors`].
    ///
    /// # Errors
    /// Nobody answers, or its segments are not of at least `segment` bytes.
    pub fn start(
        lab: &Lab,
        from: Place,
        client: SocketAddr,
        service: SocketAddr,
        segment: u32,
    ) -> Result<Self> {
        let (stream, node) = connect(lab, from, client, service)?;
        let agreed = SockRef::from(&stream).tcp_mss()?;
        ensure!(agreed >= segment, "void: {client} and {node} agreed on segments of {agreed} bytes");
        let (stop, back) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted, other) = (Arc::clone(&stop), Arc::clone(&back), stream.try_clone()?);
        let writer = std::thread::spawn(move || write(stream, &stopped));
        let reader = std::thread::spawn(move || read(other, &counted));
        Ok(Self { client, node, stop, back, writer, reader })
    }

    /// Waits until `bytes` more have come back.
    ///
    /// # Errors
    /// The connection is lost, or other data comes back.
    pub fn await_bytes(&self, bytes: u64) -> Result<()> {
        let wanted = self.back.load(Ordering::Relaxed) + bytes;
        let (client, node) = (self.client, self.node);
        shell::await_value(&format!("{bytes} bytes more from {node} to {client}"), LIMIT, || {
            ensure!(!self.reader.is_finished(), "the connection of {client} with {node} was lost");
            Ok((self.back.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
    }

    /// Ends it, when all that was sent is back.
    ///
    /// # Errors
    /// Something is missing or wrong.
    pub fn stop(self) -> Result<u64> {
        let (client, node) = (self.client, self.node);
        self.stop.store(true, Ordering::Relaxed);
        let ended = |thread: JoinHandle<Result<u64>>| {
            let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.with_context(|| format!("{client} with {node}"))
        };
        let (sent, back) = (ended(self.writer), ended(self.reader));
        let (sent, back) = (sent?, back?);
        ensure!(sent == back, "{client} sent {sent} bytes to {node} and got {back} back");
        Ok(sent)
    }
}

fn write(mut stream: TcpStream, stop: &AtomicBool) -> Result<u64> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&pattern(sent, CHUNK)).with_context(|| format!("after {sent} bytes"))?;
        sent += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn read(mut stream: TcpStream, counted: &AtomicU64) -> Result<u64> {
    let (mut chunk, mut back) = (vec![0; CHUNK], 0);
    loop {
        let length = stream.read(&mut chunk).with_context(|| format!("{back} bytes came back"))?;
        if length == 0 {
            return Ok(back);
        }
        ensure!(chunk[..length] == pattern(back, length), "other data after {back} bytes");
        back += length as u64;
        counted.store(back, Ordering::Relaxed);
    }
}
