//! Announcements: tell the neighbours which hardware address a virtual IP has now.
//!
//! Delivery never depends on them (every node sends frames on to the owner); they shorten the way.

use std::io;
use std::net::IpAddr;

use socket2::Socket;

use crate::arp::ArpPacket;
use crate::ndp::NdpPacket;
use crate::{Error, Mac, packet};

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everybody on the link: after the death of a node.
    Broadcast,
    /// One requester, by both its addresses: after a planned move.
    Unicast(Mac, IpAddr),
}

/// Sends announcements in the network namespace in which it was opened. Keep it: the kernel waits
/// for an RCU grace period, several milliseconds, when such a socket closes.
#[derive(Debug)]
pub struct Announcer {
    socket: Socket,
}

impl Announcer {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`Error::System`], mostly for want of `CAP_NET_RAW`.
    pub fn open() -> Result<Self, Error> {
        let socket = packet::sender().map_err(|e| Error::system("open a packet socket", e))?;
        Ok(Announcer { socket })
    }

    /// Announces on `ifindex` that `vip` is at `claimed_mac`. The frame leaves from `own_mac`, so
    /// that no switch learns the claimed one. Does not block.
    ///
    /// For IPv4 always an ARP request, for IPv6 an advertisement with Override (RFC 4861 §7.2.6):
    /// Linux believes both at once.
    ///
    /// # Errors
    /// [`Error::System`]: the link is down or gone, its queue is full, or `vip` and the requester
    /// are not of one family.
    pub fn announce(
        &self,
        ifindex: u32,
        own_mac: Mac,
        vip: IpAddr,
        claimed_mac: Mac,
        target: Target,
    ) -> Result<(), Error> {
        frame(own_mac, vip, claimed_mac, target)
            .and_then(|frame| packet::send(&self.socket, ifindex, &frame))
            .map_err(|e| Error::system(format!("announce {vip} on interface {ifindex}"), e))
    }
}

fn frame(own: Mac, vip: IpAddr, claimed: Mac, target: Target) -> io::Result<Vec<u8>> {
    match (vip, target) {
        (IpAddr::V4(vip), Target::Broadcast) => {
            Ok(ArpPacket::gratuitous(own, vip, claimed).to_bytes().to_vec())
        }
        (IpAddr::V4(vip), Target::Unicast(mac, IpAddr::V4(_))) => {
            Ok(ArpPacket::claim_to(own, vip, claimed, mac).to_bytes().to_vec())
        }
        (IpAddr::V6(vip), Target::Broadcast) => Ok(NdpPacket::unsolicited(own, vip, claimed).to_bytes()),
        (IpAddr::V6(vip), Target::Unicast(mac, IpAddr::V6(ip))) => {
            Ok(NdpPacket::claim_to(own, vip, claimed, (mac, ip)).to_bytes())
        }
        (IpAddr::V4(_), Target::Unicast(_, ip @ IpAddr::V6(_)))
        | (IpAddr::V6(_), Target::Unicast(_, ip @ IpAddr::V4(_))) => {
            let text = format!("{ip} cannot ask for it: name the requester's address of the same family");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}
