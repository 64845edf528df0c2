//! Neighbour solicitations (RFC 4861 §4.3): ARP's requests in IPv6.

use crate::bytes::{Bytes, Window};
use crate::flow::{Address, Flow, protocol};
use crate::verdict::Reason;

/// Length of an IPv6 header.
const IPV6: usize = 40;
/// Where the first option begins.
const OPTION: usize = IPV6 + 24;
/// Length of the payload when it has an option.
const WITH_OPTION: u16 = 32;
/// ICMPv6 type of a solicitation.
const SOLICITATION: u8 = 135;
/// Neighbour discovery never comes through a router (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
/// Type and length of the option that names the source's link-layer address.
const SOURCE_LINK: u16 = 0x0101;

/// A neighbour solicitation without extension headers, as everybody sends them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// Who asks; zero while it makes sure that an address is free (RFC 4862 §5.4.2).
    pub source: Address,
    /// Address asked for.
    pub target: Address,
    /// Where the answer goes, when the first option says so: a MAC as a number.
    pub link: Option<u64>,
}

impl Solicitation {
    /// The address asked for by the packet at `start`, if that is a solicitation.
    #[inline(always)]
    pub fn target(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Address> {
        let asks = frame.window::<IPV6>(start)?.u8::<6>() == protocol::ICMPV6
            && frame.window::<1>(start + IPV6)?.u8::<0>() == SOLICITATION;
        if !asks {
            return None;
        }
        Some(Address::of_words(frame.window::<24>(start + IPV6)?.words::<8>()))
    }

    /// The solicitation at `start`, which has a target.
    ///
    /// # Errors
    /// [`Reason::Malformed`] for what a host has to ignore (RFC 4861 §7.1.1), also for one whose option is cut off: the
    /// answer would go to whoever the frame came from.
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized), start: usize, target: Address) -> Result<Self, Reason> {
        let header = frame.window::<IPV6>(start).ok_or(Reason::Malformed)?;
        let source = Address::of_words(header.words::<8>());
        let code = frame.window::<2>(start + IPV6).ok_or(Reason::Malformed)?.u8::<1>();
        // Behind the end of the packet there may be padding, which says nothing.
        let has_option = header.u16::<4>() >= WITH_OPTION;
        let cut = has_option && frame.window::<8>(start + OPTION).is_none();
        let link = if has_option { source_link(frame, start) } else { None };
        let group = header.u8::<8>() == 0xff || link.is_some_and(|mac| mac & 1 != 0);
        let nobody = source == Address::UNSPECIFIED6 && link.is_some();
        if header.u8::<7>() != HOP_LIMIT || code != 0 || group || nobody || cut {
            return Err(Reason::Malformed);
        }
        Ok(Self { source, target, link })
    }

    /// The question, as a flow.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        Flow::solicitation(self.source, self.target)
    }
}

/// The MAC in the first option, if that is the source's.
#[inline(always)]
fn source_link(frame: &(impl Bytes + ?Sized), start: usize) -> Option<u64> {
    let option = frame.window::<8>(start + OPTION)?;
    (option.u16::<0>() == SOURCE_LINK).then(|| option.mac::<2>())
}
