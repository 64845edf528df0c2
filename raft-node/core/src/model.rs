//! The nouns of the replicated state. Plain values: `Clone + Eq + Ord + Hash + Debug`.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use farm_common::vlan::{NoVlan, Vlan};

use crate::id::{EntryId, Epoch, NodeId};
use crate::limits;
use crate::time::{Span, UnixTime};

/// Buckets of a module.
pub const BUCKETS: usize = farm_common::layout::BUCKETS;

/// Secret 128-bit key of the bucket hash. Never printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HashKey(pub [u8; 16]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

/// Whether a node, a module or a cluster may have this name: it may become a DNS label.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    letter && rest && !name.ends_with('-') && name.len() <= limits::NAME
}

/// Whether `ip` can be a virtual IP: a unicast address of a network. A link-local address means another host on each
/// link.
#[must_use]
pub fn is_unicast(ip: IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || special)
}

/// Name of a module: 1–63 of `a-z 0-9 -`, a letter first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModuleName(pub String);

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Relative share of a node; 0 drains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Weight(pub u16);

impl Weight {
    /// What a node has when nothing was said.
    pub const DEFAULT: Self = Self(100);
}

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Runs modules.
    Server,
    /// Votes only.
    Witness,
}

/// Where a member stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Membership {
    /// Takes part.
    Member,
    /// Stopped in a planned way; comes back by itself: weights count as 0 until then.
    Away,
    /// On its way out: weights count as 0.
    Leaving,
    /// The cluster has gone on without it, by a take-over or because its store was lost: what it had agreed to counts no
    /// more. Its machine joins again under a new id, and finds its settings there.
    Overruled,
}

impl Membership {
    /// Whether it is to stay with the cluster: whether it may vote.
    #[must_use]
    pub const fn stays(self) -> bool {
        match self {
            Self::Member | Self::Away => true,
            Self::Leaving | Self::Overruled => false,
        }
    }
}

/// A server that is kept free of clients: somebody works on it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Maintenance {
    /// Since when.
    pub since: UnixTime,
    /// When it ends by itself; `None`: when somebody says so.
    pub until: Option<UnixTime>,
    /// Why, in the words of who asked for it; may be empty.
    pub reason: String,
}

/// A virtual IP: an address in a network of clients. The same address in another VLAN is another virtual IP, or none
/// of the farm's business.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VirtualIp {
    /// The address.
    pub ip: IpAddr,
    /// The network's VLAN.
    pub vlan: Vlan,
}

/// In the network without a VLAN.
impl From<IpAddr> for VirtualIp {
    fn from(ip: IpAddr) -> Self {
        Self { ip, vlan: Vlan::NONE }
    }
}

impl VirtualIp {
    /// With a port: `192.0.2.10:80`, `192.0.2.10:80 vlan 30`.
    #[must_use]
    pub fn at(&self, port: u16) -> String {
        let at = SocketAddr::new(self.ip, port);
        if self.vlan.is_none() { at.to_string() } else { format!("{at} vlan {}", self.vlan) }
    }
}

/// `192.0.2.10`, `192.0.2.10 vlan 30`.
impl fmt::Display for VirtualIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vlan {
            Vlan::NONE => write!(f, "{}", self.ip),
            vlan => write!(f, "{} vlan {vlan}", self.ip),
        }
    }
}

/// An interface that may carry a virtual IP.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link {
    /// Its name on that node.
    pub name: String,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its addresses with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The VLAN of the network that it leads to.
    pub vlan: Vlan,
}

impl Link {
    /// Whether `vip` is in the link's network, inside one of its subnets.
    #[must_use]
    pub fn covers(&self, vip: VirtualIp) -> bool {
        self.vlan == vip.vlan && self.addresses.iter().any(|(a, p)| same_subnet(*a, vip.ip, *p))
    }
}

