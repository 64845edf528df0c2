//! IPv4 (RFC 791).

use super::ip::Header;
use crate::bytes::Bytes;
use crate::flow::{Address, Family};
use crate::verdict::Reason;

/// No offset in an IPv4 frame goes beyond this; tells the verifier so. (14 + 60 + 8 + 60 + 14 < 256.)
pub(super) const OFFSETS: usize = 0xff;

/// Destination of a packet, wherever else the header may be wrong.
#[inline(always)]
pub fn ipv4_destination(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Address> {
    frame.get(start + 16).map(Address::v4)
}

/// Reads the header at `start`.
///
/// # Errors
/// [`Reason::Malformed`].
#[inline(always)]
pub fn ipv4(frame: &(impl Bytes + ?Sized), start: usize) -> Result<Header, Reason> {
    let header: [u8; 20] = frame.get(start & OFFSETS).ok_or(Reason::Malformed)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(Reason::Malformed);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    Ok(Header {
        family: Family::V4,
        source: Address::v4([header[12], header[13], header[14], header[15]]),
        destination: Address::v4([header[16], header[17], header[18], header[19]]),
        class: header[1],
        protocol: header[9],
        fragment_offset: fragment & 0x1fff,
        more_fragments: fragment & 0x2000 != 0,
        payload: start + length,
    })
}
