//! Interfaces, their events, and neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use farm_host::links::{self, LinkEvent, LinkWatch};
use farm_host::{Netlink, neighbour};
use futures::StreamExt;
use ipnet::IpNet;

use crate::namespace::{CABLE, Lab, NODE_IP, NODE_MAC, PATIENCE, PEER_IP, PEER_IP6, PEER_MAC, run, setting};

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
fn many_list_at_once_and_some_are_not_waited_for() {
    let lab = Lab::new();
    // More than fits one answer of the kernel.
    for i in 0..20 {
        lab.node.ip(&format!("link add bridge{i} type bridge"));
    }
    run(async {
        let netlink = Arc::new(Netlink::open().unwrap());
        let lists: Vec<_> = (0..32)
            .map(|_| {
                let netlink = netlink.clone();
                tokio::spawn(async move { links::list(&netlink).await })
            })
            .collect();
        tokio::task::yield_now().await;
        lists[0].abort();
        for list in lists.into_iter().skip(1) {
            assert_eq!(list.await.unwrap().unwrap().len(), 22);
        }
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
fn link_local_addresses_are_listed_only_where_there_is_no_other() {
    let lab = Lab::dual();
    lab.node.ip("link add bare type bridge");
    lab.node.ip("address add fe80::5/64 dev bare nodad");
    run(async {
        let netlink = Netlink::open().unwrap();
        let cable = links::by_name(&netlink, CABLE).await.unwrap();
        assert_eq!(cable.addresses, [net("192.0.2.1/24"), net("2001:db8::1/64")]);
        let bare = links::by_name(&netlink, "bare").await.unwrap();
        assert_eq!(bare.addresses, [net("fe80::5/64")]);
        let found = links::find_covering(&netlink, "2001:db8::100".parse().unwrap()).await.unwrap();
        assert_eq!(found.map(|l| l.name).as_deref(), Some(CABLE));
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
    let lab = Lab::dual();
    for peer in [IpAddr::from(PEER_IP), PEER_IP6.into()] {
        run(async {
            let netlink = Netlink::open().unwrap();
            assert_eq!(neighbour::lookup(&netlink, lab.ifindex(), peer).await.unwrap(), None);
            let expected = Some(neighbour::Neighbour { ifindex: lab.ifindex(), mac: PEER_MAC });
            let found = neighbour::resolve(&netlink, lab.ifindex(), peer, PATIENCE).await.unwrap();
            assert_eq!(found, expected);
            assert_eq!(neighbour::lookup(&netlink, lab.ifindex(), peer).await.unwrap(), expected);
            // At once, from the table.
            let again = neighbour::resolve(&netlink, lab.ifindex(), peer, Duration::ZERO).await.unwrap();
            assert_eq!(again, expected);
        });
    }
}

#[test]
fn a_neighbour_that_nobody_is_is_none() {
    let lab = Lab::dual();
    let nobody4 = IpAddr::from(Ipv4Addr::new(192, 0, 2, 250));
    let nobody6 = IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x250));
    for (family, nobody) in [("ipv4", nobody4), ("ipv6", nobody6)] {
        // One request instead of three: the kernel gives up after a second.
        setting(&format!("{family}/neigh/{CABLE}/mcast_solicit"), "1");
        run(async {
            let netlink = Netlink::open().unwrap();
            for _twice in 0..2 {
                let found = neighbour::resolve(&netlink, lab.ifindex(), nobody, PATIENCE).await.unwrap();
                assert_eq!(found, None);
            }
            assert_eq!(neighbour::lookup(&netlink, lab.ifindex(), nobody).await.unwrap(), None);
            assert_eq!(neighbour::lookup(&netlink, lab.ifindex(), NODE_IP.into()).await.unwrap(), None);
        });
    }
}

#[test]
fn one_link_local_address_is_another_neighbour_on_every_link() {
    let lab = Lab::dual();
    lab.node.ip("link add second address 02:00:00:00:01:01 up type bridge");
    let second = nix::net::if_::if_nametoindex("second").unwrap();
    let router = "fe80::1".parse().unwrap();
    for (device, mac) in [(CABLE, "02:00:00:00:00:c1"), ("second", "02:00:00:00:00:c2")] {
        lab.node.ip(&format!("neigh replace fe80::1 lladdr {mac} dev {device} nud permanent"));
    }
    run(async {
        let netlink = Netlink::open().unwrap();
        for (ifindex, last) in [(lab.ifindex(), 0xc1), (second, 0xc2)] {
            let expected = Some(neighbour::Neighbour { ifindex, mac: [0x02, 0, 0, 0, 0, last] });
            assert_eq!(neighbour::lookup(&netlink, ifindex, router).await.unwrap(), expected);
            let found = neighbour::resolve(&netlink, ifindex, router, Duration::ZERO).await.unwrap();
            assert_eq!(found, expected);
        }
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
