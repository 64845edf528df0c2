//! The program in the kernel against the oracle, against the same code in user space, and against sockets.

mod program_support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use farm_common::decide::Env;
use farm_common::flow::{Address, Flow};
use farm_common::fragment::{Fragments, Ports, Whole};
use farm_common::hash::Bucket;
use farm_common::image::{Image, SlotBuilder};
use farm_common::judge::{Ingress, judge};
use farm_common::layout::{BUCKETS, Entry, Node, Port, Slot};
use farm_common::parse::Ethernet;
use farm_common::rewrite::rewrite;
use farm_common::verdict::{BootTime, Criterion, Mode, Phase, Reason, Socket, Verdict};
use serde::Deserialize;

use program_support::{Kernel, Outcome, in_namespace, port};

/// `tests/oracle/cases.json`, as `oracle.py` writes it.
#[derive(Deserialize)]
struct Oracle {
    hashes: Vec<(String, std::net::IpAddr, Option<u16>, usize)>,
    networks: Vec<(String, std::net::IpAddr, usize)>,
    worlds: Vec<World>,
}

#[derive(Deserialize)]
struct World {
    name: String,
    me: u8,
    step: String,
    current: u8,
    previous: u8,
    deadline: u64,
    epoch: u64,
    generation: u64,
    hash_key: String,
    vips: Vec<VipSpec>,
    services: Vec<ServiceSpec>,
    nodes: Vec<NodeSpec>,
    ports: Vec<PortSpec>,
    /// Offset, bytes, how often they follow each other; all else is zero.
    bytes: Vec<(usize, String, usize)>,
    /// Name, frame, action, frame afterwards unless it is the same.
    cases: Vec<(String, String, String, Option<String>)>,
}

#[derive(Deserialize)]
struct VipSpec {
    address: std::net::IpAddr,
    vmac: String,
    module: u8,
    mode: String,
    link: u8,
}

#[derive(Deserialize)]
struct ServiceSpec {
    vip: usize,
    protocol: u8,
    port: u16,
    criterion: String,
}

#[derive(Deserialize)]
struct NodeSpec {
    index: u8,
    link: u8,
    address: std::net::Ipv4Addr,
    address6: std::net::Ipv6Addr,
    mac: String,
}

#[derive(Deserialize)]
struct PortSpec {
    mac: String,
    proof: String,
    link: u8,
    ifindex: u32,
    vlan: u32,
}

fn oracle() -> Oracle {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/cases.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn mac(text: &str) -> [u8; 6] {
    hex(text).try_into().unwrap()
}

fn key(text: &str) -> [u64; 2] {
    let bytes = hex(text);
    [0, 8].map(|start| u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap()))
}

impl World {
    fn table(&self) -> Image {
        let mut builder =
            SlotBuilder::new(self.generation, self.epoch, self.me, key(&self.hash_key)).unwrap();
        let vips: Vec<_> = self
            .vips
            .iter()
            .map(|vip| {
                builder.vip(vip.address, vip.module, vip.link, mode(&vip.mode), mac(&vip.vmac)).unwrap()
            })
            .collect();
        for service in &self.services {
            let criterion = criterion(&service.criterion);
            builder.service(vips[service.vip], service.protocol, service.port, criterion).unwrap();
        }
        for node in &self.nodes {
            let (address6, address4) = (node.address6.octets(), node.address.octets());
            let value = Node { address6, address4, mac: mac(&node.mac), reserved: [0; 6] };
            builder.node(node.link, node.index, value).unwrap();
        }
        let phase = phase(&self.step).into();
        for bucket in 0..BUCKETS {
            let entry = Entry { current: self.current, previous: self.previous, phase, reserved: 0 };
            builder.entry(0, bucket, entry).unwrap();
        }
        let mut image = builder.finish().unwrap();
        image.head.deadline = self.deadline;
        image
    }

    /// By link.
    fn ports(&self) -> Vec<Port> {
        let port = |(link, port): (usize, &PortSpec)| {
            assert_eq!(usize::from(port.link), link);
            let (mac, proof) = (mac(&port.mac), mac(&port.proof));
            Port { mac, proof, ifindex: port.ifindex, vlan: port.vlan, ..Port::default() }
        };
        self.ports.iter().enumerate().map(port).collect()
    }

    fn expected_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Slot>()];
        for (offset, data, repeat) in &self.bytes {
            let data = hex(data).repeat(*repeat);
            bytes[*offset..offset + data.len()].copy_from_slice(&data);
        }
        bytes
    }
}

fn mode(name: &str) -> Mode {
    *Mode::ALL.iter().find(|mode| format!("{mode:?}").to_lowercase() == name).unwrap()
}

