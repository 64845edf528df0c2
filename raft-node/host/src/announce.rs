//! Announcements: tell the neighbours which hardware address a virtual IP has now.
//!
//! Delivery never depends on them (every node sends frames on to the owner); they shorten the way.

use std::net::Ipv4Addr;

use socket2::Socket;

use crate::arp::ArpPacket;
use crate::{Error, Mac, packet};

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everybody on the link: after the death of a node.
    Broadcast,
    /// One requester: after a planned move.
    Unicast(Mac, Ipv4Addr),
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
    /// that no switch learns the claimed one. Always a request, which Linux believes at once.
    /// Does not block.
    ///
    /// # Errors
    /// [`Error::System`]: the link is down or gone, or its queue is full.
    pub fn gratuitous_arp(
        &self,
        ifindex: u32,
        own_mac: Mac,
        vip: Ipv4Addr,
        claimed_mac: Mac,
        target: Target,
    ) -> Result<(), Error> {
        let packet = match target {
            Target::Broadcast => ArpPacket::gratuitous(own_mac, vip, claimed_mac),
            Target::Unicast(mac, ip) => ArpPacket::claim_to(own_mac, vip, claimed_mac, (mac, ip)),
        };
        packet::send(&self.socket, ifindex, &packet)
            .map_err(|e| Error::system(format!("announce {vip} on interface {ifindex}"), e))
    }
}
