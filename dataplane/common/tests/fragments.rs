//! All fragments of a packet reach one node, the one that a whole packet of the flow would reach: frames are judged,
//! rewritten and delivered between nodes until somebody keeps them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use farm_common::decide::Env;
use farm_common::flow::Flow;
use farm_common::fragment::{Fragments, Ports, Whole};
use farm_common::image::{Image, SlotBuilder};
use farm_common::judge::{Ingress, judge};
use farm_common::layout::{BUCKETS, Entry, Node, Port};
use farm_common::parse::Ethernet;
use farm_common::rewrite::rewrite;
use farm_common::verdict::{BootTime, Criterion, Mode, Phase, Socket, Verdict};

const NODES: u8 = 3;
const VMAC: [u8; 6] = [2, 0xfa, 0, 0, 0, 1];
const TCP: u8 = 6;
const UDP: u8 = 17;
const PORT: u16 = 443;

/// One node: its table, and the first fragments that it has seen.
struct Machine {
    table: Image,
    port: Port,
    memory: RefCell<BTreeMap<Whole, Ports>>,
    forgets: bool,
}

impl Fragments for Machine {
    fn remember(&self, packet: &Whole, ports: Ports) {
        if !self.forgets {
            self.memory.borrow_mut().insert(*packet, ports);
        }
    }

    fn recall(&self, packet: &Whole) -> Option<Ports> {
        self.memory.borrow().get(packet).copied()
    }
}

impl Env for Machine {
    fn socket(&self, _: &Flow) -> Socket {
        Socket::None
    }

    fn now(&self) -> BootTime {
        BootTime(1)
    }
}

fn mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, node]
}

fn client(v6: bool) -> IpAddr {
    if v6 { "fd77::50".parse().unwrap() } else { "10.77.0.50".parse().unwrap() }
}

fn vip(v6: bool) -> IpAddr {
    if v6 { "fd77::100".parse().unwrap() } else { "10.77.0.100".parse().unwrap() }
}

/// Every bucket in the same step, between owners that differ from bucket to bucket.
fn machines(mode: Mode, phase: Phase, forgets: bool) -> Vec<Machine> {
    let machine = |me| {
        let mut table = SlotBuilder::new(1, 1, me, [3, 4]).unwrap();
        for v6 in [false, true] {
            let id = table.vip(vip(v6), 0, 0, mode, VMAC).unwrap();
            for protocol in [TCP, UDP] {
                table.service(id, protocol, PORT, Criterion::SourcePort).unwrap();
            }
        }
        for node in 1..=NODES {
            table.node(0, node, Node { mac: mac(node), ..Node::default() }).unwrap();
        }
        for bucket in 0..BUCKETS {
            let [current, previous] = [0, 1].map(|shift| ((bucket + shift) % usize::from(NODES)) as u8 + 1);
            let previous = if phase == Phase::Stable { 0 } else { previous };
            table.entry(0, bucket, Entry { current, previous, phase: phase.into(), reserved: 0 }).unwrap();
        }
        let mut table = table.finish().unwrap();
        table.head.deadline = 2;
        let port = Port { mac: mac(me), proof: [2, 0, 0, 0, 1, me], ifindex: 1, ..Port::default() };
        Machine { table, port, memory: RefCell::default(), forgets }
    };
    (1..=NODES).map(machine).collect()
}

/// A piece of a packet of eight bytes of ports and whatever, and more behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Whole,
    First,
    Last,
}

fn frame(v6: bool, to: [u8; 6], protocol: u8, from: u16, id: u16, piece: Piece) -> Vec<u8> {
    // In units of eight bytes, and whether more follow.
    let (offset, more) = match piece {
        Piece::Whole => (0u16, false),
        Piece::First => (0, true),
        Piece::Last => (3, false),
    };
    let mut payload = vec![0xa5; 24];
    if offset == 0 {
        payload[..2].copy_from_slice(&from.to_be_bytes());
        payload[2..4].copy_from_slice(&PORT.to_be_bytes());
        payload[13] = 0x10;
    }
    let mut frame = [&to[..], &[2, 0, 0, 0, 12, 1]].concat();
    match (client(v6), vip(v6)) {
        (IpAddr::V4(client), IpAddr::V4(vip)) => {
            let flags = offset | if more { 0x2000 } else { 0 };
            frame.extend([8, 0, 0x45, 0, 0, 44]);
            frame.extend([id.to_be_bytes(), flags.to_be_bytes()].concat());
            frame.extend([64, protocol, 0, 0]);
            frame.extend([client.octets(), vip.octets()].concat());
        }
        (IpAddr::V6(client), IpAddr::V6(vip)) => {
            let fragmented = piece != Piece::Whole;
            let (next, length) = if fragmented { (44, 32) } else { (protocol, 24) };
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, next, 64]);
            frame.extend([client.octets(), vip.octets()].concat());
            if fragmented {
                frame.extend([protocol, 0]);
                frame.extend((offset << 3 | u16::from(more)).to_be_bytes());
                frame.extend([[0, 0], id.to_be_bytes()].concat());
            }
        }
        other => panic!("{other:?} are of two families"),
    }
    frame.extend(payload);
    frame
}

