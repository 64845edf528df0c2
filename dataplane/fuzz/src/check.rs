//! The properties: what holds for every frame, under every table.

use std::net::IpAddr;

use farm_common::decide::Given;
use farm_common::flow::protocol;
use farm_common::judge::{Ingress, judge};
use farm_common::layout::{Port, Slot};
use farm_common::parse::Ethernet;
use farm_common::rewrite::{is_marked, rewrite};
use farm_common::verdict::{Course, Mode, Phase, Reason, Socket, Verdict};

use crate::case::{Case, FRAMES_COME_IN, LINKS, NODES, SERVICES, VIPS, node_mac, proof, vmac};
use crate::naive::{About, Envelope, Packet, header_sum, icmp6_sum};

/// Frames are cut after each of this many first bytes: all headers lie in them.
const CUTS: usize = 200;

/// What is judged: the real thing, or one with a mistake planted.
#[derive(Clone, Copy)]
pub struct Subject {
    /// Gives the verdict.
    pub judge: fn(&Slot, &[Port], &[u8], &Given) -> Verdict,
    /// Makes the frame what the verdict says.
    pub rewrite: fn(&Verdict, &Slot, &[Port], &mut [u8]) -> Option<()>,
}

/// What the kernel runs.
pub const REAL: Subject = Subject { judge: judged, rewrite: rewritten };

/// As the program does it: what is on no link passes.
fn judged(slot: &Slot, ports: &[Port], frame: &[u8], given: &Given) -> Verdict {
    let Some(ethernet) = Ethernet::parse(frame) else { return Verdict::Pass };
    let ingress = Ingress::find(FRAMES_COME_IN, ethernet.vlan, |link| ports.get(usize::from(link)));
    ingress.map_or(Verdict::Pass, |ingress| judge(slot, &ingress, &ethernet, frame, given))
}

fn rewritten(verdict: &Verdict, slot: &Slot, ports: &[Port], frame: &mut [u8]) -> Option<()> {
    if matches!(verdict, Verdict::Pass | Verdict::Drop(_)) {
        return Some(());
    }
    let ethernet = Ethernet::parse(&*frame)?;
    let ingress = Ingress::find(FRAMES_COME_IN, ethernet.vlan, |link| ports.get(usize::from(link)))?;
    rewrite(verdict, slot, &ingress, &ethernet, frame)
}

/// Holds a case against all properties.
///
/// # Errors
/// The property that does not hold, and how.
pub fn check(case: &Case) -> Result<Verdict, String> {
    check_with(&REAL, case)
}

/// The same, of `subject`.
///
/// # Errors
/// As [`check`].
pub fn check_with(subject: &Subject, case: &Case) -> Result<Verdict, String> {
    let (verdict, after) = outcome(subject, case);
    let raw = after.ok_or_else(|| format!("{verdict:?} cannot be carried out"))?;
    let (before, after) = (Envelope::untagged(&case.frame), Envelope::untagged(&raw));
    let judged = Judged { subject, case, verdict, raw: &raw, before: &before, after: &after };
    let broken = PROPERTIES.iter().find(|(_, property)| !property(&judged));
    match broken {
        None => Ok(verdict),
        Some((name, _)) => Err(format!("{name}: {verdict:?} of {case:02x?}, afterwards {raw:02x?}")),
    }
}

/// The verdict, and the frame afterwards unless it cannot be carried out.
pub fn outcome(subject: &Subject, case: &Case) -> (Verdict, Option<Vec<u8>>) {
    let ports = case.ports();
    case.with_table(|slot| {
        let verdict = (subject.judge)(slot, &ports, &case.frame, &case.given());
        let mut after = case.frame.clone();
        let done = (subject.rewrite)(&verdict, slot, &ports, &mut after);
        (verdict, done.map(|()| after))
    })
}

