//! What a verdict does to the frame, and the mark of a bounce.
//!
//! A packet that is sent on may make one hop less. The decision ends every walk by itself, knowing by its MAC which node
//! a frame comes from; where something between the nodes writes another one (a bond that balances what it sends, or an
//! interface whose MAC was changed and not yet made known) only this does.

use crate::bytes::{BytesMut, Window, mac_bytes};
use crate::flow::Address;
use crate::judge::Ingress;
use crate::layout::Slot;
use crate::parse::{Arp, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Solicitation};
use crate::verdict::{Course, Mode, Verdict};

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

/// Makes the frame what the verdict says: addresses, mark, answer. Its tags stay as they are. [`Verdict::Pass`] and
/// [`Verdict::Drop`] leave it alone. `None` when the frame is too short for its own verdict, which no frame is that got one.
#[inline(always)]
#[must_use]
pub fn rewrite(
    verdict: &Verdict,
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &mut (impl BytesMut + ?Sized),
) -> Option<()> {
    match verdict {
        Verdict::Pass | Verdict::Drop(_) => Some(()),
        Verdict::Accept(_) => {
            frame.set(0, ingress.port.mac)?;
            frame.set(6, ingress.port.proof)?;
            set_mark(ethernet, frame, false, 0)
        }
        Verdict::Forward { node, course } => {
            frame.set(0, slot.node(ingress.link, *node).mac)?;
            frame.set(6, ingress.port.mac)?;
            match course {
                // Neighbour discovery goes with all its hops left or not at all (RFC 4861 §7.1.1).
                Course::Solicitation => Some(()),
                Course::Owner | Course::Previous | Course::Bounce => {
                    set_mark(ethernet, frame, course.marked(), 1)
                }
            }
        }
        Verdict::Answer => answer(slot, ingress, ethernet, frame),
    }
}

/// Sets or removes the mark of a packet, without touching the two ECN bits, and takes `hops` from those it may still
/// make. A code point other than the mark is only changed by setting it.
#[inline(always)]
fn set_mark(ethernet: &Ethernet, frame: &mut (impl BytesMut + ?Sized), marked: bool, hops: u8) -> Option<()> {
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => set_mark4(ethernet.payload(), frame, marked, hops),
        ETHERTYPE_IPV6 => set_mark6(ethernet.payload(), frame, marked, hops),
        _ => Some(()),
    }
}

/// Updates the header checksum (RFC 1624, equation 3).
#[inline(always)]
fn set_mark4(start: usize, frame: &mut (impl BytesMut + ?Sized), marked: bool, hops: u8) -> Option<()> {
    let header = frame.window::<12>(start)?;
    let (version, class) = (header.u8::<0>(), header.u8::<1>());
    let (left, protocol) = (header.u8::<8>(), header.u8::<9>());
    if is_marked(class) == marked && hops == 0 {
        return Some(());
    }
    let (first, fifth) = ([version, with_mark(class, marked)], [left.saturating_sub(hops), protocol]);
    let mut checksum = Checksum::of(header.u16::<10>());
    checksum.replace([version, class], first);
    checksum.replace([left, protocol], fifth);
    frame.set(start, first)?;
    frame.set(start + 8, fifth)?;
    frame.set(start + 10, checksum.bytes())
}

/// The class lies across two bytes, and no checksum covers it or the hop limit.
#[inline(always)]
fn set_mark6(start: usize, frame: &mut (impl BytesMut + ?Sized), marked: bool, hops: u8) -> Option<()> {
    let header = frame.window::<8>(start)?;
    let (first, left) = (header.u16::<0>(), header.u8::<7>());
    let class = (first >> 4) as u8;
    if is_marked(class) == marked && hops == 0 {
        return Some(());
    }
    let class = u16::from(with_mark(class, marked));
    frame.set(start, (first & 0xf00f | class << 4).to_be_bytes())?;
    frame.set(start + 7, [left.saturating_sub(hops)])
}

#[inline(always)]
fn with_mark(class: u8, marked: bool) -> u8 {
    match (is_marked(class), marked) {
        (_, true) => class & 0b11 | MARK << 2,
        (true, false) => class & 0b11,
        (false, false) => class,
    }
}

/// An Internet checksum that follows changes of what it covers (RFC 1624, equation 3).
struct Checksum(u32);

impl Checksum {
    #[inline(always)]
    fn of(field: u16) -> Self {
        Self(u32::from(!field))
    }

    /// One word; at most a thousand of them.
    #[inline(always)]
    fn replace(&mut self, before: [u8; 2], after: [u8; 2]) {
        self.0 += u32::from(!u16::from_be_bytes(before)) + u32::from(u16::from_be_bytes(after));
    }

    /// Whole words.
    #[inline(always)]
    fn replace_all<const N: usize>(&mut self, before: &[u8; N], after: &[u8; N]) {
        for at in (0..N).step_by(2) {
            self.replace([before[at], before[at + 1]], [after[at], after[at + 1]]);
        }
    }

