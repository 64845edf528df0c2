//! What neighbour discovery shows on the wire.

use std::io::Read;

use farm_host::NdpPacket;
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::PATIENCE;

/// Every frame that comes in or goes out in the namespace in which it was opened.
pub struct Tap(Socket);

impl Tap {
    pub fn open() -> Self {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Tap(socket)
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

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [0; 2048];
        let length = (&self.0).read(&mut frame).expect("no such frame came");
        frame[..length].to_vec()
    }
}
