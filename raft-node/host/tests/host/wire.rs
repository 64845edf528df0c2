//! Announcements and probes of IPv4, judged by a tap at the other end of the cable.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use farm_host::announce::{Announcer, Target};
use farm_host::probe::address_in_use;
use farm_host::{ArpPacket, Mac};

use crate::namespace::{CABLE, Lab, NODE_MAC, PATIENCE, PEER_IP, PEER_MAC, VIP, run};
use crate::tap::Frames;

const BROADCAST: Mac = [0xff; 6];
const VIRTUAL_MAC: Mac = [0x02, 0xfa, 0, 0, 0, 0x64];
#[test]
fn a_broadcast_announcement_moves_the_neighbours_entry() {
    let lab = Lab::new();
    let tap = lab.in_peer(Tap::open);
    lab.peer.ip(&format!("neigh add {VIP} lladdr 02:00:00:00:00:99 dev {CABLE} nud reachable"));
    let announcer = Announcer::open().unwrap();
    announcer.announce(lab.ifindex(), NODE_MAC, VIP.into(), VIRTUAL_MAC, Target::Broadcast).unwrap();
    let seen = tap.next();
    assert_eq!(seen, ArpPacket::gratuitous(NODE_MAC, VIP, VIRTUAL_MAC));
    assert_eq!((seen.destination, seen.source), (BROADCAST, NODE_MAC));
    let entry = lab.peer.ip(&format!("neigh show {VIP}"));
    assert!(entry.contains("02:fa:00:00:00:64"), "{entry}");
}

#[test]
fn a_unicast_announcement_reaches_one_and_is_believed_at_once() {
    let lab = Lab::new();
    let tap = lab.in_peer(Tap::open);
    lab.peer.ip(&format!("neigh add {VIP} lladdr 02:00:00:00:00:99 dev {CABLE} nud reachable"));
    let target = Target::Unicast(PEER_MAC, PEER_IP.into());
    let announcer = Announcer::open().unwrap();
    announcer.announce(lab.ifindex(), NODE_MAC, VIP.into(), NODE_MAC, target).unwrap();
    let seen = tap.next();
    assert_eq!(seen, ArpPacket::claim_to(NODE_MAC, VIP, NODE_MAC, PEER_MAC));
    let entry = lab.peer.ip(&format!("neigh show {VIP}"));
    assert!(entry.contains("02:00:00:00:00:01"), "{entry}");
}

#[test]
fn an_announcement_on_a_link_that_is_down_fails() {
    let lab = Lab::new();
    lab.node.ip(&format!("link set {CABLE} down"));
    let announcer = Announcer::open().unwrap();
    let sent = announcer.announce(lab.ifindex(), NODE_MAC, VIP.into(), NODE_MAC, Target::Broadcast);
    assert_eq!(sent.unwrap_err().errno(), Some(nix::errno::Errno::ENETDOWN));
}

#[test]
fn a_probe_finds_the_holder() {
    let lab = Lab::new();
    lab.peer.ip(&format!("address add {VIP}/32 dev {CABLE}"));
    let tap = lab.in_peer(Tap::open);
    let started = Instant::now();
    let holder = run(address_in_use(lab.ifindex(), NODE_MAC, VIP.into(), PATIENCE)).unwrap();
    assert_eq!(holder, Some(PEER_MAC));
    assert!(started.elapsed() < PATIENCE / 3, "answered, not timed out: {:?}", started.elapsed());
    let probe = tap.next();
    assert_eq!(probe, ArpPacket::probe(NODE_MAC, VIP));
    assert_eq!(probe.sender_ip, Ipv4Addr::UNSPECIFIED);
}

#[test]
fn a_probe_that_nobody_answers_ends_with_none() {
    let lab = Lab::new();
    let tap = lab.in_peer(Tap::open);
    let timeout = Duration::from_millis(300);
    let started = Instant::now();
    assert_eq!(run(address_in_use(lab.ifindex(), NODE_MAC, VIP.into(), timeout)).unwrap(), None);
    assert!(started.elapsed() >= timeout);
    for _probe in 0..3 {
        assert_eq!(tap.next(), ArpPacket::probe(NODE_MAC, VIP));
    }
    assert_eq!(lab.peer.ip(&format!("neigh show {VIP}")), "", "a probe leaves no entry");
}

#[test]
fn an_announcement_during_the_probe_is_a_holder_and_another_probe_is_not() {
    let lab = Lab::new();
    let (sender, ifindex) =
        lab.in_peer(|| (Announcer::open().unwrap(), nix::net::if_::if_nametoindex(CABLE).unwrap()));
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let holder = run(async {
        let probe = address_in_use(lab.ifindex(), NODE_MAC, VIP.into(), PATIENCE);
        let announce = async {
            // A probe of another node is a request from 0.0.0.0 for the same address.
            let other = Target::Unicast(BROADCAST, VIP.into());
            sender.announce(ifindex, PEER_MAC, unspecified.into(), PEER_MAC, other).unwrap();
            sender.announce(ifindex, PEER_MAC, VIP.into(), VIRTUAL_MAC, Target::Broadcast).unwrap();
        };
        // Polled in this order: the probe listens before the announcement is sent.
        tokio::join!(biased; probe, announce).0.unwrap()
    });
    assert_eq!(holder, Some(VIRTUAL_MAC));
}

/// Every ARP frame that comes in at this namespace's end of the cable: no other device here speaks ARP.
struct Tap(Frames);

impl Tap {
    fn open() -> Self {
        Tap(Frames::open(libc::ETH_P_ARP))
    }

    fn next(&self) -> ArpPacket {
        ArpPacket::parse(&self.0.next()).expect("not ARP for IPv4")
    }
}
