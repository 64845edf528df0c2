//! The first half of a judgement: a frame becomes a [`Reading`].

use crate::bytes::Bytes;
use crate::flow::{Address, Flow, Kind, protocol};
use crate::fragment::Ports;
use crate::layout::{Slot, Vip};
use crate::parse::{
    Arp, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EXTENSIONS, Ethernet, Header, Solicitation, ipv4,
    ipv4_destination, ipv6, ipv6_destination,
};
use crate::verdict::Reason;
use crate::vlan::Vlan;

/// What a first look at a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum First {
    /// A packet for a virtual IP, now in the [`Reading`]: [`crate::judge::conclude`] follows.
    Packet,
    /// A fragment of one, without ports: before that, [`Reading::learn`] what [`crate::fragment::ports`] knows.
    Fragment,
    /// Somebody asks for a virtual IP: [`crate::judge::solicited`] follows.
    Solicitation,
    /// It passes ([`Reason::Passed`]) or is dropped.
    Done(Reason),
}

/// What was read of a packet for a virtual IP: plain numbers, so that it can lie in a map between the two halves
/// of the judgement. The verifier follows every way through the headers; what it loads from a map is the same to it
/// on all of them, so that it need not follow the decision once for each.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    client: [u64; 2],
    source: [u64; 2],
    /// MACs as numbers.
    pub(crate) to: u64,
    pub(crate) sender: u64,
    /// Where the virtual IP is in the table.
    vip: u16,
    client_port: u16,
    service_port: u16,
    protocol: u16,
    kind: u16,
    /// DSCP and ECN.
    class: u8,
    /// As the header says.
    hops: u8,
    ethertype: u16,
    tags: u16,
    vlan: Vlan,
    link: u32,
}

impl Reading {
    #[inline(always)]
    fn of(link: u8, ethernet: &Ethernet, header: &Header, flow: &Flow, vip: usize) -> Self {
        Self {
            client: flow.client.words(),
            source: header.source.words(),
            to: ethernet.destination,
            sender: ethernet.source,
            vip: vip as u16,
            client_port: flow.client_port,
            service_port: flow.service_port,
            protocol: u16::from(flow.protocol),
            kind: flow.kind as u16,
            class: header.class,
            hops: header.hops,
            ethertype: ethernet.ethertype,
            tags: ethernet.tags as u16,
            vlan: ethernet.vlan,
            link: u32::from(link),
        }
    }

    /// The virtual IP it is for.
    #[inline(always)]
    pub(crate) fn vip<'a>(&self, slot: &'a Slot) -> &'a Vip {
        slot.vip_at(usize::from(self.vip))
    }

    /// Who the packet says sent it.
    #[inline(always)]
    pub(crate) fn source(&self) -> Address {
        Address::of_words(self.source)
    }

    /// The link it came in on.
    #[inline(always)]
    pub fn link(&self) -> u8 {
        self.link as u8
    }

    /// The packet's Ethernet header.
    #[inline(always)]
    pub fn ethernet(&self) -> Ethernet {
        Ethernet {
            destination: self.to,
            source: self.sender,
            ethertype: self.ethertype,
            tags: usize::from(self.tags) & 3,
            vlan: self.vlan,
        }
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub(crate) fn class(&self) -> u8 {
        self.class
    }

    /// How many hops the packet may still make.
    #[inline(always)]
    pub(crate) fn hops(&self) -> u8 {
        self.hops
    }

    /// A fragment of these ports is a frame of its flow.
    #[inline(always)]
    pub fn learn(&mut self, ports: Ports) {
        let tcp = self.protocol == u16::from(protocol::TCP);
        self.kind = if tcp { Kind::Segment } else { Kind::Datagram } as u16;
        (self.client_port, self.service_port) = (ports.client, ports.service);
    }

    /// The flow, for a virtual IP of this table; never a solicitation.
    #[inline(always)]
    pub fn flow_to(&self, slot: &Slot) -> Option<Flow> {
        self.flow(self.vip(slot))
    }

    /// The flow; never a solicitation.
    #[inline(always)]
    pub(crate) fn flow(&self, vip: &Vip) -> Option<Flow> {
        let kind = Kind::try_from(self.kind as u8).ok()?;
        (kind != Kind::Solicitation).then_some(Flow {
            client: Address::of_words(self.client),
            vip: vip.address,
            protocol: self.protocol as u8,
            client_port: self.client_port,
            service_port: self.service_port,
            kind,
        })
    }
}

/// Reads a frame of this link into `reading`, or knows what happens to it without.
#[inline(always)]
pub fn read(
    slot: &Slot,
    link: u8,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    reading: &mut Reading,
) -> First {
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => read4(slot, link, ethernet, frame, reading),
        ETHERTYPE_IPV6 => read6(slot, link, ethernet, frame, reading),
        ETHERTYPE_ARP => read_arp(slot, link, ethernet, frame),
        _ => First::Done(Reason::Passed),
    }
}

#[inline(always)]
fn read4(
    slot: &Slot,
    link: u8,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    reading: &mut Reading,
) -> First {
    let start = ethernet.payload();
    let destination = ipv4_destination(frame, start);
    let Some(vip) = destination.and_then(|destination| slot.vip_cell(link, &destination)) else {
        return First::Done(Reason::Passed);
    };
    packet(ipv4(frame, start), link, ethernet, vip, frame, reading)
}

#[inline(always)]
fn read6(
    slot: &Slot,
    link: u8,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    reading: &mut Reading,
) -> First {
    let start = ethernet.payload();
    if Solicitation::target(frame, start).is_some_and(|target| slot.vip(link, &target).is_some()) {
        return First::Solicitation;
    }
    let destination = ipv6_destination(frame, start);
    let Some(vip) = destination.and_then(|destination| slot.vip_cell(link, &destination)) else {
        return First::Done(Reason::Passed);
    };
    packet(ipv6::<EXTENSIONS>(frame, start), link, ethernet, vip, frame, reading)
}

/// Requests for a virtual IP are ours alone, also when nothing is answered. A packet whose sender is the
/// virtual IP is an announcement, which the local stack must see to reach a virtual IP it does not serve.
#[inline(always)]
fn read_arp(slot: &Slot, link: u8, ethernet: &Ethernet, frame: &(impl Bytes + ?Sized)) -> First {
    match Arp::parse(frame, ethernet.payload()) {
        Some(arp) if arp.asks() && slot.vip(link, &Address::v4(arp.target)).is_some() => First::Solicitation,
        _ => First::Done(Reason::Passed),
    }
}

#[inline(always)]
fn packet(
    header: Result<Header, Reason>,
    link: u8,
    ethernet: &Ethernet,
    vip: usize,
    frame: &(impl Bytes + ?Sized),
    reading: &mut Reading,
) -> First {
    match header.and_then(|header| Ok((header, header.flow(frame)?))) {
        Ok((header, flow)) => {
            *reading = Reading::of(link, ethernet, &header, &flow, vip);
            match flow.kind {
                Kind::TcpFragment | Kind::DatagramFragment => First::Fragment,
                _ => First::Packet,
            }
        }
        Err(reason) => First::Done(reason),
    }
}
