//! ARP over Ethernet for IPv4 (RFC 826, RFC 5227): frames to bytes and back. Pure.

use std::net::Ipv4Addr;

use crate::Mac;

const BROADCAST: Mac = [0xff; 6];
/// Not yet known: the target's hardware address in a request.
const UNKNOWN: Mac = [0; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Hardware Ethernet, protocol IPv4, address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];

/// Ethernet header and ARP body. The device pads to its minimum.
const FRAME_LEN: usize = 42;

/// Request or reply; anything else (RARP, InARP) is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpOperation {
    /// `who-has`
    Request,
    /// `is-at`
    Reply,
}

/// One ARP frame with its Ethernet addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArpPacket {
    /// Ethernet destination.
    pub destination: Mac,
    /// Ethernet source.
    pub source: Mac,
    /// Request or reply.
    pub operation: ArpOperation,
    /// Hardware address the sender claims for `sender_ip`.
    pub sender_mac: Mac,
    /// Address the packet is *from*: receivers update their entry for it.
    pub sender_ip: Ipv4Addr,
    /// Hardware address of the target; zero in requests.
    pub target_mac: Mac,
    /// Address the packet is *about*.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// A gratuitous announcement in request form to everybody: sender and target are `ip`.
    #[must_use]
    pub fn gratuitous(source: Mac, ip: Ipv4Addr, claimed: Mac) -> Self {
        Self::claim_to(source, ip, claimed, BROADCAST)
    }

    /// The same to one host. Linux overrides its entry at once; a plain unicast reply it would ignore for a second after
    /// the last change.
    #[must_use]
    pub fn claim_to(source: Mac, ip: Ipv4Addr, claimed: Mac, to: Mac) -> Self {
        Self::request(to, source, (claimed, ip), ip)
    }

    /// A probe (RFC 5227 §2.1.1): sender 0.0.0.0, so that nobody's entries change.
    #[must_use]
    pub fn probe(source: Mac, ip: Ipv4Addr) -> Self {
        Self::request(BROADCAST, source, (source, Ipv4Addr::UNSPECIFIED), ip)
    }

    /// Asks one host who `to_ip` is, as `from_ip`: whatever it has for that address, it has ours from then on.
    #[must_use]
    pub fn ask(source: Mac, from_ip: Ipv4Addr, to: Mac, to_ip: Ipv4Addr) -> Self {
        Self::request(to, source, (source, from_ip), to_ip)
    }

    /// The answer to `asked`: its target is at `own`.
    #[must_use]
    pub fn answer(own: Mac, asked: &Self) -> Self {
        ArpPacket {
            destination: asked.sender_mac,
            source: own,
            operation: ArpOperation::Reply,
            sender_mac: own,
            sender_ip: asked.target_ip,
            target_mac: asked.sender_mac,
            target_ip: asked.sender_ip,
        }
    }

    fn request(to: Mac, source: Mac, sender: (Mac, Ipv4Addr), target_ip: Ipv4Addr) -> Self {
        ArpPacket {
            destination: to,
            source,
            operation: ArpOperation::Request,
            sender_mac: sender.0,
            sender_ip: sender.1,
            target_mac: UNKNOWN,
            target_ip,
        }
    }

    /// The bytes on the wire, without padding.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FRAME_LEN] {
        let operation = match self.operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
        };
        let mut frame = [0; FRAME_LEN];
        frame[0..6].copy_from_slice(&self.destination);
        frame[6..12].copy_from_slice(&self.source);
        frame[12..14].copy_from_slice(&ETHERTYPE_ARP);
        frame[14..20].copy_from_slice(&ETHERNET_IPV4);
        frame[20..22].copy_from_slice(&[0, operation]);
        frame[22..28].copy_from_slice(&self.sender_mac);
        frame[28..32].copy_from_slice(&self.sender_ip.octets());
        frame[32..38].copy_from_slice(&self.target_mac);
        frame[38..42].copy_from_slice(&self.target_ip.octets());
        frame
    }

    /// Reads a frame; `None` if it is not ARP for IPv4 over untagged Ethernet, or too short.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let frame: &[u8; FRAME_LEN] = frame.first_chunk()?;
        if frame[12..14] != ETHERTYPE_ARP || frame[14..20] != ETHERNET_IPV4 {
            return None;
        }
        let operation = match frame[20..22] {
            [0, 1] => ArpOperation::Request,
            [0, 2] => ArpOperation::Reply,
            _ => return None,
        };
        Some(ArpPacket {
            destination: mac_at(frame, 0),
            source: mac_at(frame, 6),
            operation,
            sender_mac: mac_at(frame, 22),
            sender_ip: ip_at(frame, 28),
            target_mac: mac_at(frame, 32),
            target_ip: ip_at(frame, 38),
        })
    }
}

fn mac_at(frame: &[u8; FRAME_LEN], at: usize) -> Mac {
    std::array::from_fn(|i| frame[at + i])
}

fn ip_at(frame: &[u8; FRAME_LEN], at: usize) -> Ipv4Addr {
    let octets: [u8; 4] = std::array::from_fn(|i| frame[at + i]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
    const VIRTUAL: Mac = [0x02, 0xfa, 0x00, 0x00, 0x00, 0x01];
    const PEER: Mac = [0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc];
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

    /// From a dump in hexadecimal, as tcpdump -xx prints it.
    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn gratuitous_names_the_claimed_mac_but_comes_from_our_own() {
        let expected = bytes(
            "ffff ffff ffff 0211 2233 4455 0806 0001 0800 0604 0001
             02fa 0000 0001 c000 020a 0000 0000 0000 c000 020a",
        );
        assert_eq!(ArpPacket::gratuitous(OWN, VIP, VIRTUAL).to_bytes()[..], expected[..]);
    }

    #[test]
    fn claim_to_one_host_goes_to_that_host() {
        let expected = bytes(
            "5254 00aa bbcc 0211 2233 4455 0806 0001 0800 0604 0001
             0211 2233 4455 c000 020a 0000 0000 0000 c000 020a",
        );
        assert_eq!(ArpPacket::claim_to(OWN, VIP, OWN, PEER).to_bytes()[..], expected[..]);
    }

    #[test]
    fn probe_has_no_sender_address() {
        let expected = bytes(
            "ffff ffff ffff 0211 2233 4455 0806 0001 0800 0604 0001
             0211 2233 4455 0000 0000 0000 0000 0000 c000 020a",
        );
        assert_eq!(ArpPacket::probe(OWN, VIP).to_bytes()[..], expected[..]);
    }

    #[test]
    fn a_padded_reply_is_read() {
        let mut frame = bytes(
            "0211 2233 4455 5254 00aa bbcc 0806 0001 0800 0604 0002
             5254 00aa bbcc c000 020a 0211 2233 4455 0000 0000",
        );
        frame.resize(60, 0);
        let packet = ArpPacket::parse(&frame).unwrap();
        assert_eq!(packet.operation, ArpOperation::Reply);
        assert_eq!((packet.sender_mac, packet.sender_ip), (PEER, VIP));
        assert_eq!(packet.to_bytes()[..], frame[..FRAME_LEN]);
    }

    #[test]
    fn what_is_not_arp_for_ipv4_is_refused() {
        let frame = ArpPacket::probe(OWN, VIP).to_bytes();
        assert_eq!(ArpPacket::parse(&frame[..FRAME_LEN - 1]), None);
        for at in [12, 13, 14, 15, 16, 17, 18, 19, 20, 21] {
            let mut other = frame;
            other[at] ^= 0x40;
            assert_eq!(ArpPacket::parse(&other), None, "byte {at}");
        }
    }
}
