//! Frame bytes to headers. Reads nothing twice, and nothing behind the end of the frame or of the packet in it: padding
//! says nothing, as for the stack, which cuts it off.
//!
//! | module | what |
//! |---|---|
//! | here | Ethernet and its tags |
//! | `ip` | what both families say of a packet, and the [`crate::flow::Flow`] in it |
//! | `ipv4`, `ipv6` | their headers |
//! | `arp`, `ndp` | who asks for an address |

mod arp;
mod ip;
mod ipv4;
mod ipv6;
mod ndp;

pub use arp::Arp;
pub use ip::Header;
pub use ipv4::{ipv4, ipv4_destination};
pub use ipv6::{EXTENSIONS, ipv6, ipv6_destination};
pub use ndp::Solicitation;

use crate::bytes::{Bytes, Window};
use crate::vlan::Vlan;

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;

/// Length of a VLAN tag: control information, and the ethertype of what follows (802.1Q §9.3).
const TAG: usize = 4;

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Destination MAC, as a number ([`crate::bytes::mac_number`]).
    pub destination: u64,
    /// Source MAC, likewise.
    pub source: u64,
    /// Ethertype behind the tags.
    pub ethertype: u16,
    /// Number of VLAN tags, at most two.
    pub tags: usize,
    /// The network that they name.
    pub vlan: Vlan,
}

impl Ethernet {
    /// `None` when the frame is shorter than its header.
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized)) -> Option<Self> {
        let header = frame.window::<ETHERNET>(0)?;
        let (destination, source) = (header.mac::<0>(), header.mac::<6>());
        let ethertype = header.u16::<12>();
        let header = Self { destination, source, ethertype, tags: 0, vlan: Vlan::NONE };
        // Two tags, and no loop: LLVM would turn its bounds into ones that the verifier refuses.
        header.untag(frame, ETHERNET)?.untag(frame, ETHERNET + TAG)
    }

    /// With the tag at `at` looked through, if the ethertype says that there is one.
    #[inline(always)]
    fn untag(self, frame: &(impl Bytes + ?Sized), at: usize) -> Option<Self> {
        if !matches!(self.ethertype, 0x8100 | 0x88a8 | 0x9100) {
            return Some(self);
        }
        let tag = frame.window::<TAG>(at)?;
        let (vlan, ethertype) = (self.vlan.inside(tag.u16::<0>()), tag.u16::<2>());
        Some(Self { ethertype, tags: self.tags + 1, vlan, ..self })
    }

    /// Where the payload starts.
    #[inline(always)]
    pub fn payload(&self) -> usize {
        ETHERNET + TAG * self.tags
    }
}
