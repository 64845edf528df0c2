//! The judgement: a pure function of what was seen.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::acceptance::{Acceptance, Kind, acceptances, is_syn_to};
use super::frame::{Arp, Content, Frame, Mac};
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
    pub vips: Vec<Ipv4Addr>,
    /// Changes of owner that must have been under load: otherwise the case is void.
    pub changes: Vec<Expected>,
    /// Nodes that must not accept anything for a time (P2).
    pub closed: Vec<Closed>,
    /// The criterion of the service and when each epoch was committed: then the order of owners is judged.
    pub epochs: Option<(Criterion, Vec<BootTime>)>,
    /// The virtual hardware address of flood mode.
    pub virtual_mac: Option<Mac>,
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

/// A time in which a node must accept nothing.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Who.
    pub node: Place,
    /// From when.
    pub from: BootTime,
    /// Until when.
    pub until: BootTime,
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
    /// P2: accepted while closed.
    AcceptedWhileClosed(Acceptance),
    /// A frame that left a node names the virtual IP in ARP, and is neither answer nor announcement.
    ArpNamesVirtualIp(Place, BootTime, Arp),
}

/// Judges what was seen.
#[must_use]
pub fn judge(testimony: &Testimony, case: &Case) -> Verdict {
    let sightings = &testimony.sightings;
    let accepted = acceptances(sightings, &case.vips);
    let mut found = two_answers(sightings, &accepted, &case.vips);
    found.extend(two_speakers(&accepted));
    found.extend(
        case.epochs.iter().flat_map(|(criterion, epochs)| out_of_order(&accepted, *criterion, epochs)),
    );
    found.extend(case.closed.iter().flat_map(|closed| accepted_while_closed(&accepted, closed)));
    found.extend(sightings.iter().filter_map(|s| wrong_arp(s, case)));
    if !found.is_empty() {
        return Verdict::Broken(found);
    }
    let why = voids(testimony, case, &accepted);
    if why.is_empty() { Verdict::Upheld } else { Verdict::Void(why) }
}

