//! Who has asked for a virtual IP, and may have to be told that somebody else answers now.

use crate::bytes::{Bytes, mac_bytes};
use crate::decide::answering;
use crate::flow::{Address, Flow};
use crate::layout::{Asker, Slot};
use crate::parse::{Arp, ETHERTYPE_ARP, Ethernet, Solicitation};
use crate::verdict::{Mode, NodeIndex, Phase};

/// Who asks with this frame, and its MAC. `None` for what is no question for a virtual IP, or comes from somebody who has
/// no address yet, or hides behind the node that sent it on.
#[inline(always)]
pub fn asker(
    slot: &Slot,
    link: u8,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
) -> Option<(Asker, [u8; 6])> {
    let (vip, address, mac) = match ethernet.ethertype {
        ETHERTYPE_ARP => by_arp(ethernet, frame)?,
        _ => by_solicitation(slot, ethernet, frame)?,
    };
    if mac & 1 != 0 || slot.vip(link, &vip).is_none() {
        return None;
    }
    let (vip, address) = (vip.bytes(), address.bytes());
    Some((Asker { vip, address, link, reserved: [0; 7] }, mac_bytes(mac)))
}

#[inline(always)]
fn by_arp(ethernet: &Ethernet, frame: &(impl Bytes + ?Sized)) -> Option<(Address, Address, u64)> {
    let arp = Arp::parse(frame, ethernet.payload()).filter(Arp::asks)?;
    if arp.sender == [0; 4] {
        return None;
    }
    Some((Address::v4(arp.target), Address::v4(arp.sender), arp.sender_mac))
}

#[inline(always)]
fn by_solicitation(
    slot: &Slot,
    ethernet: &Ethernet,
    frame: &(impl Bytes + ?Sized),
) -> Option<(Address, Address, u64)> {
    let target = Solicitation::target(frame, ethernet.payload())?;
    let asked = Solicitation::parse(frame, ethernet.payload(), target).ok()?;
    let mac = match asked.link {
        Some(link) => link,
        None if slot.owner_of_mac(ethernet.source).is_some() => return None,
        None => ethernet.source,
    };
    let somebody = asked.source != Address::UNSPECIFIED6 && asked.source != target;
    somebody.then_some((target, asked.source, mac))
}

/// Who answers this asker by the table; `None` where nobody does, or where the answer is the same whoever gives it.
#[must_use]
pub fn answerer(slot: &Slot, asker: &Asker) -> Option<NodeIndex> {
    let vip = slot.vip(asker.link, &Address::v6(asker.vip))?;
    let flow = Flow::solicitation(Address::v6(asker.address), Address::v6(asker.vip));
    let entry = slot.entry(vip.module, slot.bucket(vip, &flow).ok()?);
    match Mode::try_from(vip.mode).ok()? {
        Mode::Directed => answering(&entry, Phase::try_from(entry.phase).ok()?),
        Mode::Flood => None,
    }
}
