//! From frames to acceptances: which node let what in, by its answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::frame::{Content, Segment};
use super::icmp::Message;
use super::tap::{Heading, Side, Sighting};
use super::time::BootTime;
use crate::names::Place;

/// A node answered for a virtual IP: its filter let the question in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// When the answer left.
    pub at: BootTime,
    /// Who answered.
    pub node: Place,
    /// To whom (port 0 for ICMP).
    pub client: SocketAddr,
    /// For which service (port 0 for ICMP).
    pub service: SocketAddr,
    /// What was answered.
    pub kind: Kind,
}

/// What an answer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The first SYN-ACK of this node for the connection that the client opened with this sequence number. The
    /// kernel repeats SYN-ACKs by itself, so later ones prove nothing.
    Opened(u32),
    /// A RST to a segment that no socket wanted, or to a SYN at a closed port.
    Refused,
    /// A UDP datagram.
    Datagram,
    /// An ICMP or ICMPv6 message.
    Icmp,
    /// A segment of a connection that acknowledges what the client sent before this sequence number: proves who holds
    /// the socket, not that something was let in just now.
    Established(u32),
}

impl Kind {
    /// Was something let in at this instant?
    #[must_use]
    pub fn is_entry(self) -> bool {
        match self {
            Self::Opened(_) | Self::Refused | Self::Datagram | Self::Icmp => true,
            Self::Established(_) => false,
        }
    }
}

/// The acceptances among `sightings`, which are in order of time: answers that left a node's cable.
#[must_use]
pub fn acceptances(sightings: &[Sighting], vips: &[IpAddr]) -> Vec<Acceptance> {
    let mut opened = BTreeSet::new();
    let answers = sightings.iter().filter(|s| s.side == Side::Cable && s.heading == Heading::Leaving);
    let answers = answers.filter(|s| matches!(s.place, Place::Node(_)));
    let read = answers.filter_map(|s| {
        let (service, client, kind) = answer(s)?;
        vips.contains(&service.ip()).then_some(Acceptance { at: s.at, node: s.place, client, service, kind })
    });
    read.filter(|a| match a.kind {
        Kind::Opened(isn) => opened.insert((a.node, a.client, a.service, isn)),
        Kind::Refused | Kind::Datagram | Kind::Icmp | Kind::Established(_) => true,
    })
    .collect()
}

/// Service, client and kind of an answer; `None` for what proves nothing.
fn answer(sighting: &Sighting) -> Option<(SocketAddr, SocketAddr, Kind)> {
    match sighting.frame.content {
        Content::Tcp(segment) => Some((segment.source, segment.destination, tcp_answer(&segment)?)),
        Content::Udp(source, destination) => Some((source, destination, Kind::Datagram)),
        Content::Icmp(icmp) => {
            let kind = icmp_answer(icmp.message)?;
            Some((SocketAddr::new(icmp.source, 0), SocketAddr::new(icmp.destination, 0), kind))
        }
        Content::Neighbour(_) | Content::Other => None,
    }
}

/// What a machine sends by itself is no answer.
fn icmp_answer(message: Message) -> Option<Kind> {
    match message {
        Message::EchoRequest | Message::Unasked => None,
        Message::EchoReply | Message::TooBig(_) | Message::Error(_) | Message::Other => Some(Kind::Icmp),
    }
}

fn tcp_answer(segment: &Segment) -> Option<Kind> {
    const SYN_ACK: u8 = Segment::SYN | Segment::ACK;
    const RST_ACK: u8 = Segment::RST | Segment::ACK;
    match segment.flags & (Segment::SYN | Segment::RST | Segment::ACK) {
        SYN_ACK => Some(Kind::Opened(segment.acknowledgement.wrapping_sub(1))),
        // RFC 9293 §3.10.7.1: to an ACK for no socket a RST without ACK, to a SYN one with sequence number 0.
        Segment::RST => Some(Kind::Refused),
        RST_ACK if segment.sequence == 0 => Some(Kind::Refused),
        // A socket that its owner closed in a hurry: nothing was let in for it.
        RST_ACK => None,
        Segment::ACK => Some(Kind::Established(segment.acknowledgement)),
        _ => None,
    }
}

/// Is it a first segment of a connection to `vip`?
pub(super) fn is_syn_to(sighting: &Sighting, vip: IpAddr) -> bool {
    let Content::Tcp(segment) = sighting.frame.content else { return false };
    segment.is(Segment::SYN) && segment.destination.ip() == vip
}