fn criterion(name: &str) -> Criterion {
    match name {
        "source-address" => Criterion::SourceAddress,
        "source-port" => Criterion::SourcePort,
        "source-network" => Criterion::SourceNetwork,
        other => panic!("criterion {other}"),
    }
}

fn phase(step: &str) -> Phase {
    match step {
        "stable" => Phase::Stable,
        "prepare" => Phase::Prepare,
        "move" => Phase::Move,
        "closed" => Phase::MoveClosed,
        "activate" => Phase::Activate,
        other => panic!("step {other}"),
    }
}

/// The kernel's part in user space: no sockets in these tests, up for more than 1 ns, and a memory of first fragments
/// as large as it takes.
#[derive(Default)]
struct Pretended {
    fragments: RefCell<BTreeMap<Whole, Ports>>,
}

impl Fragments for Pretended {
    fn remember(&self, packet: &Whole, ports: Ports) {
        self.fragments.borrow_mut().insert(*packet, ports);
    }

    fn recall(&self, packet: &Whole) -> Option<Ports> {
        self.fragments.borrow().get(packet).copied()
    }
}

impl Env for Pretended {
    fn socket(&self, _: &Flow) -> Socket {
        Socket::None
    }

    fn now(&self) -> BootTime {
        BootTime(1000)
    }
}

/// The same in user space.
fn in_user_space(env: &Pretended, slot: &Slot, ports: &[Port], frame: &[u8]) -> (Verdict, Outcome) {
    let passed = (Verdict::Pass, Outcome { action: "pass", frame: frame.to_vec() });
    let Some(ethernet) = Ethernet::parse(frame) else { return passed };
    match Ingress::find(1, ethernet.vlan, |link| ports.get(usize::from(link))) {
        Some(ingress) => on_link(env, slot, &ingress, &ethernet, frame),
        None => passed,
    }
}

fn on_link(
    env: &Pretended,
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &[u8],
) -> (Verdict, Outcome) {
    let verdict = judge(slot, ingress, ethernet, frame, env);
    let mut frame = frame.to_vec();
    rewrite(&verdict, slot, ingress, ethernet, &mut frame[..]).unwrap();
    let action = match verdict {
        Verdict::Pass | Verdict::Accept(_) => "pass",
        Verdict::Forward { .. } | Verdict::Answer => "tx",
        Verdict::Drop(_) => "drop",
    };
    (verdict, Outcome { action, frame })
}

#[test]
fn hashes_are_those_of_the_oracle() {
    let oracle = oracle();
    assert!(oracle.hashes.len() > 100);
    for (secret, client, port, bucket) in oracle.hashes {
        let got = Bucket::of(key(&secret), &Address::from(client), port).index();
        assert_eq!(got, bucket, "{secret} {client} {port:?}");
    }
    assert!(!oracle.networks.is_empty());
    for (secret, client, bucket) in oracle.networks {
        let (network, port) = Criterion::SourceNetwork.hashed(&Address::from(client), 40001);
        assert_eq!(Bucket::of(key(&secret), &network, port).index(), bucket, "{secret} {client}");
    }
}

#[test]
fn tables_are_laid_out_as_the_oracle_packs_them() {
    for world in oracle().worlds {
        let image = world.table();
        let slot: &Slot = &image;
        // SAFETY: a `Slot` has no padding (proven in `layout`), so all its bytes are initialised.
        let bytes =
            unsafe { std::slice::from_raw_parts(std::ptr::from_ref(slot).cast::<u8>(), size_of::<Slot>()) };
        let expected = world.expected_bytes();
        let difference = (0..bytes.len()).find(|i| bytes[*i] != expected[*i]);
        assert_eq!(difference, None, "first wrong byte of {}", world.name);
    }
}

#[test]
fn the_oracle_s_verdicts_hold_in_the_kernel_and_in_user_space() {
    let oracle = oracle();
    in_namespace(|| {
        let mut kernel = Kernel::load(port(1));
        let (pretended, mut count, mut wrong) = (Pretended::default(), 0, vec![]);
        for world in &oracle.worlds {
            let (slot, ports) = (world.table(), world.ports());
            kernel.publish(&slot);
            kernel.set_ports(&ports);
            for (name, frame, action, after) in &world.cases {
                let frame = hex(frame);
                let expected =
                    (action.as_str(), after.as_ref().map_or_else(|| frame.clone(), |after| hex(after)));
                let (verdict, ours) = in_user_space(&pretended, &slot, &ports, &frame);
                for outcome in [kernel.run(&frame), ours] {
                    if (outcome.action, outcome.frame.clone()) != expected {
                        wrong.push(format!(
                            "{}: {name}: {verdict:?}\n  {expected:02x?}\n  {outcome:02x?}",
                            world.name
                        ));
                    }
                }
                count += 1;
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {count} wrong, first:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(3)].join("\n")
        );
        assert!(count > 7000, "only {count} cases");
    });
}

