//! No frame is sent on without end: frames are judged, rewritten and delivered between two owners of a bucket that moves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use farm_common::decide::Given;
use farm_common::image::{Image, SlotBuilder};
use farm_common::judge::{Ingress, judge};
use farm_common::layout::{BUCKETS, Entry, Node, Port};
use farm_common::parse::Ethernet;
use farm_common::rewrite::rewrite;
use farm_common::verdict::{BootTime, Criterion, Mode, Phase, Reason, Socket, Verdict};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
const P: u8 = 1;
const C: u8 = 2;
/// Time to live of what a client sends.
const HOPS: u8 = 64;
const STRANGER: [u8; 6] = [2, 0, 0, 0, 9, 9];

fn mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, node]
}

fn table(me: u8) -> Image {
    let mut table = SlotBuilder::new(1, 1, me, [3, 4]).unwrap();
    for vip in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
        let id = table.vip(vip, 0, 0, Mode::Directed, [2, 0xfa, 0, 0, 0, 1]).unwrap();
        table.service(id, 6, 80, Criterion::SourceAddress).unwrap();
    }
    for node in [P, C] {
        let address6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, node.into()).octets();
        let value = Node { address6, address4: [10, 77, 0, node], mac: mac(node), reserved: [0; 6] };
        table.node(0, node, value).unwrap();
    }
    for bucket in 0..BUCKETS {
        let entry = Entry { current: C, previous: P, phase: Phase::Move.into(), reserved: 0 };
        table.entry(0, bucket, entry).unwrap();
    }
    let mut table = table.finish().unwrap();
    table.head.deadline = 2;
    table
}

/// A SYN from host `source` of the network to C.
fn syn(v6: bool, source: u8) -> Vec<u8> {
    let mut frame = [&mac(C)[..], &[2, 0, 0, 0, 12, 1]].concat();
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, HOPS]);
        let source = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, source.into());
        frame.extend([source.octets(), VIP6.octets()].concat());
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, HOPS, 6, 0, 0]);
        frame.extend([[10, 77, 0, source], VIP.octets()].concat());
    }
    frame.extend([0x9c, 0x41, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

/// How often it was sent on, and what became of it then. `between` is what the network does to it on its way.
fn follow(mut frame: Vec<u8>, between: fn(&mut [u8])) -> (usize, Verdict) {
    let tables = [table(P), table(C)];
    let given = Given { socket: Socket::None, now: BootTime(1) };
    let mut node = C;
    for forwards in 0.. {
        let table = &tables[usize::from(node) - 1];
        let port = Port { mac: mac(node), ifindex: 1, ..Port::default() };
        let ingress = Ingress { link: 0, port: &port };
        let ethernet = Ethernet::parse(&frame[..]).unwrap();
        let verdict = judge(table, &ingress, &ethernet, &frame[..], &given);
        rewrite(&verdict, table, &ingress, &ethernet, &mut frame[..]).unwrap();
        let Verdict::Forward { node: next, .. } = verdict else { return (forwards, verdict) };
        node = next.0;
        between(&mut frame);
        assert!(forwards < 1000, "it is sent on without end");
    }
    unreachable!("the loop has no end of its own")
}

/// Also if it claims to come from P, whose bounce it then looks like P's own question.
#[test]
fn a_new_flow_reaches_its_owner_whatever_address_it_claims() {
    for (v6, source) in [false, true].into_iter().flat_map(|v6| [P, C, 50].map(|source| (v6, source))) {
        let (forwards, verdict) = follow(syn(v6, source), |_| {});
        assert!(matches!(verdict, Verdict::Accept(_)) && forwards == 2, "{v6} {source}: {verdict:?}");
    }
}

/// By their MACs neither owner knows the other, so each takes what it gets for a client's.
#[test]
fn what_the_network_gives_another_mac_ends_with_its_hops() {
    for v6 in [false, true] {
        let (forwards, verdict) = follow(syn(v6, 50), |frame| frame[6..12].copy_from_slice(&STRANGER));
        assert_eq!((forwards, verdict), (usize::from(HOPS) - 1, Verdict::Drop(Reason::HopLimit)));
    }
}