    #[inline(always)]
    fn bytes(&self) -> [u8; 2] {
        let folded = (self.0 & 0xffff) + (self.0 >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        (!(folded as u16)).to_be_bytes()
    }
}

/// The question becomes its answer. It leaves from the own MAC, also when it names the virtual one: switches must
/// never learn that.
#[inline(always)]
fn answer(
    slot: &Slot,
    ingress: &Ingress<'_>,
    ethernet: &Ethernet,
    frame: &mut (impl BytesMut + ?Sized),
) -> Option<()> {
    match ethernet.ethertype {
        ETHERTYPE_ARP => answer_arp(slot, ingress, ethernet.payload(), frame),
        ETHERTYPE_IPV6 => advertise(slot, ingress, ethernet.payload(), frame),
        _ => None,
    }
}

#[inline(always)]
fn answer_arp(
    slot: &Slot,
    ingress: &Ingress<'_>,
    start: usize,
    frame: &mut (impl BytesMut + ?Sized),
) -> Option<()> {
    let request = Arp::parse(frame, start)?;
    let mac = named(slot, ingress, &Address::v4(request.target))?;
    let asker = mac_bytes(request.sender_mac);
    frame.set(0, asker)?;
    frame.set(6, ingress.port.mac)?;
    frame.set(start + 6, [0, 2])?;
    frame.set(start + 8, mac)?;
    frame.set(start + 14, request.target)?;
    frame.set(start + 18, asker)?;
    frame.set(start + 24, request.sender)
}

/// The MAC that an answer names.
#[inline(always)]
fn named(slot: &Slot, ingress: &Ingress<'_>, target: &Address) -> Option<[u8; 6]> {
    let vip = slot.vip(ingress.link, target)?;
    Some(match Mode::try_from(vip.mode).ok()? {
        Mode::Directed => ingress.port.mac,
        Mode::Flood => vip.vmac,
    })
}

/// All nodes on the link (RFC 4291 §2.7.1), who hear the answer to a solicitation without source, and their MAC
/// (RFC 2464 §7).
const ALL_NODES: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// A solicitation becomes an advertisement (RFC 4861 §4.4) in place: its first option becomes the one that names the answer,
/// and whatever else its asker wrote behind is cut off, so that no advertisement of ours names anybody else. A question
/// without options gets an answer without one; its asker knows the address it asked at. A wrong checksum stays wrong.
#[inline(always)]
fn advertise(
    slot: &Slot,
    ingress: &Ingress<'_>,
    start: usize,
    frame: &mut (impl BytesMut + ?Sized),
) -> Option<()> {
    /// Override: what was known before is replaced.
    const OVERRIDE: u8 = 0x20;
    const SOLICITED: u8 = 0x40;
    let icmp_at = start + 40;
    let target = Solicitation::target(frame, start)?;
    let asked = Solicitation::parse(frame, start, target).ok()?;
    let mac = named(slot, ingress, &target)?;
    let (to, to_mac, flags) = if asked.source == Address::UNSPECIFIED6 {
        (ALL_NODES, ALL_NODES_MAC, OVERRIDE)
    } else {
        let asker = frame.window::<6>(6)?.mac::<0>();
        (asked.source, mac_bytes(asked.link.unwrap_or(asker)), OVERRIDE | SOLICITED)
    };
    let icmp = frame.window::<8>(icmp_at)?;
    let mut checksum = Checksum::of(icmp.u16::<2>());
    let flags = [flags, 0, 0, 0];
    checksum.replace([135, 0], [136, 0]);
    checksum.replace_all(&icmp.four::<4>(), &flags);
    // The pseudo header: source and destination, in any order.
    let (target, to) = (target.bytes(), to.bytes());
    let destination = Address::of_words(frame.window::<40>(start)?.words::<24>());
    checksum.replace_all(&destination.bytes(), &target);
    checksum.replace_all(&asked.source.bytes(), &to);
    frame.set(0, to_mac)?;
    frame.set(6, ingress.port.mac)?;
    frame.set(start + 8, target)?;
    frame.set(start + 24, to)?;
    frame.set(icmp_at, [136, 0])?;
    frame.set(icmp_at + 4, flags)?;
    if asked.options > 0 {
        name(frame, start, &mac, asked.options, &mut checksum)?;
    }
    frame.set(icmp_at + 2, checksum.bytes())
}

/// Puts the option with `mac` in the place of all `options`.
#[inline(always)]
fn name(
    frame: &mut (impl BytesMut + ?Sized),
    start: usize,
    mac: &[u8; 6],
    options: usize,
    checksum: &mut Checksum,
) -> Option<()> {
    let [a, b, c, d, e, f] = *mac;
    let only = [2, 1, a, b, c, d, e, f];
    let at = start + Solicitation::OPTIONS_AT;
    let length = Solicitation::LENGTH + 8;
    checksum.replace((length + 8 * (options as u16 - 1)).to_be_bytes(), length.to_be_bytes());
    for index in 0..Solicitation::OPTIONS {
        if index < options {
            let former = frame.window::<8>(at + 8 * index)?.word::<0>().to_ne_bytes();
            checksum.replace_all(&former, if index == 0 { &only } else { &[0; 8] });
        }
    }
    frame.set(at, only)?;
    frame.set(start + 4, length.to_be_bytes())
}