/// The planted mistake: the interface alone says which link it is.
#[test]
fn a_vlan_ignored_in_the_key_is_found() {
    let oracle = oracle();
    let world = oracle.worlds.iter().find(|world| world.name == "directed stable node2").unwrap();
    let (slot, ports) = (world.table(), world.ports());
    let pretended = Pretended::default();
    let wrong = world.cases.iter().filter(|(_, frame, action, after)| {
        let frame = hex(frame);
        let ingress = Ingress { link: 0, port: &ports[0] };
        let (_, outcome) =
            on_link(&pretended, &slot, &ingress, &Ethernet::parse(&frame[..]).unwrap(), &frame);
        (outcome.action, outcome.frame) != (action, after.as_ref().map_or(frame, |after| hex(after)))
    });
    let names: Vec<_> = wrong.map(|(name, ..)| name.as_str()).collect();
    for served_wrongly in ["syn, VLAN 6, from client", "syn, VLAN 5, from client", "request, VLAN 6"] {
        assert!(names.contains(&served_wrongly), "{names:?}");
    }
    assert!(names.iter().all(|name| name.contains("VLAN") || name.contains("three tags")), "{names:?}");
}

/// The planted mistake: the packet inside an error is read as if the client had sent it. Who does not swap its two ends
/// reads what another one reads who swaps them, of a packet with its ends swapped.
#[test]
fn an_embedded_packet_read_the_wrong_way_round_is_found() {
    let oracle = oracle();
    let world = oracle.worlds.iter().find(|world| world.name == "directed stable node2").unwrap();
    let (slot, ports) = (world.table(), world.ports());
    let errors = world.cases.iter().filter_map(|(name, frame, action, _)| {
        let mut frame = hex(frame);
        let inner = embedded(&frame)?;
        let (ends, ports) = (inner + 12, inner + usize::from(frame[inner] & 0x0f) * 4);
        frame.get(ports + 4)?;
        swap(&mut frame[ends..ends + 8]);
        swap(&mut frame[ports..ports + 4]);
        Some((name, frame, action))
    });
    let judged = errors.map(|(name, frame, action)| {
        let ingress = Ingress { link: 0, port: &ports[0] };
        let ethernet = Ethernet::parse(&frame[..]).unwrap();
        let (_, outcome) = on_link(&Pretended::default(), &slot, &ingress, &ethernet, &frame);
        (name, action, outcome.action)
    });
    let delivered: Vec<_> = judged.filter(|(_, action, _)| *action != "drop").collect();
    assert!(delivered.len() > 3, "{delivered:?}");
    assert!(delivered.iter().all(|(_, action, got)| action != got), "{delivered:?}");
}

/// Where the IPv4 packet inside an ICMP error begins, in a frame without a tag.
fn embedded(frame: &[u8]) -> Option<usize> {
    let ip = (frame.get(12..14)? == [8, 0]).then_some(14)?;
    let icmp = ip + usize::from(frame.get(ip)? & 0x0f) * 4;
    let error = frame.get(ip + 9)? == &1 && matches!(frame.get(icmp)?, 3 | 11 | 12);
    error.then_some(icmp + 8).filter(|inner| frame.len() > inner + 20)
}

fn swap(pair: &mut [u8]) {
    let (first, second) = pair.split_at_mut(pair.len() / 2);
    first.swap_with_slice(second);
}

/// The planted mistakes: words are hashed as they lie in a machine of the other byte order, the client's or the key's.
#[test]
fn a_hash_of_another_byte_order_is_found() {
    let hashes = oracle().hashes;
    let found = |key_of: fn([u64; 2]) -> [u64; 2], words_of: fn([u64; 2]) -> [u64; 2]| {
        let wrong = |(secret, client, port, bucket): &&(String, std::net::IpAddr, Option<u16>, usize)| {
            let address = Address::of_words(words_of(Address::from(*client).words()));
            Bucket::of(key_of(key(secret)), &address, *port).index() != *bucket
        };
        hashes.iter().filter(wrong).count()
    };
    let (same, other) = (|words| words, |words: [u64; 2]| words.map(u64::swap_bytes));
    assert_eq!(found(same, same), 0);
    assert!(found(same, other) > hashes.len() / 2 && found(other, same) > hashes.len() / 2);
}

