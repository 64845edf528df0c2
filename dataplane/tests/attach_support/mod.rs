//! A node and a client on a veth, in nameless network namespaces that vanish with the test.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use farm_common::flow::protocol::TCP;
use farm_common::image::{Image, SlotBuilder};
use farm_common::layout::{BUCKETS, Entry, Identity, LAYOUT_VERSION, Node};
use farm_common::verdict::{Criterion, Mode, Phase};
use farm_dataplane::attach::{Filter, Options, PortConfig, TakenUp, XdpMode};
use farm_dataplane::explain::{Payload, synthetic_frame};
use farm_dataplane::netns::NetNs;

pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
pub const PORT: u16 = 8080;
pub const INTERFACE: &str = "eth0";
/// This node and another one, as indices of the table.
pub const ME: u8 = 1;
pub const OTHER: u8 = 2;

/// A SYN that crosses a veth needs microseconds; one that is dropped is sent again after a second.
const CONNECT: Duration = Duration::from_millis(700);

pub struct Wire {
    pub node: NetNs,
    pub client: NetNs,
    pub pin_dir: PathBuf,
}

impl Wire {
    /// The node holds the virtual IP on `lo` and listens on it; the client knows its MAC already.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (node, client) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("farm-test-{}-{serial}", std::process::id());
        let wire = Self { node, client, pin_dir: PathBuf::from("/sys/fs/bpf").join(name) };
        wire.on_node("ip link set lo up");
        wire.on_node(&format!("ip address add {VIP}/32 dev lo"));
        wire.add_veth();
        wire
    }

    /// Makes the veth, with a new index each time.
    pub fn add_veth(&self) {
        let client = format!("/proc/{}/fd/{}", std::process::id(), self.client.as_fd().as_raw_fd());
        self.on_node(&format!("ip link add {INTERFACE} address 02:00:00:00:00:01 type veth peer name {INTERFACE} netns {client} address 02:00:00:00:00:02"));
        self.on_node(&format!("ip address add {NODE}/24 dev {INTERFACE}"));
        self.on_node(&format!("ip link set {INTERFACE} up"));
        self.on_client(&format!("ip address add {CLIENT}/24 dev {INTERFACE}"));
        self.on_client(&format!("ip link set {INTERFACE} up"));
        for address in [VIP, NODE] {
            self.on_client(&format!(
                "ip neighbour replace {address} lladdr 02:00:00:00:00:01 dev {INTERFACE}"
            ));
        }
        self.on_node(&format!("ip neighbour replace {CLIENT} lladdr 02:00:00:00:00:02 dev {INTERFACE}"));
        // A new link carries nothing until the kernel has noticed its carrier, up to a second later: the first
        // answer says that it does.
        self.on_client(&format!("ping -q -c 1 -i 0.05 -w 10 {NODE}"));
    }

    pub fn on_node(&self, command: &str) {
        self.node.run(|| run(command)).unwrap()
    }

    pub fn on_client(&self, command: &str) {
        self.client.run(|| run(command)).unwrap()
    }

    /// In the node's network namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.node.run(work).unwrap()
    }

    pub fn port(&self) -> PortConfig {
        let ifindex = self.inside(|| nix::net::if_::if_nametoindex(INTERFACE).unwrap());
        PortConfig::untagged(ifindex, INTERFACE, NODE_MAC, 0)
    }

    pub fn options(&self, node: u64) -> Options {
        Options {
            pin_dir: self.pin_dir.clone(),
            identity: identity(node),
            ports: vec![self.port()],
            mode: XdpMode::Auto,
        }
    }

    pub fn take_up(&self, node: u64) -> (Filter, TakenUp) {
        let options = self.options(node);
        self.inside(|| Filter::take_up(&options)).unwrap()
    }

    pub fn link_pin(&self) -> PathBuf {
        self.pin_dir.join(format!("link-{}", self.port().ifindex))
    }

    /// Serves the virtual IP: every line comes back.
    pub fn serve(&self) {
        let listener = self.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| echo(stream))))
        });
    }

    /// A connection of the client through the wire, `None` when nothing answers.
    pub fn connect(&self) -> Option<TcpStream> {
        let to = SocketAddr::new(IpAddr::V4(VIP), PORT);
        self.client.run(|| TcpStream::connect_timeout(&to, CONNECT).ok()).unwrap()
    }

    pub fn explain(&self, filter: &Filter) -> farm_dataplane::explain::Explained {
        self.inside(|| filter.explain(0, &syn())).unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A test may have removed pins, or never made any.
        for pin in fs::read_dir(&self.pin_dir).into_iter().flatten().flatten() {
            let _ = fs::remove_file(pin.path());
        }
        let _ = fs::remove_dir(&self.pin_dir);
    }
}

/// The client's SYN to the virtual IP.
pub fn syn() -> Vec<u8> {
    let (client, service) = (SocketAddr::new(CLIENT.into(), 40_000), SocketAddr::new(VIP.into(), PORT));
    synthetic_frame(CLIENT_MAC, NODE_MAC, client, service, Payload::Tcp { flags: 0x02 }).unwrap()
}

pub fn identity(node: u64) -> Identity {
    Identity { cluster: [7; 16], node, layout: LAYOUT_VERSION, reserved: 0 }
}

/// A table in which every bucket belongs to `owner`.
pub fn image(epoch: u64, owner: u8) -> Image {
    let mut table = SlotBuilder::new(1, epoch, ME, [3, 4]).unwrap();
    let vip = table.vip(VIP.into(), 0, 0, Mode::Directed, [0; 6]).unwrap();
    table.service(vip, TCP, PORT, Criterion::SourceAddress).unwrap();
    for (index, last, mac) in [(ME, 1, NODE_MAC), (OTHER, 3, PEER_MAC)] {
        let node = Node { address4: [10, 77, 0, last], mac, ..Node::default() };
        table.node(0, index, node).unwrap();
    }
    let entry = Entry { current: owner, previous: 0, phase: Phase::Stable.into(), reserved: 0 };
    (0..BUCKETS).for_each(|bucket| table.entry(0, bucket, entry).unwrap());
    table.finish().unwrap()
}

/// Sends a line over an echo connection and reads it back.
pub fn ping(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello\n");
}

fn echo(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        if stream.write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// Runs a command of the system; its failure is the test's.
pub fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Which part a test binary plays when it is started again by a test.
pub const ROLE: &str = "FARM_TEST_ROLE";
const READY: &str = "ready to be killed";

/// Another process of this test binary, which runs only the test `entry`, in the node's network namespace, until it
/// said that it is ready.
pub fn spawn_owner(wire: &Wire, entry: &str, role: &str) -> Child {
    let mut child = wire.inside(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", entry, "--nocapture"])
            .env(ROLE, role)
            .env("FARM_TEST_PINS", &wire.pin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(READY)), "the owner ended early");
    child
}

/// In the child: says so, and waits for the end.
pub fn wait_to_be_killed() {
    println!("{READY}");
    let mut nothing = String::new();
    // The parent holds the other end, or is dead: then this ends as well.
    std::io::stdin().read_to_string(&mut nothing).unwrap();
}

pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
