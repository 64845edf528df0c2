//! The judgement: a pure function of what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::acceptance::{Acceptance, Kind, acceptances, is_syn_to};
use super::frame::{Content, Mac, Segment};
use super::neighbour::{Neighbour, Speech};
use super::tap::{Heading, Side, Sighting, Testimony};
use super::time::BootTime;
use crate::names::{Network, Place};

/// Fewer connection attempts than this at either node around a change prove nothing about it.
pub const SYNS_MIN: usize = 200;

/// Longest time between the commit of a planned change and the last answer of the old owner: request sockets may
/// keep it waiting for 3 s, and the steps around that take a second more on a busy machine.
const CHANGE_MAX: Duration = Duration::from_secs(4);

/// What is judged.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// The virtual IPs.
    pub vips: Vec<IpAddr>,
    /// Changes of owner that must have been under load: otherwise the case is void.
    pub changes: Vec<Expected>,
    /// Nodes that must not accept anything for a time (P2).
    pub closed: Vec<Window>,
    /// Nodes without a filter for a time, by the test's own doing: what their taps saw meanwhile proves nothing. Cables
    /// are judged all the same.
    pub unfiltered: Vec<Window>,
    /// The criterion of the service and when each epoch was committed: then the order of owners is judged.
    pub epochs: Option<(Criterion, Vec<BootTime>)>,
    /// The virtual hardware address of flood mode.
    pub virtual_mac: Option<Mac>,
    /// By hardware address of who has asked for a virtual IP: who answers it, and may tell it so, and when. To those who
    /// are not here anybody may.
    pub answerers: BTreeMap<Mac, Vec<Window>>,
}

/// A change of owner.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Who served before.
    pub old: Place,
    /// Who serves afterwards.
    pub new: Place,
    /// When.
    pub at: BootTime,
    /// How long before and after it attempts count.
    pub around: Duration,
}

/// A time for which something holds of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which node.
    pub node: Place,
    /// From when.
    pub from: BootTime,
    /// Until when.
    pub until: BootTime,
}

impl Window {
    /// All the time.
    #[must_use]
    pub fn always(node: Place) -> Self {
        Self { node, from: BootTime::default(), until: BootTime(u64::MAX) }
    }

    /// Does it hold of `node` at this instant?
    #[must_use]
    pub fn holds(&self, node: Place, at: BootTime) -> bool {
        self.node == node && (self.from..=self.until).contains(&at)
    }
}

/// What makes up a bucket: clients with the same key share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// The client's address.
    SourceAddress,
    /// The client's address and port.
    SourcePort,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was broken, and enough was seen to say so.
    Upheld,
    /// Nothing was seen to be broken, but too little was seen.
    Void(Vec<String>),
    /// A promise was broken.
    Broken(Vec<Violation>),
}

impl Verdict {
    /// # Errors
    /// For every verdict but [`Verdict::Upheld`], with all that was found.
    pub fn upheld(self) -> anyhow::Result<()> {
        match self {
            Self::Upheld => Ok(()),
            Self::Void(why) => anyhow::bail!("void: {}", why.join("; ")),
            Self::Broken(found) => anyhow::bail!("broken {} times, first: {:?}", found.len(), found.first()),
        }
    }
}

/// A broken promise, with the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// P1: one attempt was answered by two nodes.
    TwoAnswers(Acceptance, Acceptance),
    /// P1: two nodes speak in one connection.
    TwoSpeakers(Acceptance, Acceptance),
    /// P1: the bucket of a client changed its owner without a new epoch.
    OutOfOrder(Acceptance, Acceptance),
    /// P1: one attempt was let in by the filters of two nodes.
    PassedTwice(Sighting, Sighting),
    /// P2: accepted while closed.
    AcceptedWhileClosed(Acceptance),
    /// P2: the filter let it in while closed.
    PassedWhileClosed(Sighting),
    /// A frame that left a node names the virtual IP among neighbours, and is neither answer nor announcement.
    NamesVirtualIp(Place, BootTime, Neighbour),
    /// A node told one that it is where the virtual IP is, though another one answers that one.
    AnnouncedByAnother(Place, BootTime, Mac),
}

/// Judges what was seen, twice: on the switch's side of each cable, which is decisive, and on the nodes.
#[must_use]
pub fn judge(testimony: &Testimony, case: &Case) -> Verdict {
    let accepted = acceptances(&testimony.sightings, &case.vips);
    let mut found = judge_cables(&testimony.sightings, &accepted, case);
    found.extend(judge_nodes(&testimony.sightings, case));
    if !found.is_empty() {
        return Verdict::Broken(found);
    }
    let why = voids(testimony, case, &accepted);
    if why.is_empty() { Verdict::Upheld } else { Verdict::Void(why) }
}

