//! What both families say of a packet, and the flow in it.

use super::ipv6::QUOTED_EXTENSIONS;
use super::{ipv4, ipv6};
use crate::bytes::{Bytes, Window};
use crate::flow::{Address, Family, Flow, Kind, protocol};
use crate::fragment::{Piece, Ports, Whole};
use crate::verdict::Reason;

/// The header of a packet, extension headers included.
///
/// In C's order, small fields first: in a `Result` the error then does not lie on half a word of an address. LLVM would
/// keep such a word in halves, and a word that is stored in halves and loaded whole stalls the processor.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where the payload starts in the frame.
    pub payload: usize,
    /// Where the packet ends, as its header says: behind it there may be padding, which the stack cuts off. The frame may
    /// end before, and does for its linear part.
    pub end: usize,
    /// Version of the protocol.
    pub family: Family,
    /// Type of service (IPv4) or traffic class (IPv6): DSCP and ECN.
    pub class: u8,
    /// Time to live (IPv4) or hop limit (IPv6).
    pub hops: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Offset of this fragment in units of eight bytes.
    pub fragment_offset: u16,
    /// More fragments follow.
    pub more_fragments: bool,
    /// What the fragments of one packet have in common; 0 where IPv6 has no fragment header.
    pub id: u32,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
}

impl Header {
    /// The flow that a packet for a virtual IP belongs to.
    ///
    /// # Errors
    /// The reason for which such a packet is dropped.
    #[inline(always)]
    pub fn flow(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        if self.more_fragments || self.fragment_offset != 0 {
            return self.fragment(frame);
        }
        match self.protocol {
            protocol::TCP => self.segment(frame),
            protocol::UDP => Ok(self.with_ports(self.ports(frame)?, Kind::Datagram)),
            number if number == self.icmp() => self.message(frame),
            _ => Err(Reason::Protocol),
        }
    }

    /// Number of the ICMP that goes with the family.
    #[inline(always)]
    fn icmp(&self) -> u8 {
        match self.family {
            Family::V4 => protocol::ICMP,
            Family::V6 => protocol::ICMPV6,
        }
    }

    /// The `N` bytes at the start of the payload. They lie in the packet, and with them all headers before.
    #[inline(always)]
    fn head<const N: usize, B: Bytes + ?Sized>(&self, frame: &B) -> Result<B::Window<N>, Reason> {
        let start = self.start();
        if start + N > self.end {
            return Err(Reason::Malformed);
        }
        frame.window::<N>(start).ok_or(Reason::Malformed)
    }

    #[inline(always)]
    fn start(&self) -> usize {
        match self.family {
            Family::V4 => self.payload & ipv4::OFFSETS,
            Family::V6 => self.payload & ipv6::OFFSETS,
        }
    }

    #[inline(always)]
    fn segment(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        let tcp = self.head::<TCP, _>(frame)?;
        let kind = if opens(tcp) { Kind::Syn } else { Kind::Segment };
        Ok(self.with_ports((tcp.u16::<0>(), tcp.u16::<2>()), kind))
    }

    /// A fragment goes by address until [`Header::piece`] says more. The rules of RFC 1858 §3 and RFC 3128 keep a SYN
    /// from hiding in one.
    #[inline(always)]
    fn fragment(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        // Nothing else shows that the headers end in the packet.
        self.head::<1, _>(frame)?;
        match (self.protocol, self.fragment_offset) {
            (protocol::TCP, 0) if opens(self.head::<TCP, _>(frame)?) => Err(Reason::FragmentedSyn),
            (protocol::TCP, 1) => Err(Reason::FragmentedSyn),
            (protocol::UDP, 0) if self.ports(frame).is_err() => Err(Reason::Malformed),
            (protocol::TCP, _) => Ok(self.without_ports(Kind::TcpFragment)),
            (protocol::UDP, _) => Ok(self.without_ports(Kind::DatagramFragment)),
            (number, _) if number == self.icmp() => Ok(self.without_ports(Kind::DatagramFragment)),
            _ => Err(Reason::Protocol),
        }
    }

    /// Of which packet this fragment is, and of which ports if it is the first; `None` for protocols without ports.
    #[inline(always)]
    pub fn piece(&self, frame: &(impl Bytes + ?Sized)) -> Option<Piece> {
        if !matches!(self.protocol, protocol::TCP | protocol::UDP) {
            return None;
        }
        let packet = Whole::new(&self.source, &self.destination, self.id, self.protocol);
        if self.fragment_offset != 0 {
            return Some(Piece::Later(packet));
        }
        let (client, service) = self.ports(frame).ok()?;
        Some(Piece::First(packet, Ports { client, service }))
    }

    /// Echo requests, and errors about what the virtual IP sent: destination unreachable (with "fragmentation needed"),
    /// time exceeded, parameter problem (RFC 792); the same and packet too big (RFC 4443).
    #[inline(always)]
    fn message(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        let message = self.head::<8, _>(frame)?;
        match (self.family, message.u8::<0>()) {
            (Family::V4, 8) | (Family::V6, 128) => Ok(self.without_ports(Kind::Echo)),
            (Family::V4, 3 | 11 | 12) => self.error(ipv4(frame, self.start() + 8)?, frame),
            (Family::V6, 1..=4) => self.error(ipv6::<QUOTED_EXTENSIONS>(frame, self.start() + 8)?, frame),
            _ => Err(Reason::Protocol),
        }
    }

    /// The flow of the packet that an ICMP error quotes: sent by the virtual IP, so seen in reverse. A later fragment
    /// has no ports: it goes by address, as the fragments of its answers do.
    #[inline(always)]
    fn error(&self, quoted: Self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        // Routers quote the beginning of a packet, with the length that it had.
        let quoted = Self { end: self.end, ..quoted };
        if quoted.source != self.destination {
            return Err(Reason::Malformed);
        }
        let (number, (service_port, client_port)) = match quoted.protocol {
            _ if quoted.fragment_offset != 0 => (self.icmp(), (0, 0)),
            protocol::TCP | protocol::UDP => (quoted.protocol, quoted.ports(frame)?),
            number if number == self.icmp() => (number, (0, 0)),
            _ => return Err(Reason::Protocol),
        };
        // Without ports nothing else shows that the quoted header is part of the error.
        if quoted.start() > self.end {
            return Err(Reason::Malformed);
        }
        Ok(Flow {
            client: quoted.destination,
            vip: self.destination,
            protocol: number,
            client_port,
            service_port,
            kind: Kind::Error,
        })
    }

    /// Source and destination port.
    #[inline(always)]
    fn ports(&self, frame: &(impl Bytes + ?Sized)) -> Result<(u16, u16), Reason> {
        let ports = self.head::<4, _>(frame)?;
        Ok((ports.u16::<0>(), ports.u16::<2>()))
    }

    #[inline(always)]
    fn with_ports(&self, (client_port, service_port): (u16, u16), kind: Kind) -> Flow {
        Flow { client_port, service_port, ..self.without_ports(kind) }
    }

    #[inline(always)]
    fn without_ports(&self, kind: Kind) -> Flow {
        let (client, vip) = (self.source, self.destination);
        Flow { client, vip, protocol: self.protocol, client_port: 0, service_port: 0, kind }
    }
}

/// As much of a TCP header as holds its flags.
const TCP: usize = 14;

/// SYN without ACK and without RST asks for a new connection.
#[inline(always)]
fn opens(tcp: impl Window<TCP>) -> bool {
    const RST: u8 = 0x04;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    tcp.u8::<13>() & (SYN | ACK | RST) == SYN
}
