//! ARP (RFC 826).

use crate::bytes::{Bytes, u16_at};
use crate::flow::{Address, Flow};

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 = request.
    pub operation: u16,
    /// Sender's MAC.
    pub sender_mac: [u8; 6],
    /// Sender's address; zero in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// Address asked for.
    pub target: [u8; 4],
}

impl Arp {
    /// `None` for anything but IPv4 over Ethernet.
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Self> {
        if frame.get::<6>(start)? != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        Some(Self {
            operation: u16_at(frame, start + 6)?,
            sender_mac: frame.get(start + 8)?,
            sender: frame.get(start + 14)?,
            target: frame.get(start + 24)?,
        })
    }

    /// The question, as a flow.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        Flow::solicitation(Address::v4(self.sender), Address::v4(self.target))
    }
}
