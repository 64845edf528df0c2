//! Neighbour discovery over Ethernet (RFC 4861): who-has and is-at of IPv6, to bytes and back. Pure.

use std::net::Ipv6Addr;

use crate::Mac;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Next header.
const ICMPV6: u8 = 58;
/// Proof that no router passed the message on (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Types of the options that hold a link-layer address (RFC 4861 §4.6.1).
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;

const IP: usize = 14;
const ICMP: usize = IP + 40;
/// Length of a message without options.
const MESSAGE: usize = 24;
/// Length of an option with an Ethernet address; also the unit of options' lengths.
const OPTION: usize = 8;

/// What the message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NdpMessage {
    /// Who has the target?
    Solicitation,
    /// The target is here.
    Advertisement {
        /// The sender is a router.
        router: bool,
        /// It is the answer to a solicitation that was sent to one host.
        solicited: bool,
        /// Receivers put the new hardware address in the place of another one that they know.
        overrides: bool,
    },
}

/// One solicitation or advertisement with its Ethernet and IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NdpPacket {
    /// Ethernet destination.
    pub destination: Mac,
    /// Ethernet source.
    pub source: Mac,
    /// IPv6 source; `::` in a probe.
    pub sender_ip: Ipv6Addr,
    /// IPv6 destination.
    pub receiver_ip: Ipv6Addr,
    /// Solicitation or advertisement.
    pub message: NdpMessage,
    /// Address the packet is *about*.
    pub target_ip: Ipv6Addr,
    /// The link-layer address option: the sender's in a solicitation, the target's in an
    /// advertisement.
    pub link: Option<Mac>,
}

impl NdpPacket {
    /// An unsolicited advertisement to everybody (RFC 4861 §7.2.6): `ip` is at `claimed` now.
    #[must_use]
    pub fn unsolicited(source: Mac, ip: Ipv6Addr, claimed: Mac) -> Self {
        Self::claim_to(source, ip, claimed, (group_mac(ALL_NODES), ALL_NODES))
    }

    /// The same to one host. Linux overrides its entry for `ip` at once, if it has one.
    #[must_use]
    pub fn claim_to(source: Mac, ip: Ipv6Addr, claimed: Mac, to: (Mac, Ipv6Addr)) -> Self {
        NdpPacket {
            destination: to.0,
            source,
            sender_ip: ip,
            receiver_ip: to.1,
            message: NdpMessage::Advertisement { router: false, solicited: false, overrides: true },
            target_ip: ip,
            link: Some(claimed),
        }
    }

    /// A probe (RFC 4862 §5.4.2): from `::` and without option, so that nobody's entries change.
    #[must_use]
    pub fn probe(source: Mac, ip: Ipv6Addr) -> Self {
        let group = solicited_node(ip);
        NdpPacket {
            destination: group_mac(group),
            source,
            sender_ip: Ipv6Addr::UNSPECIFIED,
            receiver_ip: group,
            message: NdpMessage::Solicitation,
            target_ip: ip,
            link: None,
        }
    }

    /// The hardware address that an advertisement gives its target; `None` for a solicitation.
    #[must_use]
    pub fn advertised(&self) -> Option<Mac> {
        match self.message {
            NdpMessage::Solicitation => None,
            NdpMessage::Advertisement { .. } => Some(self.link.unwrap_or(self.source)),
        }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let icmp = self.icmp();
        let mut frame = Vec::with_capacity(ICMP + icmp.len());
        frame.extend(self.destination);
        frame.extend(self.source);
        frame.extend(ETHERTYPE_IPV6);
        // Version 6, no traffic class, no flow label.
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((icmp.len() as u16).to_be_bytes());
        frame.extend([ICMPV6, HOP_LIMIT]);
        frame.extend(self.sender_ip.octets());
        frame.extend(self.receiver_ip.octets());
        frame.extend(icmp);
        frame
    }

