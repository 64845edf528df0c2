//! ARP (RFC 826).

use super::ETHERTYPE_IPV4;
use crate::bytes::{Bytes, Window};
use crate::flow::{Address, Flow};

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 = request.
    pub operation: u16,
    /// Sender's MAC, as a number ([`crate::bytes::mac_number`]).
    pub sender_mac: u64,
    /// Sender's address; zero in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// Address asked for.
    pub target: [u8; 4],
}

impl Arp {
    /// `None` for anything but IPv4 over Ethernet.
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Self> {
        let packet = frame.window::<28>(start)?;
        if (packet.u16::<0>(), packet.u16::<2>(), packet.u16::<4>()) != (1, ETHERTYPE_IPV4, 0x0604) {
            return None;
        }
        Some(Self {
            operation: packet.u16::<6>(),
            sender_mac: packet.mac::<8>(),
            sender: packet.four::<14>(),
            target: packet.four::<24>(),
        })
    }

    /// Is it a request? One for the sender's own address is an announcement.
    #[inline(always)]
    pub fn asks(&self) -> bool {
        self.operation == 1 && self.sender != self.target
    }

    /// The question, as a flow.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        Flow::solicitation(Address::v4(self.sender), Address::v4(self.target))
    }
}
