//! Asking the loaded program what it would do with a frame.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use aya::programs::{TestRun, TestRunOptions};
use farm_common::verdict::Reason;
use farm_common::vlan::Vlan;

use crate::guard::Mac;
use crate::object::Object;

/// What the program returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// `XDP_ABORTED`: an error inside the program.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`: to the local stack.
    Pass,
    /// `XDP_TX`: out of the same interface.
    Transmit,
    /// `XDP_REDIRECT`: out of another one.
    Redirect,
}

impl Action {
    fn of(code: u32) -> io::Result<Self> {
        match code {
            0 => Ok(Self::Aborted),
            1 => Ok(Self::Drop),
            2 => Ok(Self::Pass),
            3 => Ok(Self::Transmit),
            4 => Ok(Self::Redirect),
            other => Err(io::Error::other(format!("the program returned {other}, which is no XDP action"))),
        }
    }
}

/// The program's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// What would happen to the frame.
    pub action: Action,
    /// Why: the counter that would grow.
    pub reason: Reason,
    /// The frame as it would go on.
    pub frame: Vec<u8>,
}

/// Bytes by which a program may make a frame longer (the kernel's headroom).
const HEADROOM: usize = 256;

/// A second instance of the program: same table, own counters.
pub(crate) struct Probe {
    object: Object,
}

impl Probe {
    pub(crate) fn load(pins: &Path) -> io::Result<Self> {
        Ok(Self { object: Object::load_second(pins).map_err(io::Error::other)? })
    }

    /// Runs once. `&mut`: the reason is found as the one counter that grew, so runs must not overlap.
    pub(crate) fn run(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<Explained> {
        let before = self.object.counters()?;
        let mut out = vec![0; frame.len() + HEADROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context(ifindex, frame.len())?),
            ..TestRunOptions::new()
        };
        let result = self.object.program_ref()?.test_run(options).map_err(io::Error::other)?;
        out.truncate(result.data_size_out as usize);
        let after = self.object.counters()?;
        let grown = Reason::ALL.iter().find(|reason| after[reason.name()] != before[reason.name()]);
        let reason = *grown.ok_or_else(|| io::Error::other("the program counted nothing for this frame"))?;
        Ok(Explained { action: Action::of(result.return_value)?, reason, frame: out })
    }
}

/// `struct xdp_md` for a frame of `length` bytes that came in on `ifindex`, first queue.
fn context(ifindex: u32, length: usize) -> io::Result<[u8; 24]> {
    let end = u32::try_from(length).map_err(io::Error::other)?;
    let mut context = [0; 24];
    let fields = [0, end, 0, ifindex, 0, 0];
    for (cell, field) in context.chunks_exact_mut(4).zip(fields) {
        cell.copy_from_slice(&u32::to_ne_bytes(field));
    }
    Ok(context)
}

/// What a synthetic frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A TCP segment without data, with these flags (`0x02` SYN, `0x10` ACK, `0x04` RST, `0x01` FIN).
    Tcp {
        /// See above.
        flags: u8,
    },
    /// An empty UDP datagram.
    Udp,
    /// An ICMP echo request (the ports of the addresses are ignored).
    Echo,
}

/// `Payload::Tcp` flags of a segment that opens a connection.
pub const SYN: u8 = 0x02;
/// `Payload::Tcp` flags of a segment inside a connection.
pub const ACK: u8 = 0x10;

/// A frame as a client would send it, with valid checksums.
///
/// # Errors
/// Where client and service are not of the same address family.
pub fn synthetic_frame(
    source: Mac,
    destination: Mac,
    client: SocketAddr,
    service: SocketAddr,
    payload: Payload,
) -> io::Result<Vec<u8>> {
    let segment = segment(client.port(), service.port(), payload, service.is_ipv6());
    let (ethertype, mut packet) = match (client, service) {
        (SocketAddr::V4(c), SocketAddr::V4(s)) => {
            (0x0800_u16, ipv4(c.ip().octets(), s.ip().octets(), payload, segment))
        }
        (SocketAddr::V6(c), SocketAddr::V6(s)) => {
            (0x86dd, ipv6(c.ip().octets(), s.ip().octets(), payload, segment))
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
            return Err(io::Error::other("client and service must both be IPv4 or both be IPv6"));
        }
    };
    let mut frame = [&destination[..], &source, &ethertype.to_be_bytes()].concat();
    frame.append(&mut packet);
    frame.resize(frame.len().max(60), 0);
    Ok(frame)
}

/// The frame with the tags of `vlan`: a service tag outside where there are two (802.1ad), ordinary ones otherwise.
#[must_use]
pub fn tagged(mut frame: Vec<u8>, vlan: Vlan) -> Vec<u8> {
    let [outer, inner] = vlan.ids();
    let tag = |kind: u16, id: u16| [kind.to_be_bytes(), id.to_be_bytes()].concat();
    let tags = match (outer, inner) {
        (0, 0) => Vec::new(),
        (0, one) => tag(0x8100, one),
        (outer, inner) => [tag(0x88a8, outer), tag(0x8100, inner)].concat(),
    };
    frame.splice(12..12, tags);
    frame
}