    fn icmp(&self) -> Vec<u8> {
        let (kind, flags, option) = match self.message {
            NdpMessage::Solicitation => (SOLICITATION, 0, SOURCE_LINK),
            NdpMessage::Advertisement { router, solicited, overrides } => {
                let flag = |set, bit| if set { bit } else { 0 };
                let flags = flag(router, ROUTER) | flag(solicited, SOLICITED) | flag(overrides, OVERRIDE);
                (ADVERTISEMENT, flags, TARGET_LINK)
            }
        };
        let mut icmp = Vec::with_capacity(MESSAGE + OPTION);
        // The checksum, third and fourth byte, is taken with 0 in its place.
        icmp.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
        icmp.extend(self.target_ip.octets());
        if let Some(mac) = self.link {
            icmp.extend([option, 1]);
            icmp.extend(mac);
        }
        let sum = checksum(self.sender_ip, self.receiver_ip, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        icmp
    }

    /// Reads a frame; `None` if it is not a solicitation or advertisement over untagged Ethernet, or
    /// one that every host has to ignore (RFC 4861 §7.1). Other options are passed over.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (header, rest): (&[u8; ICMP], _) = frame.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([header[18], header[19]]));
        // The device may have padded the frame.
        let icmp = rest.get(..length)?;
        let expected =
            header[12..14] == ETHERTYPE_IPV6 && header[IP] >> 4 == 6 && header[20..22] == [ICMPV6, HOP_LIMIT];
        let (sender_ip, receiver_ip) = (ip_at(header, 22)?, ip_at(header, 38)?);
        if !expected || checksum(sender_ip, receiver_ip, icmp) != 0 {
            return None;
        }
        let (body, options): (&[u8; MESSAGE], _) = icmp.split_first_chunk()?;
        let (message, option) = message(body)?;
        let packet = NdpPacket {
            destination: mac_at(header, 0)?,
            source: mac_at(header, 6)?,
            sender_ip,
            receiver_ip,
            message,
            target_ip: ip_at(body, 8)?,
            link: link_option(options, option)?,
        };
        packet.is_lawful().then_some(packet)
    }

    /// What RFC 4861 §7.1.1 and §7.1.2 ask of the addresses.
    fn is_lawful(&self) -> bool {
        let lawful = match self.message {
            NdpMessage::Solicitation => !self.sender_ip.is_unspecified() || self.link.is_none(),
            NdpMessage::Advertisement { solicited, .. } => !(solicited && self.receiver_ip.is_multicast()),
        };
        lawful && !self.target_ip.is_multicast()
    }
}

/// The multicast group that solicitations for `ip` go to (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464 §7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Which message it is, and the type of the option that belongs to it.
fn message(body: &[u8; MESSAGE]) -> Option<(NdpMessage, u8)> {
    let flag = |bit| body[4] & bit != 0;
    match body[..2] {
        [SOLICITATION, 0] => Some((NdpMessage::Solicitation, SOURCE_LINK)),
        [ADVERTISEMENT, 0] => {
            let (router, solicited, overrides) = (flag(ROUTER), flag(SOLICITED), flag(OVERRIDE));
            Some((NdpMessage::Advertisement { router, solicited, overrides }, TARGET_LINK))
        }
        _ => None,
    }
}

/// The hardware address in the first option of type `wanted`; the outer `None` where the options do
/// not add up.
fn link_option(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let length = OPTION * usize::from(*options.get(1)?);
        let (option, rest) = options.split_at_checked(length).filter(|_| length > 0)?;
        if option[0] == wanted && length == OPTION {
            found = found.or(mac_at(option, 2));
        }
        options = rest;
    }
    Some(found)
}

/// The checksum of `icmp` with its pseudo-header (RFC 8200 §8.1); 0 when the one inside is right.
fn checksum(sender: Ipv6Addr, receiver: Ipv6Addr, icmp: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let word = |w: &[u8]| u64::from(w[0]) << 8 | w.get(1).copied().map_or(0, u64::from);
        bytes.chunks(2).map(word).sum()
    };
    let addresses = words(&sender.octets()) + words(&receiver.octets());
    let mut sum = addresses + icmp.len() as u64 + u64::from(ICMPV6) + words(icmp);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..)?.first_chunk().copied()
}

