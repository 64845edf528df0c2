//! What probes found.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use farm_dataplane::attach::Inspected;

use crate::firewall::{Manager, Packet, Ruling};

/// What was looked at, or why it could not be.
pub type Looked<T> = Result<T, String>;

pub use farm_dataplane::attach::XdpMode as Mode;

/// The ports of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// gRPC between nodes (TCP).
    pub peer: u16,
    /// Leases (UDP).
    pub lease: u16,
    /// gRPC for clients (TCP).
    pub api: u16,
    /// HTTP; 0: none.
    pub http: u16,
}

/// What is to be looked at.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the log is, or will be.
    pub data_dir: PathBuf,
    /// Directory of the filter's pins.
    pub pin_dir: PathBuf,
    /// This node's address in each cluster network.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Its ports.
    pub ports: Ports,
    /// Whether it gets a filter and virtual IPs; a witness does not.
    pub serves: bool,
    /// Interfaces that carry virtual IPs: the one with the addresses, and the one with the filter.
    pub links: Vec<(String, String)>,
    /// How the filter is to be attached.
    pub mode: Mode,
    /// Priority of the lease thread.
    pub priority: u8,
    /// The lease of the cluster's profile; `None` without a cluster.
    pub lease: Option<Duration>,
}

/// Everything about one node, and what it sees of the others.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Release of the kernel, as `uname -r`.
    pub kernel: Looked<String>,
    /// Whether the kernel takes the filter, as machine code; else what it says against it.
    pub filter: Result<bool, String>,
    /// Why the clock of this process is not that of the filter.
    pub clock: Result<(), String>,
    /// The kernel's clock source.
    pub clock_source: Looked<String>,
    /// How the clock is steered.
    pub slew: Looked<Slew>,
    /// Longest time by which a real-time thread woke late.
    pub stall: Looked<Duration>,
    /// Percent of each core that real-time threads may have.
    pub realtime_share: Looked<u64>,
    /// Capabilities that this process lacks.
    pub missing: Looked<Vec<String>>,
    /// Bytes that may be locked in memory; `None`: no limit.
    pub lockable: Looked<Option<u64>>,
    /// The disk below the data directory.
    pub disk: Looked<Disk>,
    /// Durable writes there.
    pub sync: Looked<Sync>,
    /// The cluster networks: the MTU of the interface that has the address.
    pub mtus: BTreeMap<String, Looked<u16>>,
    /// The service interfaces.
    pub links: Vec<Link>,
    /// What the rules for incoming packets say of Farm's.
    pub firewall: Looked<Firewall>,
    /// Every other node, on every network that both have.
    pub pairs: Vec<Pair>,
    /// The lease of the cluster's profile; `None` without a cluster.
    pub lease: Option<Duration>,
    /// Whether it gets a filter and virtual IPs.
    pub serves: bool,
    /// Where the log is, or will be.
    pub data_dir: PathBuf,
    /// How the filter is to be attached.
    pub mode: Mode,
}

/// How a clock is steered.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slew {
    /// By how much faster it goes than by itself, in millionths.
    pub ppm: f64,
    /// Something keeps it by an outer source.
    pub synchronised: bool,
}

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Its file system, where that is one which does not keep what it promised.
    pub fleeting: Option<&'static str>,
    /// Bytes that are free.
    pub free: u64,
}

/// Some durable writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sync {
    /// Half of them were at least as fast.
    pub median: Duration,
    /// The slowest.
    pub slowest: Duration,
}

/// A service interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The interface with the addresses.
    pub device: String,
    /// The interface that gets the filter.
    pub filter: String,
    /// What is on that one; `None`: there is none of this name.
    pub inspected: Looked<Option<Inspected>>,
    /// `arp_announce` and `arp_ignore` in force for the device.
    pub arp: Looked<[u32; 2]>,
}

/// What is known of the rules of nftables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firewall {
    /// Who writes them.
    pub manager: Option<Manager>,
    /// Rules of the old iptables are in force too, which are not read.
    pub legacy: bool,
    /// What becomes of each of Farm's packets.
    pub rulings: Vec<(Packet, Ruling)>,
}

/// Another node on one network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Its name.
    pub peer: String,
    /// The network.
    pub network: String,
    /// Its address there.
    pub ip: IpAddr,
    /// Its ports.
    pub ports: Ports,
    /// Its port for peers can be connected to; else why not.
    pub peer_port: Looked<Result<(), String>>,
    /// Its port for leases answers; else why not.
    pub lease_port: Looked<Result<(), String>>,
    /// What the interface here carries, and what comes to the peer and back; 0: not even a small packet.
    pub mtu: Looked<(u16, u16)>,
}
