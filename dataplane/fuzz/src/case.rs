//! An input of the fuzzer: a few bytes that choose the table, then the frame as it is.
//!
//! ```text
//! byte 0      1           2            3        4        5         6..
//!      me     current     previous     phase    flags    socket    frame
//! ```
//!
//! Every value of a byte means something, so that no mutation is wasted.

use std::array;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use farm_common::decide::Given;
use farm_common::flow::protocol;
use farm_common::image::{Image, ImageError, SlotBuilder};
use farm_common::layout::{Entry, Node, Port, Slot};
use farm_common::verdict::{BootTime, Criterion, Mode, Socket};
use farm_common::vlan::Vlan;

/// Bytes before the frame.
pub const HEAD: usize = 6;
/// Nodes of the table, from 1.
pub const NODES: u8 = 4;
/// The virtual IPs by link, as the oracle has them.
pub const VIPS: [(u8, IpAddr); 6] =
    [(0, VIP4), (1, IpAddr::V4(Ipv4Addr::new(10, 78, 0, 100))), (0, VIP6), (2, VIP4), (2, VIP6), (3, VIP4)];
const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 100));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100));
/// The services by link: protocol, port, criterion.
pub const SERVICES: [(u8, u8, u16, Criterion); 8] = [
    (0, protocol::TCP, 80, Criterion::SourceAddress),
    (0, protocol::TCP, 443, Criterion::SourcePort),
    (0, protocol::TCP, 8443, Criterion::SourceNetwork),
    (0, protocol::UDP, 53, Criterion::SourceAddress),
    (2, protocol::TCP, 8080, Criterion::SourceAddress),
    (2, protocol::UDP, 53, Criterion::SourceAddress),
    (3, protocol::TCP, 8080, Criterion::SourceAddress),
    (3, protocol::UDP, 53, Criterion::SourceAddress),
];
/// The VLANs of each link, outermost first; the second link is another interface.
pub const LINKS: [(u32, &[u16]); 4] =
    [(FRAMES_COME_IN, &[]), (9, &[]), (FRAMES_COME_IN, &[5]), (FRAMES_COME_IN, &[5, 6])];
/// Index of the interface that every frame comes in on.
pub const FRAMES_COME_IN: u32 = 1;
/// The boot clock of every judgement. An expired lease ended long before.
const NOW: BootTime = BootTime(1000);

const FLOOD: u8 = 1;
const EXPIRED: u8 = 2;
const NO_LINK: u8 = 4;

/// A table, as far as it differs from input to input, and a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// This node.
    pub me: u8,
    /// State of every bucket, also ones that never occur.
    pub entry: Entry,
    /// Delivery mode of every virtual IP.
    pub mode: Mode,
    /// Has the lease run out?
    pub expired: bool,
    /// Is no link on the interface that the frame came in on?
    pub no_link: bool,
    /// What the host has for every flow.
    pub socket: Socket,
    /// The frame.
    pub frame: Vec<u8>,
}

impl Case {
    /// Reads an input; `None` when it is shorter than the bytes that choose the table.
    #[must_use]
    pub fn read(input: &[u8]) -> Option<Self> {
        let (head, frame) = input.split_first_chunk::<HEAD>()?;
        let [me, current, previous, phase, flags, socket] = *head;
        Some(Self {
            me: 1 + me % NODES,
            entry: Entry {
                current: current % (NODES + 1),
                previous: previous % (NODES + 1),
                phase: phase % 6,
                reserved: 0,
            },
            mode: if flags & FLOOD == 0 { Mode::Directed } else { Mode::Flood },
            expired: flags & EXPIRED != 0,
            no_link: flags & NO_LINK != 0,
            socket: SOCKETS[usize::from(socket) % SOCKETS.len()],
            frame: frame.to_vec(),
        })
    }

    /// The input that is read as this.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags =
            flag(self.mode == Mode::Flood, FLOOD) | flag(self.expired, EXPIRED) | flag(self.no_link, NO_LINK);
        let socket = SOCKETS.iter().position(|socket| *socket == self.socket).unwrap_or(0) as u8;
        let Entry { current, previous, phase, .. } = self.entry;
        [&[self.me - 1, current, previous, phase, flags, socket], &self.frame[..]].concat()
    }

    /// The ports by link.
    #[must_use]
    pub fn ports(&self) -> [Port; LINKS.len()] {
        array::from_fn(|link| {
            let (ifindex, vlans) = LINKS[link];
            let vlan = vlans.iter().fold(Vlan::NONE, |vlan, tag| vlan.inside(*tag)).number();
            let (mac, proof) = (node_mac(self.me), proof(link as u8));
            let ifindex = if self.no_link { ifindex + 1 } else { ifindex };
            Port { mac, proof, ifindex, vlan, ..Default::default() }
        })
    }

    /// What the host answers.
    #[must_use]
    pub fn given(&self) -> Given {
        Given { socket: self.socket, now: NOW }
    }

    /// Does `work` with the table. It is half a megabyte, so each thread keeps one and changes what differs.
    pub fn with_table<T>(&self, work: impl FnOnce(&Slot) -> T) -> T {
        TABLES.with_borrow_mut(|tables| {
            let table = &mut tables[usize::from(u8::from(self.mode))];
            table.head.me = self.me;
            table.head.deadline = if self.expired { NOW.0 } else { u64::MAX };
            if table.entries[0][0] != self.entry {
                table.entries[0].fill(self.entry);
            }
            work(table)
        })
    }
}

const SOCKETS: [Socket; 5] = [
    Socket::None,
    Socket::Listener { cookie: false },
    Socket::Listener { cookie: true },
    Socket::TimeWait,
    Socket::Flow,
];

thread_local! {
    static TABLES: RefCell<[Image; 2]> =
        RefCell::new([Mode::Directed, Mode::Flood].map(|mode| table(mode).expect("within all limits")));
}

/// The virtual MAC of a virtual IP.
#[must_use]
pub fn vmac(vip: usize) -> [u8; 6] {
    [2, 0xfa, 0, 0, 1, vip as u8]
}

/// The proof of passage on a link.
#[must_use]
pub fn proof(link: u8) -> [u8; 6] {
    [2, 0x9a, 0xbc, 0xde, 0xf0, link]
}

/// The MAC of a node.
#[must_use]
pub fn node_mac(node: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, node]
}

fn table(mode: Mode) -> Result<Image, ImageError> {
    // The oracle's key, so that its frames meet the buckets they were made for.
    let mut builder = SlotBuilder::new(3, 7, 1, [0xd4e0_b279_5b3a_1c8f, 0x600d_15ee_c011_4706])?;
    for (number, (link, address)) in VIPS.into_iter().enumerate() {
        let vip = builder.vip(address, 0, link, mode, vmac(number))?;
        for (_, protocol, port, criterion) in SERVICES.into_iter().filter(|service| service.0 == link) {
            builder.service(vip, protocol, port, criterion)?;
        }
    }
    for (link, node) in [0, 2, 3].into_iter().flat_map(|link| (1..=NODES).map(move |node| (link, node))) {
        let address6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, node.into()).octets();
        let value = Node { address6, address4: [10, 77, 0, node], mac: node_mac(node), reserved: [0; 6] };
        builder.node(link, node, value)?;
    }
    builder.finish()
}
