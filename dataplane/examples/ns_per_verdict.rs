//! Nanoseconds per verdict of the loaded program, net of the loop around it, as one line of JSON.
//!
//! `cargo run --release -p farm-dataplane --example ns_per_verdict` (as root). The loop is measured with a
//! program that does nothing.

#[path = "../tests/program_support/mod.rs"]
mod program_support;

use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use farm_common::image::Image;
use farm_common::verdict::{Mode, Phase};
use program_support::{Kernel, VIP, VIP6, in_namespace, node_mac, port, segment, segment6, table};
use serde_json::{Value, json};

/// Runs per measurement, a few milliseconds; the best of [`ROUNDS`] counts, the others were disturbed.
const REPEAT: u32 = 50_000;
const ROUNDS: usize = 30;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// How a family writes its frames.
struct Wire {
    name: &'static str,
    vip: IpAddr,
    segment: fn([u8; 6], u16, u8, u32, u32) -> Vec<u8>,
    /// Where the source address and where the destination's last byte lie.
    source: usize,
    last: usize,
    /// Where the number of the protocol lies.
    protocol: usize,
}

const WIRES: [Wire; 2] = [
    Wire { name: "ipv4", vip: IpAddr::V4(VIP), segment, source: 26, last: 33, protocol: 23 },
    Wire { name: "ipv6", vip: IpAddr::V6(VIP6), segment: segment6, source: 22, last: 53, protocol: 20 },
];

fn main() {
    let figures = in_namespace(|| {
        let empty = best(|| empty_loop(&segment(node_mac(1), 40000, SYN, 1, 0)));
        let net = |figure: f64| ((figure - empty) * 10.0).round() / 10.0;
        let mut kernel = Kernel::load(port(1));
        let mut figures = json!({ "unit": "ns", "loop": empty, "instructions_verified": kernel.verified() });
        for wire in &WIRES {
            figures[wire.name] = measure(&mut kernel, wire, net);
            figures["steps"][wire.name] = steps(&mut kernel, wire, net);
        }
        figures
    });
    println!("{figures}");
}

fn measure(kernel: &mut Kernel, wire: &Wire, net: impl Fn(f64) -> f64) -> Value {
    let time = |kernel: &Kernel, frame: &[u8]| net(best(|| kernel.time(frame, REPEAT)));
    let syn = (wire.segment)(node_mac(1), 40000, SYN, 1, 0);
    kernel.publish(&table(1, Mode::Flood, Phase::Stable, 0, 2));
    let mut foreign = syn.clone();
    foreign[wire.last] ^= 1;
    let (foreign, not_owner) = (time(kernel, &foreign), time(kernel, &syn));
    kernel.publish(&table(1, Mode::Directed, Phase::Stable, 0, 1));
    let accept = time(kernel, &syn);
    kernel.publish(&to_oneself());
    let forward = time(kernel, &syn);

    kernel.publish(&table(1, Mode::Directed, Phase::Move, 1, 2));
    let _listener = TcpListener::bind((wire.vip, 80)).expect("the namespace is ours");
    let connection = TcpStream::connect((wire.vip, 80)).expect("the listener is there");
    let port = connection.local_addr().expect("it is connected").port();
    let mut held = (wire.segment)(node_mac(1), port, ACK, 1, 1);
    // The connection came from the virtual IP itself: that is the source a process on the node gets.
    let source = match wire.vip {
        IpAddr::V4(vip) => vip.octets().to_vec(),
        IpAddr::V6(vip) => vip.octets().to_vec(),
    };
    held[wire.source..wire.source + source.len()].copy_from_slice(&source);
    let accept_socket = time(kernel, &held);
    json!({
        "pass_foreign": foreign, "drop_not_owner": not_owner, "accept": accept, "forward": forward,
        "accept_with_socket_lookup": accept_socket,
    })
}

/// How long the program takes to the points at which it can stop, in the order in which it comes to them: the
/// difference of two is what the part between them costs.
fn steps(kernel: &mut Kernel, wire: &Wire, net: impl Fn(f64) -> f64) -> Value {
    let syn = (wire.segment)(node_mac(1), 40000, SYN, 1, 0);
    let with = |at: usize, byte: u8| {
        let mut frame = syn.clone();
        frame[at] = byte;
        frame
    };
    let mut closed = table(1, Mode::Directed, Phase::Stable, 0, 1);
    closed.head.deadline = 1;
    let owner = table(1, Mode::Directed, Phase::Stable, 0, 1);
    let steps = [
        ("link found (another ethertype)", &owner, with(12, 0x99)),
        ("virtual IP looked up (it is none)", &owner, with(wire.last, 99)),
        ("headers read (unknown protocol)", &owner, with(wire.protocol, 99)),
        ("service looked up (there is none)", &owner, with(wire.last + 3, 81)),
        ("sender looked up, hashed, entry read (for another MAC)", &owner, with(5, 99)),
        ("clock read (lease over)", &closed, syn.clone()),
        ("frame rewritten (accepted)", &owner, syn.clone()),
    ];
    let mut measured = serde_json::Map::new();
    for (name, table, frame) in steps {
        kernel.publish(table);
        measured.insert(name.to_owned(), json!(net(best(|| kernel.time(&frame, REPEAT)))));
    }
    measured.into()
}

/// The runs of one measurement work on one buffer, so a forwarded frame must again be one to forward: the
/// other node has this node's MAC, which names nobody as a sender.
fn to_oneself() -> Image {
    let mut image = table(1, Mode::Directed, Phase::Stable, 0, 2);
    image.nodes[0][2].mac = node_mac(1);
    image.place_macs(&[]).expect("an empty table always fits");
    image
}

/// Mean time of a run of `return XDP_DROP`.
fn empty_loop(frame: &[u8]) -> f64 {
    /// The head of the arm of `union bpf_attr` for BPF_PROG_LOAD.
    #[repr(C)]
    struct Load(u32, u32, u64, u64);
    /// The same for BPF_PROG_TEST_RUN: program, result, sizes, buffers, repeat, duration.
    #[repr(C)]
    struct Run(u32, u32, u32, u32, u64, u64, u32, u32);
    const PROG_LOAD: u32 = 5;
    const PROG_TEST_RUN: u32 = 10;
    const XDP: u32 = 6;
    // r0 = XDP_DROP; exit
    let program = [0x0000_0001_0000_00b7_u64, 0x95];
    let mut load = Load(XDP, 2, program.as_ptr().addr() as u64, c"GPL".as_ptr().addr() as u64);
    // SAFETY: the arm fits the command; program and licence live through the call, which only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw mut load, size_of::<Load>()) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel just gave this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let length = frame.len() as u32;
    let mut run = Run(fd.as_raw_fd() as u32, 0, length, 0, frame.as_ptr().addr() as u64, 0, REPEAT, 0);
    // SAFETY: as above; without room for the resulting frame the kernel writes none.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut run, size_of::<Run>()) };
    assert!(result == 0, "{}", std::io::Error::last_os_error());
    f64::from(run.7)
}

fn best(measure: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(measure).take(ROUNDS).fold(f64::INFINITY, f64::min)
}