fn same_subnet(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32 - u32::from(prefix.min(32));
            u64::from(a.to_bits() ^ b.to_bits()) >> shift == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128 - u32::from(prefix.min(128));
            (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// A member.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node {
    /// Identity; given by `apply` at `NodeJoin` when 0 (then the entry's log index).
    pub id: NodeId,
    /// Unique name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it stands.
    pub membership: Membership,
    /// Cluster networks: name to address.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Interfaces that may carry virtual IPs.
    pub links: Vec<Link>,
    /// Port of the peer API (TCP).
    pub peer_port: u16,
    /// Port of the leases (UDP).
    pub lease_port: u16,
    /// Port of the client API (TCP).
    pub api_port: u16,
    /// Where it stands: nodes of one room may be lost together. A name; empty where nobody said.
    pub room: String,
}

impl Node {
    /// Whether one of its links carries `vip`: whether it reaches the clients of that address.
    #[must_use]
    pub fn reaches(&self, vip: VirtualIp) -> bool {
        self.links.iter().any(|link| link.covers(vip))
    }
}

/// Kind of a module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ModuleKind {
    /// Active on all nodes.
    Farm,
    /// One node, supervision only.
    Light,
}

/// Transport of a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What makes a client's bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Criterion {
    /// The address: all connections of a client go to one node.
    SourceAddress,
    /// Address and port: each connection on its own.
    SourcePort,
    /// The /64 of an IPv6 address: hosts change their addresses within it (RFC 8981). Of IPv4 the address.
    SourceNetwork,
}

/// How frames reach the node that accepts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// One node receives, and sends on by MAC rewrite.
    Directed,
    /// The switch floods a virtual MAC; one node accepts.
    Flood,
}

/// A (virtual IP, protocol, port) rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Service {
    /// Virtual IP.
    pub vip: VirtualIp,
    /// Transport.
    pub protocol: Protocol,
    /// Port, not 0.
    pub port: u16,
    /// Balancing criterion.
    pub criterion: Criterion,
}

/// Timing profile (DESIGN §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Profile {
    /// 25 / 100 / 75–150 ms.
    Fast,
    /// 100 / 500 / 300–600 ms.
    Standard,
    /// 250 / 2,000 / 1,000–2,000 ms.
    Virtual,
}

/// Step of a bucket's open change. The table of DESIGN §4 says who does what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// No change is open.
    Stable,
    /// The new owner learns of the change; the previous one accepts everything.
    Prepare,
    /// The previous owner bounces new flows to the new one.
    Move,
    /// A second Move before the first was evidenced: nobody bounces, nobody accepts new flows.
    MoveClosed,
    /// The new owner accepts new flows; established ones stay with the previous owner.
    Activate,
}

/// A node whose loss of the bucket is not yet evidenced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pending {
    /// The node.
    pub node: NodeId,
    /// Target epoch of its Move.
    pub epoch: Epoch,
    /// The Move.
    pub entry: EntryId,
}

/// State of one bucket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketState {
    /// Owner, or in an open change the one it goes to (C). None: no node may own it.
    pub current: Option<NodeId>,
    /// In an open change the owner it comes from (P).
    pub previous: Option<NodeId>,
    /// Step of the change.
    pub phase: Phase,
    /// Epoch of the last step.
    pub changed: Epoch,
    /// Whose loss is not yet evidenced (only in Move and MoveClosed), ascending by node.
    pub pending: Vec<Pending>,
}

/// A set of buckets as a bitmap: bucket b is bit b%8 of byte b/8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketSet(Vec<u8>);

impl BucketSet {
    /// The empty set over `n` buckets.
    #[must_use]
    pub fn empty(n: usize) -> Self {
        Self(vec![0; n.div_ceil(8)])
    }

    /// From a bitmap.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bitmap.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds `bucket`. Panics when it lies outside the set's range.
    pub fn insert(&mut self, bucket: usize) {
        self.0[bucket / 8] |= 1 << (bucket % 8);
    }

    /// Whether `bucket` is in the set.
    #[must_use]
    pub fn contains(&self, bucket: usize) -> bool {
        self.0.get(bucket / 8).is_some_and(|byte| byte & (1 << (bucket % 8)) != 0)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|b| b.count_ones() as usize).sum()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// The buckets, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.0.len() * 8).filter(|b| self.contains(*b))
    }
}