fn judge_cables(sightings: &[Sighting], accepted: &[Acceptance], case: &Case) -> Vec<Violation> {
    let mut found = two_answers(accepted, &tries(sightings, &case.vips));
    found.extend(two_speakers(accepted));
    found.extend(
        case.epochs.iter().flat_map(|(criterion, epochs)| out_of_order(accepted, *criterion, epochs)),
    );
    let entries = accepted.iter().filter(|a| a.kind.is_entry() && case.is_closed(a.node, a.at));
    found.extend(entries.map(|a| Violation::AcceptedWhileClosed(*a)));
    found.extend(sightings.iter().filter_map(|s| wrong_naming(s, case)));
    found.extend(sightings.iter().filter_map(|s| announced_by_another(s, case)));
    found
}

/// What the filters let in. A tap on a node's own interface sees a frame after XDP: in native mode the driver runs it
/// before there is a packet to tap, in generic mode the kernel runs it before it serves the taps. The guard comes
/// later: where a node has no filter by the test's own doing, only its cable tells what it accepts.
fn judge_nodes(sightings: &[Sighting], case: &Case) -> Vec<Violation> {
    let passed = passed(sightings, &case.vips);
    let passed: Vec<Sighting> = passed.filter(|s| !case.is_unfiltered(s.place, s.at)).copied().collect();
    let mut found = two_entries(&passed, &tries(sightings, &case.vips));
    let while_closed = passed.iter().filter(|s| case.is_closed(s.place, s.at));
    found.extend(while_closed.map(|s| Violation::PassedWhileClosed(*s)));
    found
}

impl Case {
    fn is_closed(&self, node: Place, at: BootTime) -> bool {
        self.closed.iter().any(|window| window.holds(node, at))
    }

    fn is_unfiltered(&self, node: Place, at: BootTime) -> bool {
        self.unfiltered.iter().any(|window| window.holds(node, at))
    }
}

fn voids(testimony: &Testimony, case: &Case, accepted: &[Acceptance]) -> Vec<String> {
    let mut why = Vec::new();
    if testimony.lost > 0 {
        why.push(format!("the taps lost {} frames", testimony.lost));
    }
    if accepted.is_empty() {
        why.push("nobody accepted anything".into());
    }
    let entered: BTreeSet<Place> = passed(&testimony.sightings, &case.vips).map(|s| s.place).collect();
    let answered: BTreeSet<Place> = accepted.iter().map(|a| a.node).collect();
    why.extend(answered.difference(&entered).map(|node| format!("the tap on {node} saw nothing pass")));
    for change in &case.changes {
        for node in [change.old, change.new] {
            let (from, until) = (change.at - change.around, change.at + change.around);
            let count: usize = case.vips.iter().map(|vip| testimony.syns(node, *vip, from, until)).sum();
            if count < SYNS_MIN {
                why.push(format!(
                    "only {count} SYNs arrived at {node} around the change; {SYNS_MIN} are needed"
                ));
            }
        }
    }
    why
}

/// Who opened which attempt, and when: the key is the client's flow with its initial sequence number.
type Attempts<T> = BTreeMap<(SocketAddr, SocketAddr, u32), Vec<T>>;

/// Attempts that two nodes answered.
fn two_answers(accepted: &[Acceptance], tried: &Attempts<BootTime>) -> Vec<Violation> {
    let mut answered: Attempts<Acceptance> = BTreeMap::new();
    for a in accepted {
        if let Kind::Opened(isn) = a.kind {
            answered.entry((a.client, a.service, isn)).or_default().push(*a);
        }
    }
    let two = by_two_nodes(&answered, tried, |a| (a.node, a.at));
    two.map(|(first, second)| Violation::TwoAnswers(first, second)).collect()
}

/// Attempts that two filters let in.
fn two_entries(passed: &[Sighting], tried: &Attempts<BootTime>) -> Vec<Violation> {
    let mut entered: Attempts<Sighting> = BTreeMap::new();
    for s in passed {
        if let Content::Tcp(segment) = s.frame.content
            && segment.is(Segment::SYN)
        {
            let key = (segment.source, segment.destination, segment.sequence);
            entered.entry(key).or_default().push(*s);
        }
    }
    let two = by_two_nodes(&entered, tried, |s| (s.place, s.at));
    two.map(|(first, second)| Violation::PassedTwice(first, second)).collect()
}

