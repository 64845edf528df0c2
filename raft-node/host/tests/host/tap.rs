//! What is seen on the wire.

use std::io::{ErrorKind, Read};

use farm_host::NdpPacket;
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::PATIENCE;

/// The frames of one protocol, with their Ethernet headers, at every device of the namespace in which it was opened:
/// those that come in, and with `ETH_P_ALL` also those that go out.
pub struct Frames(Socket);

impl Frames {
    pub fn open(ethertype: i32) -> Self {
        let protocol = Protocol::from(i32::from((ethertype as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Frames(socket)
    }

    pub fn next(&self) -> Vec<u8> {
        let mut frame = [0; 2048];
        loop {
            match (&self.0).read(&mut frame) {
                Ok(length) => return frame[..length].to_vec(),
                // A process that was stopped and goes on: a socket with a time-out is not read again by itself.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no such frame came: {error}"),
            }
        }
    }
}

/// Neighbour discovery, in both directions.
pub struct Tap(Frames);

impl Tap {
    pub fn open() -> Self {
        Tap(Frames::open(libc::ETH_P_ALL))
    }

    /// The solicitations and advertisements up to and with the first for which `last` holds.
    pub fn until(&self, last: impl Fn(&NdpPacket) -> bool) -> Vec<NdpPacket> {
        let mut seen = Vec::new();
        loop {
            let Some(packet) = NdpPacket::parse(&self.frame()) else { continue };
            seen.push(packet);
            if last(&packet) {
                return seen;
            }
        }
    }

    /// The next solicitation or advertisement.
    pub fn next(&self) -> NdpPacket {
        self.until(|_| true)[0]
    }

    /// The next frame of whatever protocol.
    pub fn frame(&self) -> Vec<u8> {
        self.0.next()
    }
}
