//! A second look at a frame: slow, with nothing in common with the parser but the standards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use farm_common::flow::protocol;

/// What a frame is about, for somebody who looks for addresses only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// A packet to this address.
    Packet(IpAddr),
    /// Somebody asks for this address.
    Question {
        /// Asked for.
        target: IpAddr,
        /// Who asks.
        source: IpAddr,
    },
    /// Neither, or too short to say.
    Nothing,
}

impl About {
    /// Of this frame, which has no tags.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        let Some(rest) = frame.get(14..) else { return Self::Nothing };
        let about = match frame[12..14] {
            [0x08, 0x00] => address4(rest, 16).map(Self::Packet),
            [0x08, 0x06] => arp(rest),
            [0x86, 0xdd] => solicitation(rest).or_else(|| address6(rest, 24).map(Self::Packet)),
            _ => None,
        };
        about.unwrap_or(Self::Nothing)
    }

    /// The address that it is for, `None` when it announces rather than asks.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match *self {
            Self::Packet(address) => Some(address),
            Self::Question { target, source } => (target != source).then_some(target),
            Self::Nothing => None,
        }
    }
}

/// What a frame says before its payload, but for the addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The VLANs that it is in, outermost first.
    pub vlans: Vec<u16>,
    /// Where the ethertype of the payload is, behind at most two tags.
    pub ethertype_at: usize,
}

impl Envelope {
    /// Of this frame; `None` when it ends before.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let mut it = Self { vlans: Vec::new(), ethertype_at: 12 };
        for _ in 0..2 {
            let [kind @ .., high, low] = *frame.get(it.ethertype_at..)?.first_chunk::<4>().unwrap_or(&[0; 4]);
            if matches!(kind, [0x81 | 0x91, 0] | [0x88, 0xa8]) {
                it.ethertype_at += 4;
                let vlan = u16::from_be_bytes([high & 0xf, low]);
                it.vlans.extend((vlan != 0).then_some(vlan));
            }
        }
        frame.get(it.ethertype_at..it.ethertype_at + 2)?;
        Some(it)
    }

    /// The frame without its tags.
    #[must_use]
    pub fn untagged(frame: &[u8]) -> Vec<u8> {
        match Self::of(frame) {
            Some(it) => [&frame[..12], &frame[it.ethertype_at..]].concat(),
            None => frame.to_vec(),
        }
    }
}

fn address4(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn address6(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

fn arp(packet: &[u8]) -> Option<About> {
    let request = packet.get(..8)? == [0, 1, 8, 0, 6, 4, 0, 1];
    let (target, source) = (address4(packet, 24)?, address4(packet, 14)?);
    request.then_some(About::Question { target, source })
}

fn solicitation(packet: &[u8]) -> Option<About> {
    let asks = packet.get(6) == Some(&protocol::ICMPV6) && packet.get(40) == Some(&135);
    let (target, source) = (address6(packet, 48)?, address6(packet, 8)?);
    // An ordinary packet to a virtual IP may be a solicitation for something else: that is a packet.
    let ours = crate::case::VIPS.iter().any(|(_, vip)| *vip == target);
    (asks && ours).then_some(About::Question { target, source })
}

/// An IP packet as a host sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Protocol of the payload.
    pub protocol: u8,
    /// In units of eight bytes.
    pub fragment_offset: u16,
    /// More fragments follow.
    pub more_fragments: bool,
    /// What follows the headers, as far as it is there.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` for what is no packet without tags, or whose headers do not lie in the frame.
    #[must_use]
    pub fn of(frame: &'a [u8]) -> Option<Self> {
        let rest = frame.get(14..)?;
        match frame[12..14] {
            [0x08, 0x00] => Self::v4(rest),
            [0x86, 0xdd] => Self::v6(rest),
            _ => None,
        }
    }

    fn v4(packet: &'a [u8]) -> Option<Self> {
        let header = packet.get(..20)?;
        let length = usize::from(header[0] & 0xf) * 4;
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        let sound = header[0] >> 4 == 4 && length >= 20;
        // Nothing belongs to it beyond its total length, unless the kernel made it too long to say.
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let packet = if total == 0 { packet } else { &packet[..total.min(packet.len())] };
        let payload = packet.get(length..).filter(|_| sound)?;
        let (fragment_offset, more_fragments) = (fragment & 0x1fff, fragment & 0x2000 != 0);
        Some(Self { protocol: header[9], fragment_offset, more_fragments, payload })
    }

    fn v6(packet: &'a [u8]) -> Option<Self> {
        let (header, payload) = packet.split_at_checked(40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        // The length counts what follows the header. A jumbogram, which begins with hop-by-hop options, has none here.
        let length = usize::from(header[4]) << 8 | usize::from(header[5]);
        let payload = match (length, header[6]) {
            (0, 0) => payload,
            _ => &payload[..length.min(payload.len())],
        };
        let mut it = Self { protocol: header[6], fragment_offset: 0, more_fragments: false, payload };
        while matches!(it.protocol, 0 | 43 | 44 | 60 | 135) && it.fragment_offset == 0 {
            it = it.behind_extension()?;
        }
        Some(it)
    }

    fn behind_extension(&self) -> Option<Self> {
        let [next, length, ..] = *self.payload else { return None };
        if self.protocol != protocol::FRAGMENT {
            let payload = self.payload.get((usize::from(length) + 1) * 8..)?;
            return Some(Self { protocol: next, payload, ..*self });
        }
        let (fragment, payload) = self.payload.split_at_checked(8)?;
        let field = u16::from_be_bytes([fragment[2], fragment[3]]);
        let more_fragments = self.more_fragments || field & 1 != 0;
        Some(Self { protocol: next, fragment_offset: field >> 3, more_fragments, payload })
    }

    /// Is it a part of a packet only?
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment_offset != 0 || self.more_fragments
    }

    /// Does it ask for a connection, as far as can be seen?
    #[must_use]
    pub fn opens(&self) -> bool {
        let flags =
            self.payload.get(13).filter(|_| self.protocol == protocol::TCP && self.fragment_offset == 0);
        flags.is_some_and(|flags| flags & 0b1_0110 == 0b10)
    }

    /// The port it is sent to.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let port = self.payload.get(2..4).filter(|_| !self.is_fragment())?;
        Some(u16::from_be_bytes([port[0], port[1]]))
    }
}

/// The sum of RFC 1071 over whole words; 0xffff when it is right, the checksum included.
#[must_use]
pub fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
    let folded = (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16));
    folded as u16
}

/// The sum over the header of an IPv4 packet in a frame without tags.
#[must_use]
pub fn header_sum(frame: &[u8]) -> Option<u16> {
    let length = usize::from(frame.get(14)? & 0xf) * 4;
    Some(sum(&[frame.get(14..14 + length)?]))
}

/// The sum over the ICMPv6 message, its pseudo header included, of a packet without extension headers.
#[must_use]
pub fn icmp6_sum(frame: &[u8]) -> Option<u16> {
    let packet = frame.get(14..)?;
    let length = packet.get(4..6)?;
    let message = packet.get(40..40 + usize::from(u16::from_be_bytes([length[0], length[1]])))?;
    Some(sum(&[packet.get(8..40)?, length, &[0, protocol::ICMPV6], message]))
}
