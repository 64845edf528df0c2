//! One frame from its bytes to the verdict: parse, look up, decide.

use crate::bytes::{Bytes, mac_number};
use crate::decide::{Env, Question, decide};
use crate::flow::{Address, Family, Flow, Kind};
use crate::layout::{LINKS, Port, Slot, Vip};
use crate::parse::{
    Arp, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EXTENSIONS, Ethernet, Header, Solicitation, ipv4,
    ipv4_destination, ipv6, ipv6_destination,
};
use crate::rewrite::is_marked;
use crate::verdict::{BootTime, Dst, Mode, NodeIndex, Reason, Sender, Verdict};
use crate::vlan::Vlan;

/// The link that a frame came in on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ingress<'a> {
    /// Index of the link.
    pub link: u8,
    /// Its MAC and proof, where they are: the program copies nothing that it need not.
    pub port: &'a Port,
}

impl<'a> Ingress<'a> {
    /// The link whose frames carry the tags of `vlan` on the interface `ifindex`; `port` gives the port of each link.
    /// `None`: a network that carries no virtual IP.
    #[inline(always)]
    pub fn find(ifindex: u32, vlan: Vlan, port: impl Fn(u8) -> Option<&'a Port>) -> Option<Self> {
        (0..LINKS as u8).find_map(|link| {
            let port = port(link)?;
            (port.ifindex == ifindex && port.vlan == vlan.number()).then_some(Self { link, port })
        })
    }
}

