//! Frames as the witness reads them: only what is judged. Not the parser of the filter: a second opinion.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::bytes::{be16, be32, mac};
use super::icmp::Icmp;
use super::neighbour::Neighbour;
use super::packet::{Packet, protocol};

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::topology::mac_text(self.0))
    }
}

/// An Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Sender.
    pub source: Mac,
    /// Receiver.
    pub destination: Mac,
    /// What it carries.
    pub content: Content,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP datagram: source and destination.
    Udp(SocketAddr, SocketAddr),
    /// An ICMP or ICMPv6 message.
    Icmp(Icmp),
    /// ARP for IPv4, or neighbour discovery.
    Neighbour(Neighbour),
    /// Anything else, later fragments included.
    Other,
}

/// The header of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// The flag byte.
    pub flags: u8,
}

impl Segment {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// Are exactly `set` set among SYN, RST, ACK?
    #[must_use]
    pub fn is(&self, set: u8) -> bool {
        self.flags & (Self::SYN | Self::RST | Self::ACK) == set
    }
}

impl Frame {
    /// Reads a frame; `None` if it is too short for Ethernet.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (destination, source) = (mac(bytes, 0)?, mac(bytes, 6)?);
        let content = match be16(bytes, 12)? {
            0x0800 => Packet::v4(&bytes[14..]).and_then(|packet| content(&packet)),
            0x86dd => Packet::v6(&bytes[14..]).and_then(|packet| content(&packet)),
            0x0806 => Neighbour::arp(&bytes[14..]).map(Content::Neighbour),
            _ => None,
        };
        Some(Self { source, destination, content: content.unwrap_or(Content::Other) })
    }

    /// The address that it is for; `None` where that was not read, and where neighbours are asked for and told.
    #[must_use]
    pub fn destination_address(&self) -> Option<IpAddr> {
        match self.content {
            Content::Tcp(segment) => Some(segment.destination.ip()),
            Content::Udp(_, destination) => Some(destination.ip()),
            Content::Icmp(icmp) => Some(icmp.destination),
            Content::Neighbour(_) | Content::Other => None,
        }
    }
}

fn content(packet: &Packet<'_>) -> Option<Content> {
    match (packet.protocol, packet.source.is_ipv4()) {
        (protocol::TCP, _) => tcp(packet).map(Content::Tcp),
        (protocol::UDP, _) => packet.ends().map(|(source, destination)| Content::Udp(source, destination)),
        (protocol::ICMPV6, false) => Neighbour::discovery(packet)
            .map(Content::Neighbour)
            .or_else(|| Icmp::read(packet).map(Content::Icmp)),
        (protocol::ICMP, true) => Icmp::read(packet).map(Content::Icmp),
        _ => None,
    }
}

fn tcp(packet: &Packet<'_>) -> Option<Segment> {
    let (source, destination) = packet.ends()?;
    Some(Segment {
        source,
        destination,
        sequence: be32(packet.body, 4)?,
        acknowledgement: be32(packet.body, 8)?,
        flags: *packet.body.get(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests as packet;
    use super::*;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;

    fn frame(ether_type: u16, body: &[u8]) -> Vec<u8> {
        [&MACS[..], &ether_type.to_be_bytes(), body].concat()
    }

    fn content(ether_type: u16, body: &[u8]) -> Content {
        Frame::parse(&frame(ether_type, body)).expect("long enough").content
    }

    #[test]
    fn a_syn_is_read_behind_options_and_extension_headers() {
        let tcp = [0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x02];
        for (ether_type, body, source, destination) in [
            (IPV4, packet::v4(6, 0, &tcp), "10.0.0.1:40000", "10.0.0.2:80"),
            (IPV6, packet::v6(6, &tcp), "[fd00::1]:40000", "[fd00::2]:80"),
            (IPV6, packet::extended(6, &tcp, 1), "[fd00::1]:40000", "[fd00::2]:80"),
        ] {
            let read = Frame::parse(&frame(ether_type, &body)).expect("long enough");
            let Content::Tcp(segment) = read.content else { panic!("{read:?}") };
            assert_eq!(segment.source, source.parse().expect("address"));
            assert_eq!(segment.destination, destination.parse().expect("address"));
            assert_eq!((segment.sequence, segment.acknowledgement), (7, 9));
            assert!(segment.is(Segment::SYN) && !segment.is(Segment::SYN | Segment::ACK));
            assert_eq!(read.source, Mac([2, 0, 0, 0, 0, 2]));
            assert_eq!(read.destination_address(), Some(segment.destination.ip()));
        }
    }

    #[test]
    fn later_fragments_have_no_ports() {
        assert_eq!(content(IPV4, &packet::v4(17, 0x0010, &[0; 8])), Content::Other);
        assert_eq!(content(IPV6, &packet::extended(17, &[0; 8], 0x0010)), Content::Other);
    }

    #[test]
    fn a_message_of_the_other_family_is_none() {
        assert!(matches!(content(IPV4, &packet::v4(1, 0, &[8; 8])), Content::Icmp(_)));
        assert!(matches!(content(IPV6, &packet::v6(58, &[128; 8])), Content::Icmp(_)));
        assert_eq!(content(IPV4, &packet::v4(58, 0, &[128; 8])), Content::Other);
        assert_eq!(content(IPV6, &packet::v6(1, &[8; 8])), Content::Other);
    }

    #[test]
    fn neighbours_are_told_from_other_messages() {
        let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
        for body in [packet::v6(58, &solicitation), packet::extended(58, &solicitation, 1)] {
            assert!(matches!(content(IPV6, &body), Content::Neighbour(_)), "{body:?}");
        }
        let read = Frame::parse(&frame(IPV6, &packet::v6(58, &solicitation))).expect("long enough");
        assert_eq!(read.destination_address(), None);
    }

    #[test]
    fn no_truncation_panics() {
        let arp = [0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let quoting = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &packet::extended(6, &[0; 20], 1)].concat();
        let advertisement = [&[136, 0, 0, 0, 0x40, 0, 0, 0][..], &[0xfd; 16], &[2, 1, 2, 0, 0, 0, 0, 2]];
        for whole in [
            frame(IPV4, &packet::v4(6, 0, &[0; 20])),
            frame(0x0806, &arp),
            frame(IPV6, &packet::extended(6, &[0; 20], 1)),
            frame(IPV6, &packet::v6(58, &quoting)),
            frame(IPV6, &packet::v6(58, &advertisement.concat())),
        ] {
            for length in 0..=whole.len() {
                assert_eq!(Frame::parse(&whole[..length]).is_some(), length >= 14);
            }
        }
    }
}
