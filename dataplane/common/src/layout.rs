//! Layout of the maps that the daemon writes and the XDP program reads.
//!
//! One `ARRAY` map ([`MAP_TABLE`], mmap-able, two elements) holds two [`Slot`]s; one 8-byte word in
//! [`MAP_WORD`] says which of them is in force. A packet reads the word once, everything else from that
//! slot, and the clock last. Everything a decision needs (services, nodes, buckets, deadline) lies in the
//! slot, so one store publishes an epoch as a whole, and the deadline of an old slot is never extended.
//!
//! All integers are in host byte order unless a name ends in `_be`. Every struct is `repr(C)`, without
//! padding: proven below at compile time. `align(8)` lets the BPF target load addresses as whole words.

use core::mem::{offset_of, size_of};

use crate::flow::Address;

/// Grows with every change of this file; pins of another version are never taken up.
pub const LAYOUT_VERSION: u32 = 3;

/// Buckets of a module (DESIGN §2). A power of two.
pub const BUCKETS: usize = 4096;
/// Modules with a table of their own.
pub const MODULES: usize = 32;
/// Nodes in one table; index 0 is never used, so that a zeroed entry names nobody.
pub const NODES: usize = 64;
/// Links of a node: networks of clients, each a VLAN of an interface.
pub const LINKS: usize = 4;
/// Cells of the virtual-IP table: one probe, the writer searches a seed without collisions.
pub const VIP_CELLS: usize = 512;
/// Most virtual IPs at once (a collision-free seed is then found within about a hundred tries).
pub const VIPS: usize = 64;
/// Cells of the service table.
pub const SERVICE_CELLS: usize = 4096;
/// Most services at once.
pub const SERVICES: usize = 256;
/// Cells of the MAC table.
pub const MAC_CELLS: usize = 4096;

/// Name of the program in the object file.
pub const PROGRAM: &str = "farm_filter";

/// Name of the map with the two slots.
pub const MAP_TABLE: &str = "FARM_TABLE";
/// Name of the one-element map with the [`Word`].
pub const MAP_WORD: &str = "FARM_WORD";
/// Name of the one-element map with the [`Identity`].
pub const MAP_IDENTITY: &str = "FARM_IDENTITY";
/// Name of the per-CPU map of counters, indexed by `verdict::Reason as u32`.
pub const MAP_COUNTERS: &str = "FARM_COUNTERS";
/// Name of the array of [`Port`]s, indexed by link ([`LINKS`] elements).
pub const MAP_PORTS: &str = "FARM_PORTS";
/// Name of the ring buffer of sampled [`Event`]s.
pub const MAP_EVENTS: &str = "FARM_EVENTS";

/// Name of the LRU map of first fragments: `fragment::Whole` to `fragment::Ports` as a number.
pub const MAP_FRAGMENTS: &str = "FARM_FRAGMENTS";

/// Name of the LRU map of remembered flows: `memory::FlowKey` to `memory::Known` as a word.
pub const MAP_FLOWS: &str = "FARM_FLOWS";
/// Name of the map of services whose flows are remembered: `memory::ServiceKey` to 1.
pub const MAP_ELSEWHERE: &str = "FARM_ELSEWHERE";

/// Most flows that are remembered, about 8 MiB: more than a node of containers commonly has at once. Beyond it those
/// that were idle longest are forgotten, and lost if their bucket then moves.
pub const FLOWS: u32 = 65_536;

/// Most packets whose first fragment is remembered: those of one client follow each other within milliseconds, and
/// beyond this a later one goes by address.
pub const FRAGMENTS: u32 = 8192;

/// Name of the LRU map of who has asked for a virtual IP ([`Asker`] -> [`Asked`]).
pub const MAP_ASKERS: &str = "FARM_ASKERS";
/// Askers that are remembered: the routers and servers on the links, not the clients behind them. Who asked longest ago is
/// forgotten, and asks again when its entry ages.
pub const ASKERS: u32 = 4096;

/// One drop in this many is written to the ring buffer, per CPU and reason; the first one always is.
pub const EVENT_SAMPLE: u64 = 256;
/// Leading bytes of a frame in an event: Ethernet, IPv4 and TCP headers without options fit.
pub const EVENT_HEAD: usize = 64;
/// Size of the ring buffer in bytes: about seven hundred events until the reader comes.
pub const EVENT_RING: u32 = 64 * 1024;

/// State of one bucket on this node: 4 bytes, one load.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Index of the current owner (C in an open change), 0 = nobody.
    pub current: u8,
    /// Index of the previous owner (P), 0 = none.
    pub previous: u8,
    /// `verdict::Phase as u8`.
    pub phase: u8,
    /// Reserved, 0.
    pub reserved: u8,
}

