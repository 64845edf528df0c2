//! Two namespaces with a cable between them: `node`, where the code under test runs, and `peer`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farm_host::Mac;
use farm_host::links::{self, LinkEvent};
use futures::StreamExt;
use nix::sched::{CloneFlags, setns};

pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const PEER_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
pub const NODE_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const PEER_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
pub const NODE_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];
pub const PEER_MAC: Mac = [0x02, 0, 0, 0, 0, 0x02];
/// The cable's end in either namespace.
pub const CABLE: &str = "cable";

/// A test that waits longer for an event of the kernel has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A named network namespace, removed on drop.
pub struct Namespace {
    name: String,
}

impl Namespace {
    fn create(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fh{}-{count}-{role}", std::process::id());
        ip(&format!("netns add {name}"));
        let namespace = Namespace { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip` with these arguments, inside.
    pub fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Waits until the kernel has put the queue of the end that was up first in place: until then
    /// it silently drops what is sent. The calling thread is inside.
    async fn can_send(&self) {
        let mut events = links::watch().unwrap();
        while !self.ip(&format!("link show {CABLE}")).contains("state UP") {
            tokio::time::timeout(PATIENCE, events.next()).await.expect("the cable stays without carrier");
        }
    }

    /// Waits until the kernel has given the cable an IPv6 address of its own: until then it asks for no
    /// neighbour. The calling thread is inside.
    pub async fn can_ask(&self) {
        let mut events = links::watch().unwrap();
        let usable = || self.ip(&format!("-6 address show dev {CABLE} scope link -tentative"));
        while !usable().contains("fe80:") {
            tokio::time::timeout(PATIENCE, events.next()).await.expect("no link-local address");
        }
    }

    /// Gives the cable an IPv6 address with its prefix, and waits until the kernel answers for it, which is not when
    /// `ip` returns. The calling thread is inside.
    pub async fn assign(&self, address: &str) {
        let mut events = links::watch().unwrap();
        self.ip(&format!("address add {address} dev {CABLE} nodad"));
        let done = |event: &LinkEvent| matches!(event, LinkEvent::AddressAdded { address: added, .. } if added.to_string() == address);
        while !tokio::time::timeout(PATIENCE, events.next()).await.unwrap().as_ref().is_some_and(done) {}
    }

    /// Moves the calling thread in. Sockets stay in the namespace they were opened in.
    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        assert!(std::thread::panicking() || deleted.unwrap().success());
    }
}

/// The two namespaces; the thread that made them is inside `node` until it drops this.
pub struct Lab {
    pub node: Namespace,
    pub peer: Namespace,
    home: File,
}

impl Lab {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let (node, peer) = (Namespace::create("node"), Namespace::create("peer"));
        let cable = format!("name {CABLE} netns {}", peer.name);
        node.ip(&format!("link add {CABLE} address 02:00:00:00:00:01 type veth peer {cable}"));
        peer.ip(&format!("link set {CABLE} address 02:00:00:00:00:02"));
        for (namespace, address) in [(&node, NODE_IP), (&peer, PEER_IP)] {
            namespace.enter();
            // Nobody else is on the cable: its link-local addresses need no second of probing.
            setting(&format!("ipv6/conf/{CABLE}/accept_dad"), "0");
            namespace.ip(&format!("address add {address}/24 dev {CABLE}"));
            namespace.ip(&format!("link set {CABLE} up"));
        }
        node.enter();
        run(node.can_send());
        Lab { node, peer, home }
    }

    /// With IPv6 addresses as well.
    pub fn dual() -> Self {
        let lab = Lab::new();
        let prepare = |namespace: &Namespace, address: Ipv6Addr| {
            run(async {
                namespace.assign(&format!("{address}/64")).await;
                namespace.can_ask().await;
            });
        };
        prepare(&lab.node, NODE_IP6);
        lab.in_peer(|| prepare(&lab.peer, PEER_IP6));
        lab
    }

    /// Runs `action` inside `peer`.
    pub fn in_peer<T>(&self, action: impl FnOnce() -> T) -> T {
        self.peer.enter();
        let result = action();
        self.node.enter();
        result
    }

    pub fn ifindex(&self) -> u32 {
        nix::net::if_::if_nametoindex(CABLE).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        setns(&self.home, CloneFlags::CLONE_NEWNET).unwrap();
    }
}

/// Runs a test body within a runtime of this thread, so that it stays in this thread's namespace.
pub fn run<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body)
}

/// Sets `/proc/sys/net/NAME` of the calling thread's namespace.
pub fn setting(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

/// Runs a program in the calling thread's namespace; its output.
pub fn output(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn ip(arguments: &str) -> String {
    output("ip", arguments)
}
