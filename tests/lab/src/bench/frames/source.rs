//! Where the frames come from: a program that runs on live frames of `BPF_PROG_TEST_RUN`, gives each another client,
//! and sends it into the cable. No driver and no socket can send as many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use farm_dataplane::bpf::{self, insn};

use crate::witness::{internet_checksum, packet};
use crate::{FIRST_VIP, WEB_PORT};

/// 10.88.0.0/16, all of it.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 0);
/// What changes from frame to frame: the lower half of the client's address; its complement stands in the
/// identification and in the lower half of the sequence number, so that both checksums remain right (RFC 1071).
const CLIENT: i16 = 28;
const IDENTIFICATION: i16 = 18;
const SEQUENCE: i16 = 40;
/// Least length of a frame without its check sequence.
const LENGTH: usize = 60;
const SENDER: [u8; 6] = [0x02, 0xfa, 0, 0, 0xff, 1];

/// A SYN to the first service for the machine with the address `to`.
pub(super) fn frame(to: [u8; 6]) -> Vec<u8> {
    /// The complement of the lower half of [`CLIENTS`].
    const COMPLEMENT: u16 = 0xffff;
    let (client, service) =
        (SocketAddr::new(IpAddr::V4(CLIENTS), 40_000), SocketAddr::new(FIRST_VIP, WEB_PORT));
    let mut ip = packet(client, service, COMPLEMENT.into());
    let length = ip.len() as u16;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[4..6].copy_from_slice(&COMPLEMENT.to_be_bytes());
    let sum = internet_checksum(&ip[..20]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&to[..], &SENDER, &[0x08, 0], &ip].concat();
    frame.resize(LENGTH, 0);
    frame
}

/// The program that gives each frame a client and sends it out of `ifindex`.
pub(super) fn program(ifindex: u32) -> Result<OwnedFd> {
    const GET_PRANDOM_U32: i32 = 7;
    const REDIRECT: i32 = 23;
    let (r0, r1, r2, r3, r4, r6) = (0, 1, 2, 3, 4, 6);
    let call = |helper| insn(0x85, 0, 0, 0, helper);
    let store16 = |offset| insn(0x6b, r2, r0, offset, 0);
    let program = [
        insn(0xbf, r6, r1, 0, 0), // r6 = context
        call(GET_PRANDOM_U32),
        insn(0x61, r2, r6, 0, 0), // r2 = data
        insn(0x61, r3, r6, 4, 0), // r3 = data_end
        insn(0xbf, r4, r2, 0, 0),
        insn(0x07, r4, 0, 0, LENGTH as i32),
        insn(0x2d, r4, r3, 4, 0), // a shorter frame goes as it is
        store16(CLIENT),
        insn(0xa7, r0, 0, 0, -1), // complement
        store16(IDENTIFICATION),
        store16(SEQUENCE),
        insn(0xb7, r1, 0, 0, i32::try_from(ifindex)?),
        insn(0xb7, r2, 0, 0, 0),
        call(REDIRECT),
        insn(0x95, 0, 0, 0, 0), // return what the helper returned
    ];
    bpf::load_xdp(&program).context("the program that sends")
}

/// The program that drops everything and does nothing else.
pub(super) fn empty() -> Result<OwnedFd> {
    const XDP_DROP: i32 = 1;
    let program = [insn(0xb7, 0, 0, 0, XDP_DROP), insn(0x95, 0, 0, 0, 0)];
    bpf::load_xdp(&program).context("the empty program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_checksums_hold_for_every_client() {
        for client in [0u16, 1, 0x1234, 0xffff] {
            let mut frame = frame([2, 0, 0, 0, 0, 1]);
            let mut put = |at: i16, value: u16| {
                frame[at as usize..at as usize + 2].copy_from_slice(&value.to_be_bytes());
            };
            put(CLIENT, client);
            put(IDENTIFICATION, !client);
            put(SEQUENCE, !client);
            let ip = &frame[14..54];
            assert_eq!(internet_checksum(&ip[..20]), 0, "of the header, client {client:#x}");
            let pseudo = [&ip[12..20], &[0, 6, 0, 20], &ip[20..]].concat();
            assert_eq!(internet_checksum(&pseudo), 0, "of the segment, client {client:#x}");
        }
    }
}
