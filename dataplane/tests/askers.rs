//! Who asks for a virtual IP is remembered by the program: whoever is told later of a change.

mod program_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use farm_common::flow::Address;
use farm_common::verdict::{Mode, Phase};

use program_support::{CLIENT, CLIENT_MAC, CLIENT6, Kernel, VIP, VIP6, in_namespace, node_mac, port, table};

const ME: u8 = 1;
const OTHER: u8 = 2;
const BROADCAST: [u8; 6] = [0xff; 6];

/// An ARP request; `operation` 1 asks.
fn arp(to: [u8; 6], operation: u8, mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    [&to[..], &mac, &head, &mac, &sender.octets(), &[0; 6], &target.octets()].concat()
}

/// A neighbour solicitation, with the option that names `mac`, or without.
fn solicitation(from: [u8; 6], source: Ipv6Addr, target: Ipv6Addr, mac: Option<[u8; 6]>) -> Vec<u8> {
    let option = mac.map_or_else(Vec::new, |mac| [&[1, 1][..], &mac].concat());
    let length = 24 + option.len() as u8;
    let header = [&[0x60, 0, 0, 0, 0, length, 58, 255][..], &source.octets(), &target.octets()].concat();
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &option].concat();
    [&node_mac(ME)[..], &from, &[0x86, 0xdd], &header, &message].concat()
}

/// Whom the program remembers after these frames, and where they are.
fn remembered(current: u8, frames: &[Vec<u8>]) -> Vec<(IpAddr, [u8; 6])> {
    in_namespace(|| {
        let mut kernel = Kernel::load(port(ME));
        kernel.publish(&table(ME, Mode::Directed, Phase::Stable, 0, current));
        frames.iter().for_each(|frame| drop(kernel.run(frame)));
        let mut askers = kernel.askers();
        askers.sort_by_key(|(asker, _)| *asker);
        askers
            .into_iter()
            .map(|(asker, asked)| {
                assert!(asked.at > 0 && asker.link == 0);
                let address = Address::v6(asker.address);
                let mapped = Address::from(IpAddr::from(CLIENT)).family() == address.family();
                let vip = if mapped { IpAddr::from(VIP) } else { VIP6.into() };
                assert_eq!(asker.vip, Address::from(vip).bytes());
                let ip = if mapped { address.low().into() } else { IpAddr::from(asker.address) };
                (ip, asked.mac)
            })
            .collect()
    })
}

#[test]
fn who_asks_is_remembered_whoever_answers() {
    for current in [ME, OTHER] {
        let asked = [
            arp(BROADCAST, 1, CLIENT_MAC, CLIENT, VIP),
            solicitation(CLIENT_MAC, CLIENT6, VIP6, Some(CLIENT_MAC)),
        ];
        let expected = [(CLIENT.into(), CLIENT_MAC), (CLIENT6.into(), CLIENT_MAC)];
        assert_eq!(remembered(current, &asked), expected, "node {current} answers");
    }
}

#[test]
fn who_asks_again_from_elsewhere_is_remembered_there() {
    let moved = [2, 0, 0, 0, 12, 9];
    let asked = [CLIENT_MAC, moved].map(|mac| arp(BROADCAST, 1, mac, CLIENT, VIP));
    assert_eq!(remembered(ME, &asked), [(CLIENT.into(), moved)]);
}

#[test]
fn the_question_of_a_client_that_a_node_sent_on_is_the_clients() {
    let by_node = solicitation(node_mac(OTHER), CLIENT6, VIP6, Some(CLIENT_MAC));
    assert_eq!(remembered(ME, &[by_node]), [(CLIENT6.into(), CLIENT_MAC)]);
    let nameless = solicitation(node_mac(OTHER), CLIENT6, VIP6, None);
    assert_eq!(remembered(ME, &[nameless]), [], "the node is not where the client is");
}

#[test]
fn who_has_no_address_or_announces_or_asks_for_another_is_not_remembered() {
    let frames = [
        arp(BROADCAST, 1, CLIENT_MAC, Ipv4Addr::UNSPECIFIED, VIP),
        arp(BROADCAST, 1, CLIENT_MAC, VIP, VIP),
        arp(BROADCAST, 2, CLIENT_MAC, CLIENT, VIP),
        arp(BROADCAST, 1, CLIENT_MAC, CLIENT, Ipv4Addr::new(10, 77, 0, 9)),
        arp(BROADCAST, 1, [3, 0, 0, 0, 12, 1], CLIENT, VIP),
        solicitation(CLIENT_MAC, Ipv6Addr::UNSPECIFIED, VIP6, None),
        solicitation(CLIENT_MAC, VIP6, VIP6, Some(CLIENT_MAC)),
    ];
    assert_eq!(remembered(ME, &frames), []);
}
