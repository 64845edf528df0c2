//! Announcements, probes and memberships of IPv6, judged at the other end of the cable.

use std::net::{Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use farm_host::announce::{Announcer, Target};
use farm_host::claim::Claims;
use farm_host::multicast::Membership;
use farm_host::probe::address_in_use;
use farm_host::{Mac, NdpPacket};

use crate::namespace::{
    CABLE, Lab, NODE_IP6, NODE_MAC, PATIENCE, PEER_IP, PEER_IP6, PEER_MAC, VIP, VIP6, run, setting,
};
use crate::tap::Tap;

const ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 0x01];
const VIRTUAL_MAC: Mac = [0x02, 0xfa, 0, 0, 0, 0x64];
/// The solicited-node group of the virtual IP.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x100);

#[test]
fn a_multicast_announcement_moves_the_neighbours_entry() {
    let lab = Lab::dual();
    let tap = lab.in_peer(Tap::open);
    lab.peer.ip(&format!("neigh add {VIP6} lladdr 02:00:00:00:00:99 dev {CABLE} nud reachable"));
    let announcer = Announcer::open().unwrap();
    announcer.announce(lab.ifindex(), NODE_MAC, VIP6.into(), VIRTUAL_MAC, Target::Broadcast).unwrap();
    let seen = tap.next();
    assert_eq!(seen, NdpPacket::unsolicited(NODE_MAC, VIP6, VIRTUAL_MAC));
    assert_eq!((seen.destination, seen.source), (ALL_NODES, NODE_MAC));
    let entry = lab.peer.ip(&format!("neigh show {VIP6}"));
    assert!(entry.contains("02:fa:00:00:00:64"), "{entry}");
}

#[test]
fn a_unicast_announcement_reaches_one() {
    let lab = Lab::dual();
    let tap = lab.in_peer(Tap::open);
    lab.peer.ip(&format!("neigh add {VIP6} lladdr 02:00:00:00:00:99 dev {CABLE} nud reachable"));
    let target = Target::Unicast(PEER_MAC, PEER_IP6.into());
    let announcer = Announcer::open().unwrap();
    announcer.announce(lab.ifindex(), NODE_MAC, VIP6.into(), NODE_MAC, target).unwrap();
    assert_eq!(tap.next(), NdpPacket::claim_to(NODE_MAC, VIP6, NODE_MAC, (PEER_MAC, PEER_IP6)));
    let entry = lab.peer.ip(&format!("neigh show {VIP6}"));
    assert!(entry.contains("02:00:00:00:00:01"), "{entry}");
}

/// The kernel as the oracle: what it sends of its own address is what we send of a virtual one.
#[test]
fn announcement_and_probe_are_the_kernels_to_the_byte() {
    let lab = Lab::dual();
    let (mac, ip) = ([0x02, 0, 0, 0, 0, 0x0a], VIP6);
    setting(&format!("ipv6/conf/{CABLE}/ndisc_notify"), "1");
    setting(&format!("ipv6/conf/{CABLE}/accept_dad"), "1");
    // Without the nonce of RFC 7527.
    for device in ["all", CABLE] {
        setting(&format!("ipv6/conf/{device}/enhanced_dad"), "0");
    }
    lab.node.ip(&format!("link set {CABLE} address 02:00:00:00:00:0a"));
    let tap = lab.in_peer(Tap::open);
    lab.node.ip(&format!("address add {ip}/64 dev {CABLE}"));
    for expected in [NdpPacket::probe(mac, ip), NdpPacket::unsolicited(mac, ip, mac)] {
        let about_it = |f: &Vec<u8>| NdpPacket::parse(f).is_some_and(|p| p.target_ip == ip);
        let frame = std::iter::repeat_with(|| tap.frame()).find(about_it);
        assert_eq!(frame, Some(expected.to_bytes()));
    }
}

#[test]
fn a_requester_of_the_other_family_is_refused() {
    let lab = Lab::new();
    let announcer = Announcer::open().unwrap();
    for (vip, requester) in [(VIP.into(), PEER_IP6.into()), (VIP6.into(), PEER_IP.into())] {
        let target = Target::Unicast(PEER_MAC, requester);
        let error = announcer.announce(lab.ifindex(), NODE_MAC, vip, NODE_MAC, target).unwrap_err();
        assert!(error.to_string().contains("of the same family"), "{error}");
    }
}

#[test]
fn a_probe_finds_the_holder() {
    let lab = Lab::dual();
    lab.in_peer(|| run(lab.peer.assign(&format!("{VIP6}/128"))));
    let tap = lab.in_peer(Tap::open);
    let started = Instant::now();
    let holder = run(address_in_use(lab.ifindex(), NODE_MAC, VIP6.into(), PATIENCE)).unwrap();
    assert_eq!(holder, Some(PEER_MAC));
    assert!(started.elapsed() < PATIENCE / 3, "answered, not timed out: {:?}", started.elapsed());
    let probe = tap.next();
    assert_eq!(probe, NdpPacket::probe(NODE_MAC, VIP6));
    assert_eq!((probe.sender_ip, probe.receiver_ip), (Ipv6Addr::UNSPECIFIED, GROUP));
    let answer = tap.next();
    assert_eq!((answer.sender_ip, answer.destination), (VIP6, ALL_NODES));
}