/// One cell of the virtual-IP table.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vip {
    /// The address.
    pub address: Address,
    /// The virtual MAC of flood mode.
    pub vmac: [u8; 6],
    /// 1 + index of this virtual IP in its writer's list; 0 = the cell is empty.
    pub id: u8,
    /// Slot of its module.
    pub module: u8,
    /// `verdict::Mode as u8`.
    pub mode: u8,
    /// Which of the node's links carries it: part of the key.
    pub link: u8,
    /// Reserved, 0.
    pub reserved: [u8; 6],
}

/// One cell of the service table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// `vip id << 24 | protocol << 16 | port`; 0 = the cell is empty.
    pub key: u32,
    /// `verdict::Criterion as u8`.
    pub criterion: u8,
    /// Reserved, 0.
    pub reserved: [u8; 3],
}

/// A node as seen on one link.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Own IPv6 address, or zero.
    pub address6: [u8; 16],
    /// Own IPv4 address, network order, or zero.
    pub address4: [u8; 4],
    /// Its MAC on that link.
    pub mac: [u8; 6],
    /// Reserved, 0.
    pub reserved: [u8; 6],
}

/// One cell of the MAC table: whose MAC is this? One word and one load: six bytes of the MAC, the index of the node
/// (0 = the cell is empty), its link.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MacCell(u64);

impl MacCell {
    /// Says that the MAC is that of this node, which has it on this link.
    #[must_use]
    pub const fn new(mac: [u8; 6], node: u8, link: u8) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self(u64::from_ne_bytes([a, b, c, d, e, f, node, link]))
    }

    /// The MAC as a number ([`crate::bytes::mac_number`]).
    #[inline(always)]
    #[must_use]
    pub const fn mac(self) -> u64 {
        u64::from_le(self.0) & 0xffff_ffff_ffff
    }

    /// Index of the node, 0 = the cell is empty.
    #[inline(always)]
    #[must_use]
    pub const fn node(self) -> u8 {
        (u64::from_le(self.0) >> 48) as u8
    }
}

/// Head of a slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// Boot-clock nanoseconds until which this node may accept; 0 = closed. Written alone, as one u64.
    pub deadline: u64,
    /// Epoch of this table.
    pub epoch: u64,
    /// Number of the cluster's generation.
    pub generation: u64,
    /// Key of the bucket hash.
    pub hash_key: [u64; 2],
    /// Seeds of the three hashed tables.
    pub vip_seed: u32,
    /// See `vip_seed`.
    pub service_seed: u32,
    /// See `vip_seed`.
    pub mac_seed: u32,
    /// Index of this node, 1..NODES.
    pub me: u8,
    /// Generation of the hash key; reserved for rotation.
    pub hash_generation: u8,
    /// Reserved, 0.
    pub reserved: [u8; 2],
}

/// One published table.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slot {
    /// Deadline, epoch, key.
    pub head: Head,
    /// Virtual IPs by hashed link and address.
    pub vips: [Vip; VIP_CELLS],
    /// Services by hashed key.
    pub services: [Service; SERVICE_CELLS],
    /// Nodes by link and index.
    pub nodes: [[Node; NODES]; LINKS],
    /// Nodes by hashed MAC.
    pub macs: [MacCell; MAC_CELLS],
    /// Buckets by module slot.
    pub entries: [[Entry; BUCKETS]; MODULES],
}

/// The word that is flipped: bit 0 = slot in force; the rest counts flips.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Word {
    /// See the type.
    pub word: u64,
}

/// Who these pins belong to; they are taken up again only by the same.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Cluster id.
    pub cluster: [u8; 16],
    /// Raft id of the node.
    pub node: u64,
    /// [`LAYOUT_VERSION`].
    pub layout: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// What the program must know of a link; its index in the map is the link.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Port {
    /// The node's MAC on the link.
    pub mac: [u8; 6],
    /// The proof of passage: source MAC of accepted frames.
    pub proof: [u8; 6],
    /// Index of the interface that the program is attached to; 0 = this link is not in use.
    pub ifindex: u32,
    /// `vlan::Vlan::number` of the frames that are the link's there.
    pub vlan: u32,
    /// Not 0: flows of some service are to be remembered ([`MAP_ELSEWHERE`]).
    pub remembers: u8,
    /// Reserved, 0.
    pub reserved: [u8; 3],
}

