//! Packets of both families behind their headers.

use std::net::{IpAddr, SocketAddr};

use super::bytes::{be16, ipv4, ipv6};

/// Numbers of what a packet carries, the extension headers of IPv6 among them.
pub(super) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;

    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
}

/// A packet that begins with the header of its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads IPv4; `None` for a later fragment, which has no such header.
    pub(super) fn v4(packet: &'a [u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let later_fragment = be16(packet, 6)? & 0x1fff != 0;
        let (source, destination) = (ipv4(packet, 12)?.into(), ipv4(packet, 16)?.into());
        let whole = Self { source, destination, protocol: packet[9], body: packet.get(header..)? };
        (!later_fragment).then_some(whole)
    }

    /// Reads IPv6 and skips its extension headers (RFC 8200 §4); `None` for a later fragment.
    pub(super) fn v6(packet: &'a [u8]) -> Option<Self> {
        let (source, destination) = (ipv6(packet, 8)?.into(), ipv6(packet, 24)?.into());
        let (mut protocol, mut body) = (packet[6], packet.get(40..)?);
        while let Some(length) = extension(protocol, body)? {
            (protocol, body) = (body[0], body.get(length..)?);
        }
        Some(Self { source, destination, protocol, body })
    }

    /// Source and destination with the ports that TCP and UDP begin with.
    pub(super) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let (from, to) = (be16(self.body, 0)?, be16(self.body, 2)?);
        Some((SocketAddr::new(self.source, from), SocketAddr::new(self.destination, to)))
    }
}

/// How long the extension header at the start of `body` is, if `kind` is one; `None` where nothing follows that can be
/// read.
fn extension(kind: u8, body: &[u8]) -> Option<Option<usize>> {
    let units = || body.get(1).map(|units| usize::from(*units));
    match kind {
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION | protocol::MOBILITY => {
            Some(Some(8 * (units()? + 1)))
        }
        protocol::AUTHENTICATION => Some(Some(4 * (units()? + 2))),
        protocol::FRAGMENT => (be16(body, 2)? & 0xfff8 == 0).then_some(Some(8)),
        _ => Some(None),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// From 10.0.0.1 to 10.0.0.2, with options.
    pub(crate) fn v4(protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
        let mut packet =
            vec![0x46, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 0];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend_from_slice(body);
        packet
    }

    /// From `fd00::1` to `fd00::2`.
    pub(crate) fn v6(next: u8, body: &[u8]) -> Vec<u8> {
        let end = |host| [&[0xfd][..], &[0; 14], &[host]].concat();
        [&[0x60, 0, 0, 0, 0, body.len() as u8, next, 255][..], &end(1), &end(2), body].concat()
    }

    /// Every extension header once, the fragment being the first one.
    pub(crate) fn extended(next: u8, body: &[u8], fragment: u16) -> Vec<u8> {
        let eight = |kind: u8, following: u8| (kind, vec![following, 0, 0, 0, 0, 0, 0, 0]);
        let mut fragmented = eight(44, 51);
        fragmented.1[2..4].copy_from_slice(&fragment.to_be_bytes());
        let chain = [
            eight(0, 43).1,
            [vec![60, 1], vec![0; 14]].concat(),
            eight(60, 44).1,
            fragmented.1,
            [vec![135, 4], vec![0; 22]].concat(),
            eight(135, next).1,
        ];
        v6(0, &[chain.concat(), body.to_vec()].concat())
    }

    #[test]
    fn extension_headers_are_skipped() {
        let whole = extended(17, b"datagram", 1);
        let read = Packet::v6(&whole).expect("it is all there");
        assert_eq!((read.protocol, read.body), (17, &b"datagram"[..]));
        assert_eq!(read.source, "fd00::1".parse::<IpAddr>().expect("address"));
        assert_eq!(read.destination, "fd00::2".parse::<IpAddr>().expect("address"));
    }

    #[test]
    fn later_fragments_have_no_transport() {
        assert_eq!(Packet::v4(&v4(17, 0x0010, &[0; 8])), None);
        assert_eq!(Packet::v6(&extended(17, &[0; 8], 0x0011)), None);
        assert!(Packet::v4(&v4(17, 0x2000, &[0; 8])).is_some(), "the first one has");
    }

    #[test]
    fn what_is_encrypted_or_empty_is_no_extension() {
        for last in [50, 59] {
            let whole = v6(last, &[6, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(Packet::v6(&whole).map(|p| p.protocol), Some(last));
        }
    }

    #[test]
    fn a_chain_that_is_cut_off_is_nothing() {
        let whole = extended(17, &[], 1);
        for length in 0..whole.len() {
            assert_eq!(Packet::v6(&whole[..length]), None, "{length}");
        }
    }
}
