//! The node's own kernel never names a virtual IPv6 address in neighbour discovery: neither as the address that it
//! asks with or asks for, nor as one that it answers for. Who does is another: the filter, the announcer.

use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use farm_host::multicast::Membership;
use farm_host::probe::address_in_use;
use farm_host::{NdpMessage, NdpPacket, Netlink, address, sysctl};

use crate::namespace::{CABLE, Lab, NODE_IP6, NODE_MAC, PEER_IP6, PEER_MAC, VIP6, run, setting};
use crate::tap::Tap;

const PORT: u16 = 8080;
/// Of UDP; nobody listens.
const DISCARD: u16 = 9;

#[test]
fn the_kernel_does_not_answer_for_a_virtual_address() {
    let (lab, _group) = serving();
    let tap = lab.in_peer(Tap::open);
    let mut seen = Vec::new();
    // By multicast, as who knows nothing.
    ask(&lab, VIP6);
    seen.extend(tap.until(|p| solicits(p, VIP6) && p.receiver_ip.is_multicast()));
    // By unicast, as who makes sure of what it knows.
    lab.peer.ip(&format!("neigh replace {VIP6} lladdr 02:00:00:00:00:01 dev {CABLE} nud probe"));
    seen.extend(tap.until(|p| solicits(p, VIP6) && p.destination == NODE_MAC));
    // From nowhere, as who wants the address for itself.
    let wait = Duration::from_millis(100);
    let ifindex = lab.in_peer(|| lab.ifindex());
    let holder = lab.in_peer(|| run(address_in_use(ifindex, PEER_MAC, VIP6.into(), wait)).unwrap());
    assert_eq!(holder, None);
    seen.extend(after_all_of_it(&lab, &tap));
    assert!(seen.contains(&NdpPacket::probe(PEER_MAC, VIP6)));
    assert_unnamed(&seen);
}

#[test]
fn the_kernel_does_not_ask_with_a_virtual_address() {
    let (lab, _group) = serving();
    let listener = TcpListener::bind((VIP6, PORT)).unwrap();
    lab.peer.ip(&format!("neigh add {VIP6} lladdr 02:00:00:00:00:01 dev {CABLE} nud permanent"));
    let tap = lab.in_peer(Tap::open);
    // What makes the kernel ask for the client is an answer from the virtual address.
    let _client = lab.in_peer(|| TcpStream::connect((VIP6, PORT)).unwrap());
    let _server = listener.accept().unwrap();
    let mut seen = tap.until(|p| solicits(p, PEER_IP6) && p.receiver_ip.is_multicast());
    lab.node.ip(&format!("neigh replace {PEER_IP6} lladdr 02:00:00:00:00:02 dev {CABLE} nud probe"));
    seen.extend(tap.until(|p| solicits(p, PEER_IP6) && p.destination == PEER_MAC));
    seen.extend(after_all_of_it(&lab, &tap));
    assert_unnamed(&seen);
}

#[test]
fn the_kernel_does_not_announce_a_virtual_address() {
    const NEW_MAC: &str = "02:00:00:00:00:0a";
    let (lab, _group) = serving();
    let tap = lab.in_peer(Tap::open);
    lab.node.ip(&format!("link set {CABLE} address {NEW_MAC}"));
    let announces = |p: &NdpPacket| p.advertised().is_some() && p.target_ip == NODE_IP6;
    let mut seen = tap.until(announces);
    seen.extend(after_all_of_it(&lab, &tap));
    assert_unnamed(&seen);
}

/// A node that serves the virtual IP, has joined its group, and is as talkative as a host can be.
fn serving() -> (Lab, Membership) {
    let lab = Lab::dual();
    setting("ipv6/conf/all/forwarding", "1");
    setting(&format!("ipv6/conf/{CABLE}/ndisc_notify"), "1");
    let _settings = sysctl::prepare(CABLE).unwrap();
    run(async { address::add_virtual(&Netlink::open().unwrap(), VIP6.into()).await.unwrap() });
    let group = Membership::join(lab.ifindex(), VIP6).unwrap();
    (lab, group)
}

/// The peer sends to `ip`, whose hardware address it does not know.
fn ask(lab: &Lab, ip: Ipv6Addr) {
    lab.in_peer(|| UdpSocket::bind("[::]:0").unwrap().send_to(&[0], (ip, DISCARD)).unwrap());
}

/// What came until the node's kernel, which takes one frame after the other, has answered for its own address.
fn after_all_of_it(lab: &Lab, tap: &Tap) -> Vec<NdpPacket> {
    let _unknown = lab.peer.ip(&format!("neigh flush to {NODE_IP6} dev {CABLE}"));
    ask(lab, NODE_IP6);
    let answers = NdpMessage::Advertisement { router: true, solicited: true, overrides: true };
    tap.until(|p| p.target_ip == NODE_IP6 && p.message == answers)
}

fn solicits(packet: &NdpPacket, ip: Ipv6Addr) -> bool {
    packet.message == NdpMessage::Solicitation && packet.target_ip == ip
}

fn assert_unnamed(seen: &[NdpPacket]) {
    let names = |p: &&NdpPacket| p.sender_ip == VIP6 || p.target_ip == VIP6;
    let named: Vec<_> = seen.iter().filter(|p| p.source != PEER_MAC).filter(names).collect();
    assert!(named.is_empty(), "{named:?}");
}
