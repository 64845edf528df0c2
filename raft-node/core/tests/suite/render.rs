//! The filter's table.

use farm_common::verdict;
use farm_core::id::NodeId;
use farm_core::model::Phase;
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
fn who_is_no_member_has_no_table() {
    let world = World::new(1, 2);
    assert_eq!(render(&world.state(), NodeId(9)).unwrap_err(), RenderError::NotMember(NodeId(9)));
}

#[test]
fn a_virtual_mac_is_local_unicast_and_depends_on_cluster_and_address() {
    let mac =
        |cluster: u8, vip: &str| virtual_mac(farm_core::id::ClusterId([cluster; 16]), vip.parse().unwrap());
    let all = [mac(1, "10.0.0.1"), mac(1, "10.0.0.2"), mac(2, "10.0.0.1"), mac(1, "fd00::1")];
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one[0] & 0b11, 0b10, "local and unicast");
        assert!(!all[..at].contains(one));
    }
    assert_eq!(mac(1, "10.0.0.1"), all[0]);
}
