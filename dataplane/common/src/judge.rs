//! One frame from its bytes to the verdict: parse, look up, decide.

use crate::bytes::{Bytes, mac_number};
use crate::decide::{Env, Question, decide, sender};
use crate::flow::{Address, Family, Flow};
use crate::fragment::{self, Fragments};
use crate::layout::{LINKS, Port, Slot, Vip};
use crate::parse::{Arp, ETHERTYPE_ARP, Ethernet, Solicitation};
use crate::read::{First, Reading, read};
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
    env: &(impl Env + Fragments),
) -> Verdict {
    let mut reading = Reading::default();
    match read(slot, ingress.link, ethernet, frame, &mut reading) {
        First::Packet => conclude(slot, ingress, &reading, env),
        First::Fragment => {
            if let Some(ports) = fragment::ports(ethernet, frame, env) {
                reading.learn(ports);
            }
            conclude(slot, ingress, &reading, env)
        }
        First::Solicitation => solicited(slot, ingress, ethernet, frame, env),
        First::Done(Reason::Passed) => Verdict::Pass,
        First::Done(reason) => Verdict::Drop(reason),
    }
}

/// The second half, for a packet.
#[inline(always)]
pub fn conclude(slot: &Slot, ingress: &Ingress<'_>, reading: &Reading, env: &impl Env) -> Verdict {
    judge_packet(slot, ingress, reading, env).unwrap_or_else(Verdict::Drop)
}

/// The second half, for a question.
#[inline(always)]
pub fn solicited(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Verdict {
    let verdict = match ethernet.ethertype {
        ETHERTYPE_ARP => judge_arp(slot, ingress, ethernet, frame, env),
        _ => judge_solicitation(slot, ingress, ethernet, frame, env),
    };
    verdict.unwrap_or_else(Verdict::Drop)
}

#[inline(always)]
fn judge_packet(
    slot: &Slot,
    ingress: &Ingress<'_>,
    reading: &Reading,
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let vip = reading.vip(slot);
    let flow = reading.flow(vip).ok_or(Reason::Malformed)?;
    let by = by(slot, ingress.link, reading.sender, &reading.source());
    let dst = dst(reading.to, ingress.port, vip);
    let from = sender(by, is_marked(reading.class()));
    match decided(slot, ingress, vip, &flow, from, dst, env)? {
        Verdict::Forward { .. } if reading.hops() < HOPS_LEFT => Err(Reason::HopLimit),
        verdict => Ok(verdict),
    }
}

/// A packet that may make only one hop more is sent on to nobody: it would arrive with none.
const HOPS_LEFT: u8 = 2;

/// As [`judge_arp`], in IPv6. The first question goes to a group of its own, which for us is everybody. One that was
/// sent on can only be answered when it names its sender; one without a name is the node's own if it comes from its
/// address.
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
    let by = match (by(slot, ingress.link, ethernet.source, &solicitation.source), solicitation.link) {
        (Some((node, _)), Some(link)) => Some((node, link == ethernet.source)),
        (Some((_, false)), None) => return Err(Reason::FromNode),
        (by, _) => by,
    };
    // RFC 2464 §7.
    let group = ethernet.destination & 0xffff == 0x3333;
    let dst = if group { Dst::Broadcast } else { dst(ethernet.destination, ingress.port, vip) };
    decided(slot, ingress, vip, &solicitation.flow(), sender(by, false), dst, env)
}

/// What a node asks itself names the MAC that it comes from; what it sends on names the asker's.
#[inline(always)]
fn judge_arp(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let arp = Arp::parse(frame, ethernet.payload()).ok_or(Reason::Malformed)?;
    let vip = slot.vip(ingress.link, &Address::v4(arp.target)).ok_or(Reason::BadTable)?;
    if arp.sender_mac & 1 != 0 {
        return Err(Reason::Malformed);
    }
    let by = slot.owner_of_mac(ethernet.source).map(|node| (node, arp.sender_mac == ethernet.source));
    let dst = dst(ethernet.destination, ingress.port, vip);
    decided(slot, ingress, vip, &arp.flow(), sender(by, false), dst, env)
}

#[inline(always)]
fn decided(
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

/// The node that a frame came from, and whether the packet's source is that node's own address.
#[inline(always)]
fn by(slot: &Slot, link: u8, sender: u64, source: &Address) -> Option<(NodeIndex, bool)> {
    let node = slot.owner_of_mac(sender)?;
    let known = slot.node(link, node);
    let own = match source.family() {
        Family::V4 => known.address4 == source.low(),
        Family::V6 => Address::v6(known.address6) == *source,
    };
    Some((node, own))
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
