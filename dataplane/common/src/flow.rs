//! Who talks to which service: the part of a frame that the decision depends on.

/// A client or virtual address, in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

impl Address {
    /// As stored in [`crate::layout::Vip`]: IPv4 as IPv4-mapped IPv6.
    #[inline(always)]
    pub fn mapped(&self) -> [u8; 16] {
        match self {
            Self::V4([a, b, c, d]) => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, *a, *b, *c, *d],
            Self::V6(bytes) => *bytes,
        }
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::V4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::V6(v6.octets()),
        }
    }
}

/// IP protocol numbers that a service can have.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// What kind of frame belongs to the flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// TCP with SYN and without ACK and RST.
    Syn,
    /// Any other TCP segment.
    Segment,
    /// A whole UDP datagram. Each counts as a new flow.
    Datagram,
    /// An ICMP echo request. Each counts as a new flow; needs no service.
    Echo,
    /// An ICMP error about a packet the virtual IP sent; ports and protocol are those of that packet.
    Error,
    /// A TCP fragment, never the one with a SYN. Has no ports.
    TcpFragment,
    /// A UDP or ICMP fragment. Has no ports; each counts as a new flow.
    DatagramFragment,
    /// An ARP request for the virtual IP; `client` is the sender's address.
    Arp,
}

impl Kind {
    /// May this frame open a flow?
    #[inline(always)]
    pub fn opens(self) -> bool {
        match self {
            Self::Syn | Self::Datagram | Self::Echo | Self::DatagramFragment => true,
            Self::Segment | Self::Error | Self::TcpFragment | Self::Arp => false,
        }
    }

    /// Do the port fields name a service? If not, the bucket is that of the address alone.
    #[inline(always)]
    pub fn has_ports(self) -> bool {
        match self {
            Self::Syn | Self::Segment | Self::Datagram | Self::Error => true,
            Self::Echo | Self::TcpFragment | Self::DatagramFragment | Self::Arp => false,
        }
    }
}

/// A frame seen as client -> virtual IP, also when it is an ICMP error about the opposite direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// The client's address.
    pub client: Address,
    /// The virtual IP.
    pub vip: Address,
    /// IP protocol of the flow (of the embedded packet for an ICMP error); 0 for ARP.
    pub protocol: u8,
    /// Port of the client, 0 when the kind has none.
    pub client_port: u16,
    /// Port of the service, 0 when the kind has none.
    pub service_port: u16,
    /// Kind of frame.
    pub kind: Kind,
}
