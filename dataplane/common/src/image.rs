//! Building a table outside of the kernel.
//!
//! A [`Slot`] is half a megabyte: it lives on the heap, and never passes through a stack.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::{Deref, DerefMut};

use crate::bytes::mac_number;
use crate::flow::Address;
use crate::layout::{
    BUCKETS, Entry, LINKS, MODULES, MacCell, NODES, Node, SERVICES, Service, Slot, VIPS, Vip,
};
use crate::table::{FillError, service_key};
use crate::verdict::{Criterion, Mode};

/// All zeros, so it takes no room in the binary.
static EMPTY: Slot = Slot::EMPTY;

/// A [`Slot`] on the heap.
#[derive(Clone)]
pub struct Image(Box<[Slot; 1]>);

impl Image {
    /// A closed table that knows nothing: the deadline is 0.
    #[must_use]
    pub fn empty() -> Self {
        let slots: Box<[Slot]> = Box::from(core::slice::from_ref(&EMPTY));
        Self(slots.try_into().unwrap_or_else(|_| unreachable!("a box of one slot has length one")))
    }

    /// Overwrites it with `slot`.
    pub fn copy_from(&mut self, slot: &Slot) {
        self.0.copy_from_slice(core::slice::from_ref(slot));
    }
}

impl Deref for Image {
    type Target = Slot;
    fn deref(&self) -> &Slot {
        &self.0[0]
    }
}

impl DerefMut for Image {
    fn deref_mut(&mut self) -> &mut Slot {
        &mut self.0[0]
    }
}

impl core::fmt::Debug for Image {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The key of the bucket hash is secret, the rest too long.
        write!(f, "Image(generation {}, epoch {})", self.head.generation, self.head.epoch)
    }
}

/// Names a virtual IP of a [`SlotBuilder`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VipId(u8);

/// Why a table cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// Too many items of a kind, or two of the same key.
    Fill(&'static str, FillError),
    /// An index beyond the table.
    OutOfRange {
        /// Of what.
        what: &'static str,
        /// The index.
        index: usize,
        /// It must be below this.
        limit: usize,
    },
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Fill(what, error) => write!(f, "{what}: {error}"),
            Self::OutOfRange { what, index, limit } => write!(f, "{what} {index} is not below {limit}"),
        }
    }
}

impl core::error::Error for ImageError {}

/// Fills a table: items in any order, then [`SlotBuilder::finish`] searches the seeds of the hashed tables.
#[derive(Clone, Debug)]
pub struct SlotBuilder {
    image: Image,
    vips: Vec<Vip>,
    services: Vec<Service>,
    macs: Vec<MacCell>,
}

impl SlotBuilder {
    /// Starts from a closed table in which no bucket has an owner.
    ///
    /// # Errors
    /// When `me` is 0 or no node index.
    pub fn new(generation: u64, epoch: u64, me: u8, hash_key: [u64; 2]) -> Result<Self, ImageError> {
        check_node(me)?;
        let mut image = Image::empty();
        image.head.generation = generation;
        image.head.epoch = epoch;
        image.head.me = me;
        image.head.hash_key = hash_key;
        Ok(Self { image, vips: Vec::new(), services: Vec::new(), macs: Vec::new() })
    }

    /// Adds a virtual IP of the module in slot `module`, carried by `link`. `vmac` matters in flood mode only.
    ///
    /// # Errors
    /// Beyond [`VIPS`], [`MODULES`] or [`LINKS`].
    pub fn vip(
        &mut self,
        address: IpAddr,
        module: u8,
        link: u8,
        mode: Mode,
        vmac: [u8; 6],
    ) -> Result<VipId, ImageError> {
        below("module", module, MODULES)?;
        below("link", link, LINKS)?;
        let id = u8::try_from(self.vips.len() + 1).ok().filter(|id| usize::from(*id) <= VIPS);
        let id = id.ok_or(ImageError::Fill("virtual IPs", FillError::TooMany(VIPS)))?;
        let address = Address::from(address);
        self.vips.push(Vip { address, vmac, id, module, mode: mode.into(), link, reserved: [0; 6] });
        Ok(VipId(id))
    }

    /// Adds a service.
    ///
    /// # Errors
    /// Beyond [`SERVICES`].
    pub fn service(
        &mut self,
        vip: VipId,
        protocol: u8,
        port: u16,
        criterion: Criterion,
    ) -> Result<(), ImageError> {
        if self.services.len() == SERVICES {
            return Err(ImageError::Fill("services", FillError::TooMany(SERVICES)));
        }
        let key = service_key(vip.0, protocol, port);
        self.services.push(Service { key, criterion: criterion.into(), reserved: [0; 3] });
        Ok(())
    }

    /// Describes a node (this one too) on a link. Its MAC there must be its own.
    ///
    /// # Errors
    /// When an index is out of range.
    pub fn node(&mut self, link: u8, index: u8, node: Node) -> Result<(), ImageError> {
        below("link", link, LINKS)?;
        check_node(index)?;
        self.image.nodes[usize::from(link)][usize::from(index)] = node;
        let known = self.macs.iter().any(|cell| (cell.mac(), cell.node()) == (mac_number(&node.mac), index));
        if !known {
            // VLANs of one interface share its MAC; whose a MAC is does not depend on the link.
            self.macs.push(MacCell::new(node.mac, index, link));
        }
        Ok(())
    }