impl fmt::Debug for BucketSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} buckets", self.len())
    }
}

/// One application made highly available.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Module {
    /// Kind.
    pub kind: ModuleKind,
    /// Position in the filter's table, stable while the module exists.
    pub slot: u8,
    /// Virtual IPs and their delivery modes.
    pub vips: BTreeMap<VirtualIp, Mode>,
    /// Services; keyed by what identifies them.
    pub services: BTreeMap<(VirtualIp, Protocol, u16), Criterion>,
    /// Weights that were set; others have [`Weight::DEFAULT`].
    pub weights: BTreeMap<NodeId, Weight>,
    /// How long connections may stay with their previous node after a planned change; `None`: nothing was said.
    pub drain: Option<Span>,
    /// What it was made from, where it was applied as a whole.
    pub definition: Option<Definition>,
    /// One state per bucket.
    pub assignment: Vec<BucketState>,
}

impl Module {
    /// One that serves nothing yet, with so many buckets.
    #[must_use]
    pub fn new(kind: ModuleKind, slot: u8, buckets: usize) -> Self {
        Self {
            kind,
            slot,
            vips: BTreeMap::new(),
            services: BTreeMap::new(),
            weights: BTreeMap::new(),
            drain: None,
            definition: None,
            assignment: vec![BucketState::UNOWNED; buckets],
        }
    }

    /// Whether it has scripts, which make it serve.
    #[must_use]
    pub fn has_application(&self) -> bool {
        self.definition.as_ref().is_some_and(|d| d.application.is_some())
    }

    /// Notes how its application is on `node`; nothing where it has none.
    pub fn set_readiness(&mut self, node: NodeId, readiness: Option<Readiness>) {
        let Some(on) = self.definition.as_mut().and_then(|d| d.application.as_mut()) else { return };
        match readiness {
            Some(readiness) => on.insert(node, readiness),
            None => on.remove(&node),
        };
    }

    /// Relative share of `node`.
    #[must_use]
    pub fn weight(&self, node: NodeId) -> Weight {
        self.weights.get(&node).copied().unwrap_or(Weight::DEFAULT)
    }

    /// Whether clients may be sent to `node`. One without an application of its own is served by all.
    #[must_use]
    pub fn readiness(&self, node: NodeId) -> Readiness {
        let application = self.definition.as_ref().and_then(|d| d.application.as_ref());
        application.map_or(Readiness::Open, |on| on.get(&node).copied().unwrap_or(Readiness::Closed))
    }
}

/// Whether the application of a module serves clients on a node.
///
/// ```text
///          start_both succeeded        a planned stop
///  Closed ─────────────────────▶ Open ───────────────▶ Closing ──▶ Closed
///                                  └───────────── it failed ─────────▲
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Readiness {
    /// It does not run: whoever owns buckets there loses them at once.
    Closed,
    /// It runs, and is about to be stopped: its buckets go elsewhere, connections that are open may end.
    Closing,
    /// It runs.
    Open,
}

/// What a module was made from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Definition {
    /// The last ones, the newest at the end; never empty.
    pub revisions: Vec<Revision>,
    /// Index of the entry that brought the first of all its revisions: another module of its name has another.
    pub born: u64,
    /// Where its application serves; nowhere else. `None`: it has none, and takes part wherever its node does.
    pub application: Option<BTreeMap<NodeId, Readiness>>,
}

/// One definition of a module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Revision {
    /// Index of the entry that brought it.
    pub number: u64,
    /// Its files, packed; the core does not look into them.
    pub content: Arc<[u8]>,
}

/// What a definition says about the traffic of its module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Outline {
    /// Kind.
    pub kind: ModuleKind,
    /// Services, with the delivery modes of their virtual IPs.
    pub services: Vec<(Service, Mode)>,
    /// Weights; others have [`Weight::DEFAULT`].
    pub weights: BTreeMap<NodeId, Weight>,
    /// How long connections may stay; `None`: nothing is said.
    pub drain: Option<Span>,
    /// Whether it has scripts.
    pub application: bool,
}