#[test]
fn a_probe_that_nobody_answers_ends_with_none() {
    let lab = Lab::dual();
    let tap = lab.in_peer(Tap::open);
    let timeout = Duration::from_millis(300);
    let started = Instant::now();
    assert_eq!(run(address_in_use(lab.ifindex(), NODE_MAC, VIP6.into(), timeout)).unwrap(), None);
    assert!(started.elapsed() >= timeout);
    for _probe in 0..3 {
        assert_eq!(tap.next(), NdpPacket::probe(NODE_MAC, VIP6));
    }
    assert_eq!(lab.peer.ip(&format!("neigh show {VIP6}")), "", "a probe leaves no entry");
}

#[test]
fn an_announcement_during_the_probe_is_a_holder_and_another_probe_is_not() {
    let lab = Lab::dual();
    let (sender, ifindex) =
        lab.in_peer(|| (Announcer::open().unwrap(), nix::net::if_::if_nametoindex(CABLE).unwrap()));
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101);
    let holder = run(async {
        let rival = lab.in_peer(|| Claims::open(ifindex).unwrap());
        let probe = address_in_use(lab.ifindex(), NODE_MAC, VIP6.into(), PATIENCE);
        let announce = async {
            rival.ask(PEER_MAC, VIP6.into()).unwrap();
            sender.announce(ifindex, PEER_MAC, other.into(), PEER_MAC, Target::Broadcast).unwrap();
            sender.announce(ifindex, PEER_MAC, VIP6.into(), VIRTUAL_MAC, Target::Broadcast).unwrap();
        };
        // Polled in this order: the probe listens before the others speak.
        tokio::join!(biased; probe, announce).0.unwrap()
    });
    assert_eq!(holder, Some(VIRTUAL_MAC));
}

/// More than a socket's buffer holds comes in before the probe reads again.
#[test]
fn other_traffic_does_not_hide_a_holder() {
    const DATAGRAMS: usize = 1_000;
    let lab = Lab::dual();
    let (announcer, ifindex, traffic) = lab.in_peer(|| {
        let ifindex = nix::net::if_::if_nametoindex(CABLE).unwrap();
        (Announcer::open().unwrap(), ifindex, UdpSocket::bind("[::]:0").unwrap())
    });
    lab.peer.ip(&format!("neigh add {NODE_IP6} lladdr 02:00:00:00:00:01 dev {CABLE} nud permanent"));
    let holder = run(async {
        let probe = address_in_use(lab.ifindex(), NODE_MAC, VIP6.into(), PATIENCE);
        let others = async {
            for _datagram in 0..DATAGRAMS {
                traffic.send_to(&[0; 1_000], (NODE_IP6, 9)).unwrap();
            }
            announcer.announce(ifindex, PEER_MAC, VIP6.into(), PEER_MAC, Target::Broadcast).unwrap();
        };
        tokio::join!(biased; probe, others).0.unwrap()
    });
    assert_eq!(holder, Some(PEER_MAC));
}

#[test]
fn a_membership_lets_solicitations_in_and_is_reported() {
    let lab = Lab::dual();
    let tap = lab.in_peer(Tap::open);
    assert!(!groups(&lab).contains("ff02::1:ff00:100"), "{}", groups(&lab));
    let membership = Membership::join(lab.ifindex(), VIP6).unwrap();
    // Another virtual IP that ends alike is in the same group.
    let twin = Membership::join(lab.ifindex(), "2001:db8:1::5:0:100".parse().unwrap()).unwrap();
    let report = report(&tap);
    assert!(report[22..].starts_with(&[0xfe, 0x80]), "from the link's own address: {report:02x?}");
    drop(twin);
    lab.node.ip(&format!("link set {CABLE} down"));
    lab.node.ip(&format!("link set {CABLE} up"));
    run(lab.node.can_ask());
    for part in ["ff02::1:ff00:100", "33:33:ff:00:01:00"] {
        assert!(groups(&lab).contains(part), "{}", groups(&lab));
    }
    drop(membership);
    for part in ["ff02::1:ff00:100", "33:33:ff:00:01:00"] {
        assert!(!groups(&lab).contains(part), "{}", groups(&lab));
    }
}

#[test]
fn a_link_that_is_gone_has_no_groups() {
    let lab = Lab::new();
    let ifindex = lab.ifindex();
    lab.node.ip(&format!("link del {CABLE}"));
    let error = Membership::join(ifindex, VIP6).unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::ENODEV), "{error}");
}

/// What the node's end of the cable lets in.
fn groups(lab: &Lab) -> String {
    lab.node.ip(&format!("maddress show dev {CABLE}"))
}

/// The first MLD report (RFC 3810 §5.2) of the virtual IP's group.
fn report(tap: &Tap) -> Vec<u8> {
    /// Behind Ethernet, IPv6 and a hop-by-hop header with the router alert.
    const TYPE: usize = 14 + 40 + 8;
    const MLD2_REPORT: u8 = 143;
    loop {
        let frame = tap.frame();
        let names = |group: Ipv6Addr| frame.windows(16).any(|w| w == group.octets());
        if frame.get(TYPE) == Some(&MLD2_REPORT) && names(GROUP) {
            return frame;
        }
    }
}
