//! The fragments of one packet: only the first carries ports, and the others go where it went.
//!
//! Who sees the first fragment remembers its ports for the others, by what all of them share. That makes every fragment
//! a frame of its flow, with all that the decision knows of flows. A node that forwards does so with all of them, in
//! their order, so that the next one remembers too; in flood mode everybody sees the first. A later fragment whose first
//! is not remembered (it was lost, overtaken, or came by another node) goes by address: without the first nobody can put
//! the packet together, so it never reaches two nodes.

use crate::bytes::Bytes;
use crate::flow::Address;
use crate::parse::{ETHERTYPE_IPV4, EXTENSIONS, Ethernet, ipv4, ipv6};

/// What all fragments of one packet share (RFC 791 §3.2, RFC 8200 §4.5): plain numbers, the key of the map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Whole {
    client: [u64; 2],
    vip: [u64; 2],
    id: u32,
    protocol: u32,
}

impl Whole {
    /// The packet with this identification.
    #[inline(always)]
    pub fn new(client: &Address, vip: &Address, id: u32, protocol: u8) -> Self {
        Self { client: client.words(), vip: vip.words(), id, protocol: protocol.into() }
    }
}

/// Ports of a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ports {
    /// Of the client.
    pub client: u16,
    /// Of the service.
    pub service: u16,
}

impl From<Ports> for u32 {
    #[inline(always)]
    fn from(ports: Ports) -> u32 {
        u32::from(ports.client) << 16 | u32::from(ports.service)
    }
}

impl From<u32> for Ports {
    #[inline(always)]
    fn from(number: u32) -> Self {
        Self { client: (number >> 16) as u16, service: number as u16 }
    }
}

/// A fragment of a flow with ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The first, which says the ports.
    First(Whole, Ports),
    /// Any other.
    Later(Whole),
}

/// The ports of the fragment in this frame, as far as they are known; remembers them.
#[inline(always)]
pub fn ports(
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    memory: &(impl Fragments + ?Sized),
) -> Option<Ports> {
    let header = match ethernet.ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, ethernet.payload()),
        _ => ipv6::<EXTENSIONS>(frame, ethernet.payload()),
    };
    match header.ok()?.piece(frame)? {
        Piece::First(packet, ports) => {
            memory.remember(&packet, ports);
            Some(ports)
        }
        Piece::Later(packet) => memory.recall(&packet),
    }
}

/// A memory of first fragments. It may forget.
pub trait Fragments {
    /// The first fragment of this packet has these ports.
    fn remember(&self, packet: &Whole, ports: Ports);
    /// The ports of its first fragment.
    fn recall(&self, packet: &Whole) -> Option<Ports>;
}

const _: () = assert!(size_of::<Whole>() == 40, "padding");
