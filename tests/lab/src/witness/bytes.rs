//! Fields of a frame; `None` where it ends too early.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frame::Mac;

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

pub(super) fn mac(bytes: &[u8], at: usize) -> Option<Mac> {
    field(bytes, at).map(Mac)
}

pub(super) fn ipv4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    field::<4>(bytes, at).map(Ipv4Addr::from)
}

pub(super) fn ipv6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    field::<16>(bytes, at).map(Ipv6Addr::from)
}

pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    field(bytes, at).map(u16::from_be_bytes)
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_be_bytes)
}
