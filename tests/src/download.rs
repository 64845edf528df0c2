//! Downloads: more data than any window or buffer holds, checked to the last byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use farm_lab::{Lab, Place};

use crate::talk::connect;

/// Bytes of a download: hundreds of packets.
pub const LENGTH: usize = 1 << 20;

/// The byte at `at`: the pattern does not repeat with packets or pages.
fn byte(at: usize) -> u8 {
    const PERIOD: usize = 251;
    (at % PERIOD) as u8
}

/// What a server does: it names its node and sends everything. A client that misses something notices.
pub(crate) fn send(mut stream: TcpStream, node: Place) {
    let Place::Node(number) = node else { return };
    let everything: Vec<u8> = std::iter::once(number).chain((0..LENGTH).map(byte)).collect();
    let _ = stream.write_all(&everything);
}

/// Gets everything from `service`, from address and port `client` on `from`; who sent it.
///
/// # Errors
/// Nobody answers, something is missing, or other data comes.
pub fn fetch(lab: &Lab, from: Place, client: SocketAddr, service: SocketAddr) -> Result<Place> {
    let (mut stream, node) = connect(lab, from, client, service)?;
    let mut got = Vec::with_capacity(LENGTH);
    let read = stream.read_to_end(&mut got);
    read.with_context(|| format!("{client} got {} bytes from {node}, then nothing", got.len()))?;
    ensure!(got.len() == LENGTH, "{client} got {} bytes from {node}", got.len());
    let wrong = got.iter().enumerate().find(|(at, found)| byte(*at) != **found);
    ensure!(wrong.is_none(), "{client} got other data from {node}, first {wrong:?}");
    Ok(node)
}
