//! Look-ups in a [`Slot`] (kernel and user space) and filling its hashed tables (user space).

use crate::flow::{Address, Flow, protocol};
use crate::hash::{Bucket, find_seed, mac_cell, service_cell, vip_cell};
use crate::layout::{
    Entry, LINKS, MAC_CELLS, MODULES, MacCell, NODES, Node, SERVICE_CELLS, SERVICES, Service, Slot,
    VIP_CELLS, VIPS, Vip,
};
use crate::verdict::{Criterion, NodeIndex, Reason};

/// Key of a service: virtual IP, protocol, port. Never 0, because ids start at 1.
#[inline(always)]
pub fn service_key(vip: u8, protocol: u8, port: u16) -> u32 {
    u32::from(vip) << 24 | u32::from(protocol) << 16 | u32::from(port)
}

impl Slot {
    /// The virtual IP with this address on a link. On another one the same address is somebody else's.
    #[inline(always)]
    pub fn vip(&self, link: u8, address: &Address) -> Option<&Vip> {
        self.vip_cell(link, address).map(|cell| self.vip_at(cell))
    }

    /// Where in the table that virtual IP is.
    #[inline(always)]
    pub(crate) fn vip_cell(&self, link: u8, address: &Address) -> Option<usize> {
        let cell = vip_cell(self.head.vip_seed, link, address);
        let vip = self.vip_at(cell);
        (vip.id != 0 && vip.link == link && vip.address == *address).then_some(cell)
    }

    /// A cell of the table of virtual IPs.
    #[inline(always)]
    pub(crate) fn vip_at(&self, cell: usize) -> &Vip {
        &self.vips[cell & (VIP_CELLS - 1)]
    }

    /// The service of a virtual IP at this port.
    #[inline(always)]
    pub fn service(&self, vip: &Vip, protocol: u8, port: u16) -> Option<&Service> {
        let key = service_key(vip.id, protocol, port);
        let service = &self.services[service_cell(self.head.service_seed, key) & (SERVICE_CELLS - 1)];
        (service.key == key).then_some(service)
    }

    /// A node as seen on a link.
    #[inline(always)]
    pub fn node(&self, link: u8, node: NodeIndex) -> &Node {
        &self.nodes[usize::from(link) & (LINKS - 1)][usize::from(node.0) & (NODES - 1)]
    }

    /// Whose MAC is this, as a number?
    #[inline(always)]
    pub fn owner_of_mac(&self, mac: u64) -> Option<NodeIndex> {
        let cell = &self.macs[mac_cell(self.head.mac_seed, mac) & (MAC_CELLS - 1)];
        (cell.mac() == mac && cell.node() != 0).then_some(NodeIndex(cell.node()))
    }

    /// State of a bucket of a module.
    #[inline(always)]
    pub fn entry(&self, module: u8, bucket: Bucket) -> Entry {
        self.entries[usize::from(module) & (MODULES - 1)][bucket.index()]
    }

    /// The bucket of a flow to this virtual IP.
    ///
    /// # Errors
    /// [`Reason::NoService`] when the flow has a port at which nothing is configured,
    /// [`Reason::BadTable`] for a criterion this program does not know.
    #[inline(always)]
    pub fn bucket(&self, vip: &Vip, flow: &Flow) -> Result<Bucket, Reason> {
        let (client, port) = match flow.kind.has_ports().then_some(flow.service_port) {
            None => (flow.client, None),
            // An error about an echo reply: the flow is one of addresses.
            Some(_) if matches!(flow.protocol, protocol::ICMP | protocol::ICMPV6) => (flow.client, None),
            Some(port) => {
                let service = self.service(vip, flow.protocol, port).ok_or(Reason::NoService)?;
                let by = Criterion::try_from(service.criterion).map_err(|_| Reason::BadTable)?;
                by.hashed(&flow.client, flow.client_port)
            }
        };
        Ok(Bucket::of(self.head.hash_key, &client, port))
    }
}

/// Why a hashed table could not be filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FillError {
    /// More items than the limit of the table (the number given).
    TooMany(usize),
    /// Two items have the same key.
    Duplicate,
}

impl core::fmt::Display for FillError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooMany(limit) => write!(out, "more than {limit} items; remove some"),
            Self::Duplicate => write!(out, "two items have the same key; remove one"),
        }
    }
}

impl core::error::Error for FillError {}

/// Most MACs in one table: every node on every link.
pub const MACS: usize = NODES * LINKS;

impl Slot {
    /// Replaces all virtual IPs. `id` must be set (1 + index), as [`service_key`] refers to it.
    ///
    /// # Errors
    /// See [`FillError`]; the table is unchanged then.
    pub fn place_vips(&mut self, vips: &[Vip]) -> Result<(), FillError> {
        let cell = |seed, vip: &Vip| vip_cell(seed, vip.link, &vip.address);
        let seed = seed(vips.len(), VIPS, |seed, i| cell(seed, &vips[i]))?;
        self.head.vip_seed = seed;
        self.vips.fill(Vip::default());
        vips.iter().for_each(|vip| self.vips[cell(seed, vip)] = *vip);
        Ok(())
    }

    /// Replaces all services.
    ///
    /// # Errors
    /// See [`FillError`]; the table is unchanged then.
    pub fn place_services(&mut self, services: &[Service]) -> Result<(), FillError> {
        let seed = seed(services.len(), SERVICES, |seed, i| service_cell(seed, services[i].key))?;
        self.head.service_seed = seed;
        self.services.fill(Service::default());
        services.iter().for_each(|service| self.services[service_cell(seed, service.key)] = *service);
        Ok(())
    }

    /// Replaces all MACs.
    ///
    /// # Errors
    /// See [`FillError`]; the table is unchanged then.
    pub fn place_macs(&mut self, macs: &[MacCell]) -> Result<(), FillError> {
        let seed = seed(macs.len(), MACS, |seed, i| mac_cell(seed, macs[i].mac()))?;
        self.head.mac_seed = seed;
        self.macs.fill(MacCell::default());
        macs.iter().for_each(|cell| self.macs[mac_cell(seed, cell.mac())] = *cell);
        Ok(())
    }
}

fn seed(count: usize, limit: usize, cell: impl Fn(u32, usize) -> usize) -> Result<u32, FillError> {
    if count > limit {
        return Err(FillError::TooMany(limit));
    }
    find_seed(count, cell).ok_or(FillError::Duplicate)
}