/// SplitMix64: a fixed seed gives the same frames on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Garbage, or one of the oracle's frames with some bytes changed, cut or grown.
    fn frame(&mut self, known: &[Vec<u8>]) -> Vec<u8> {
        if self.below(10) == 0 {
            let length = 14 + self.below(200);
            return self.bytes(length);
        }
        let mut frame = known[self.below(known.len())].clone();
        for _ in 0..self.below(4) {
            let at = self.below(frame.len());
            frame[at] = self.next() as u8;
        }
        match self.below(6) {
            0 => frame.truncate(14 + self.below(frame.len() - 13)),
            1 => frame.extend(self.bytes(40)),
            _ => {}
        }
        frame
    }

    /// Every bucket in another state, also ones that never occur.
    fn spoil(&mut self, slot: &mut Slot) {
        for entry in &mut slot.entries[0] {
            let [current, previous, phase] = [self.below(6) as u8, self.below(6) as u8, self.below(6) as u8];
            *entry = Entry { current, previous, phase, reserved: 0 };
        }
        slot.head.me = 1 + self.below(4) as u8;
        slot.head.deadline = if self.below(8) == 0 { 1 } else { u64::MAX };
    }

    /// Clients differ, so that all buckets are met.
    fn readdress(&mut self, frame: &mut [u8]) {
        if let Some(client) = frame.get_mut(26..30) {
            client.copy_from_slice(&(self.next() as u32).to_be_bytes());
        }
    }
}

#[test]
fn kernel_and_user_space_agree_on_random_frames_and_tables() {
    const ROUNDS: usize = 60;
    const FRAMES: usize = 500;
    let oracle = oracle();
    let frames = oracle.worlds.iter().flat_map(|world| &world.cases).map(|case| hex(&case.1));
    let known: Vec<_> = frames.filter(|frame| frame.len() >= 34).collect();
    in_namespace(|| {
        let (mut random, pretended) = (Random(20), Pretended::default());
        let mut kernel = Kernel::load(port(1));
        let mut reasons: BTreeMap<Reason, u64> = BTreeMap::new();
        for round in 0..ROUNDS {
            let world = &oracle.worlds[random.below(oracle.worlds.len())];
            let (mut slot, ports) = (world.table(), world.ports());
            random.spoil(&mut slot);
            kernel.publish(&slot);
            kernel.set_ports(&ports);
            for number in 0..FRAMES {
                let mut frame = random.frame(&known);
                if random.below(2) == 0 {
                    random.readdress(&mut frame);
                }
                let (verdict, expected) = in_user_space(&pretended, &slot, &ports, &frame);
                assert_eq!(
                    kernel.run(&frame),
                    expected,
                    "{verdict:?}, frame {number} of round {round}: {frame:02x?}"
                );
                if matches!(verdict, Verdict::Pass | Verdict::Drop(_)) {
                    assert_eq!(expected.frame, frame, "{verdict:?} leaves the frame alone");
                }
                *reasons.entry(verdict.reason()).or_default() += 1;
            }
        }
        let counted = kernel.counters().into_iter().filter(|(_, count)| *count != 0);
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), reasons, "one counter for each verdict");
        // Without sockets nothing is accepted for having one.
        let unmet = |reason: &&Reason| !reasons.contains_key(reason) && **reason != Reason::AcceptSocket;
        let missing: Vec<_> = Reason::ALL.iter().filter(unmet).collect();
        assert!(missing.is_empty(), "never met: {missing:?}");
    });
}

#[test]
fn nothing_is_for_a_virtual_ip_where_no_link_is() {
    in_namespace(|| {
        let slot = program_support::table(2, Mode::Directed, Phase::Stable, 0, 2);
        let mut kernel = Kernel::load(port(2));
        kernel.publish(&slot);
        let syn = program_support::segment(program_support::node_mac(2), 40000, 2, 1, 0);
        assert_ne!(kernel.run(&syn).frame, syn, "accepted: with the proof of passage");
        for nowhere in [Port { ifindex: 0, ..port(2) }, Port { vlan: 30, ..port(2) }] {
            kernel.set_port(nowhere);
            assert_eq!(kernel.run(&syn), Outcome { action: "pass", frame: syn.clone() });
        }
        assert!(kernel.counters().contains(&(Reason::Passed, 2)));
    });
}

#[test]
fn a_fresh_program_is_closed_and_passes_what_is_not_its_own() {
    in_namespace(|| {
        let kernel = Kernel::load(port(1));
        let syn = program_support::segment(program_support::node_mac(1), 40000, 2, 1, 0);
        assert_eq!(
            kernel.run(&syn),
            Outcome { action: "pass", frame: syn.clone() },
            "no virtual IP is known"
        );
        let mut closed = program_support::table(1, Mode::Directed, Phase::Stable, 0, 1);
        closed.head.deadline = 0;
        let mut kernel = kernel;
        kernel.publish(&closed);
        assert_eq!(kernel.run(&syn), Outcome { action: "drop", frame: syn.clone() });
        assert!(kernel.counters().contains(&(Reason::LeaseExpired, 1)));
    });
}
