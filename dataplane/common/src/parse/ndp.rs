//! Neighbour solicitations (RFC 4861 §4.3): ARP's requests in IPv6.

use crate::bytes::{Bytes, Window};
use crate::flow::{Address, Flow, protocol};
use crate::verdict::Reason;

/// Length of an IPv6 header.
const IPV6: usize = 40;
/// No offset in a solicitation goes beyond this; tells the verifier so. (22 + 40 + 24 + 64 < 256.)
const OFFSETS: usize = 0xff;
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
    /// How long its options are, in units of eight bytes.
    pub options: usize,
}

impl Solicitation {
    /// Where its options begin, from the beginning of the packet.
    pub const OPTIONS_AT: usize = IPV6 + 24;
    /// Length of its payload without options.
    pub const LENGTH: u16 = 24;
    /// The longest options that are looked at, in units of eight bytes: the source's address, and a nonce (RFC 7527) or
    /// two of any length in use. Who signs what it asks (RFC 3971) needs more, and takes no answer that is not signed.
    pub const OPTIONS: usize = 8;

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

    /// The solicitation at `start`, which has a target. Of its options the first is read.
    ///
    /// A checksum is not: an answer to a question with a wrong one has a wrong one too.
    ///
    /// # Errors
    /// [`Reason::Malformed`] for what a host has to ignore (RFC 4861 §7.1.1), also for one that is cut off: the answer
    /// would go to whoever the frame came from.
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized), start: usize, target: Address) -> Result<Self, Reason> {
        let header = frame.window::<IPV6>(start).ok_or(Reason::Malformed)?;
        let (source, to) = (Address::of_words(header.words::<8>()), header.u8::<24>());
        let code = frame.window::<2>(start + IPV6).ok_or(Reason::Malformed)?.u8::<1>();
        // Behind the end of the packet there may be padding, which says nothing.
        let options = options(header.u16::<4>()).ok_or(Reason::Malformed)?;
        frame.window::<1>((start + Self::OPTIONS_AT + 8 * options - 1) & OFFSETS).ok_or(Reason::Malformed)?;
        let link = if options > 0 { source_link(frame, start) } else { None };
        let group = header.u8::<8>() == 0xff || link.is_some_and(|mac| mac & 1 != 0);
        // Who has no address asks everybody, and has no name.
        let nobody = source == Address::UNSPECIFIED6 && (link.is_some() || to != 0xff);
        if header.u8::<7>() != HOP_LIMIT || code != 0 || group || nobody {
            return Err(Reason::Malformed);
        }
        Ok(Self { source, target, link, options })
    }

    /// The question, as a flow.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        Flow::solicitation(self.source, self.target)
    }
}

/// The length of the options in a payload of this length; `None` where they do not add up or are too long.
#[inline(always)]
fn options(payload: u16) -> Option<usize> {
    let length = usize::from(payload.checked_sub(Solicitation::LENGTH)?);
    (length.is_multiple_of(8) && length <= 8 * Solicitation::OPTIONS).then_some(length / 8)
}

/// The MAC in the first option, if that is the source's.
#[inline(always)]
fn source_link(frame: &(impl Bytes + ?Sized), start: usize) -> Option<u64> {
    let option = frame.window::<8>(start + Solicitation::OPTIONS_AT)?;
    (option.u16::<0>() == SOURCE_LINK).then(|| option.mac::<2>())
}
