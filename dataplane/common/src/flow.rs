//! Who talks to which service: the part of a frame that the decision depends on.

/// A client or virtual address: sixteen bytes in network order, IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), held as
/// the two words that they are in memory. No frame on a wire has a mapped address in its IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Address([u64; 2]);

/// The version of the Internet protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Address {
    /// The address without any bit: who has none yet.
    pub const UNSPECIFIED6: Self = Self([0; 2]);

    /// Of IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self([0, ((u32::from_le_bytes(bytes) as u64) << 32 | 0xffff_0000).to_le()])
    }

    /// Of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])])
    }

    /// Of the two words.
    #[inline(always)]
    #[must_use]
    pub const fn of_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The two words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    /// The /64 it is of, as its first address; of IPv4 the address itself.
    #[inline(always)]
    #[must_use]
    pub const fn network(&self) -> Self {
        match self.family() {
            Family::V4 => *self,
            Family::V6 => Self([self.0[0], 0]),
        }
    }

    /// Which version it is of.
    #[inline(always)]
    #[must_use]
    pub const fn family(&self) -> Family {
        let mapped = self.0[0] == 0 && u64::from_le(self.0[1]) as u32 == 0xffff_0000;
        if mapped { Family::V4 } else { Family::V6 }
    }

    /// All bytes.
    #[inline(always)]
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&self.0[1].to_ne_bytes());
        bytes
    }

    /// The last four bytes: the address itself, if it is of IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn low(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0[1].to_ne_bytes();
        [a, b, c, d]
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let address = core::net::Ipv6Addr::from(self.bytes());
        match self.family() {
            Family::V4 => core::fmt::Display::fmt(&core::net::Ipv4Addr::from(self.low()), f),
            Family::V6 => core::fmt::Display::fmt(&address, f),
        }
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

/// IP protocol numbers that a service can have.
pub mod protocol {
    /// Hop-by-hop options, an extension header of IPv6 like those marked so below.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Routing (extension header).
    pub const ROUTING: u8 = 43;
    /// Fragment (extension header).
    pub const FRAGMENT: u8 = 44;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Destination options (extension header).
    pub const OPTIONS: u8 = 60;
    /// Mobility (extension header).
    pub const MOBILITY: u8 = 135;
}

/// What kind of frame belongs to the flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// TCP with SYN and without ACK and RST.
    Syn,
    /// Any other TCP segment, or a fragment of one whose ports are known.
    Segment,
    /// A UDP datagram, or a fragment of one whose ports are known. Each counts as a new flow.
    Datagram,
    /// An ICMP echo request. Each counts as a new flow; needs no service.
    Echo,
    /// An ICMP error about a packet the virtual IP sent; ports and protocol are those of that packet.
    Error,
    /// A TCP fragment without known ports, never the one with a SYN.
    TcpFragment,
    /// A fragment of UDP without known ports, or of ICMP. Each counts as a new flow.
    DatagramFragment,
    /// An ARP request or neighbour solicitation for the virtual IP; `client` is the sender's address.
    Solicitation,
}

impl TryFrom<u8> for Kind {
    type Error = u8;

    #[inline(always)]
    fn try_from(code: u8) -> Result<Self, u8> {
        [
            Self::Syn,
            Self::Segment,
            Self::Datagram,
            Self::Echo,
            Self::Error,
            Self::TcpFragment,
            Self::DatagramFragment,
            Self::Solicitation,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == code)
        .ok_or(code)
    }
}

impl Kind {
    /// Do the port fields name a service? If not, the bucket is that of the address alone.
    #[inline(always)]
    pub fn has_ports(self) -> bool {
        match self {
            Self::Syn | Self::Segment | Self::Datagram | Self::Error => true,
            Self::Echo | Self::TcpFragment | Self::DatagramFragment | Self::Solicitation => false,
        }
    }
}

/// A frame seen as client -> virtual IP, also when it is an ICMP error about the opposite direction.
///
/// In C's order, for the reason given at [`crate::parse::Header`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// Port of the client, 0 when the kind has none.
    pub client_port: u16,
    /// Port of the service, 0 when the kind has none.
    pub service_port: u16,
    /// IP protocol of the flow (of the embedded packet for an ICMP error); 0 for solicitations.
    pub protocol: u8,
    /// Kind of frame.
    pub kind: Kind,
    /// The client's address.
    pub client: Address,
    /// The virtual IP.
    pub vip: Address,
}

impl Flow {
    /// Somebody asks for the hardware address of a virtual IP.
    #[inline(always)]
    pub fn solicitation(client: Address, vip: Address) -> Self {
        Self { client, vip, protocol: 0, client_port: 0, service_port: 0, kind: Kind::Solicitation }
    }

    /// May this frame open a flow? An error about a datagram goes where the next datagram goes.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        match self.kind {
            Kind::Syn | Kind::Datagram | Kind::Echo | Kind::DatagramFragment => true,
            Kind::Error => self.protocol == protocol::UDP,
            Kind::Segment | Kind::TcpFragment | Kind::Solicitation => false,
        }
    }
}