/// Judges one frame with this Ethernet header. It passes in a network that carries no virtual IP: the caller has no
/// `ingress` then, and nothing to ask here.
#[inline(always)]
pub fn judge(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Verdict {
    match ethernet.ethertype {
        ETHERTYPE_IPV6 => judge6(slot, ingress, ethernet, frame, env),
        _ => judge4(slot, ingress, ethernet, frame, env),
    }
}

/// [`judge`] for anything but IPv6. The kernel's stack has no room for both at once.
#[inline(always)]
pub fn judge4(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Verdict {
    let verdict = match ethernet.ethertype {
        ETHERTYPE_IPV4 => judge_ipv4(slot, ingress, ethernet, frame, env),
        ETHERTYPE_ARP => judge_arp(slot, ingress, ethernet, frame, env),
        _ => Ok(Verdict::Pass),
    };
    verdict.unwrap_or_else(Verdict::Drop)
}

/// [`judge`] for IPv6.
#[inline(always)]
pub fn judge6(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Verdict {
    match read6(slot, ingress, ethernet, frame) {
        First::Packet(reading) => conclude6(slot, ingress, ethernet, &reading, env),
        First::Solicitation => solicited6(slot, ingress, ethernet, frame, env),
        First::Done(Reason::Passed) => Verdict::Pass,
        First::Done(reason) => Verdict::Drop(reason),
    }
}

/// What a first look at an IPv6 frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum First {
    /// A packet for a virtual IP: [`conclude6`] follows.
    Packet(Reading),
    /// Somebody asks for a virtual IP: [`solicited6`] follows.
    Solicitation,
    /// It passes ([`Reason::Passed`]) or is dropped.
    Done(Reason),
}

/// What was read of an IPv6 packet for a virtual IP: plain numbers, so that it can lie in a map between the two halves
/// of the judgement. The verifier follows every way through the extension headers; what it loads from a map is the
/// same to it on all of them, so that it need not follow the decision once for each.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    client: [u64; 2],
    vip: [u64; 2],
    source: [u64; 2],
    client_port: u16,
    service_port: u16,
    protocol: u8,
    kind: u8,
    class: u8,
    reserved: u8,
}

impl Reading {
    #[inline(always)]
    fn of(header: &Header, flow: &Flow) -> Self {
        Self {
            client: flow.client.words(),
            vip: flow.vip.words(),
            source: header.source.words(),
            client_port: flow.client_port,
            service_port: flow.service_port,
            protocol: flow.protocol,
            kind: flow.kind as u8,
            class: header.class,
            reserved: 0,
        }
    }

    #[inline(always)]
    fn flow(&self) -> Option<Flow> {
        Some(Flow {
            client: Address::of_words(self.client),
            vip: Address::of_words(self.vip),
            protocol: self.protocol,
            client_port: self.client_port,
            service_port: self.service_port,
            kind: Kind::try_from(self.kind).ok()?,
        })
    }
}

/// The first half: reads the packet, or knows the verdict without.
#[inline(always)]
pub fn read6(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
) -> First {
    let (link, start) = (ingress.link, ethernet.payload());
    if Solicitation::target(frame, start).is_some_and(|target| slot.vip(link, &target).is_some()) {
        return First::Solicitation;
    }
    let vip = ipv6_destination(frame, start).and_then(|destination| slot.vip(link, &destination));
    if vip.is_none() {
        return First::Done(Reason::Passed);
    }
    match read_packet6(start, frame) {
        Ok(reading) => First::Packet(reading),
        Err(reason) => First::Done(reason),
    }
}

#[inline(always)]
fn read_packet6(start: usize, frame: &(impl Bytes + ?Sized)) -> Result<Reading, Reason> {
    let header = ipv6::<EXTENSIONS>(frame, start)?;
    let flow = header.flow(frame)?;
    Ok(Reading::of(&header, &flow))
}

/// The other second half.
#[inline(always)]
pub fn solicited6(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Verdict {
    judge_solicitation(slot, ingress, ethernet, frame, env).unwrap_or_else(Verdict::Drop)
}

/// The second half.
#[inline(always)]
pub fn conclude6(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    reading: &Reading,
    env: &impl Env,
) -> Verdict {
    judge_reading(slot, ingress, ethernet, reading, env).unwrap_or_else(Verdict::Drop)
}

#[inline(always)]
fn judge_reading(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    reading: &Reading,
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let flow = reading.flow().ok_or(Reason::Malformed)?;
    // It was found a moment ago; no flip of the table comes between, but the verifier does not know.
    let vip = slot.vip(ingress.link, &flow.vip).ok_or(Reason::BadTable)?;
    let source = Address::of_words(reading.source);
    let from = from(slot, ingress.link, ethernet, &source, is_marked(reading.class));
    let dst = dst(ethernet.destination, ingress.port, vip);
    conclude(slot, ingress, vip, &flow, from, dst, env)
}

#[inline(always)]
fn judge_ipv4(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let Some(destination) = ipv4_destination(frame, ethernet.payload()) else { return Ok(Verdict::Pass) };
    let Some(vip) = slot.vip(ingress.link, &destination) else { return Ok(Verdict::Pass) };
    let header = ipv4(frame, ethernet.payload())?;
    let flow = header.flow(frame)?;
    let from = from(slot, ingress.link, ethernet, &header.source, is_marked(header.class));
    let dst = dst(ethernet.destination, ingress.port, vip);
    conclude(slot, ingress, vip, &flow, from, dst, env)
}

/// As [`judge_arp`], in IPv6. The first question goes to a group of its own, which for us is everybody. One that was
/// sent on can only be answered when it names its sender.
#[inline(always)]
fn judge_solicitation(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let target = Solicitation::target(frame, ethernet.payload()).ok_or(Reason::Malformed)?;
    let vip = slot.vip(ingress.link, &target).ok_or(Reason::BadTable)?;
    let solicitation = Solicitation::parse(frame, ethernet.payload(), target)?;
    if solicitation.source == target {
        return Ok(Verdict::Pass);
    }
    let from = match (from(slot, ingress.link, ethernet, &solicitation.source, false), solicitation.link) {
        (Sender::Node { .. }, Some(link)) if link == ethernet.source => Sender::Direct,
        (Sender::Node { .. }, None) => return Err(Reason::FromNode),
        (from, _) => from,
    };
    // RFC 2464 §7.
    let group = ethernet.destination & 0xffff == 0x3333;
    let dst = if group { Dst::Broadcast } else { dst(ethernet.destination, ingress.port, vip) };
    conclude(slot, ingress, vip, &solicitation.flow(), from, dst, env)
}

/// Requests for a virtual IP are ours alone, also when nothing is answered. A packet whose sender is the
/// virtual IP is an announcement, which the local stack must see to reach a virtual IP it does not serve.
#[inline(always)]
fn judge_arp(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let Some(arp) = Arp::parse(frame, ethernet.payload()) else { return Ok(Verdict::Pass) };
    if arp.operation != 1 || arp.sender == arp.target {
        return Ok(Verdict::Pass);
    }
    let Some(vip) = slot.vip(ingress.link, &Address::v4(arp.target)) else { return Ok(Verdict::Pass) };
    if arp.sender_mac & 1 != 0 {
        return Err(Reason::Malformed);
    }
    let from = from(slot, ingress.link, ethernet, &Address::v4(arp.sender), false);
    let dst = dst(ethernet.destination, ingress.port, vip);
    conclude(slot, ingress, vip, &arp.flow(), from, dst, env)
}

#[inline(always)]
fn conclude(
    slot: &Slot,
    ingress: &Ingress<'_>,
    vip: &Vip,
    flow: &Flow,
    from: Sender,
    dst: Dst,
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let mode = Mode::try_from(vip.mode).map_err(|_| Reason::BadTable)?;
    let question = Question {
        flow: *flow,
        entry: slot.entry(vip.module, slot.bucket(vip, flow)?),
        me: NodeIndex(slot.head.me),
        mode,
        from,
        dst,
        deadline: BootTime(slot.head.deadline),
    };
    match decide(&question, env) {
        Verdict::Forward { node, .. } if mac_number(&slot.node(ingress.link, node).mac) == 0 => {
            Err(Reason::NoPeer)
        }
        verdict => Ok(verdict),
    }
}

/// A node that uses a service as an ordinary client does so from its own address.
#[inline(always)]
fn from(slot: &Slot, link: u8, ethernet: &Ethernet, source: &Address, marked: bool) -> Sender {
    let Some(node) = slot.owner_of_mac(ethernet.source) else { return Sender::Direct };
    let known = slot.node(link, node);
    let own = match source.family() {
        Family::V4 => known.address4 == source.low(),
        Family::V6 => Address::v6(known.address6) == *source,
    };
    if own { Sender::Direct } else { Sender::Node { node, marked } }
}

#[inline(always)]
fn dst(destination: u64, port: &Port, vip: &Vip) -> Dst {
    if destination == mac_number(&port.mac) {
        Dst::Own
    } else if destination == mac_number(&vip.vmac) {
        Dst::VMac
    } else if destination == mac_number(&[0xff; 6]) {
        Dst::Broadcast
    } else {
        Dst::Other
    }
}
