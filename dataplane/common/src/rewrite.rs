//! What a verdict does to the frame, and the mark of a bounce.

use crate::bytes::BytesMut;
use crate::judge::Ingress;
use crate::layout::Slot;
use crate::parse::{Arp, ETHERNET, ETHERTYPE_IPV4};
use crate::verdict::{NodeIndex, Verdict};

/// The mark of a bounce: DSCP 000011.
///
/// From pool 2 of RFC 2474 §6 (`xxxx11`, experimental or local use, never to be standardised); its three
/// high bits are those of routine traffic, so equipment that still reads precedence treats it as best effort.
/// The client's own code point is lost with it: the new owner restores 0. Switches between the nodes must
/// not rewrite DSCP.
pub const MARK: u8 = 0b00_0011;

/// Is this type-of-service byte marked?
#[inline(always)]
pub fn is_marked(tos: u8) -> bool {
    tos >> 2 == MARK
}

/// Makes the frame what the verdict says: addresses, mark, answer. [`Verdict::Pass`] and [`Verdict::Drop`]
/// leave it alone. `None` when the frame is too short for its own verdict, which no frame is that got one.
#[inline(always)]
#[must_use]
pub fn rewrite(
    verdict: &Verdict,
    slot: &Slot,
    ingress: &Ingress,
    frame: &mut (impl BytesMut + ?Sized),
) -> Option<()> {
    match verdict {
        Verdict::Pass | Verdict::Drop(_) => Some(()),
        Verdict::Accept(_) => {
            frame.set(0, ingress.port.mac)?;
            frame.set(6, ingress.port.proof)?;
            set_mark(frame, false)
        }
        Verdict::Forward { node, course } => forward(slot, ingress, *node, course.marked(), frame),
        Verdict::AnswerArp { mac } => answer(ingress, *mac, frame),
    }
}

#[inline(always)]
fn forward(
    slot: &Slot,
    ingress: &Ingress,
    node: NodeIndex,
    marked: bool,
    frame: &mut (impl BytesMut + ?Sized),
) -> Option<()> {
    frame.set(0, slot.node(ingress.link, node).mac)?;
    frame.set(6, ingress.port.mac)?;
    if frame.get::<2>(12)? == ETHERTYPE_IPV4.to_be_bytes() { set_mark(frame, marked) } else { Some(()) }
}

/// Sets or removes the mark, without touching the two ECN bits, and updates the header checksum
/// (RFC 1624, equation 3). A code point other than the mark is only changed by setting it.
#[inline(always)]
fn set_mark(frame: &mut (impl BytesMut + ?Sized), marked: bool) -> Option<()> {
    let [version, tos] = frame.get(ETHERNET)?;
    if is_marked(tos) == marked {
        return Some(());
    }
    let after = [version, tos & 0b11 | if marked { MARK << 2 } else { 0 }];
    let checksum = adjust(frame.get(ETHERNET + 10)?, [version, tos], after);
    frame.set(ETHERNET, after)?;
    frame.set(ETHERNET + 10, checksum)
}

#[inline(always)]
fn adjust(checksum: [u8; 2], before: [u8; 2], after: [u8; 2]) -> [u8; 2] {
    let word = |bytes| u32::from(u16::from_be_bytes(bytes));
    let sum = (word(checksum) ^ 0xffff) + (word(before) ^ 0xffff) + word(after);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}

/// The frame leaves from the own MAC, also when it names the virtual one: switches must never learn that.
#[inline(always)]
fn answer(ingress: &Ingress, mac: [u8; 6], frame: &mut (impl BytesMut + ?Sized)) -> Option<()> {
    let request = Arp::parse(frame, ETHERNET)?;
    frame.set(0, request.sender_mac)?;
    frame.set(6, ingress.port.mac)?;
    frame.set(ETHERNET + 6, [0, 2])?;
    frame.set(ETHERNET + 8, mac)?;
    frame.set(ETHERNET + 14, request.target)?;
    frame.set(ETHERNET + 18, request.sender_mac)?;
    frame.set(ETHERNET + 24, request.sender)
}