/// What happened to one attempt on two nodes, one after the other, unless the client tried again in between: then the
/// bucket may have moved.
fn by_two_nodes<T: Copy>(
    happened: &Attempts<T>,
    tried: &Attempts<BootTime>,
    place_and_time: impl Fn(&T) -> (Place, BootTime),
) -> impl Iterator<Item = (T, T)> {
    let again = |key, from, until| {
        let times: &[BootTime] = tried.get(key).map(Vec::as_slice).unwrap_or_default();
        times.iter().any(|at| *at > from && *at <= until)
    };
    let pairs =
        happened.iter().flat_map(|(key, all)| all.windows(2).map(move |pair| (key, pair[0], pair[1])));
    let broken = pairs.filter(move |(key, first, second)| {
        let ((one, from), (other, until)) = (place_and_time(first), place_and_time(second));
        one != other && !again(*key, from, until)
    });
    broken.map(|(_, first, second)| (first, second))
}

/// Frames for a virtual IP that reached a node's stack.
fn passed<'a>(sightings: &'a [Sighting], vips: &'a [IpAddr]) -> impl Iterator<Item = &'a Sighting> {
    let entered = sightings.iter().filter(|s| s.side == Side::Machine && s.heading == Heading::Arriving);
    entered.filter(|s| s.frame.destination_address().is_some_and(|to| vips.contains(&to)))
}

/// When each attempt left its client (or the router on its behalf).
fn tries(sightings: &[Sighting], vips: &[IpAddr]) -> Attempts<BootTime> {
    let mut tried: Attempts<BootTime> = BTreeMap::new();
    let from_clients = sightings.iter().filter(|s| s.side == Side::Cable && s.heading == Heading::Leaving);
    for s in from_clients.filter(|s| matches!(s.place, Place::Client | Place::Router)) {
        let Content::Tcp(segment) = s.frame.content else { continue };
        if vips.iter().any(|vip| is_syn_to(s, *vip)) {
            tried.entry((segment.source, segment.destination, segment.sequence)).or_default().push(s.at);
        }
    }
    tried
}

/// A connection in which two nodes speak. It begins with the answer to its SYN. A port may be used again while a node
/// still has the half-open connection that was there before: what that node acknowledges tells whose segment it is.
fn two_speakers(accepted: &[Acceptance]) -> Vec<Violation> {
    let mut connections: BTreeMap<(SocketAddr, SocketAddr), Vec<(u32, Acceptance)>> = BTreeMap::new();
    let mut found = Vec::new();
    for a in accepted {
        let known = connections.entry((a.client, a.service)).or_default();
        match a.kind {
            Kind::Opened(isn) => known.push((isn, *a)),
            Kind::Established(acknowledged) => {
                let sent = |(isn, _): &&(u32, Acceptance)| acknowledged.wrapping_sub(*isn);
                match known.iter().rev().min_by_key(sent) {
                    Some((_, first)) if first.node != a.node => {
                        found.push(Violation::TwoSpeakers(*first, *a))
                    }
                    Some(_) => {}
                    // Opened before anybody looked.
                    None => known.push((acknowledged, *a)),
                }
            }
            Kind::Refused | Kind::Datagram | Kind::Icmp => {}
        }
    }
    found
}

/// Each change of a bucket's owner needs an epoch of its own: committed before the new owner's first answer, and not
/// longer before the old owner's last one than a planned change takes.
fn out_of_order(accepted: &[Acceptance], criterion: Criterion, epochs: &[BootTime]) -> Vec<Violation> {
    let mut owner: BTreeMap<(IpAddr, u16), (Acceptance, BootTime)> = BTreeMap::new();
    let mut found = Vec::new();
    for a in accepted.iter().filter(|a| matches!(a.kind, Kind::Opened(_) | Kind::Datagram)) {
        let port = match criterion {
            Criterion::SourceAddress => 0,
            Criterion::SourcePort => a.client.port(),
        };
        let (last, used) = owner.entry((a.client.ip(), port)).or_insert((*a, BootTime::default()));
        if last.node != a.node {
            let after = (*used).max(last.at - CHANGE_MAX);
            match epochs.iter().copied().filter(|at| *at > after && *at <= a.at).min() {
                Some(epoch) => *used = epoch,
                None => found.push(Violation::OutOfOrder(*last, *a)),
            }
        }
        *last = *a;
    }
    found
}

/// ARP or neighbour discovery that left a node and names a virtual IP, though it is none of what [`is_right`] is.
fn wrong_naming(sighting: &Sighting, case: &Case) -> Option<Violation> {
    let Content::Neighbour(said) = sighting.frame.content else { return None };
    let leaves_a_node = sighting.side == Side::Cable
        && sighting.heading == Heading::Leaving
        && matches!(sighting.place, Place::Node(_));
    let own = Mac(sighting.place.mac(Network::Lan)?);
    let wrong = || sighting.frame.source != own || !is_right(&said, sighting.place, own, case);
    (leaves_a_node && said.names(&case.vips) && wrong()).then_some(Violation::NamesVirtualIp(
        sighting.place,
        sighting.at,
        said,
    ))
}

