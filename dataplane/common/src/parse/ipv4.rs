//! IPv4 (RFC 791).

use super::ip::Header;
use crate::bytes::{Bytes, Window};
use crate::flow::{Address, Family};
use crate::verdict::Reason;

/// No offset in an IPv4 frame goes beyond this; tells the verifier so. (14 + 60 + 8 + 60 + 14 < 256.)
pub(super) const OFFSETS: usize = 0xff;

/// Destination of a packet, wherever else the header may be wrong.
#[inline(always)]
pub fn ipv4_destination(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Address> {
    Some(Address::v4(frame.window::<20>(start)?.four::<16>()))
}

/// Reads the header at `start`.
///
/// # Errors
/// [`Reason::Malformed`].
#[inline(always)]
pub fn ipv4(frame: &(impl Bytes + ?Sized), start: usize) -> Result<Header, Reason> {
    let header = frame.window::<20>(start & OFFSETS).ok_or(Reason::Malformed)?;
    let first = header.u8::<0>();
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < 20 {
        return Err(Reason::Malformed);
    }
    let fragment = header.u16::<6>();
    Ok(Header {
        family: Family::V4,
        source: Address::v4(header.four::<12>()),
        destination: Address::v4(header.four::<16>()),
        class: header.u8::<1>(),
        hops: header.u8::<8>(),
        protocol: header.u8::<9>(),
        fragment_offset: fragment & 0x1fff,
        more_fragments: fragment & 0x2000 != 0,
        id: header.u16::<4>().into(),
        payload: start + length,
        end: end(start, header.u16::<2>()),
    })
}

/// Where a packet ends whose header, at `start`, says so. Length 0 is 64 KiB, beyond all headers: it stands in what the
/// kernel has put together from segments and is longer than that, which a filter behind the driver may see. Any other
/// packet of length 0 the stack drops. (Without a branch, of which the verifier would follow both sides to the end.)
#[inline(always)]
fn end(start: usize, length: u16) -> usize {
    start + usize::from(length.wrapping_sub(1)) + 1
}