    /// Sets the state of a bucket.
    ///
    /// # Errors
    /// When an index is out of range.
    pub fn entry(&mut self, module: u8, bucket: usize, entry: Entry) -> Result<(), ImageError> {
        below("module", module, MODULES)?;
        if bucket >= BUCKETS {
            return Err(ImageError::OutOfRange { what: "bucket", index: bucket, limit: BUCKETS });
        }
        self.image.entries[usize::from(module)][bucket] = entry;
        Ok(())
    }

    /// The table, closed.
    ///
    /// # Errors
    /// When two virtual IPs, services or MACs are the same.
    pub fn finish(mut self) -> Result<Image, ImageError> {
        let named = |what| move |error| ImageError::Fill(what, error);
        self.image.place_vips(&self.vips).map_err(named("virtual IPs"))?;
        self.image.place_services(&self.services).map_err(named("services"))?;
        self.image.place_macs(&self.macs).map_err(named("MACs of nodes"))?;
        Ok(self.image)
    }
}

fn below(what: &'static str, index: u8, limit: usize) -> Result<(), ImageError> {
    let index = usize::from(index);
    if index < limit { Ok(()) } else { Err(ImageError::OutOfRange { what, index, limit }) }
}

/// Index 0 names nobody.
fn check_node(index: u8) -> Result<(), ImageError> {
    let limit = NODES;
    match index {
        0 => Err(ImageError::OutOfRange { what: "node", index: 0, limit }),
        index => below("node", index, limit),
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::bytes::mac_number;
    use crate::verdict::NodeIndex;

    fn builder() -> SlotBuilder {
        SlotBuilder::new(2, 7, 1, [3, 4]).unwrap()
    }

    fn address(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        Ipv4Addr::new(10, 0, high, low).into()
    }

    fn vip(table: &mut SlotBuilder, last: u16) -> Result<VipId, ImageError> {
        table.vip(address(last), 0, 1, Mode::Flood, [2; 6])
    }

    #[test]
    fn everything_put_in_is_found() {
        let mut table = builder();
        let ids: Vec<VipId> = (0..VIPS as u16).map(|last| vip(&mut table, last).unwrap()).collect();
        (0..SERVICES).for_each(|i| {
            table.service(ids[i % VIPS], 6, i as u16, Criterion::SourcePort).unwrap();
        });
        let mac = |link: u8, node: u8| [2, 0, 0, 0, link, node];
        for (link, node) in (0..LINKS as u8).flat_map(|link| (1..NODES as u8).map(move |node| (link, node))) {
            table.node(link, node, Node { mac: mac(link, node), ..Node::default() }).unwrap();
        }
        let image = table.finish().unwrap();
        assert_eq!(
            (image.head.generation, image.head.epoch, image.head.deadline, image.head.me),
            (2, 7, 0, 1)
        );
        for last in 0..VIPS as u16 {
            assert_eq!(image.vip(1, &Address::from(address(last))).unwrap().link, 1);
            assert!(image.vip(0, &Address::from(address(last))).is_none());
        }
        for i in 0..SERVICES {
            let vip = image.vip(1, &Address::from(address((i % VIPS) as u16))).unwrap();
            assert!(image.service(vip, 6, i as u16).is_some());
        }
        assert_eq!(image.owner_of_mac(mac_number(&mac(3, 63))), Some(NodeIndex(63)));
        assert_eq!(image.owner_of_mac(mac_number(&mac(3, 64))), None);
    }

    #[test]
    fn limits_are_refused() {
        let mut table = builder();
        for last in 0..VIPS as u16 {
            vip(&mut table, last).unwrap();
        }
        assert_eq!(vip(&mut table, 999), Err(ImageError::Fill("virtual IPs", FillError::TooMany(VIPS))));
        let what = |error| match error {
            Err(ImageError::OutOfRange { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(SlotBuilder::new(1, 1, 0, [0; 2]).map(drop)), "node");
        assert_eq!(what(table.node(0, NODES as u8, Node::default())), "node");
        assert_eq!(what(table.node(LINKS as u8, 1, Node::default())), "link");
        assert_eq!(what(table.entry(0, BUCKETS, Entry::default())), "bucket");
        assert_eq!(what(table.entry(MODULES as u8, 0, Entry::default())), "module");
    }

    #[test]
    fn twins_are_refused() {
        let mut table = builder();
        vip(&mut table, 1).unwrap();
        vip(&mut table, 1).unwrap();
        assert_eq!(table.finish().unwrap_err(), ImageError::Fill("virtual IPs", FillError::Duplicate));
    }

    #[test]
    fn an_image_shows_no_key() {
        let image = builder().finish().unwrap();
        assert_eq!(alloc::format!("{image:?}"), "Image(generation 2, epoch 7)");
    }
}