/// Who accepts a client's frame that goes to `entry`, or in flood mode to everybody.
fn acceptors(machines: &[Machine], mode: Mode, entry: u8, frame: &[u8]) -> BTreeSet<u8> {
    match mode {
        Mode::Directed => follow(machines, entry, frame).into_iter().collect(),
        Mode::Flood => (1..=NODES).filter_map(|node| follow(machines, node, frame)).collect(),
    }
}

fn follow(machines: &[Machine], mut node: u8, frame: &[u8]) -> Option<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..5 {
        let machine = &machines[usize::from(node) - 1];
        let ingress = Ingress { link: 0, port: &machine.port };
        let ethernet = Ethernet::parse(&frame[..]).unwrap();
        let verdict = judge(&machine.table, &ingress, &ethernet, &frame[..], machine);
        rewrite(&verdict, &machine.table, &ingress, &ethernet, &mut frame[..]).unwrap();
        match verdict {
            Verdict::Accept(_) => return Some(node),
            Verdict::Forward { node: next, .. } => node = next.0,
            Verdict::Drop(_) => return None,
            Verdict::Pass | Verdict::Answer => panic!("{verdict:?} for a packet"),
        }
    }
    panic!("a fragment is sent on without end");
}

fn check(mode: Mode, phase: Phase, forgets: bool) -> Result<(), String> {
    let machines = machines(mode, phase, forgets);
    let mut reached = BTreeSet::new();
    for (v6, protocol, port, entry) in cases() {
        let to = if mode == Mode::Flood { VMAC } else { mac(entry) };
        let by = |piece| {
            let frame = frame(v6, to, protocol, 40_000 + port, port * 7 + u16::from(entry), piece);
            acceptors(&machines, mode, entry, &frame)
        };
        let [whole, first, last] = [Piece::Whole, Piece::First, Piece::Last].map(by);
        if whole != first || first != last || whole.len() > 1 {
            return Err(format!("{mode:?} {phase:?} {protocol} at {entry}: {whole:?}, {first:?}, {last:?}"));
        }
        reached.extend(whole);
    }
    assert!(phase == Phase::MoveClosed || reached.len() == usize::from(NODES), "only {reached:?} accept");
    Ok(())
}

fn cases() -> impl Iterator<Item = (bool, u8, u16, u8)> {
    let families = [false, true].into_iter().flat_map(|v6| [TCP, UDP].map(|protocol| (v6, protocol)));
    let ports = families.flat_map(|(v6, protocol)| (0..40).map(move |port| (v6, protocol, port)));
    ports.flat_map(|(v6, protocol, port)| (1..=NODES).map(move |entry| (v6, protocol, port, entry)))
}

#[test]
fn fragments_go_where_their_packet_would() {
    for mode in [Mode::Directed, Mode::Flood] {
        for phase in Phase::ALL {
            check(mode, *phase, false).unwrap();
        }
    }
}

/// The first fragment goes by its ports, the others by address.
#[test]
fn a_node_that_remembers_no_first_fragment_is_found() {
    for mode in [Mode::Directed, Mode::Flood] {
        check(mode, Phase::Stable, true).unwrap_err();
    }
}

#[test]
fn a_later_fragment_without_its_first_goes_by_address() {
    let machines = machines(Mode::Directed, Phase::Stable, false);
    let by = |port| {
        let frame = frame(false, mac(1), UDP, port, port, Piece::Last);
        acceptors(&machines, Mode::Directed, 1, &frame)
    };
    let all: BTreeSet<_> = (1..40).map(by).collect();
    assert_eq!(all.len(), 1, "{all:?}");
}