/// An announcement to one alone, by a node that does not answer that one.
fn announced_by_another(sighting: &Sighting, case: &Case) -> Option<Violation> {
    let Content::Neighbour(said) = sighting.frame.content else { return None };
    let (node, at, to) = (sighting.place, sighting.at, sighting.frame.destination);
    let leaves_a_node = sighting.side == Side::Cable
        && sighting.heading == Heading::Leaving
        && matches!(node, Place::Node(_));
    let announces = said.speech == Speech::Announcement && said.names(&case.vips);
    let answers = case.answerers.get(&to)?.iter().any(|window| window.holds(node, at));
    (leaves_a_node && announces && !answers).then_some(Violation::AnnouncedByAnother(node, at, to))
}

/// Right are: the answer to one who asked (with the node's own or the virtual hardware address), the announcement, a
/// client's question that is sent on, and the probe whether somebody has the address already (RFC 5227 §2.1.1, RFC 4862
/// §5.4.2: it has no sender, so nobody learns from it).
fn is_right(said: &Neighbour, node: Place, own: Mac, case: &Case) -> bool {
    let is_vip = |ip: IpAddr| case.vips.contains(&ip);
    let here = said.hardware.is_some_and(|mac| mac == own || Some(mac) == case.virtual_mac);
    let tells_where = here && (said.sender == said.about || node.is_at(said.sender));
    let of_a_client = said.hardware != Some(own) && !is_vip(said.sender) && !node.is_at(said.sender);
    is_vip(said.about)
        && match said.speech {
            Speech::Answer => tells_where && !is_vip(said.to) && !said.to.is_multicast(),
            Speech::Announcement => tells_where,
            Speech::Question if said.sender.is_unspecified() => said.hardware.is_none_or(|mac| mac == own),
            Speech::Question => of_a_client,
            Speech::Unknown => false,
        }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::frame::Frame;
    use super::super::icmp::{Icmp, Message};
    use super::*;
    use crate::names::{FIRST_VIP as VIP, FIRST_VIP6 as VIP6};

    const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 50)), 40000);
    const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x50));
    const SERVICE: SocketAddr = SocketAddr::new(VIP, 80);
    const ONE: Place = Place::Node(1);
    const TWO: Place = Place::Node(2);
    const SYN_ACK: u8 = Segment::SYN | Segment::ACK;

    fn seen(at: u64, place: Place, heading: Heading, content: Content) -> Sighting {
        let own = Mac(place.mac(Network::Lan).expect("on the link"));
        let frame = Frame { source: own, destination: Mac([0xff; 6]), content };
        Sighting { at: BootTime(at), place, side: Side::Cable, heading, frame }
    }

    fn tcp(at: u64, node: Place, flags: u8, sequence: u32, acknowledgement: u32) -> Sighting {
        let segment = Segment { source: SERVICE, destination: CLIENT, sequence, acknowledgement, flags };
        seen(at, node, Heading::Leaving, Content::Tcp(segment))
    }

    fn icmp(at: u64, message: Message) -> Sighting {
        let icmp = Icmp { source: VIP, destination: CLIENT.ip(), message };
        seen(at, ONE, Heading::Leaving, Content::Icmp(icmp))
    }

    fn syn(at: u64, place: Place, heading: Heading, isn: u32) -> Sighting {
        let segment = Segment {
            source: CLIENT,
            destination: SERVICE,
            sequence: isn,
            acknowledgement: 0,
            flags: Segment::SYN,
        };
        seen(at, place, heading, Content::Tcp(segment))
    }

    fn case() -> Case {
        Case { vips: vec![VIP], ..Case::default() }
    }

    /// A frame that the filter of `node` passed.
    fn entry(at: u64, node: Place, flags: u8, isn: u32) -> Sighting {
        let passed = syn(at, node, Heading::Arriving, isn);
        let Content::Tcp(segment) = passed.frame.content else { unreachable!("a SYN is TCP") };
        let frame = Frame { content: Content::Tcp(Segment { flags, ..segment }), ..passed.frame };
        Sighting { side: Side::Machine, frame, ..passed }
    }

    /// Both nodes were passed something long ago, as any that answers must have been.
    fn verdict(sightings: Vec<Sighting>, case: &Case) -> Verdict {
        let before = vec![entry(0, ONE, Segment::ACK, 0), entry(0, TWO, Segment::ACK, 0)];
        judge(&Testimony { sightings: [before, sightings].concat(), lost: 0 }, case)
    }

    fn violations(sightings: Vec<Sighting>, case: &Case) -> Vec<Violation> {
        match verdict(sightings, case) {
            Verdict::Broken(found) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_answer_is_right_also_when_the_kernel_repeats_it() {
        let run = vec![
            tcp(1, ONE, SYN_ACK, 70, 8),
            tcp(1_000, ONE, SYN_ACK, 70, 8),
            tcp(3_000, ONE, SYN_ACK, 70, 8),
        ];
        assert_eq!(acceptances(&run, &[VIP]).len(), 1);
        assert_eq!(verdict(run, &case()), Verdict::Upheld);
    }

    #[test]
    fn two_answers_to_one_attempt_are_caught() {
        let run = vec![
            syn(1, Place::Client, Heading::Leaving, 7),
            tcp(2, ONE, SYN_ACK, 70, 8),
            tcp(3, TWO, SYN_ACK, 90, 8),
        ];
        assert!(
            matches!(violations(run, &case())[..], [Violation::TwoAnswers(a, b)] if a.node == ONE && b.node == TWO)
        );
    }

    #[test]
    fn a_client_that_tries_again_may_find_another_node() {
        let first = vec![syn(1, Place::Client, Heading::Leaving, 7), tcp(2, ONE, SYN_ACK, 70, 8)];
        let again = vec![syn(1_000, Place::Client, Heading::Leaving, 7), tcp(1_001, TWO, SYN_ACK, 90, 8)];
        // The kernel of the first node goes on repeating its answer: that is no new acceptance.
        let repeated = vec![tcp(1_002, ONE, SYN_ACK, 70, 8)];
        assert_eq!(verdict([first.clone(), again, repeated].concat(), &case()), Verdict::Upheld);
        // But a repeated attempt excuses only answers after it.
        let late = vec![tcp(3, TWO, SYN_ACK, 90, 8), syn(1_000, Place::Client, Heading::Leaving, 7)];
        assert!(matches!(violations([first, late].concat(), &case())[..], [Violation::TwoAnswers(..)]));
    }

    #[test]
    fn another_connection_of_the_same_port_is_another_attempt() {
        let run = vec![tcp(1, ONE, SYN_ACK, 70, 8), tcp(2, TWO, SYN_ACK, 90, 9)];
        assert_eq!(verdict(run, &case()), Verdict::Upheld);
    }

    #[test]
    fn a_second_speaker_is_caught() {
        let run = vec![
            tcp(1, ONE, SYN_ACK, 70, 8),
            tcp(2, ONE, Segment::ACK, 71, 9),
            tcp(3, TWO, Segment::ACK, 71, 9),
        ];
        assert!(matches!(violations(run, &case())[..], [Violation::TwoSpeakers(..)]));
    }

    #[test]
    fn a_half_open_connection_of_before_is_no_second_speaker() {
        let before = vec![tcp(1, TWO, SYN_ACK, 70, 8)];
        let since = vec![tcp(2, ONE, SYN_ACK, 90, 1_000_008), tcp(3, ONE, Segment::ACK, 91, 1_000_009)];
        let run = |last| [before.clone(), since.clone(), vec![last]].concat();
        assert_eq!(verdict(run(tcp(4, TWO, Segment::ACK, 71, 8)), &case()), Verdict::Upheld);
        let second = violations(run(tcp(4, TWO, Segment::ACK, 71, 1_000_009)), &case());
        assert!(matches!(second[..], [Violation::TwoSpeakers(a, b)] if (a.node, b.node) == (ONE, TWO)));
    }

    #[test]
    fn what_a_closed_node_lets_in_is_caught() {
        let closed = Window { node: ONE, from: BootTime(100), until: BootTime(200) };
        let case = Case { closed: vec![closed], ..case() };
        let entries = [
            tcp(150, ONE, SYN_ACK, 70, 8),
            tcp(150, ONE, Segment::RST, 70, 0),
            tcp(150, ONE, Segment::RST | Segment::ACK, 0, 8),
            seen(150, ONE, Heading::Leaving, Content::Udp(SERVICE, CLIENT)),
            icmp(150, Message::EchoReply),
            icmp(150, Message::Error(None)),
        ];
        for entry in entries {
            assert!(
                matches!(violations(vec![entry], &case)[..], [Violation::AcceptedWhileClosed(_)]),
                "{entry:?}"
            );
            let others = [Sighting { at: BootTime(99), ..entry }, Sighting { at: BootTime(201), ..entry }];
            assert_eq!(verdict(others.to_vec(), &case), Verdict::Upheld);
            assert_eq!(
                verdict(vec![Sighting { place: TWO, ..entry }], &case),
                verdict(vec![tcp(1, TWO, SYN_ACK, 1, 1)], &case)
            );
        }
    }

    #[test]
    fn one_attempt_that_two_filters_pass_is_caught() {
        let tried = |at| syn(at, Place::Client, Heading::Leaving, 7);
        let first = vec![tcp(1, ONE, SYN_ACK, 70, 8), tried(2), entry(3, ONE, Segment::SYN, 7)];
        let second = vec![entry(9, TWO, Segment::SYN, 7)];
        let twice = [first.clone(), second.clone()].concat();
        let found = violations(twice.clone(), &case());
        assert!(
            matches!(found[..], [Violation::PassedTwice(a, b)] if (a.place, b.place) == (ONE, TWO)),
            "{found:?}"
        );
        let unfiltered = Case { unfiltered: vec![Window::always(TWO)], ..case() };
        assert_eq!(verdict(twice, &unfiltered), Verdict::Upheld);
        let again = [first.clone(), vec![tried(5)], second].concat();
        assert_eq!(verdict(again, &case()), Verdict::Upheld, "the client tried again");
        let same_node = [first.clone(), vec![entry(9, ONE, Segment::SYN, 7)]].concat();
        assert_eq!(verdict(same_node, &case()), Verdict::Upheld, "one node may see it twice");
        let of_a_connection = [first, vec![entry(9, TWO, Segment::ACK, 7)]].concat();
        assert_eq!(verdict(of_a_connection, &case()), Verdict::Upheld, "only SYNs open connections");
    }

    #[test]
    fn what_the_filter_of_a_closed_node_passes_is_caught_although_nobody_answers() {
        let closed = Window { node: ONE, from: BootTime(100), until: BootTime(200) };
        let case = Case { closed: vec![closed], ..case() };
        let udp = |at| {
            let datagram = seen(at, ONE, Heading::Arriving, Content::Udp(CLIENT, SERVICE));
            Sighting { side: Side::Machine, ..datagram }
        };
        for passed in [entry(150, ONE, Segment::SYN, 7), entry(150, ONE, Segment::ACK, 7), udp(150)] {
            let run = |at| vec![tcp(1, ONE, SYN_ACK, 70, 8), Sighting { at: BootTime(at), ..passed }];
            assert!(
                matches!(violations(run(150), &case)[..], [Violation::PassedWhileClosed(s)] if s == passed),
                "{passed:?}"
            );
            assert_eq!(verdict(run(99), &case), Verdict::Upheld);
            assert_eq!(verdict(run(201), &case), Verdict::Upheld);
            let lost = Window { from: BootTime(140), until: BootTime(160), ..closed };
            let exempt = Case { unfiltered: vec![lost], ..case.clone() };
            assert_eq!(verdict(run(150), &exempt), Verdict::Upheld);
            assert!(matches!(verdict(run(170), &exempt), Verdict::Broken(_)), "the filter was back");
        }
        let own = Sighting { side: Side::Machine, ..tcp(150, ONE, Segment::ACK, 71, 9) };
        assert_eq!(verdict(vec![tcp(1, ONE, SYN_ACK, 70, 8), own], &case), Verdict::Upheld, "it left");
    }

    #[test]
    fn a_node_that_answers_what_its_tap_did_not_see_is_void() {
        let answer = vec![tcp(1, ONE, SYN_ACK, 70, 8)];
        let judged = |sightings| judge(&Testimony { sightings, lost: 0 }, &case());
        assert!(matches!(judged(answer.clone()), Verdict::Void(_)));
        let other = vec![entry(0, TWO, Segment::SYN, 7)];
        assert!(matches!(judged([other, answer.clone()].concat()), Verdict::Void(_)));
        assert_eq!(judged([vec![entry(0, ONE, Segment::SYN, 7)], answer].concat()), Verdict::Upheld);
    }

    #[test]
    fn what_a_closed_node_sends_by_itself_is_no_entry() {
        let closed = Window { node: ONE, from: BootTime(100), until: BootTime(200) };
        let case = Case { closed: vec![closed], ..case() };
        let run = vec![
            tcp(1, ONE, SYN_ACK, 70, 8),
            tcp(101, ONE, SYN_ACK, 70, 8),
            tcp(102, ONE, Segment::ACK, 71, 9),
            tcp(103, ONE, Segment::RST | Segment::ACK, 71, 9),
            icmp(104, Message::EchoRequest),
            icmp(105, Message::Unasked),
        ];
        assert_eq!(verdict(run, &case), Verdict::Upheld);
    }

    #[test]
    fn an_owner_may_change_only_with_an_epoch() {
        const AGE: u64 = CHANGE_MAX.as_nanos() as u64;
        let at = |time: u64, node: Place| tcp(AGE * time, node, SYN_ACK, time as u32, time as u32);
        let run = |third: Place| vec![at(10, ONE), at(20, TWO), at(30, third)];
        let with = |epochs: &[u64]| Case {
            epochs: Some((Criterion::SourcePort, epochs.iter().map(|time| BootTime(AGE * time)).collect())),
            ..case()
        };
        assert_eq!(verdict(run(TWO), &with(&[15])), Verdict::Upheld);
        assert_eq!(verdict(run(ONE), &with(&[15, 25])), Verdict::Upheld);
        let back = violations(run(ONE), &with(&[15]));
        assert!(
            matches!(back[..], [Violation::OutOfOrder(a, b)] if (a.node, b.node) == (TWO, ONE)),
            "{back:?}"
        );
        assert_eq!(violations(run(TWO), &with(&[25])).len(), 1, "an epoch after the answer is too late");
        assert_eq!(
            violations(run(TWO), &with(&[8])).len(),
            1,
            "an epoch long before the old owner's answer is not it"
        );
        assert_eq!(violations(run(ONE), &with(&[])).len(), 2);
    }

    #[test]
    fn too_little_load_is_void() {
        let expected =
            Expected { old: ONE, new: TWO, at: BootTime(5_000), around: Duration::from_nanos(4_000) };
        let case = Case { changes: vec![expected], ..case() };
        let load = |node: Place, count: usize| {
            (0..count).map(move |i| syn(2_000 + i as u64, node, Heading::Arriving, i as u32))
        };
        let run = |old: usize, new: usize| {
            let answer = [tcp(2_500, ONE, SYN_ACK, 70, 8)];
            load(ONE, old).chain(load(TWO, new)).chain(answer).collect::<Vec<_>>()
        };
        assert_eq!(verdict(run(SYNS_MIN, SYNS_MIN), &case), Verdict::Upheld);
        assert!(matches!(verdict(run(SYNS_MIN - 1, SYNS_MIN), &case), Verdict::Void(_)));
        assert!(matches!(verdict(run(SYNS_MIN, SYNS_MIN - 1), &case), Verdict::Void(_)));
    }

    #[test]
    fn lost_frames_and_silence_are_void() {
        let answer = vec![tcp(1, ONE, SYN_ACK, 70, 8)];
        assert!(matches!(judge(&Testimony { sightings: answer, lost: 1 }, &case()), Verdict::Void(_)));
        assert!(matches!(verdict(Vec::new(), &case()), Verdict::Void(_)));
    }

    /// After an answer by which the case is not void, node 1 says this.
    fn saying(
        speech: Speech,
        sender: IpAddr,
        about: IpAddr,
        to: IpAddr,
        hardware: Option<Mac>,
    ) -> Vec<Sighting> {
        let said = Neighbour { speech, sender, about, to, hardware };
        vec![tcp(1, ONE, SYN_ACK, 70, 8), seen(2, ONE, Heading::Leaving, Content::Neighbour(said))]
    }

    fn mac(place: Place) -> Mac {
        Mac(place.mac(Network::Lan).expect("on the link"))
    }

    const VIRTUAL_MAC: Mac = Mac([2, 0, 0, 0, 0, 99]);

    fn naming() -> Case {
        Case { vips: vec![VIP, VIP6], virtual_mac: Some(VIRTUAL_MAC), ..case() }
    }

    /// Virtual IP, client, the node itself, and nobody.
    fn names() -> [[IpAddr; 4]; 2] {
        [
            [VIP, CLIENT.ip(), ONE.address().into(), Ipv4Addr::UNSPECIFIED.into()],
            [VIP6, CLIENT6, ONE.address6().into(), Ipv6Addr::UNSPECIFIED.into()],
        ]
    }

    #[test]
    fn only_the_responder_names_the_virtual_ip() {
        use Speech::{Announcement, Answer, Question, Unknown};
        let (own, client_mac) = (Some(mac(ONE)), Some(mac(Place::Client)));
        for [vip, client, node, nobody] in names() {
            let right = [
                saying(Answer, vip, vip, client, own),
                saying(Answer, vip, vip, client, Some(VIRTUAL_MAC)),
                saying(Announcement, vip, vip, vip, own),
                saying(Announcement, vip, vip, vip, Some(VIRTUAL_MAC)),
                saying(Question, client, vip, vip, client_mac),
                saying(Question, node, client, client, own),
                saying(Question, nobody, vip, vip, own),
                saying(Unknown, node, client, client, own),
            ];
            for run in right {
                assert_eq!(verdict(run, &naming()), Verdict::Upheld);
            }
            let wrong = [
                saying(Question, vip, client, client, own),
                saying(Question, node, vip, vip, own),
                saying(Question, node, vip, vip, client_mac),
                saying(Question, nobody, vip, vip, client_mac),
                saying(Question, client, vip, vip, own),
                saying(Announcement, node, node, vip, own),
                saying(Answer, vip, vip, client, client_mac),
                saying(Answer, vip, vip, vip, own),
                saying(Answer, client, client, vip, own),
                saying(Announcement, vip, vip, vip, client_mac),
                saying(Unknown, node, vip, vip, own),
            ];
            for run in wrong {
                assert!(matches!(violations(run, &naming())[..], [Violation::NamesVirtualIp(..)]));
            }
        }
    }

    #[test]
    fn only_who_answers_one_tells_it_so() {
        let client = mac(Place::Client);
        let told_by_one = |window: Window| {
            let mut run = saying(Speech::Announcement, VIP, VIP, VIP, Some(mac(ONE)));
            run[1].frame.destination = client;
            verdict(run, &Case { answerers: BTreeMap::from([(client, vec![window])]), ..naming() })
        };
        assert_eq!(told_by_one(Window::always(ONE)), Verdict::Upheld);
        let early = Window { until: BootTime(1), ..Window::always(ONE) };
        for wrong in [Window::always(TWO), early] {
            let violation = Violation::AnnouncedByAnother(ONE, BootTime(2), client);
            assert_eq!(told_by_one(wrong), Verdict::Broken(vec![violation]));
        }
    }

    #[test]
    fn who_names_the_virtual_ip_sends_from_its_own_hardware_address() {
        for [vip, client, ..] in names() {
            let mut run = saying(Speech::Answer, vip, vip, client, Some(VIRTUAL_MAC));
            run[1].frame.source = VIRTUAL_MAC;
            assert!(matches!(violations(run.clone(), &naming())[..], [Violation::NamesVirtualIp(..)]));
            run[1].place = Place::Client;
            assert_eq!(verdict(run, &naming()), Verdict::Upheld, "only nodes are judged");
        }
    }

    #[test]
    fn an_advertisement_says_where_and_is_for_one_who_asked() {
        use Speech::{Announcement, Answer, Question};
        let own = Some(mac(ONE));
        let everybody = IpAddr::from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        let link_local = |place: Place| IpAddr::from(place.link_local(Network::Lan).expect("on the link"));
        let right = [
            saying(Announcement, VIP6, VIP6, everybody, own),
            saying(Announcement, link_local(ONE), VIP6, everybody, own),
            saying(Answer, link_local(ONE), VIP6, link_local(Place::Router), own),
            saying(Question, link_local(Place::Router), VIP6, VIP6, None),
            saying(Question, Ipv6Addr::UNSPECIFIED.into(), VIP6, everybody, None),
        ];
        for run in right {
            assert_eq!(verdict(run, &naming()), Verdict::Upheld);
        }
        let wrong = [
            saying(Answer, VIP6, VIP6, everybody, own),
            saying(Answer, VIP6, VIP6, CLIENT6, None),
            saying(Announcement, VIP6, VIP6, everybody, None),
            saying(Announcement, CLIENT6, VIP6, everybody, own),
            saying(Answer, link_local(TWO), VIP6, CLIENT6, own),
            saying(Question, link_local(ONE), VIP6, VIP6, None),
            saying(Question, VIP6, VIP6, VIP6, None),
        ];
        for run in wrong {
            assert!(matches!(violations(run, &naming())[..], [Violation::NamesVirtualIp(..)]));
        }
    }

    #[test]
    fn connections_of_both_families_are_judged_alike() {
        let (client, service) = (SocketAddr::new(CLIENT6, 40000), SocketAddr::new(VIP6, 80));
        let case = Case { vips: vec![VIP6], ..case() };
        let of_ipv6 = |s: Sighting| {
            let Content::Tcp(segment) = s.frame.content else { unreachable!("it is TCP") };
            let turned = segment.source == SERVICE;
            let (source, destination) = if turned { (service, client) } else { (client, service) };
            let segment = Segment { source, destination, ..segment };
            Sighting { frame: Frame { content: Content::Tcp(segment), ..s.frame }, ..s }
        };
        let passed = [entry(0, ONE, Segment::SYN, 7), entry(0, TWO, Segment::ACK, 7)];
        let one = vec![syn(1, Place::Client, Heading::Leaving, 7), tcp(2, ONE, SYN_ACK, 70, 8)];
        let two = vec![tcp(3, TWO, SYN_ACK, 90, 8)];
        let judged = |run: Vec<Sighting>| {
            let sightings = [passed.to_vec(), run].concat().into_iter().map(of_ipv6).collect();
            judge(&Testimony { sightings, lost: 0 }, &case)
        };
        assert_eq!(judged(one.clone()), Verdict::Upheld);
        let Verdict::Broken(found) = judged([one, two].concat()) else { panic!("not caught") };
        assert!(matches!(found[..], [Violation::TwoAnswers(..)]), "{found:?}");
    }
}