/// A case with its verdict.
struct Judged<'a> {
    subject: &'a Subject,
    case: &'a Case,
    verdict: Verdict,
    /// The frame afterwards.
    raw: &'a [u8],
    /// The frame before and afterwards, without tags.
    before: &'a [u8],
    after: &'a [u8],
}

type Property = fn(&Judged<'_>) -> bool;

const PROPERTIES: [(&str, Property); 14] = [
    ("the same frame has the same verdict", |it| it.again()),
    ("what is for no virtual IP passes, and nothing else", |it| it.passes_foreign()),
    ("nothing is acted on without a lease or a link", |it| it.closed()),
    ("what passes or is dropped stays as it is", |it| it.untouched()),
    ("tags stay as they are", |it| it.tags_stay()),
    ("what is acted on has its headers in the frame", |it| it.sound()),
    ("what is acted on is for a service", |it| it.served()),
    ("an accepted frame carries the proof and no mark", |it| it.accepted()),
    ("a forwarded frame goes to another node, marked when bounced", |it| it.forwarded()),
    ("a packet changes in MACs, mark, hops and checksum only, and the checksum stays right", |it| {
        it.marked()
    }),
    ("what is sent on has one hop less, and one left", |it| it.a_hop_less()),
    ("an answer answers its question", |it| it.answered()),
    ("a part of a frame fares no better than the whole", |it| it.cut()),
    ("in flood mode one node acts", |it| it.alone()),
];

impl Judged<'_> {
    fn judge(&self, case: &Case, frame: &[u8]) -> Verdict {
        case.with_table(|slot| (self.subject.judge)(slot, &case.ports(), frame, &case.given()))
    }

    fn again(&self) -> bool {
        self.judge(self.case, &self.case.frame) == self.verdict
    }

    fn passes_foreign(&self) -> bool {
        let malformed = self.verdict == Verdict::Drop(Reason::Malformed);
        match About::of(self.before) {
            // An announcement, which the stack is to see; or what it would ignore.
            About::Question { target, source } if target == source => {
                self.verdict == Verdict::Pass || malformed
            }
            _ => (self.verdict == Verdict::Pass) != self.is_ours(&self.case.frame),
        }
    }

    /// Is it for a virtual IP in the network that it came from?
    fn is_ours(&self, frame: &[u8]) -> bool {
        let address = About::of(&Envelope::untagged(frame)).address();
        self.link(frame).zip(address).is_some_and(|vip| VIPS.contains(&vip))
    }

    /// The link that a frame is on.
    fn link(&self, frame: &[u8]) -> Option<u8> {
        let vlans = Envelope::of(frame)?.vlans;
        let link = LINKS.iter().position(|(ifindex, on)| *ifindex == FRAMES_COME_IN && *on == vlans);
        link.filter(|_| !self.case.no_link).map(|link| link as u8)
    }

    fn closed(&self) -> bool {
        !(self.case.expired || self.case.no_link) || !acts(&self.verdict)
    }

    fn untouched(&self) -> bool {
        acts(&self.verdict) || self.case.frame == self.raw
    }

    fn tags_stay(&self) -> bool {
        let end = Envelope::of(&self.case.frame).map_or(12, |envelope| envelope.ethertype_at);
        self.case.frame.get(12..end) == self.raw.get(12..end)
    }

    fn sound(&self) -> bool {
        let packet = || Packet::of(self.before);
        match self.verdict {
            Verdict::Accept(_)
            | Verdict::Forward { course: Course::Owner | Course::Previous | Course::Bounce, .. } => packet()
                .is_some_and(|packet| match packet.protocol {
                    _ if packet.fragment_offset != 0 => {
                        !(packet.protocol == protocol::TCP && packet.fragment_offset == 1)
                    }
                    protocol::TCP => packet.payload.len() >= 14 && !(packet.is_fragment() && packet.opens()),
                    protocol::UDP => packet.payload.len() >= 4 || packet.is_fragment(),
                    protocol::ICMP | protocol::ICMPV6 => packet.payload.len() >= 8 || packet.is_fragment(),
                    _ => false,
                }),
            Verdict::Answer | Verdict::Forward { course: Course::Solicitation, .. } => {
                matches!(About::of(self.before), About::Question { .. })
            }
            Verdict::Pass | Verdict::Drop(_) => true,
        }
    }

    fn served(&self) -> bool {
        let Some(packet) = Packet::of(self.before).filter(|_| acts(&self.verdict)) else { return true };
        let ports = matches!(packet.protocol, protocol::TCP | protocol::UDP) && !packet.is_fragment();
        !ports
            || SERVICES.iter().any(|(link, protocol, port, _)| {
                (Some(*link), *protocol, Some(*port))
                    == (self.link(&self.case.frame), packet.protocol, packet.port())
            })
    }

    fn accepted(&self) -> bool {
        let Verdict::Accept(_) = self.verdict else { return true };
        let proof = self.link(&self.case.frame).map(proof);
        self.after[..6] == node_mac(self.case.me)
            && Some(&self.after[6..12]) == proof.as_ref().map(|proof| &proof[..])
            && !marked(self.after)
    }

    fn forwarded(&self) -> bool {
        let Verdict::Forward { node, course } = self.verdict else { return true };
        let to = node_mac(node.0);
        // A table in which a node is both owners occurs nowhere; it still sends nothing to nobody.
        let known = (1..=NODES).contains(&node.0) && (node.0 != self.case.me || !self.sane());
        known && self.after[..6] == to && self.after[6..12] == node_mac(self.case.me) && self.mark_is(course)
    }

    fn mark_is(&self, course: Course) -> bool {
        match course {
            Course::Bounce => marked(self.after),
            Course::Owner | Course::Previous | Course::Solicitation => !marked(self.after),
        }
    }

    fn marked(&self) -> bool {
        let (before, after) = (self.before, self.after);
        if !matches!(self.verdict, Verdict::Accept(_) | Verdict::Forward { .. }) {
            return true;
        }
        let may: &[(usize, u8)] = match before[12..14] {
            [0x08, 0x00] => &[(15, 0xfc), (22, 0xff), (24, 0xff), (25, 0xff)],
            [0x86, 0xdd] => &[(14, 0x0f), (15, 0xc0), (21, 0xff)],
            _ => &[],
        };
        let allowed = |at: usize| may.iter().find(|(byte, _)| *byte == at).map_or(0, |(_, bits)| *bits);
        let kept = (12..before.len()).all(|at| (before[at] ^ after[at]) & !allowed(at) == 0);
        let cleared = marked(before) || marked(after) || before[12..16] == after[12..16];
        let right = before[12..14] != [8, 0]
            || header_sum(before) != Some(0xffff)
            || header_sum(after) == Some(0xffff);
        before.len() == after.len() && kept && cleared && right
    }

    fn a_hop_less(&self) -> bool {
        let left = |frame: &[u8]| match frame.get(12..14) {
            Some([0x08, 0x00]) => frame.get(22).copied(),
            Some([0x86, 0xdd]) => frame.get(21).copied(),
            _ => None,
        };
        let (before, after) = (left(self.before), left(self.after));
        match self.verdict {
            Verdict::Forward { course: Course::Owner | Course::Previous | Course::Bounce, .. } => {
                after.is_some_and(|left| left > 0) && before == after.map(|left| left + 1)
            }
            Verdict::Accept(_) | Verdict::Forward { course: Course::Solicitation, .. } => before == after,
            Verdict::Answer | Verdict::Pass | Verdict::Drop(_) => true,
        }
    }

    fn answered(&self) -> bool {
        let Verdict::Answer = self.verdict else { return true };
        let About::Question { target, .. } = About::of(self.before) else { return false };
        let link = self.link(&self.case.frame);
        let Some(vip) = VIPS.iter().position(|vip| (Some(vip.0), vip.1) == (link, target)) else {
            return false;
        };
        let mac = if self.case.mode == Mode::Flood { vmac(vip) } else { node_mac(self.case.me) };
        let right = match target {
            IpAddr::V4(target) => arp_answer(self.before, self.after, target.octets(), mac),
            IpAddr::V6(target) => advertisement(self.before, self.after, target.octets(), mac),
        };
        self.before.len() == self.after.len() && self.after[6..12] == node_mac(self.case.me) && right
    }

    fn cut(&self) -> bool {
        let frame = &self.case.frame;
        (0..frame.len().min(CUTS)).all(|length| {
            let part = &frame[..length];
            let verdict = self.judge(self.case, part);
            match verdict {
                Verdict::Drop(_) => true,
                Verdict::Pass => !self.is_ours(part),
                Verdict::Accept(_) | Verdict::Forward { .. } | Verdict::Answer => verdict == self.verdict,
            }
        })
    }

    /// Everybody has the frame and the same table, and nobody a socket.
    fn alone(&self) -> bool {
        if self.case.mode == Mode::Directed || !self.sane() {
            return true;
        }
        let accepts = |me| {
            let case = Case { me, socket: Socket::None, ..self.case.clone() };
            matches!(self.judge(&case, &case.frame), Verdict::Accept(_) | Verdict::Answer)
        };
        (1..=NODES).filter(|me| accepts(*me)).count() <= 1
    }

    /// Is it a state of a bucket that a planner makes?
    fn sane(&self) -> bool {
        let entry = self.case.entry;
        match Phase::try_from(entry.phase) {
            Ok(Phase::Stable) => entry.previous == 0,
            Ok(Phase::Prepare | Phase::Move | Phase::MoveClosed | Phase::Activate) => {
                entry.previous != 0 && entry.previous != entry.current
            }
            Err(_) => false,
        }
    }
}

