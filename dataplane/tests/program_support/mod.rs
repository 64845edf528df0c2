//! The program in the kernel without an interface: `BPF_PROG_TEST_RUN` in a network namespace of its own.

#![allow(dead_code, reason = "tests and benchmark use their own part each")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader, Pod, include_bytes_aligned};
use farm_common::flow::Address;
use farm_common::fragment::Whole;
use farm_common::image::{Image, SlotBuilder};
use farm_common::layout::{
    Asked, Asker, BUCKETS, Entry, LINKS, MAP_ASKERS, MAP_COUNTERS, MAP_ELSEWHERE, MAP_FRAGMENTS, MAP_PORTS,
    MAP_TABLE, MAP_WORD, Node, PROGRAM, Port, Slot, Word,
};
use farm_common::memory::ServiceKey;
use farm_common::verdict::{Criterion, Mode, Phase, Reason};
use farm_dataplane::netns::NetNs;

pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x50);
pub const VMAC: [u8; 6] = [2, 0xfa, 0, 0, 1, 0];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 12, 1];
/// Test runs without a context come from `lo`, which is the first interface of its namespace.
const LOOPBACK: u32 = 1;

/// A layout struct as bytes for the kernel.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);

// SAFETY: `repr(C)`, integers only, no padding (proven in `layout`); every bit pattern is valid.
unsafe impl Pod for Raw<Slot> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Port> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Asker> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Asked> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Word> {}
// SAFETY: as above.
unsafe impl Pod for Raw<ServiceKey> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Whole> {}

pub fn node_mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, node]
}

/// What `BPF_PROG_TEST_RUN` made of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub action: &'static str,
    pub frame: Vec<u8>,
}

/// The loaded program.
pub struct Kernel {
    ebpf: Ebpf,
    next: u64,
}

impl Kernel {
    /// Loads it with one port, `lo`, as link 0.
    pub fn load(port: Port) -> Self {
        let object = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/farm-xdp"));
        let mut ebpf = EbpfLoader::new().load(object).unwrap();
        let program: &mut Xdp = ebpf.program_mut(PROGRAM).unwrap().try_into().unwrap();
        program.load().unwrap();
        let mut kernel = Self { ebpf, next: 0 };
        kernel.set_port(Port { ifindex: LOOPBACK, ..port });
        kernel
    }

    pub fn set_port(&mut self, port: Port) {
        self.set_ports(&[port]);
    }

    /// By link.
    pub fn set_ports(&mut self, ports: &[Port]) {
        for link in 0..LINKS {
            let port = ports.get(link).copied().unwrap_or_default();
            self.array(MAP_PORTS).set(link as u32, Raw(port), 0).unwrap();
        }
    }

    /// Writes the other slot, then flips to it.
    pub fn publish(&mut self, slot: &Slot) {
        self.next += 1;
        // SAFETY: `Raw` is a transparent wrapper.
        let raw = unsafe { &*std::ptr::from_ref(slot).cast::<Raw<Slot>>() };
        let (next, index) = (self.next, (self.next & 1) as u32);
        self.array::<Raw<Slot>>(MAP_TABLE).set(index, raw, 0).unwrap();
        self.array(MAP_WORD).set(0, Raw(Word { word: next }), 0).unwrap();
    }

    /// Flows of the service at `port` of either virtual IP are remembered from now on.
    pub fn remember(&mut self, protocol: u8, port: u16, own: Port) {
        let map = self.ebpf.map_mut(MAP_ELSEWHERE).unwrap();
        let mut elsewhere = HashMap::<_, Raw<ServiceKey>, u8>::try_from(map).unwrap();
        for vip in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
            let vip = Address::from(vip).words();
            let key = ServiceKey { vip, port: port.into(), protocol: protocol.into() };
            elsewhere.insert(Raw(key), 1, 0).unwrap();
        }
        self.set_port(Port { ifindex: LOOPBACK, remembers: 1, ..own });
    }

    /// Forgets all first fragments: the next frame meets none of before.
    pub fn forget_fragments(&mut self) {
        let map = self.ebpf.map_mut(MAP_FRAGMENTS).unwrap();
        let mut fragments = HashMap::<_, Raw<Whole>, u32>::try_from(map).unwrap();
        let all: Vec<_> = fragments.keys().map(Result::unwrap).collect();
        all.iter().for_each(|packet| fragments.remove(packet).unwrap());
    }

    fn array<T: Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        self.ebpf.map_mut(name).unwrap().try_into().unwrap()
    }

    pub fn run(&self, frame: &[u8]) -> Outcome {
        let mut out = vec![0; frame.len() + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.test_run(options);
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => "drop",
            2 => "pass",
            3 => "tx",
            other => panic!("XDP action {other}"),
        };
        Outcome { action, frame: out }
    }

    /// Mean time of one run, loop overhead included.
    pub fn time(&self, frame: &[u8], repeat: u32) -> f64 {
        let result = self.test_run(TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() });
        result.duration.as_nanos() as f64
    }

    /// Instructions that the verifier followed to accept the program; kernels before 5.16 do not say.
    pub fn verified(&self) -> Option<u32> {
        let program: &Xdp = self.ebpf.program(PROGRAM).unwrap().try_into().unwrap();
        program.info().unwrap().verified_instruction_count()
    }

    fn test_run(&self, options: TestRunOptions<'_>) -> TestRunResult {
        let program: &Xdp = self.ebpf.program(PROGRAM).unwrap().try_into().unwrap();
        program.test_run(options).unwrap()
    }

    /// Who has asked for a virtual IP.
    pub fn askers(&self) -> Vec<(Asker, Asked)> {
        let map: &Map = self.ebpf.map(MAP_ASKERS).unwrap();
        let map = HashMap::<_, Raw<Asker>, Raw<Asked>>::try_from(map).unwrap();
        map.iter().map(Result::unwrap).map(|(asker, asked)| (asker.0, asked.0)).collect()
    }

    /// Counters, summed over the CPUs, in the order of `Reason::ALL`.
    pub fn counters(&self) -> Vec<(Reason, u64)> {
        let map: &Map = self.ebpf.map(MAP_COUNTERS).unwrap();
        let map = PerCpuArray::<_, u64>::try_from(map).unwrap();
        let sum = |reason: Reason| map.get(&u32::from(reason), 0).unwrap().iter().sum();
        Reason::ALL.iter().map(|reason| (*reason, sum(*reason))).collect()
    }
}

