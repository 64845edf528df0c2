//! Layout of the maps that the daemon writes and the XDP program reads.
//!
//! One `ARRAY` map ([`MAP_TABLE`], mmap-able, two elements) holds two [`Slot`]s; one 8-byte word in
//! [`MAP_WORD`] says which of them is in force. A packet reads the word once, everything else from that
//! slot, and the clock last. Everything a decision needs (services, nodes, buckets, deadline) lies in the
//! slot, so one store publishes an epoch as a whole, and the deadline of an old slot is never extended.
//!
//! All integers are in host byte order unless a name ends in `_be`. Every struct is `repr(C)`, without
//! padding: proven below at compile time.

use core::mem::{offset_of, size_of};

/// Grows with every change of this file; pins of another version are never taken up.
pub const LAYOUT_VERSION: u32 = 1;

/// Buckets of a module (DESIGN §2). A power of two.
pub const BUCKETS: usize = 4096;
/// Modules with a table of their own.
pub const MODULES: usize = 32;
/// Nodes in one table; index 0 is never used, so that a zeroed entry names nobody.
pub const NODES: usize = 64;
/// Service networks: interfaces of a node that carry virtual IPs.
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

/// Name of the map with the two slots.
pub const MAP_TABLE: &str = "FARM_TABLE";
/// Name of the one-element map with the [`Word`].
pub const MAP_WORD: &str = "FARM_WORD";
/// Name of the one-element map with the [`Identity`].
pub const MAP_IDENTITY: &str = "FARM_IDENTITY";
/// Name of the per-CPU map of counters, indexed by `verdict::Reason as u32`.
pub const MAP_COUNTERS: &str = "FARM_COUNTERS";
/// Name of the map `ifindex -> Port`.
pub const MAP_PORTS: &str = "FARM_PORTS";
/// Name of the ring buffer of sampled events.
pub const MAP_EVENTS: &str = "FARM_EVENTS";
/// Name of the per-CPU map of frames per (module, bucket), for skew.
pub const MAP_LOAD: &str = "FARM_LOAD";

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
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vip {
    /// Address, IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), network order.
    pub address: [u8; 16],
    /// The virtual MAC of flood mode.
    pub vmac: [u8; 6],
    /// 1 + index of this virtual IP in its writer's list; 0 = the cell is empty.
    pub id: u8,
    /// Slot of its module.
    pub module: u8,
    /// `verdict::Mode as u8`.
    pub mode: u8,
    /// Which of the node's links carries it.
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
#[repr(C)]
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

/// One cell of the MAC table: whose MAC is this?
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MacCell {
    /// The MAC.
    pub mac: [u8; 6],
    /// Index of the node, 0 = the cell is empty.
    pub node: u8,
    /// Its link.
    pub link: u8,
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
    /// Virtual IPs by hashed address.
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

/// What the program must know of an interface it is attached to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Port {
    /// MAC of the interface.
    pub mac: [u8; 6],
    /// The proof of passage: source MAC of accepted frames.
    pub proof: [u8; 6],
    /// Link index.
    pub link: u8,
    /// Reserved, 0.
    pub reserved: [u8; 3],
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
packed!(Vip, 32; address: [u8; 16], vmac: [u8; 6], id: u8, module: u8, mode: u8, link: u8, reserved: [u8; 6]);
packed!(Service, 8; key: u32, criterion: u8, reserved: [u8; 3]);
packed!(Node, 32; address6: [u8; 16], address4: [u8; 4], mac: [u8; 6], reserved: [u8; 6]);
packed!(MacCell, 8; mac: [u8; 6], node: u8, link: u8);
packed!(Head, 56; deadline: u64, epoch: u64, generation: u64, hash_key: [u64; 2], vip_seed: u32, service_seed: u32,
    mac_seed: u32, me: u8, hash_generation: u8, reserved: [u8; 2]);
packed!(Identity, 32; cluster: [u8; 16], node: u64, layout: u32, reserved: u32);
packed!(Port, 16; mac: [u8; 6], proof: [u8; 6], link: u8, reserved: [u8; 3]);
packed!(Slot, 56 + 32 * VIP_CELLS + 8 * SERVICE_CELLS + 32 * NODES * LINKS + 8 * MAC_CELLS + 4 * BUCKETS * MODULES;
    head: Head, vips: [Vip; VIP_CELLS], services: [Service; SERVICE_CELLS], nodes: [[Node; NODES]; LINKS],
    macs: [MacCell; MAC_CELLS], entries: [[Entry; BUCKETS]; MODULES]);
const _: () = assert!(offset_of!(Slot, head) == 0 && offset_of!(Head, deadline) == 0 && size_of::<Slot>() % 8 == 0);
const _: () = assert!(BUCKETS.is_power_of_two() && VIP_CELLS.is_power_of_two());
const _: () = assert!(SERVICE_CELLS.is_power_of_two() && MAC_CELLS.is_power_of_two());