/// A sampled drop. User space parses `head` with the same code as the program.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// `verdict::Reason as u32`.
    pub reason: u32,
    /// Interface the frame came in on.
    pub ifindex: u32,
    /// How many bytes of `head` are valid: the start of the frame, in steps of eight.
    pub length: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// The first bytes of the frame.
    pub head: [u8; EVENT_HEAD],
}

/// Who asked for which virtual IP.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Asker {
    /// The virtual IP, IPv4 as IPv4-mapped IPv6, network order.
    pub vip: [u8; 16],
    /// Who asked, likewise.
    pub address: [u8; 16],
    /// The link on which.
    pub link: u8,
    /// Reserved, 0.
    pub reserved: [u8; 7],
}

/// Where an [`Asker`] is.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// When it asked last: boot clock, ns.
    pub at: u64,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Reserved, 0.
    pub reserved: [u8; 2],
}

impl Slot {
    /// A closed table that knows no virtual IP, no service and no node.
    pub const EMPTY: Slot = Slot {
        head: Head {
            deadline: 0,
            epoch: 0,
            generation: 0,
            hash_key: [0; 2],
            vip_seed: 0,
            service_seed: 0,
            mac_seed: 0,
            me: 0,
            hash_generation: 0,
            reserved: [0; 2],
        },
        vips: [Vip {
            address: Address::UNSPECIFIED6,
            vmac: [0; 6],
            id: 0,
            module: 0,
            mode: 0,
            link: 0,
            reserved: [0; 6],
        }; VIP_CELLS],
        services: [Service { key: 0, criterion: 0, reserved: [0; 3] }; SERVICE_CELLS],
        nodes: [[Node { address6: [0; 16], address4: [0; 4], mac: [0; 6], reserved: [0; 6] }; NODES]; LINKS],
        macs: [MacCell(0); MAC_CELLS],
        entries: [[Entry { current: 0, previous: 0, phase: 0, reserved: 0 }; BUCKETS]; MODULES],
    };
}

macro_rules! packed {
    ($type:ty, $size:expr; $($field:ident: $field_type:ty),+) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!($(size_of::<$field_type>() +)+ 0 == $size, "padding");
        };
    };
}
packed!(Entry, 4; current: u8, previous: u8, phase: u8, reserved: u8);
packed!(Vip, 32; address: Address, vmac: [u8; 6], id: u8, module: u8, mode: u8, link: u8, reserved: [u8; 6]);
packed!(Service, 8; key: u32, criterion: u8, reserved: [u8; 3]);
packed!(Node, 32; address6: [u8; 16], address4: [u8; 4], mac: [u8; 6], reserved: [u8; 6]);
packed!(Head, 56; deadline: u64, epoch: u64, generation: u64, hash_key: [u64; 2], vip_seed: u32, service_seed: u32,
    mac_seed: u32, me: u8, hash_generation: u8, reserved: [u8; 2]);
packed!(Identity, 32; cluster: [u8; 16], node: u64, layout: u32, reserved: u32);
packed!(Port, 24; mac: [u8; 6], proof: [u8; 6], ifindex: u32, vlan: u32, remembers: u8,
    reserved: [u8; 3]);
packed!(Event, 16 + EVENT_HEAD; reason: u32, ifindex: u32, length: u32, reserved: u32, head: [u8; EVENT_HEAD]);
packed!(Asker, 40; vip: [u8; 16], address: [u8; 16], link: u8, reserved: [u8; 7]);
packed!(Asked, 16; at: u64, mac: [u8; 6], reserved: [u8; 2]);
packed!(Slot, 56 + 32 * VIP_CELLS + 8 * SERVICE_CELLS + 32 * NODES * LINKS + 8 * MAC_CELLS + 4 * BUCKETS * MODULES;
    head: Head, vips: [Vip; VIP_CELLS], services: [Service; SERVICE_CELLS], nodes: [[Node; NODES]; LINKS],
    macs: [MacCell; MAC_CELLS], entries: [[Entry; BUCKETS]; MODULES]);
const _: () = assert!(
    offset_of!(Slot, head) == 0 && offset_of!(Head, deadline) == 0 && size_of::<Slot>().is_multiple_of(8)
);
const _: () = assert!(offset_of!(Slot, entries).is_multiple_of(8) && LINKS.is_power_of_two());
const _: () = assert!(MODULES.is_power_of_two() && NODES.is_power_of_two());
const _: () = assert!(BUCKETS.is_power_of_two() && VIP_CELLS.is_power_of_two());
const _: () = assert!(SERVICE_CELLS.is_power_of_two() && MAC_CELLS.is_power_of_two());
