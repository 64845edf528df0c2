//! ICMP and ICMPv6, in one vocabulary.

use std::net::{IpAddr, SocketAddr};

use super::packet::{Packet, protocol};

/// An ICMP or ICMPv6 message that is not about neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// What it says.
    pub message: Message,
}

/// What an ICMP message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are you there?
    EchoRequest,
    /// I am.
    EchoReply,
    /// This packet was too big for a link (RFC 1191, RFC 8201).
    TooBig(Option<Quoted>),
    /// Something else is wrong with this packet.
    Error(Option<Quoted>),
    /// Where routers are, and who listens to which group: what machines say by themselves.
    Unasked,
    /// Anything else.
    Other,
}

/// The packet that an error quotes: a TCP segment or a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who sent it, and is now told.
    pub source: SocketAddr,
    /// Whom it did not reach.
    pub destination: SocketAddr,
}

impl Icmp {
    /// Reads a message; `None` if it is cut off.
    pub(super) fn read(packet: &Packet<'_>) -> Option<Self> {
        let (kind, code) = (*packet.body.first()?, *packet.body.get(1)?);
        let message =
            if packet.source.is_ipv4() { v4(kind, code, packet.body) } else { v6(kind, packet.body) };
        Some(Self { source: packet.source, destination: packet.destination, message })
    }
}

/// RFC 792, RFC 1256.
fn v4(kind: u8, code: u8, body: &[u8]) -> Message {
    let quoted = || quoted(Packet::v4(body.get(8..)?)?);
    match (kind, code) {
        (0, _) => Message::EchoReply,
        (3, 4) => Message::TooBig(quoted()),
        (3 | 4 | 5 | 11 | 12, _) => Message::Error(quoted()),
        (8, _) => Message::EchoRequest,
        (9 | 10, _) => Message::Unasked,
        _ => Message::Other,
    }
}

/// RFC 4443, RFC 4861, RFC 2710, RFC 3810: errors have no high bit.
fn v6(kind: u8, body: &[u8]) -> Message {
    let quoted = || quoted(Packet::v6(body.get(8..)?)?);
    match kind {
        2 => Message::TooBig(quoted()),
        0..128 => Message::Error(quoted()),
        128 => Message::EchoRequest,
        129 => Message::EchoReply,
        130..=134 | 143 => Message::Unasked,
        _ => Message::Other,
    }
}

fn quoted(packet: Packet<'_>) -> Option<Quoted> {
    let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP);
    let (source, destination) = packet.ends().filter(|_| has_ports)?;
    Some(Quoted { source, destination })
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests as packet;
    use super::*;

    fn message(whole: &[u8]) -> Message {
        let read = if whole[0] >> 4 == 4 { Packet::v4(whole) } else { Packet::v6(whole) };
        Icmp::read(&read.expect("a packet")).expect("a message").message
    }

    fn quoting(kind: u8, code: u8, inner: &[u8]) -> Vec<u8> {
        [&[kind, code, 0, 0, 0, 0, 5, 0][..], inner].concat()
    }

    #[test]
    fn kinds_are_those_of_each_family() {
        let v4 = |kind| message(&packet::v4(1, 0, &[kind, 0, 0, 0]));
        let v6 = |kind| message(&packet::v6(58, &[kind, 0, 0, 0]));
        assert_eq!([v4(8), v6(128)], [Message::EchoRequest; 2]);
        assert_eq!([v4(0), v6(129)], [Message::EchoReply; 2]);
        assert_eq!([v4(10), v6(133), v6(143)], [Message::Unasked; 3]);
        assert_eq!([v4(11), v6(3), v6(8), v6(0)], [Message::Error(None); 4]);
        assert_eq!([v4(128), v6(200)], [Message::Other; 2]);
    }

    #[test]
    fn errors_name_the_flow_that_they_are_about() {
        let ports = [0, 80, 0x9c, 0x40];
        let quoted = |source: &str, destination: &str| {
            let at = |text: &str| text.parse().expect("address and port");
            Some(Quoted { source: at(source), destination: at(destination) })
        };
        let inner = packet::v4(6, 0, &ports);
        let about = quoted("10.0.0.1:80", "10.0.0.2:40000");
        assert_eq!(message(&packet::v4(1, 0, &quoting(3, 4, &inner))), Message::TooBig(about));
        assert_eq!(message(&packet::v4(1, 0, &quoting(3, 3, &inner))), Message::Error(about));
        let about = quoted("[fd00::1]:80", "[fd00::2]:40000");
        for inner in [packet::v6(17, &ports), packet::extended(17, &ports, 1)] {
            assert_eq!(message(&packet::v6(58, &quoting(2, 0, &inner))), Message::TooBig(about));
            assert_eq!(message(&packet::v6(58, &quoting(1, 4, &inner))), Message::Error(about));
        }
    }

    #[test]
    fn a_quote_without_ports_is_none() {
        for inner in [packet::v6(58, &[128; 8]), packet::v6(6, &[0; 3]), packet::extended(6, &[0; 8], 9)] {
            assert_eq!(message(&packet::v6(58, &quoting(2, 0, &inner))), Message::TooBig(None));
        }
        let later = packet::v4(6, 1, &[0; 8]);
        assert_eq!(message(&packet::v4(1, 0, &quoting(3, 4, &later))), Message::TooBig(None));
    }
}
