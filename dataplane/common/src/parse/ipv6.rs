//! IPv6 (RFC 8200) and its extension headers.

use super::ip::Header;
use crate::bytes::Bytes;
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
    frame.get(start + 24).map(Address::v6)
}

/// Reads the header at `start` and up to `MOST` extension headers behind it.
///
/// # Errors
/// [`Reason::Malformed`], [`Reason::Extensions`].
#[inline(always)]
pub fn ipv6<const MOST: usize>(frame: &(impl Bytes + ?Sized), start: usize) -> Result<Header, Reason> {
    let start = start & OFFSETS;
    let [first, second, .., next, _] = frame.get::<8>(start).ok_or(Reason::Malformed)?;
    if first >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let header = Header {
        family: Family::V6,
        source: Address::v6(frame.get(start + 8).ok_or(Reason::Malformed)?),
        destination: Address::v6(frame.get(start + 24).ok_or(Reason::Malformed)?),
        class: first << 4 | second >> 4,
        protocol: next,
        fragment_offset: 0,
        more_fragments: false,
        payload: (start + HEADER) & OFFSETS,
    };
    extensions::<MOST>(frame, header)
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
                let [next, length] = frame.get(at).ok_or(Reason::Malformed)?;
                header.protocol = next;
                header.payload = (at + (usize::from(length) + 1) * 8) & OFFSETS;
            }
            protocol::FRAGMENT => {
                let [next, _, high, low, ..] = frame.get::<8>(at).ok_or(Reason::Malformed)?;
                let field = u16::from_be_bytes([high, low]);
                header.protocol = next;
                header.payload = (at + 8) & OFFSETS;
                header.fragment_offset |= field >> 3;
                header.more_fragments |= field & 1 != 0;
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
