//! Who is where on a link, asked and told: ARP (RFC 826) and neighbour discovery (RFC 4861), in one vocabulary.

use std::net::IpAddr;

use super::bytes::{be16, ipv4, ipv6, mac};
use super::frame::Mac;
use super::packet::Packet;

/// An ARP packet, a neighbour solicitation or a neighbour advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Asked or told.
    pub speech: Speech,
    /// Who speaks; unspecified in a probe whether an address is free.
    pub sender: IpAddr,
    /// The address whose place is asked for or told.
    pub about: IpAddr,
    /// To whom: in a question of ARP, and in its announcement, that is `about`.
    pub to: IpAddr,
    /// The hardware address that it teaches: in a question that of the sender, else that of `about`.
    pub hardware: Option<Mac>,
}

/// What somebody says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Who has it?
    Question,
    /// It is here: to one who asked.
    Answer,
    /// It is here: unasked.
    Announcement,
    /// Another operation of ARP.
    Unknown,
}

impl Neighbour {
    /// Does it name one of these addresses?
    #[must_use]
    pub fn names(&self, ips: &[IpAddr]) -> bool {
        [self.sender, self.about, self.to].iter().any(|ip| ips.contains(ip))
    }

    /// Reads ARP for IPv4 on Ethernet.
    pub(super) fn arp(packet: &[u8]) -> Option<Self> {
        if (be16(packet, 0)?, be16(packet, 2)?) != (1, 0x0800) {
            return None;
        }
        let (sender, target) = (ipv4(packet, 14)?.into(), ipv4(packet, 24)?.into());
        let (speech, about) = match be16(packet, 6)? {
            1 if sender == target => (Speech::Announcement, target),
            1 => (Speech::Question, target),
            2 => (Speech::Answer, sender),
            _ => (Speech::Unknown, target),
        };
        Some(Self { speech, sender, about, to: target, hardware: Some(mac(packet, 8)?) })
    }

    /// Reads a solicitation or an advertisement; `None` for any other ICMPv6.
    pub(super) fn discovery(packet: &Packet<'_>) -> Option<Self> {
        const SOLICITATION: u8 = 135;
        const ADVERTISEMENT: u8 = 136;
        const SOLICITED: u8 = 0x40;
        const SOURCE: u8 = 1;
        const TARGET: u8 = 2;
        let (speech, option) = match *packet.body.first()? {
            SOLICITATION => (Speech::Question, SOURCE),
            ADVERTISEMENT if packet.body.get(4)? & SOLICITED != 0 => (Speech::Answer, TARGET),
            ADVERTISEMENT => (Speech::Announcement, TARGET),
            _ => return None,
        };
        let about = ipv6(packet.body, 8)?.into();
        let hardware = link_layer(packet.body.get(24..)?, option);
        Some(Self { speech, sender: packet.source, about, to: packet.destination, hardware })
    }
}

/// The hardware address in the first option `wanted`.
fn link_layer(mut options: &[u8], wanted: u8) -> Option<Mac> {
    loop {
        let (kind, length) = (*options.first()?, 8 * usize::from(*options.get(1)?));
        if kind == wanted {
            return mac(options, 2);
        }
        // One of no length would never end.
        options = options.get(length..).filter(|_| length > 0)?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests as packet;
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Neighbour {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        let body = [&head[..], &MAC, &sender, &[2, 0, 0, 0, 0, 1], &target].concat();
        Neighbour::arp(&body).expect("ARP")
    }

    #[test]
    fn arp_is_read_by_what_it_means() {
        let (vip, client) = ([10, 0, 0, 100], [10, 0, 0, 1]);
        let answer = arp(2, vip, client);
        assert_eq!((answer.speech, answer.about, answer.to), (Speech::Answer, vip.into(), client.into()));
        assert_eq!(answer.hardware, Some(Mac(MAC)));
        let question = arp(1, client, vip);
        assert_eq!((question.speech, question.sender), (Speech::Question, client.into()));
        assert_eq!((question.about, question.to), (vip.into(), vip.into()));
        assert_eq!(arp(1, vip, vip).speech, Speech::Announcement);
        assert_eq!(arp(3, client, vip).speech, Speech::Unknown);
        assert!(
            [arp(2, vip, client), arp(2, client, vip), arp(1, vip, client), arp(3, client, vip)]
                .iter()
                .all(|said| said.names(&[vip.into()]) && !said.names(&[ip("10.0.0.7")]))
        );
    }

    /// About `fd00::100`, from `fd00::1` to `fd00::2`.
    fn discovery(kind: u8, flags: u8, options: &[u8]) -> Option<Neighbour> {
        let target = [&[0xfd][..], &[0; 13], &[1, 0]].concat();
        let body = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target, options].concat();
        Neighbour::discovery(&Packet::v6(&packet::v6(58, &body)).expect("a packet"))
    }

    fn option(kind: u8) -> Vec<u8> {
        [&[kind, 1][..], &MAC].concat()
    }

    #[test]
    fn discovery_is_read_by_what_it_means() {
        let question = discovery(135, 0, &option(1)).expect("a solicitation");
        assert_eq!((question.speech, question.hardware), (Speech::Question, Some(Mac(MAC))));
        assert_eq!((question.sender, question.about), (ip("fd00::1"), ip("fd00::100")));
        let answer = discovery(136, 0x60, &option(2)).expect("an advertisement");
        assert_eq!((answer.speech, answer.hardware), (Speech::Answer, Some(Mac(MAC))));
        assert_eq!((answer.about, answer.to), (ip("fd00::100"), ip("fd00::2")));
        let announcement = discovery(136, 0x20, &option(2)).expect("an advertisement");
        assert_eq!(announcement.speech, Speech::Announcement);
        for other in [128, 133, 134, 137] {
            assert_eq!(discovery(other, 0, &option(1)), None, "{other}");
        }
    }

    #[test]
    fn options_are_found_behind_others_and_need_not_be_there() {
        let nonce = [14, 1, 9, 9, 9, 9, 9, 9];
        let behind = |kind| [&nonce[..], &option(kind)].concat();
        let hardware = |kind, options: &[u8]| discovery(kind, 0, options).expect("it is whole").hardware;
        assert_eq!(hardware(135, &behind(1)), Some(Mac(MAC)));
        assert_eq!(hardware(136, &behind(2)), Some(Mac(MAC)));
        for (kind, options) in [(135, behind(2)), (136, behind(1)), (135, vec![]), (135, vec![14, 0, 0, 0])] {
            assert_eq!(hardware(kind, &options), None, "{kind} {options:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = [0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!((0..whole.len()).all(|length| Neighbour::arp(&whole[..length]).is_none()));
        let of_another_network = [&[0, 6][..], &whole[2..]].concat();
        assert_eq!(Neighbour::arp(&of_another_network), None);
        let short = packet::v6(58, &[135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0]);
        assert_eq!(Neighbour::discovery(&Packet::v6(&short).expect("a packet")), None);
    }
}
