//! One frame from its bytes to the verdict: parse, look up, decide.

use crate::bytes::{Bytes, mac_number};
use crate::decide::{Env, Question, decide};
use crate::flow::{Address, Flow};
use crate::layout::{Port, Slot, Vip};
use crate::parse::{
    Arp, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv4, ipv4_destination, ipv6_destination,
};
use crate::rewrite::is_marked;
use crate::verdict::{BootTime, Dst, Mode, NodeIndex, Reason, Sender, Verdict};

/// The interface a frame came in on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ingress {
    /// Index of the link.
    pub link: u8,
    /// Its MAC and proof.
    pub port: Port,
}

/// Judges one frame. `ingress` is `None` for an interface that is none of the node's links: nothing for a
/// virtual IP is taken there.
#[inline(always)]
pub fn judge(
    slot: &Slot,
    ingress: Option<&Ingress>,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Verdict {
    let Some(ethernet) = Ethernet::parse(frame) else { return Verdict::Pass };
    let start = ethernet.payload();
    let verdict = match ethernet.ethertype {
        ETHERTYPE_IPV4 => judge_ipv4(slot, ingress, &ethernet, frame, env),
        ETHERTYPE_ARP => judge_arp(slot, ingress, &ethernet, frame, env),
        ETHERTYPE_IPV6 => match ipv6_destination(frame, start) {
            Some(destination) if slot.vip(&destination).is_some() => Err(Reason::Ipv6),
            Some(_) | None => Ok(Verdict::Pass),
        },
        _ => Ok(Verdict::Pass),
    };
    verdict.unwrap_or_else(Verdict::Drop)
}

#[inline(always)]
fn judge_ipv4(
    slot: &Slot,
    ingress: Option<&Ingress>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let Some(destination) = ipv4_destination(frame, ethernet.payload()) else { return Ok(Verdict::Pass) };
    let Some(vip) = slot.vip(&Address::V4(destination).mapped()) else { return Ok(Verdict::Pass) };
    let ingress = admit(ingress, ethernet, vip)?;
    let header = Ipv4::parse(frame, crate::parse::ETHERNET)?;
    let flow = header.flow(frame)?;
    let from = from(slot, ingress.link, ethernet, header.source, is_marked(header.tos));
    conclude(slot, ingress, vip, &flow, from, ethernet, env)
}

/// Requests for a virtual IP are ours alone, also when nothing is answered. A packet whose sender is the
/// virtual IP is an announcement, which the local stack must see to reach a virtual IP it does not serve.
#[inline(always)]
fn judge_arp(
    slot: &Slot,
    ingress: Option<&Ingress>,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let Some(arp) = Arp::parse(frame, ethernet.payload()) else { return Ok(Verdict::Pass) };
    if arp.operation != 1 || arp.sender == arp.target {
        return Ok(Verdict::Pass);
    }
    let Some(vip) = slot.vip(&Address::V4(arp.target).mapped()) else { return Ok(Verdict::Pass) };
    let ingress = admit(ingress, ethernet, vip)?;
    if arp.sender_mac[0] & 1 != 0 {
        return Err(Reason::Malformed);
    }
    let from = from(slot, ingress.link, ethernet, arp.sender, false);
    conclude(slot, ingress, vip, &arp.flow(), from, ethernet, env)
}

/// Is this where frames for the virtual IP come in?
#[inline(always)]
fn admit<'a>(ingress: Option<&'a Ingress>, ethernet: &Ethernet, vip: &Vip) -> Result<&'a Ingress, Reason> {
    let ingress = ingress.ok_or(Reason::NoPort)?;
    if ethernet.tags != 0 {
        return Err(Reason::Vlan);
    }
    if ingress.link != vip.link {
        return Err(Reason::WrongLink);
    }
    Ok(ingress)
}

#[inline(always)]
fn conclude(
    slot: &Slot,
    ingress: &Ingress,
    vip: &Vip,
    flow: &Flow,
    from: Sender,
    ethernet: &Ethernet,
    env: &impl Env,
) -> Result<Verdict, Reason> {
    let mode = Mode::try_from(vip.mode).map_err(|_| Reason::BadTable)?;
    let question = Question {
        flow: *flow,
        entry: slot.entry(vip.module, slot.bucket(vip, flow)?),
        me: NodeIndex(slot.head.me),
        mode,
        from,
        dst: dst(&ethernet.destination, &ingress.port, vip),
        deadline: BootTime(slot.head.deadline),
        answer: match mode {
            Mode::Directed => ingress.port.mac,
            Mode::Flood => vip.vmac,
        },
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
fn from(slot: &Slot, link: u8, ethernet: &Ethernet, source: [u8; 4], marked: bool) -> Sender {
    match slot.owner_of_mac(&ethernet.source) {
        Some(node) if slot.node(link, node).address4 != source => Sender::Node { node, marked },
        Some(_) | None => Sender::Direct,
    }
}

#[inline(always)]
fn dst(destination: &[u8; 6], port: &Port, vip: &Vip) -> Dst {
    let destination = mac_number(destination);
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
