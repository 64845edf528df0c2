//! Frames as the witness reads them: only what is judged. Not the parser of the filter: a second opinion.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

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
    Udp(SocketAddrV4, SocketAddrV4),
    /// An ICMP message: type, source, destination.
    Icmp(u8, Ipv4Addr, Ipv4Addr),
    /// ARP for IPv4.
    Arp(Arp),
    /// Anything else, later fragments included.
    Other,
}

/// The header of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub source: SocketAddrV4,
    /// Receiver.
    pub destination: SocketAddrV4,
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

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 request, 2 reply.
    pub operation: u16,
    /// Hardware address of the sender.
    pub sender_mac: Mac,
    /// Address of the sender.
    pub sender: Ipv4Addr,
    /// Address that is asked for or told.
    pub target: Ipv4Addr,
}

impl Arp {
    /// A request.
    pub const REQUEST: u16 = 1;
    /// A reply.
    pub const REPLY: u16 = 2;
}

impl Frame {
    /// Reads a frame; `None` if it is too short for Ethernet.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (destination, source) = (mac(bytes, 0)?, mac(bytes, 6)?);
        let content = match be16(bytes, 12)? {
            0x0800 => ipv4(&bytes[14..]),
            0x0806 => arp(&bytes[14..]),
            _ => None,
        };
        Some(Self { source, destination, content: content.unwrap_or(Content::Other) })
    }

    /// The IPv4 address that it is for; `None` where that was not read.
    #[must_use]
    pub fn destination_address(&self) -> Option<Ipv4Addr> {
        match self.content {
            Content::Tcp(segment) => Some(*segment.destination.ip()),
            Content::Udp(_, destination) => Some(*destination.ip()),
            Content::Icmp(_, _, destination) => Some(destination),
            Content::Arp(_) | Content::Other => None,
        }
    }
}

fn ipv4(packet: &[u8]) -> Option<Content> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let later_fragment = be16(packet, 6)? & 0x1fff != 0;
    let (source, destination) = (ip(packet, 12)?, ip(packet, 16)?);
    let body = packet.get(header..)?;
    if later_fragment {
        return None;
    }
    match packet[9] {
        1 => Some(Content::Icmp(*body.first()?, source, destination)),
        6 => Some(Content::Tcp(tcp(body, source, destination)?)),
        17 => {
            let (from, to) = (be16(body, 0)?, be16(body, 2)?);
            Some(Content::Udp(SocketAddrV4::new(source, from), SocketAddrV4::new(destination, to)))
        }
        _ => None,
    }
}

fn tcp(body: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> Option<Segment> {
    Some(Segment {
        source: SocketAddrV4::new(source, be16(body, 0)?),
        destination: SocketAddrV4::new(destination, be16(body, 2)?),
        sequence: be32(body, 4)?,
        acknowledgement: be32(body, 8)?,
        flags: *body.get(13)?,
    })
}

fn arp(packet: &[u8]) -> Option<Content> {
    let ethernet_and_ipv4 = be16(packet, 0)? == 1 && be16(packet, 2)? == 0x0800;
    let read = || {
        Some(Arp {
            operation: be16(packet, 6)?,
            sender_mac: mac(packet, 8)?,
            sender: ip(packet, 14)?,
            target: ip(packet, 24)?,
        })
    };
    if ethernet_and_ipv4 { read().map(Content::Arp) } else { None }
}

fn mac(bytes: &[u8], at: usize) -> Option<Mac> {
    Some(Mac(bytes.get(at..at + 6)?.try_into().ok()?))
}

fn ip(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    be32(bytes, at).map(Ipv4Addr::from)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn frame(ether_type: u16, body: &[u8]) -> Vec<u8> {
        [&MACS[..], &ether_type.to_be_bytes(), body].concat()
    }

    fn ipv4_packet(protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
        let mut packet =
            vec![0x46, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 0];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend_from_slice(body);
        packet
    }

    #[test]
    fn a_syn_is_read_behind_ip_options() {
        let tcp = [0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x02];
        let read = Frame::parse(&frame(0x0800, &ipv4_packet(6, 0, &tcp))).expect("long enough");
        let Content::Tcp(segment) = read.content else { panic!("{read:?}") };
        assert_eq!(segment.source, "10.0.0.1:40000".parse().expect("address"));
        assert_eq!(segment.destination, "10.0.0.2:80".parse().expect("address"));
        assert_eq!((segment.sequence, segment.acknowledgement), (7, 9));
        assert!(segment.is(Segment::SYN) && !segment.is(Segment::SYN | Segment::ACK));
        assert_eq!(read.source, Mac([2, 0, 0, 0, 0, 2]));
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let read = Frame::parse(&frame(0x0800, &ipv4_packet(17, 0x0010, &[0; 8]))).expect("long enough");
        assert_eq!(read.content, Content::Other);
    }

    #[test]
    fn arp_is_read() {
        let body = [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 10, 0, 0, 100, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1];
        let Some(Content::Arp(arp)) = Frame::parse(&frame(0x0806, &body)).map(|f| f.content) else {
            panic!("no ARP")
        };
        assert_eq!((arp.operation, arp.sender), (Arp::REPLY, Ipv4Addr::new(10, 0, 0, 100)));
        assert_eq!(arp.target, Ipv4Addr::new(10, 0, 0, 1));
    }

    #[test]
    fn no_truncation_panics() {
        let tcp = frame(0x0800, &ipv4_packet(6, 0, &[0; 20]));
        let arp = frame(
            0x0806,
            &[0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        for whole in [tcp, arp] {
            for length in 0..=whole.len() {
                assert_eq!(Frame::parse(&whole[..length]).is_some(), length >= 14);
            }
        }
    }
}
