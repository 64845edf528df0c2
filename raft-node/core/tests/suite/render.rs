//! The filter's table.

use std::net::IpAddr;

use farm_common::flow::Address;
use farm_common::verdict;
use farm_core::id::{ClusterId, NodeId};
use farm_core::model::{Criterion, Link, Mode, Phase, Protocol, VirtualIp, Vlan};
use farm_core::table::{RenderError, render, virtual_mac};

use crate::world::World;

#[test]
fn a_table_names_owners_by_index_and_the_nodes_macs() {
    let mut world = World::new(3, 8);
    world.service_add();
    world.run(3_000);
    let state = world.state();
    let table = render(&state, NodeId(2)).unwrap();
    assert_eq!((table.head.me, table.head.epoch, table.head.deadline), (2, state.epoch.0, 0));
    let module = state.modules.values().next().unwrap();
    for (bucket, expected) in module.assignment.iter().enumerate() {
        let entry = table.entries[usize::from(module.slot)][bucket];
        assert_eq!(
            u64::from(entry.current),
            expected.current.unwrap().0,
            "ids 1, 2, 3 have the indices 1, 2, 3"
        );
        assert_eq!((entry.previous, entry.phase), (0, verdict::Phase::Stable.into()));
        assert_eq!(expected.phase, Phase::Stable);
    }
    for node in state.nodes.values() {
        let seen = table.nodes[0][usize::try_from(node.id.0).unwrap()];
        assert_eq!(seen.mac, node.links[0].mac);
        assert_eq!(
            table.owner_of_mac(farm_common::bytes::mac_number(&node.links[0].mac)).map(|n| u64::from(n.0)),
            Some(node.id.0)
        );
    }
}

#[test]
fn a_virtual_ip_is_on_the_link_of_its_vlan() {
    let (ip, vlan) = (IpAddr::from([10, 0, 0, 100]), Vlan::one(30).unwrap());
    let mut world = World::new(2, 8);
    world.service_add();
    world.run(3_000);
    let mut state = world.state();
    for node in state.nodes.values_mut() {
        let last = node.links[0].mac[5];
        let link = Link { vlan, mac: [2, 0, 0, 0, 1, last], ..node.links[0].clone() };
        // The same subnet: only the VLAN tells the links apart.
        node.links.insert(0, link);
    }
    let twin = VirtualIp { ip, vlan };
    let module = state.modules.values_mut().next().unwrap();
    module.vips.insert(twin, Mode::Flood);
    module.services.insert((twin, Protocol::Tcp, 443), Criterion::SourcePort);
    let table = render(&state, NodeId(1)).unwrap();
    let [in_vlan, plain] = [0, 1].map(|link| table.vip(link, &Address::from(ip)).unwrap());
    assert_eq!((in_vlan.link, plain.link), (0, 1));
    assert!(table.service(in_vlan, 6, 443).is_some() && table.service(plain, 6, 443).is_none());
    assert!(table.service(in_vlan, 6, 80).is_none() && table.service(plain, 6, 80).is_some());
    assert_eq!((table.nodes[0][2].mac, table.nodes[1][2].mac), ([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 0, 2]));
}

#[test]
fn who_is_no_member_has_no_table() {
    let world = World::new(1, 2);
    assert_eq!(render(&world.state(), NodeId(9)).unwrap_err(), RenderError::NotMember(NodeId(9)));
}

#[test]
fn a_virtual_mac_is_local_unicast_and_depends_on_cluster_address_and_vlan() {
    let mac = |cluster: u8, ip: &str, vlan| {
        virtual_mac(ClusterId([cluster; 16]), VirtualIp { ip: ip.parse().unwrap(), vlan })
    };
    let (none, vlan) = (Vlan::NONE, Vlan::one(30).unwrap());
    let all = [
        mac(1, "10.0.0.1", none),
        mac(1, "10.0.0.2", none),
        mac(2, "10.0.0.1", none),
        mac(1, "fd00::1", none),
        mac(1, "10.0.0.1", vlan),
    ];
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one[0] & 0b11, 0b10, "local and unicast");
        assert!(!all[..at].contains(one));
    }
    assert_eq!(mac(1, "10.0.0.1", none), all[0]);
}
