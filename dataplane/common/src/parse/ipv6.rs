//! IPv6 (RFC 8200) and its extension headers.

use super::ip::Header;
use crate::bytes::{Bytes, Window};
use crate::flow::{Address, Family, protocol};
use crate::verdict::Reason;

/// Most extension headers that are looked through: as many as RFC 8200 §4.1 lists before the payload.
pub const EXTENSIONS: usize = 6;
/// The same in what an error quotes: the virtual IP sends at most fragments by itself.
pub(super) const QUOTED_EXTENSIONS: usize = 1;
/// Length of the header itself.
const HEADER: usize = 40;
/// No offset goes beyond this; tells the verifier so. (Seven extension headers of 2048 bytes and what is around them.)
pub(super) const OFFSETS: usize = 0x7fff;

/// Destination of a packet.
#[inline(always)]
pub fn ipv6_destination(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Address> {
    Some(Address::of_words(frame.window::<HEADER>(start)?.words::<24>()))
}

/// Reads the header at `start` and up to `MOST` extension headers behind it.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::Extensions`].
#[inline(always)]
pub fn ipv6<const MOST: usize>(frame: &(impl Bytes + ?Sized), start: usize) -> Result<Header, Reason> {
    let start = start & OFFSETS;
    let fixed = frame.window::<HEADER>(start).ok_or(Reason::Malformed)?;
    let first = fixed.u16::<0>();
    if first >> 12 != 6 {
        return Err(Reason::Malformed);
    }
    let header = Header {
        family: Family::V6,
        source: Address::of_words(fixed.words::<8>()),
        destination: Address::of_words(fixed.words::<24>()),
        class: (first >> 4) as u8,
        hops: fixed.u8::<7>(),
        protocol: fixed.u8::<6>(),
        fragment_offset: 0,
        more_fragments: false,
        id: 0,
        payload: (start + HEADER) & OFFSETS,
        end: end(start, fixed.u16::<4>(), fixed.u8::<6>()),
    };
    extensions::<MOST>(frame, header)
}

/// Where a packet ends whose header, at `start`, has this payload length and next header. As for the stack, length 0
/// before hop-by-hop options says nothing, here: 64 KiB, beyond all headers. So begin jumbograms (RFC 2675), which the
/// kernel also makes of segments. (Without a branch, as in IPv4.)
#[inline(always)]
fn end(start: usize, length: u16, next: u8) -> usize {
    let both = u32::from(next) << 16 | u32::from(length);
    let jumbo = both.wrapping_sub(1) >> 8 & 0x1_0000;
    start + HEADER + (usize::from(length) | jumbo as usize)
}

/// Skips extension headers. A fragment that is not the first ends with its fragment header; one that is whole (an
/// atomic fragment, RFC 6946) is no fragment.
#[inline(always)]
fn extensions<const MOST: usize>(
    frame: &(impl Bytes + ?Sized),
    mut header: Header,
) -> Result<Header, Reason> {
    for _ in 0..MOST {
        let at = header.payload;
        match header.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::OPTIONS | protocol::MOBILITY => {
                let extension = frame.window::<2>(at).ok_or(Reason::Malformed)?;
                header.protocol = extension.u8::<0>();
                header.payload = (at + (usize::from(extension.u8::<1>()) + 1) * 8) & OFFSETS;
            }
            protocol::FRAGMENT => {
                let extension = frame.window::<8>(at).ok_or(Reason::Malformed)?;
                let field = extension.u16::<2>();
                header.protocol = extension.u8::<0>();
                header.payload = (at + 8) & OFFSETS;
                header.fragment_offset |= field >> 3;
                header.more_fragments |= field & 1 != 0;
                header.id = u32::from(extension.u16::<4>()) << 16 | u32::from(extension.u16::<6>());
                if header.fragment_offset != 0 {
                    return Ok(header);
                }
            }
            _ => return Ok(header),
        }
    }
    match header.protocol {
        protocol::HOP_BY_HOP
        | protocol::ROUTING
        | protocol::OPTIONS
        | protocol::MOBILITY
        | protocol::FRAGMENT => Err(Reason::Extensions),
        _ => Ok(header),
    }
}