fn ip_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
    const VIRTUAL: Mac = [0x02, 0xfa, 0x00, 0x00, 0x00, 0x01];
    const PEER: Mac = [0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc];
    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab12, 0x3456);
    const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x63);

    /// From a dump in hexadecimal, as tcpdump -xx prints it; tcpdump finds their checksums right.
    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }

    const UNSOLICITED: &str = "
        3333 0000 0001 0211 2233 4455 86dd 6000 0000 0020 3aff 2001 0db8 0000 0000 0000
        0000 ab12 3456 ff02 0000 0000 0000 0000 0000 0000 0001 8800 3961 2000 0000 2001
        0db8 0000 0000 0000 0000 ab12 3456 0201 02fa 0000 0001";
    const PROBE: &str = "
        3333 ff12 3456 0211 2233 4455 86dd 6000 0000 0018 3aff 0000 0000 0000 0000 0000
        0000 0000 0000 ff02 0000 0000 0000 0000 0001 ff12 3456 8700 391e 0000 0000 2001
        0db8 0000 0000 0000 0000 ab12 3456";

    #[test]
    fn unsolicited_names_the_claimed_mac_but_comes_from_our_own() {
        let packet = NdpPacket::unsolicited(OWN, VIP, VIRTUAL);
        assert_eq!(packet.to_bytes(), bytes(UNSOLICITED));
        assert_eq!(packet.advertised(), Some(VIRTUAL));
    }

    #[test]
    fn claim_to_one_host_goes_to_that_host() {
        let expected = bytes(
            "5254 00aa bbcc 0211 2233 4455 86dd 6000 0000 0020 3aff 2001 0db8 0000 0000 0000
             0000 ab12 3456 2001 0db8 0000 0000 0000 0000 0000 0063 8800 a4aa 2000 0000 2001
             0db8 0000 0000 0000 0000 ab12 3456 0201 0211 2233 4455",
        );
        assert_eq!(NdpPacket::claim_to(OWN, VIP, OWN, (PEER, CLIENT)).to_bytes(), expected);
    }

    #[test]
    fn probe_has_no_sender_address() {
        let packet = NdpPacket::probe(OWN, VIP);
        assert_eq!(packet.to_bytes(), bytes(PROBE));
        assert_eq!(packet.advertised(), None);
    }

    #[test]
    fn a_padded_answer_with_another_option_is_read() {
        let mut frame = bytes(
            "0211 2233 4455 5254 00aa bbcc 86dd 6000 0000 0028 3aff 2001 0db8 0000 0000 0000
             0000 ab12 3456 2001 0db8 0000 0000 0000 0000 0000 0063 8800 b06f 6000 0000 2001
             0db8 0000 0000 0000 0000 ab12 3456 0e01 0000 0000 0000 0201 5254 00aa bbcc",
        );
        frame.extend([0; 6]);
        let packet = NdpPacket::parse(&frame).unwrap();
        let message = NdpMessage::Advertisement { router: false, solicited: true, overrides: true };
        assert_eq!((packet.message, packet.target_ip), (message, VIP));
        assert_eq!(packet.advertised(), Some(PEER));
    }

    #[test]
    fn what_is_written_is_read() {
        let (router, solicited, overrides) = (true, true, false);
        let to_client = NdpPacket::claim_to(OWN, VIP, VIRTUAL, (PEER, CLIENT));
        for packet in [
            to_client,
            NdpPacket { link: None, ..to_client },
            NdpPacket { message: NdpMessage::Solicitation, ..to_client },
            NdpPacket { message: NdpMessage::Advertisement { router, solicited, overrides }, ..to_client },
            NdpPacket::unsolicited(OWN, VIP, VIRTUAL),
            NdpPacket::probe(OWN, VIP),
        ] {
            assert_eq!(NdpPacket::parse(&packet.to_bytes()), Some(packet));
        }
    }

    #[test]
    fn an_advertisement_without_option_is_about_its_sender() {
        let packet = NdpPacket { link: None, ..NdpPacket::unsolicited(OWN, VIP, VIRTUAL) };
        assert_eq!(packet.advertised(), Some(OWN));
    }

    #[test]
    fn what_came_damaged_or_cut_is_refused() {
        for frame in [bytes(UNSOLICITED), bytes(PROBE)] {
            for length in 0..frame.len() {
                assert_eq!(NdpPacket::parse(&frame[..length]), None, "the first {length} bytes");
            }
            // Traffic class and flow label, which nobody looks at, and the Ethernet addresses aside.
            for at in (12..15).chain(18..frame.len()) {
                let mut other = frame.clone();
                other[at] ^= 0x40;
                assert_eq!(NdpPacket::parse(&other), None, "byte {at}");
            }
        }
    }

    #[test]
    fn what_every_host_has_to_ignore_is_refused() {
        let group = solicited_node(VIP);
        let (router, solicited, overrides) = (false, true, true);
        let message = NdpMessage::Advertisement { router, solicited, overrides };
        let (unsolicited, probe) = (NdpPacket::unsolicited(OWN, VIP, VIRTUAL), NdpPacket::probe(OWN, VIP));
        for packet in [
            NdpPacket { message, ..unsolicited },
            NdpPacket { target_ip: group, ..unsolicited },
            NdpPacket { target_ip: group, ..probe },
            NdpPacket { link: Some(OWN), ..probe },
        ] {
            assert_eq!(NdpPacket::parse(&packet.to_bytes()), None, "{packet:?}");
        }
    }

    #[test]
    fn options_that_do_not_add_up_are_refused() {
        assert_eq!(link_option(&[TARGET_LINK, 0, 0, 0, 0, 0, 0, 0], TARGET_LINK), None);
        assert_eq!(link_option(&[TARGET_LINK, 2, 0, 0, 0, 0, 0, 0], TARGET_LINK), None);
        assert_eq!(link_option(&[TARGET_LINK], TARGET_LINK), None);
        assert_eq!(link_option(&[SOURCE_LINK, 1, 0, 0, 0, 0, 0, 0], TARGET_LINK), Some(None));
    }
}