fn protocol(payload: Payload, v6: bool) -> u8 {
    match (payload, v6) {
        (Payload::Tcp { .. }, _) => 6,
        (Payload::Udp, _) => 17,
        (Payload::Echo, false) => 1,
        (Payload::Echo, true) => 58,
    }
}

/// The segment with an empty checksum field.
fn segment(from: u16, to: u16, payload: Payload, v6: bool) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    match payload {
        Payload::Tcp { flags } => {
            let window = 0xffff_u16.to_be_bytes();
            let rest = [0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, flags, window[0], window[1], 0, 0, 0, 0];
            [&ports[..], &rest].concat()
        }
        Payload::Udp => [&ports[..], &[0, 8, 0, 0]].concat(),
        Payload::Echo => vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1],
    }
}

/// Where the checksum lies in the segment.
fn checksum_at(payload: Payload) -> usize {
    match payload {
        Payload::Tcp { .. } => 16,
        Payload::Udp => 6,
        Payload::Echo => 2,
    }
}

fn ipv4(from: [u8; 4], to: [u8; 4], payload: Payload, mut segment: Vec<u8>) -> Vec<u8> {
    let number = protocol(payload, false);
    let length = u16::try_from(20 + segment.len()).expect("a segment without data is short").to_be_bytes();
    let pseudo = match payload {
        Payload::Echo => Vec::new(),
        Payload::Tcp { .. } | Payload::Udp => [&from[..], &to, &[0, number, 0, segment.len() as u8]].concat(),
    };
    seal(&mut segment, checksum_at(payload), &pseudo);
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, number, 0, 0];
    header.extend([from, to].concat());
    seal(&mut header, 10, &[]);
    [header, segment].concat()
}

fn ipv6(from: [u8; 16], to: [u8; 16], payload: Payload, mut segment: Vec<u8>) -> Vec<u8> {
    let number = protocol(payload, true);
    let length = segment.len() as u8;
    let pseudo = [&from[..], &to, &[0, 0, 0, length, 0, 0, 0, number]].concat();
    seal(&mut segment, checksum_at(payload), &pseudo);
    [&[0x60, 0, 0, 0, 0, length, number, 64], &from[..], &to, &segment].concat()
}

/// Writes the Internet checksum (RFC 1071) of `pseudo` and `data` into `data`.
fn seal(data: &mut [u8], at: usize, pseudo: &[u8]) {
    let sum: u32 = [pseudo, data].iter().flat_map(|part| part.chunks(2)).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    data[at..at + 2].copy_from_slice(&(!folded as u16).to_be_bytes());
}

fn word(pair: &[u8]) -> u32 {
    u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use farm_common::parse::Ethernet;

    use super::*;

    /// Frames built by scapy 2.5 with the same fields.
    #[test]
    fn frames_equal_those_of_another_builder() {
        let (v4, v6) = (("10.77.0.2", "10.77.0.100"), ("[fd77::2]", "[fd77::100]"));
        for ((client, service), port, payload, expected) in [
            (
                v4,
                8080,
                Payload::Tcp { flags: SYN },
                "02000000000102000000000208004500002800004000400625d10a4d00020a4d00649c401f9000000001000000005002ffffdf110000000000000000",
            ),
            (
                v4,
                53,
                Payload::Udp,
                "02000000000102000000000208004500001c00004000401125d20a4d00020a4d00649c40003500084e69000000000000000000000000000000000000",
            ),
            (
                v4,
                0,
                Payload::Echo,
                "02000000000102000000000208004500001c00004000400125e20a4d00020a4d00640800f7fd00010001000000000000000000000000000000000000",
            ),
            (
                v6,
                8080,
                Payload::Tcp { flags: ACK },
                "02000000000102000000000286dd6000000000140640fd770000000000000000000000000002fd7700000000000000000000000001009c401f9000000001000000005010fffff8110000",
            ),
            (
                v6,
                0,
                Payload::Echo,
                "02000000000102000000000286dd6000000000083a40fd770000000000000000000000000002fd770000000000000000000000000100800083c900010001",
            ),
        ] {
            let client = format!("{client}:40000").parse().unwrap();
            let service = format!("{service}:{port}").parse().unwrap();
            let frame =
                synthetic_frame([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], client, service, payload).unwrap();
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{payload:?}");
        }
    }

    #[test]
    fn tags_come_behind_the_addresses_and_read_back() {
        let (client, service) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let plain = synthetic_frame([2; 6], [4; 6], client, service, Payload::Udp).unwrap();
        for vlan in ["0", "30", "100.30"].map(|text| text.parse::<Vlan>().unwrap()) {
            let frame = tagged(plain.clone(), vlan);
            let read = Ethernet::parse(&frame[..]).unwrap();
            assert_eq!((read.vlan, read.ethertype), (vlan, 0x0800));
            assert_eq!((&frame[..12], &frame[read.payload()..]), (&plain[..12], &plain[14..]));
        }
    }

    #[test]
    fn families_must_agree() {
        let (v4, v6) = ("10.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert!(synthetic_frame([2; 6], [2; 6], v4, v6, Payload::Udp).is_err());
    }
}
