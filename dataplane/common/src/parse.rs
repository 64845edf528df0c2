//! Frame bytes to headers. Reads nothing twice and trusts no length field; IPv4 offsets stay below 256.

use crate::bytes::{Bytes, u16_at};
use crate::flow::{Address, Flow, Kind, protocol};
use crate::verdict::Reason;

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;

/// Most VLAN tags that are looked through (802.1ad).
const TAGS: usize = 2;
/// No offset in an IPv4 frame goes beyond this; tells the verifier so. (14 + 60 + 8 + 60 + 4 < 256.)
const OFFSET_MASK: usize = 0xff;

/// An Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// Destination MAC.
    pub destination: [u8; 6],
    /// Source MAC.
    pub source: [u8; 6],
    /// Ethertype behind the tags.
    pub ethertype: u16,
    /// Number of VLAN tags, at most two.
    pub tags: usize,
}

impl Ethernet {
    /// `None` when the frame is shorter than its header.
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized)) -> Option<Self> {
        let destination = frame.get::<6>(0)?;
        let source = frame.get::<6>(6)?;
        let mut ethertype = u16_at(frame, 12)?;
        let mut tags = 0;
        while tags < TAGS && matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
            tags += 1;
            ethertype = u16_at(frame, 12 + 4 * tags)?;
        }
        Some(Self { destination, source, ethertype, tags })
    }

    /// Where the payload starts.
    #[inline(always)]
    pub fn payload(&self) -> usize {
        ETHERNET + 4 * self.tags
    }
}

/// Destination of an IPv4 packet, wherever else the header may be wrong.
#[inline(always)]
pub fn ipv4_destination(frame: &(impl Bytes + ?Sized), start: usize) -> Option<[u8; 4]> {
    frame.get::<4>(start + 16)
}

/// Destination of an IPv6 packet.
#[inline(always)]
pub fn ipv6_destination(frame: &(impl Bytes + ?Sized), start: usize) -> Option<[u8; 16]> {
    frame.get::<16>(start + 24)
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 = request.
    pub operation: u16,
    /// Sender's MAC.
    pub sender_mac: [u8; 6],
    /// Sender's address; zero in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// Address asked for.
    pub target: [u8; 4],
}

impl Arp {
    /// `None` for anything but IPv4 over Ethernet.
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized), start: usize) -> Option<Self> {
        if frame.get::<6>(start)? != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        Some(Self {
            operation: u16_at(frame, start + 6)?,
            sender_mac: frame.get(start + 8)?,
            sender: frame.get(start + 14)?,
            target: frame.get(start + 24)?,
        })
    }

    /// The question, as a flow.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        let (client, vip) = (Address::V4(self.sender), Address::V4(self.target));
        Flow { client, vip, protocol: 0, client_port: 0, service_port: 0, kind: Kind::Arp }
    }
}

/// An IPv4 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4 {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// The former type-of-service byte.
    pub tos: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Offset of this fragment in units of eight bytes.
    pub fragment_offset: u16,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Where the payload starts in the frame.
    pub payload: usize,
}

impl Ipv4 {
    /// Reads the header at `start`.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    #[inline(always)]
    pub fn parse(frame: &(impl Bytes + ?Sized), start: usize) -> Result<Self, Reason> {
        let header: [u8; 20] = frame.get(start & OFFSET_MASK).ok_or(Reason::Malformed)?;
        let length = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || length < 20 {
            return Err(Reason::Malformed);
        }
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        Ok(Self {
            source: [header[12], header[13], header[14], header[15]],
            destination: [header[16], header[17], header[18], header[19]],
            tos: header[1],
            protocol: header[9],
            fragment_offset: fragment & 0x1fff,
            more_fragments: fragment & 0x2000 != 0,
            payload: start + length,
        })
    }

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
            protocol::ICMP => self.icmp(frame),
            _ => Err(Reason::Protocol),
        }
    }

    #[inline(always)]
    fn segment(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        let tcp = self.tcp(frame)?;
        let ports = (u16::from_be_bytes([tcp[0], tcp[1]]), u16::from_be_bytes([tcp[2], tcp[3]]));
        Ok(self.with_ports(ports, if opens(&tcp) { Kind::Syn } else { Kind::Segment }))
    }

    /// The TCP header up to the flags, read at once: the verifier does not see that one bound implies another.
    #[inline(always)]
    fn tcp(&self, frame: &(impl Bytes + ?Sized)) -> Result<[u8; 14], Reason> {
        frame.get(self.payload & OFFSET_MASK).ok_or(Reason::Malformed)
    }

    /// Fragments go by address only. The rules of RFC 1858 §3 and RFC 3128 keep a SYN from hiding in them.
    #[inline(always)]
    fn fragment(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        match (self.protocol, self.fragment_offset) {
            (protocol::TCP, 0) if opens(&self.tcp(frame)?) => Err(Reason::FragmentedSyn),
            (protocol::TCP, 1) => Err(Reason::FragmentedSyn),
            (protocol::TCP, _) => Ok(self.without_ports(Kind::TcpFragment)),
            (protocol::UDP | protocol::ICMP, _) => Ok(self.without_ports(Kind::DatagramFragment)),
            _ => Err(Reason::Protocol),
        }
    }

    #[inline(always)]
    fn icmp(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        let header: [u8; 8] = frame.get(self.payload & OFFSET_MASK).ok_or(Reason::Malformed)?;
        match header[0] {
            // Echo request.
            8 => Ok(self.without_ports(Kind::Echo)),
            // Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem.
            3 | 11 | 12 => self.embedded(frame),
            _ => Err(Reason::Protocol),
        }
    }

    /// The flow of the packet that an ICMP error quotes: sent by the virtual IP, so seen in reverse.
    #[inline(always)]
    fn embedded(&self, frame: &(impl Bytes + ?Sized)) -> Result<Flow, Reason> {
        let quoted = Self::parse(frame, (self.payload & OFFSET_MASK) + 8)?;
        if quoted.source != self.destination || quoted.fragment_offset != 0 {
            return Err(Reason::Malformed);
        }
        let (service_port, client_port) = match quoted.protocol {
            protocol::TCP | protocol::UDP => quoted.ports(frame)?,
            protocol::ICMP => (0, 0),
            _ => return Err(Reason::Protocol),
        };
        Ok(Flow {
            client: Address::V4(quoted.destination),
            vip: Address::V4(self.destination),
            protocol: quoted.protocol,
            client_port,
            service_port,
            kind: Kind::Error,
        })
    }

    /// Source and destination port.
    #[inline(always)]
    fn ports(&self, frame: &(impl Bytes + ?Sized)) -> Result<(u16, u16), Reason> {
        let [a, b, c, d] = frame.get(self.payload & OFFSET_MASK).ok_or(Reason::Malformed)?;
        Ok((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    #[inline(always)]
    fn with_ports(&self, (client_port, service_port): (u16, u16), kind: Kind) -> Flow {
        Flow { client_port, service_port, ..self.without_ports(kind) }
    }

    #[inline(always)]
    fn without_ports(&self, kind: Kind) -> Flow {
        let (client, vip) = (Address::V4(self.source), Address::V4(self.destination));
        Flow { client, vip, protocol: self.protocol, client_port: 0, service_port: 0, kind }
    }
}

/// SYN without ACK and without RST asks for a new connection.
#[inline(always)]
fn opens(tcp: &[u8; 14]) -> bool {
    const RST: u8 = 0x04;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    tcp[13] & (SYN | ACK | RST) == SYN
}
