//! Membership of the group that solicitations for a virtual IPv6 address are sent to.
//!
//! For an address that it puts on a link the kernel joins that link's solicited-node group. A
//! virtual address is on `lo`, so nothing joins: without a [`Membership`] neither the NIC's filter
//! nor a switch with MLD snooping lets the solicitations in, and no program sees them.

use std::net::Ipv6Addr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, ndp};

/// Holds the membership of one link until it is dropped. Several of one group, of virtual IPs that
/// end alike or of other programs, do not disturb one another. It outlasts the link's going down
/// and up, but not the link.
#[derive(Debug)]
#[must_use = "the membership ends with it"]
pub struct Membership {
    _socket: Socket,
}

impl Membership {
    /// Joins the solicited-node group of `vip` on link `ifindex`; the kernel reports it to the link
    /// (MLD), from its own address. Frames of the group then reach this host. Its kernel answers
    /// none of them: see [`sysctl`](crate::sysctl).
    ///
    /// # Errors
    /// [`Error::System`]: the link is gone, or has no IPv6.
    pub fn join(ifindex: u32, vip: Ipv6Addr) -> Result<Self, Error> {
        let fail = |e| Error::system(format!("join the group of {vip} on interface {ifindex}"), e);
        // A socket without address or port receives nothing: it only holds.
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).map_err(fail)?;
        socket.join_multicast_v6(&ndp::solicited_node(vip), ifindex).map_err(fail)?;
        Ok(Membership { _socket: socket })
    }
}