/// Runs `work` in a fresh network namespace with the virtual IP and the client's address on `lo`.
pub fn in_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    assert!(nix::unistd::geteuid().is_root(), "loading XDP programs needs root: run these tests as root");
    let namespace = NetNs::create().unwrap();
    namespace
        .run(|| {
            shell("ip link set lo up");
            shell(&format!("ip address add {VIP}/32 dev lo"));
            shell(&format!("ip address add {CLIENT}/32 dev lo"));
            shell(&format!("ip address add {VIP6}/128 dev lo nodad"));
            shell(&format!("ip address add {CLIENT6}/128 dev lo nodad"));
            work()
        })
        .unwrap()
}

/// In the namespace of the calling thread.
pub fn shell(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The interface of node `me`.
pub fn port(me: u8) -> Port {
    let proof = [2, 0x9a, 0xbc, 0xde, 0xf0, 0x12];
    Port { mac: node_mac(me), proof, ifindex: LOOPBACK, ..Port::default() }
}

/// A table with nodes 1 to 4, [`VIP`] and [`VIP6`] with TCP 80 and UDP 53, and the same entry for all buckets of module 0.
pub fn table(me: u8, mode: Mode, phase: Phase, previous: u8, current: u8) -> Image {
    let mut builder = SlotBuilder::new(1, 1, me, [1, 2]).unwrap();
    for address in [IpAddr::V4(VIP), IpAddr::V6(VIP6)] {
        let vip = builder.vip(address, 0, 0, mode, VMAC).unwrap();
        builder.service(vip, 6, 80, Criterion::SourceAddress).unwrap();
        builder.service(vip, 17, 53, Criterion::SourceAddress).unwrap();
    }
    for node in 1..=4 {
        builder.node(0, node, node_at(node)).unwrap();
    }
    for bucket in 0..BUCKETS {
        let entry = Entry { current, previous, phase: phase.into(), reserved: 0 };
        builder.entry(0, bucket, entry).unwrap();
    }
    let mut image = builder.finish().unwrap();
    image.head.deadline = u64::MAX;
    image
}

pub fn node_at(node: u8) -> Node {
    Node { address6: [0; 16], address4: [10, 77, 0, node], mac: node_mac(node), reserved: [0; 6] }
}

/// A client's TCP segment without options to a node; no checksum, which nobody on the way looks at.
pub fn segment(to: [u8; 6], port: u16, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut frame = [&to[..], &CLIENT_MAC, &[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]].concat();
    frame.extend([CLIENT.octets(), VIP.octets()].concat());
    frame.extend(tcp(port, flags, sequence, acknowledged));
    frame
}

/// The same over IPv6.
pub fn segment6(to: [u8; 6], port: u16, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut frame = [&to[..], &CLIENT_MAC, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]].concat();
    frame.extend([CLIENT6.octets(), VIP6.octets()].concat());
    frame.extend(tcp(port, flags, sequence, acknowledged));
    frame
}

/// A client's UDP datagram of either family, no checksum.
pub fn datagram(vip: IpAddr, to: [u8; 6], port: u16) -> Vec<u8> {
    let udp = [port.to_be_bytes(), 53u16.to_be_bytes(), [0, 12], [0, 0]].concat();
    let packet = match vip {
        IpAddr::V4(_) => {
            let header = [8, 0, 0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0];
            [&header[..], &CLIENT.octets(), &VIP.octets()].concat()
        }
        IpAddr::V6(_) => {
            let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, 12, 17, 64];
            [&header[..], &CLIENT6.octets(), &VIP6.octets()].concat()
        }
    };
    [&to[..], &CLIENT_MAC, &packet, &udp, b"ping"].concat()
}

fn tcp(port: u16, flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let ports = [port.to_be_bytes(), 80u16.to_be_bytes()].concat();
    let rest = [5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0];
    [&ports[..], &sequence.to_be_bytes(), &acknowledged.to_be_bytes(), &rest].concat()
}