fn acts(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Accept(_) | Verdict::Forward { .. } | Verdict::Answer => true,
        Verdict::Pass | Verdict::Drop(_) => false,
    }
}

/// Does the packet carry the mark of a bounce?
fn marked(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => is_marked(frame[15]),
        [0x86, 0xdd] => is_marked(frame[14] << 4 | frame[15] >> 4),
        _ => false,
    }
}

/// A reply (RFC 826) to the sender of the request.
fn arp_answer(before: &[u8], after: &[u8], target: [u8; 4], mac: [u8; 6]) -> bool {
    let (asker_mac, asker) = (&before[22..28], &before[28..32]);
    let expected =
        [asker_mac, &after[6..14], &[0, 1, 8, 0, 6, 4, 0, 2], &mac, &target, asker_mac, asker].concat();
    after[..42] == expected && after[42..] == before[42..] && asker_mac[0] & 1 == 0
}

/// An advertisement (RFC 4861 §4.4) to the source of the solicitation, or to all when it has none.
fn advertisement(before: &[u8], after: &[u8], target: [u8; 16], mac: [u8; 6]) -> bool {
    let (asker, to) = (&before[22..38], &after[38..54]);
    let nobody = asker == [0; 16];
    let flags = if nobody { 0x20 } else { 0x60 };
    let lawful = before[21] == 255 && before[55] == 0 && (!nobody || before[38] == 0xff);
    let heard = if nobody { to[..2] == [0xff, 2] && to[15] == 1 } else { to == asker };
    // Of the options one is left, with our answer; the packet ends behind it.
    let length = |frame: &[u8]| u16::from_be_bytes([frame[18], frame[19]]);
    let named = match length(before) {
        24 => length(after) == 24 && after[78..] == before[78..],
        _ => {
            length(after) == 32
                && after[78..80] == [2, 1]
                && after[80..86] == mac
                && after[86..] == before[86..]
        }
    };
    let right = icmp6_sum(before) != Some(0xffff) || icmp6_sum(after) == Some(0xffff);
    let fields = after[54] == 136 && after[58] == flags && after[22..38] == target && after[62..78] == target;
    lawful && fields && heard && named && right
}