fn voids(testimony: &Testimony, case: &Case, accepted: &[Acceptance]) -> Vec<String> {
    let mut why = Vec::new();
    if testimony.lost > 0 {
        why.push(format!("the taps lost {} frames", testimony.lost));
    }
    if accepted.is_empty() {
        why.push("nobody accepted anything".into());
    }
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
type Attempts<T> = BTreeMap<(SocketAddrV4, SocketAddrV4, u32), Vec<T>>;

/// An attempt that two nodes answered, unless the client tried again in between: then the bucket may have moved.
fn two_answers(sightings: &[Sighting], accepted: &[Acceptance], vips: &[Ipv4Addr]) -> Vec<Violation> {
    let mut answered: Attempts<Acceptance> = BTreeMap::new();
    for a in accepted {
        if let Kind::Opened(isn) = a.kind {
            answered.entry((a.client, a.service, isn)).or_default().push(*a);
        }
    }
    answered.retain(|_, answers| answers.len() > 1);
    let tried = tries(sightings, vips);
    let again = |key, from, until| {
        let times: &[BootTime] = tried.get(key).map(Vec::as_slice).unwrap_or_default();
        times.iter().any(|at| *at > from && *at <= until)
    };
    let pairs = answered
        .iter()
        .flat_map(|(key, answers)| answers.windows(2).map(move |pair| (key, pair[0], pair[1])));
    let broken = pairs.filter(|(key, first, second)| !again(*key, first.at, second.at));
    broken.map(|(_, first, second)| Violation::TwoAnswers(first, second)).collect()
}

/// When each attempt left its client (or the router on its behalf).
fn tries(sightings: &[Sighting], vips: &[Ipv4Addr]) -> Attempts<BootTime> {
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

/// A connection in which two nodes speak. It begins with the answer to its SYN.
fn two_speakers(accepted: &[Acceptance]) -> Vec<Violation> {
    let mut holder: BTreeMap<(SocketAddrV4, SocketAddrV4), Acceptance> = BTreeMap::new();
    let mut found = Vec::new();
    for a in accepted {
        match a.kind {
            Kind::Opened(_) => drop(holder.insert((a.client, a.service), *a)),
            Kind::Established => {
                let first = *holder.entry((a.client, a.service)).or_insert(*a);
                if first.node != a.node {
                    found.push(Violation::TwoSpeakers(first, *a));
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
    let mut owner: BTreeMap<(Ipv4Addr, u16), (Acceptance, BootTime)> = BTreeMap::new();
    let mut found = Vec::new();
    for a in accepted.iter().filter(|a| matches!(a.kind, Kind::Opened(_) | Kind::Datagram)) {
        let port = match criterion {
            Criterion::SourceAddress => 0,
            Criterion::SourcePort => a.client.port(),
        };
        let (last, used) = owner.entry((*a.client.ip(), port)).or_insert((*a, BootTime::default()));
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

fn accepted_while_closed<'a>(
    accepted: &'a [Acceptance],
    closed: &'a Closed,
) -> impl Iterator<Item = Violation> {
    let its = accepted.iter().filter(|a| a.node == closed.node && a.kind.is_entry());
    its.filter(|a| (closed.from..=closed.until).contains(&a.at)).map(|a| Violation::AcceptedWhileClosed(*a))
}

/// ARP that left a node and names a virtual IP. Right are: the answer (its own or the virtual hardware address), the
/// announcement in request form (sender and target are the virtual IP), and a client's request that is sent on.
fn wrong_arp(sighting: &Sighting, case: &Case) -> Option<Violation> {
    let Frame { source, content: Content::Arp(arp), .. } = sighting.frame else { return None };
    let leaves_a_node = sighting.side == Side::Cable && sighting.heading == Heading::Leaving;
    let own = Mac(sighting.place.mac(Network::Lan)?);
    let node = matches!(sighting.place, Place::Node(_));
    let (from_vip, for_vip) = (case.vips.contains(&arp.sender), case.vips.contains(&arp.target));
    if !leaves_a_node || !node || !(from_vip || for_vip) {
        return None;
    }
    let tells_where = from_vip && (arp.sender_mac == own || Some(arp.sender_mac) == case.virtual_mac);
    let right = source == own
        && match arp.operation {
            Arp::REPLY => tells_where,
            Arp::REQUEST if arp.sender == arp.target => tells_where,
            Arp::REQUEST => for_vip && !from_vip && arp.sender_mac != own,
            _ => false,
        };
    (!right).then_some(Violation::ArpNamesVirtualIp(sighting.place, sighting.at, arp))
}

#[cfg(test)]
mod tests {
    use super::super::frame::Segment;
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
    const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 50), 40000);
    const SERVICE: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
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

    fn verdict(sightings: Vec<Sighting>, case: &Case) -> Verdict {
        judge(&Testimony { sightings, lost: 0 }, case)
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
    fn what_a_closed_node_lets_in_is_caught() {
        let closed = Closed { node: ONE, from: BootTime(100), until: BootTime(200) };
        let case = Case { closed: vec![closed], ..case() };
        let entries = [
            tcp(150, ONE, SYN_ACK, 70, 8),
            tcp(150, ONE, Segment::RST, 70, 0),
            tcp(150, ONE, Segment::RST | Segment::ACK, 0, 8),
            seen(150, ONE, Heading::Leaving, Content::Udp(SERVICE, CLIENT)),
            seen(150, ONE, Heading::Leaving, Content::Icmp(0, VIP, *CLIENT.ip())),
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
    fn what_a_closed_node_sends_by_itself_is_no_entry() {
        let closed = Closed { node: ONE, from: BootTime(100), until: BootTime(200) };
        let case = Case { closed: vec![closed], ..case() };
        let run = vec![
            tcp(1, ONE, SYN_ACK, 70, 8),
            tcp(101, ONE, SYN_ACK, 70, 8),
            tcp(102, ONE, Segment::ACK, 71, 9),
            tcp(103, ONE, Segment::RST | Segment::ACK, 71, 9),
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

    fn arp(operation: u16, sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<Sighting> {
        let arp = Arp { operation, sender_mac, sender, target };
        vec![tcp(1, ONE, SYN_ACK, 70, 8), seen(2, ONE, Heading::Leaving, Content::Arp(arp))]
    }

    #[test]
    fn only_the_responder_names_the_virtual_ip() {
        let own = Mac(ONE.mac(Network::Lan).expect("on the link"));
        let (client_mac, client) = (Mac(Place::Client.mac(Network::Lan).expect("on the link")), *CLIENT.ip());
        let virtual_mac = Mac([2, 0, 0, 0, 0, 99]);
        let case = Case { virtual_mac: Some(virtual_mac), ..case() };
        let right = [
            arp(Arp::REPLY, own, VIP, client),
            arp(Arp::REPLY, virtual_mac, VIP, client),
            arp(Arp::REQUEST, own, VIP, VIP),
            arp(Arp::REQUEST, client_mac, client, VIP),
            arp(Arp::REQUEST, own, ONE.address(), client),
        ];
        for run in right {
            assert_eq!(verdict(run, &case), Verdict::Upheld);
        }
        let wrong = [
            arp(Arp::REQUEST, own, VIP, client),
            arp(Arp::REQUEST, own, ONE.address(), VIP),
            arp(Arp::REPLY, client_mac, VIP, client),
            arp(Arp::REPLY, own, client, VIP),
        ];
        for run in wrong {
            assert!(matches!(violations(run, &case)[..], [Violation::ArpNamesVirtualIp(..)]));
        }
    }
}
