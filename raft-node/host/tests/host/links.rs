//! Interfaces, their events, and neighbours.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use farm_host::links::{self, LinkEvent, LinkWatch};
use farm_host::{Netlink, neighbour};
use futures::StreamExt;
use ipnet::IpNet;

use crate::namespace::{CABLE, Lab, NODE_IP, NODE_MAC, PATIENCE, PEER_IP, PEER_MAC, run};

#[test]
fn links_are_listed_with_all_that_matters() {
    let lab = Lab::new();
    run(async {
        let netlink = Netlink::open().unwrap();
        let links = links::list(&netlink).await.unwrap();
        assert_eq!(links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["lo", CABLE]);
        let (lo, cable) = (&links[0], &links[1]);
        assert!(lo.loopback && lo.up && !cable.loopback);
        assert_eq!((lo.mac, lo.driver.as_str()), ([0; 6], ""));
        assert_eq!((cable.ifindex, cable.mac), (lab.ifindex(), NODE_MAC));
        assert_eq!(cable.driver, "veth");
        assert!(cable.up && cable.carrier);
        assert!(cable.addresses.contains(&net("192.0.2.1/24")), "{:?}", cable.addresses);
        assert_eq!(links::by_name(&netlink, CABLE).await.unwrap(), *cable);
    });
}

#[test]
fn the_link_that_covers_an_address_is_found() {
    let lab = Lab::new();
    lab.node.ip("link add narrow type veth peer name other");
    lab.node.ip("address add 192.0.2.129/25 dev narrow");
    lab.node.ip("address add 198.51.100.1/32 dev lo");
    lab.node.ip("address add 203.0.113.1/24 dev lo");
    run(async {
        let netlink = Netlink::open().unwrap();
        for (ip, expected) in [
            ("192.0.2.100", Some(CABLE)),
            ("192.0.2.200", Some("narrow")),
            ("198.51.100.1", None),
            ("203.0.113.9", None),
            ("10.0.0.1", None),
            ("2001:db8::1", None),
        ] {
            let found = links::find_covering(&netlink, ip.parse().unwrap()).await.unwrap();
            assert_eq!(found.map(|l| l.name).as_deref(), expected, "{ip}");
        }
    });
}

#[test]
fn link_and_address_events_arrive_in_order() {
    let lab = Lab::new();
    let ifindex = lab.ifindex();
    run(async {
        let mut events = links::watch().unwrap();
        lab.node.ip(&format!("address add 192.0.2.77/24 dev {CABLE}"));
        until(&mut events, &LinkEvent::AddressAdded { ifindex, address: net("192.0.2.77/24") }).await;
        lab.node.ip(&format!("address del 192.0.2.77/24 dev {CABLE}"));
        until(&mut events, &LinkEvent::AddressRemoved { ifindex, address: net("192.0.2.77/24") }).await;
        lab.peer.ip(&format!("link set {CABLE} down"));
        until(&mut events, &changed(ifindex, true, false)).await;
        lab.node.ip(&format!("link set {CABLE} down"));
        until(&mut events, &changed(ifindex, false, false)).await;
        lab.node.ip(&format!("link set {CABLE} up"));
        lab.peer.ip(&format!("link set {CABLE} up"));
        until(&mut events, &changed(ifindex, true, true)).await;
        lab.node.ip(&format!("link del {CABLE}"));
        until(&mut events, &LinkEvent::Removed { ifindex, name: CABLE.into() }).await;
        assert!(links::list(&Netlink::open().unwrap()).await.unwrap().iter().all(|l| l.name != CABLE));
    });
}

#[test]
fn a_port_that_leaves_a_bridge_is_not_removed() {
    let lab = Lab::new();
    let ifindex = lab.ifindex();
    lab.node.ip("link add br0 type bridge");
    lab.node.ip(&format!("link set {CABLE} master br0"));
    run(async {
        let mut events = links::watch().unwrap();
        lab.node.ip(&format!("link set {CABLE} nomaster"));
        // The end of what this made: everything before it has been seen.
        lab.node.ip("address add 192.0.2.78/32 dev lo");
        let end = LinkEvent::AddressAdded { ifindex: 1, address: net("192.0.2.78/32") };
        let seen = until(&mut events, &end).await;
        let removed = LinkEvent::Removed { ifindex, name: CABLE.into() };
        assert!(!seen.is_empty() && !seen.contains(&removed), "{seen:?}");
    });
}

#[test]
fn neighbours_are_resolved_by_the_kernel() {
    let lab = Lab::new();
    let peer = IpAddr::from(PEER_IP);
    run(async {
        let netlink = Netlink::open().unwrap();
        assert_eq!(neighbour::lookup(&netlink, peer).await.unwrap(), None);
        let expected = Some(neighbour::Neighbour { ifindex: lab.ifindex(), mac: PEER_MAC });
        let found = neighbour::resolve(&netlink, lab.ifindex(), peer, PATIENCE).await.unwrap();
        assert_eq!(found, expected);
        assert_eq!(neighbour::lookup(&netlink, peer).await.unwrap(), expected);
        // At once, from the table.
        let again = neighbour::resolve(&netlink, lab.ifindex(), peer, Duration::ZERO).await.unwrap();
        assert_eq!(again, expected);
    });
}

#[test]
fn a_neighbour_that_nobody_is_is_none() {
    let lab = Lab::new();
    // One request instead of three: the kernel gives up after a second.
    std::fs::write(format!("/proc/sys/net/ipv4/neigh/{CABLE}/mcast_solicit"), "1").unwrap();
    let nobody = IpAddr::from(Ipv4Addr::new(192, 0, 2, 250));
    run(async {
        let netlink = Netlink::open().unwrap();
        for _twice in 0..2 {
            let found = neighbour::resolve(&netlink, lab.ifindex(), nobody, PATIENCE).await.unwrap();
            assert_eq!(found, None);
        }
        assert_eq!(neighbour::lookup(&netlink, nobody).await.unwrap(), None);
        assert_eq!(neighbour::lookup(&netlink, NODE_IP.into()).await.unwrap(), None);
    });
}

fn changed(ifindex: u32, up: bool, carrier: bool) -> LinkEvent {
    LinkEvent::Changed { ifindex, name: CABLE.into(), up, carrier }
}

/// Waits for `wanted`; the events before it.
async fn until(events: &mut LinkWatch, wanted: &LinkEvent) -> Vec<LinkEvent> {
    let mut seen = Vec::new();
    let search = async {
        loop {
            let event = events.next().await.expect("the watch ended");
            if event == *wanted {
                return;
            }
            seen.push(event);
        }
    };
    let found = tokio::time::timeout(PATIENCE, search).await;
    assert!(found.is_ok(), "{wanted:?} did not come, but {seen:?}");
    seen
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}
