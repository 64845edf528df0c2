//! One frame from its bytes to the verdict: parse, look up, decide.

use crate::bytes::{Bytes, mac_number};
use crate::decide::{Env, Question, decide};
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
    let from = from(slot, ingress.link, reading.sender, &reading.source(), is_marked(reading.class()));
    let dst = dst(reading.to, ingress.port, vip);
    decided(slot, ingress, vip, &flow, from, dst, env)
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
    let from =
        match (from(slot, ingress.link, ethernet.source, &solicitation.source, false), solicitation.link) {
            (Sender::Node { .. }, Some(link)) if link == ethernet.source => Sender::Direct,
            (Sender::Node { .. }, None) => return Err(Reason::FromNode),
            (from, _) => from,
        };
    // RFC 2464 §7.
    let group = ethernet.destination & 0xffff == 0x3333;
    let dst = if group { Dst::Broadcast } else { dst(ethernet.destination, ingress.port, vip) };
    decided(slot, ingress, vip, &solicitation.flow(), from, dst, env)
}

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
    let from = from(slot, ingress.link, ethernet.source, &Address::v4(arp.sender), false);
    let dst = dst(ethernet.destination, ingress.port, vip);
    decided(slot, ingress, vip, &arp.flow(), from, dst, env)
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

/// A node that uses a service as an ordinary client does so from its own address.
#[inline(always)]
fn from(slot: &Slot, link: u8, sender: u64, source: &Address, marked: bool) -> Sender {
    let Some(node) = slot.owner_of_mac(sender) else { return Sender::Direct };
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
