//! Neighbour solicitations (RFC 4861 §4.3): ARP's requests in IPv6.

use crate::bytes::Bytes;
use crate::flow::{Address, Flow, protocol};
use crate::verdict::Reason;

/// Length of an IPv6 header.
const IPV6: usize = 40;
/// ICMPv6 type of a solicitation.
const SOLICITATION: u8 = 135;
/// Neighbour discovery never comes through a router (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;
/// Type and length of the option that names the source's link-layer address.
const SOURCE_LINK: [u8; 2] = [1, 1];

/// A neighbour solicitation without extension headers, as everybody sends them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// Who asks; zero while it makes sure that an address is free (RFC 4862 §5.4.2).
    pub source: Address,
    /// Address asked for.
    pub target: Address,
    /// Where the answer goes, when the first option says so.
    pub link: Option<[u8; 6]>,
}

impl Solicitation {
    /// The address asked for by the packet at `start`, if that is a solicitation.
    #[inline(always)]
    pub fn target(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Address> {
        let asks =
            frame.get::<1>(start + 6)? == [protocol::ICMPV6] && frame.get(start + IPV6)? == [SOLICITATION];
        if asks { frame.get(start + IPV6 + 8).map(Address::v6) } else { None }
    }

    /// The solicitation at `start`, which has a target.
    ///
    /// # Errors
    /// [`Reason::Malformed`] for what a host has to ignore (RFC 4861 §7.1.1).
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized), start: usize, target: Address) -> Result<Self, Reason> {
        let source: [u8; 16] = frame.get(start + 8).ok_or(Reason::Malformed)?;
        let (source, multicast) = (Address::v6(source), source[0] == 0xff);
        let [hop_limit] = frame.get(start + 7).ok_or(Reason::Malformed)?;
        let [code] = frame.get(start + IPV6 + 1).ok_or(Reason::Malformed)?;
        let link = source_link(frame, start);
        let group = multicast || link.is_some_and(|mac| mac[0] & 1 != 0);
        if hop_limit != HOP_LIMIT || code != 0 || group || (source == Address::UNSPECIFIED6 && link.is_some())
        {
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
pub fn source_link(frame: &(impl Bytes + ?Sized), start: usize) -> Option<[u8; 6]> {
    let at = start + IPV6 + 24;
    if frame.get::<2>(at)? == SOURCE_LINK { frame.get(at + 2) } else { None }
}
