//! Walks frames between nodes whose tables are of different versions, with the real decision.
//!
//! Every node may be at another step of a bucket's change, within the gates of the protocol. In each such
//! vector, for each entry node, kind of packet and delivery mode: exactly one node accepts, nothing loops.
//! Planted mistakes must be found by the same walks.

use std::collections::BTreeSet;

use farm_common::decide::{Env, Question, decide, sender};
use farm_common::flow::{Address, Flow, Kind, protocol};
use farm_common::layout::Entry;
use farm_common::verdict::{BootTime, Course, Dst, Mode, NodeIndex, Phase, Reason, Sender, Socket, Verdict};

type Decider = fn(&Question, &Host) -> Verdict;
/// Version of each node's table: an index into the history.
type Views = Vec<usize>;

/// Walks may end a bit later when a node has fallen back, but they must end.
const FORWARDS: usize = 3;

/// What a node has for the packet's addresses and ports. Every node listens, in UDP with an unconnected socket.
struct Host {
    socket: Socket,
    alive: bool,
}

impl Env for Host {
    fn socket(&self, flow: &Flow) -> Socket {
        assert!(matches!(flow.protocol, protocol::TCP | protocol::UDP), "only these have sockets");
        self.socket
    }

    fn now(&self) -> BootTime {
        BootTime(if self.alive { 9 } else { 10 })
    }
}

/// A kind of frame and the protocol of its flow.
type Sort = (Kind, u8);

const SYN: Sort = (Kind::Syn, protocol::TCP);
const SEGMENT: Sort = (Kind::Segment, protocol::TCP);
const SEGMENT_ERROR: Sort = (Kind::Error, protocol::TCP);
const DATAGRAM: Sort = (Kind::Datagram, protocol::UDP);
const DATAGRAM_ERROR: Sort = (Kind::Error, protocol::UDP);
const ECHO: Sort = (Kind::Echo, protocol::ICMP);
const DATAGRAM_FRAGMENT: Sort = (Kind::DatagramFragment, protocol::UDP);
const TCP_FRAGMENT: Sort = (Kind::TcpFragment, protocol::TCP);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packet {
    /// Opens a flow; nobody has a socket.
    New(Sort),
    /// Belongs to a flow whose socket is at this node.
    Held(Sort, usize),
    /// Acknowledges a SYN cookie of this node.
    Cookie(usize),
    /// A SYN while this node has the last connection in TIME_WAIT.
    Recycled(usize),
    /// Belongs to no flow.
    Stray(Sort),
}

impl Packet {
    fn sort(self) -> Sort {
        match self {
            Self::New(sort) | Self::Held(sort, _) | Self::Stray(sort) => sort,
            Self::Cookie(_) => SEGMENT,
            Self::Recycled(_) => SYN,
        }
    }

    fn socket(self, node: usize) -> Socket {
        match self {
            Self::Held(_, holder) if holder == node => Socket::Flow,
            Self::Cookie(holder) if holder == node => Socket::Listener { cookie: true },
            Self::Recycled(holder) if holder == node => Socket::TimeWait,
            Self::New(_) | Self::Held(..) | Self::Cookie(_) | Self::Recycled(_) | Self::Stray(_) => {
                Socket::Listener { cookie: false }
            }
        }
    }

    fn flow(self) -> Flow {
        let (kind, protocol) = self.sort();
        let (client, vip) = (Address::v4([10, 0, 0, 9]), Address::v4([10, 0, 0, 100]));
        Flow { client, vip, protocol, client_port: 4000, service_port: 80, kind }
    }
}

/// What came of one frame.
#[derive(Default, Debug)]
struct Walk {
    accepted: Vec<usize>,
    forwards: usize,
}

struct World<'a> {
    history: &'a [Entry],
    views: &'a [usize],
    /// Nodes without a valid lease.
    closed: &'a [usize],
    /// The node whose own address every packet has as its source; `None`: a client's.
    claims: Option<usize>,
    mode: Mode,
    decider: Decider,
}

impl World<'_> {
    /// What `node` does with a frame that the node in `by` sent on, marked or not.
    fn judge(&self, node: usize, packet: Packet, by: Option<(usize, bool)>, dst: Dst) -> Verdict {
        let entry = self.history[self.views[node]];
        let marked = by.is_some_and(|(_, marked)| marked);
        let by = by.map(|(by, _)| (index(by), self.claims == Some(by)));
        let question = Question {
            flow: packet.flow(),
            entry,
            me: index(node),
            mode: self.mode,
            from: sender(by, marked),
            dst,
            deadline: BootTime(10),
        };
        (self.decider)(&question, &Host { socket: packet.socket(node), alive: !self.closed.contains(&node) })
    }

    /// Delivers a client's frame and follows it to the end.
    fn walk(&self, packet: Packet, entry: usize) -> Walk {
        let mut walk = Walk::default();
        match self.mode {
            Mode::Directed => self.follow(packet, entry, &mut walk),
            Mode::Flood => (0..self.views.len()).for_each(|node| self.follow(packet, node, &mut walk)),
        }
        walk
    }

    fn follow(&self, packet: Packet, entry: usize, walk: &mut Walk) {
        let first = if self.mode == Mode::Flood { Dst::VMac } else { Dst::Own };
        let (mut node, mut by, mut dst) = (entry, None, first);
        for forwards in 0.. {
            walk.forwards = walk.forwards.max(forwards);
            if forwards > 4 * FORWARDS {
                return;
            }
            match self.judge(node, packet, by, dst) {
                Verdict::Accept(_) => return walk.accepted.push(node),
                Verdict::Forward { node: next, course } => {
                    by = Some((node, course.marked()));
                    (node, dst) = (usize::from(next.0) - 1, Dst::Own);
                }
                Verdict::Drop(_) => return,
                Verdict::Pass | Verdict::Answer => panic!("{packet:?} is neither foreign nor ARP"),
            }
        }
    }
}

fn index(node: usize) -> NodeIndex {
    NodeIndex(node as u8 + 1)
}

fn entry(phase: Phase, previous: Option<usize>, current: usize) -> Entry {
    let previous = previous.map_or(0, |node| index(node).0);
    Entry { current: index(current).0, previous, phase: phase.into(), reserved: 0 }
}

/// The tables of one bucket while it moves along `owners`, by planned changes.
fn planned(owners: &[usize]) -> Vec<Entry> {
    let mut history = vec![entry(Phase::Stable, None, owners[0])];
    for pair in owners.windows(2) {
        let open = [Phase::Prepare, Phase::Move, Phase::Activate];
        history.extend(open.map(|phase| entry(phase, Some(pair[0]), pair[1])));
        history.push(entry(Phase::Stable, None, pair[1]));
    }
    history
}

fn phase(entry: &Entry) -> Phase {
    Phase::try_from(entry.phase).unwrap()
}

fn previous(entry: &Entry) -> usize {
    usize::from(entry.previous) - 1
}

fn current(entry: &Entry) -> usize {
    usize::from(entry.current) - 1
}

/// Who may serve new flows.
fn owner(entry: &Entry) -> usize {
    if phase(entry) == Phase::Prepare { previous(entry) } else { current(entry) }
}

fn newest(views: &[usize]) -> usize {
    *views.iter().max().unwrap()
}

/// Every vector over `nodes` nodes that `allowed` admits.
fn vectors(nodes: usize, history: &[Entry], allowed: impl Fn(&[usize]) -> bool) -> Vec<Views> {
    let count = history.len().pow(nodes as u32);
    let views = |number: usize| -> Views {
        (0..nodes as u32).map(|node| number / history.len().pow(node) % history.len()).collect()
    };
    (0..count).map(views).filter(|views| allowed(views)).collect()
}

/// The gates of a planned change, for nodes that never fall back.
fn gated(history: &[Entry], views: &[usize]) -> bool {
    (1..=newest(views)).all(|version| {
        let step = &history[version];
        match phase(step) {
            Phase::Prepare => views.iter().all(|view| view + 2 >= version),
            Phase::Move => views[current(step)] + 1 >= version,
            Phase::Activate => views[previous(step)] + 1 >= version,
            Phase::Stable => views.iter().all(|view| view + 1 >= version),
            Phase::MoveClosed => true,
        }
    })
}

/// What the fence alone guarantees: a node that lost the bucket by a Move has applied it, if its lease is
/// valid. Everybody else may have rebooted and replayed to anywhere.
fn fenced(history: &[Entry], views: &[usize], closed: &[usize]) -> bool {
    (1..=newest(views)).all(|version| {
        let step = &history[version];
        let pending = match phase(step) {
            Phase::Activate => losers(history, version),
            Phase::Stable | Phase::Prepare | Phase::Move | Phase::MoveClosed => vec![],
        };
        pending.iter().all(|(node, lost)| views[*node] >= *lost || closed.contains(node))
    })
}

/// Who lost the bucket in the change that this Activate ends, and by which version.
fn losers(history: &[Entry], activate: usize) -> Vec<(usize, usize)> {
    let moves = |version: &usize| matches!(phase(&history[*version]), Phase::Move | Phase::MoveClosed);
    let first = (0..activate).rev().take_while(moves).last().unwrap();
    (first..activate).map(|version| (owner(&history[version - 1]), version)).collect()
}

/// Whose address a packet may have as its source.
fn claimed(nodes: usize) -> impl Iterator<Item = Option<usize>> {
    (0..nodes).map(Some).chain([None])
}

const NEW: [Sort; 5] = [SYN, DATAGRAM, DATAGRAM_ERROR, ECHO, DATAGRAM_FRAGMENT];

/// Can this node hold sockets of the bucket, given how far everybody is?
fn may_hold(history: &[Entry], views: &[usize], node: usize) -> bool {
    let top = newest(views);
    let settled_away = |from: usize| (from..=top).any(|v| phase(&history[v]) == Phase::Stable);
    (0..history.len()).any(|version| {
        let step = &history[version];
        match phase(step) {
            Phase::Stable => version == 0 && current(step) == node && !settled_away(1),
            // It applied Prepare, and P applied Move: then P bounced new flows to it.
            Phase::Prepare if current(step) == node => {
                let bounced = views[node] >= version && views[previous(step)] > version;
                bounced && !settled_away((version + 4).min(top + 1))
            }
            Phase::Prepare | Phase::Move | Phase::MoveClosed | Phase::Activate => false,
        }
    })
}

/// Has P still sockets of those for which Activate waits: requests, and connected ones of UDP?
fn may_hold_awaited(history: &[Entry], views: &[usize], node: usize) -> bool {
    let gone = |v: usize| phase(&history[v]) == Phase::Activate && previous(&history[v]) == node;
    may_hold(history, views, node) && !(0..=newest(views)).any(gone)
}

/// Is `node` the P of a Move?
fn leaves(entry: &Entry, node: usize) -> bool {
    phase(entry) == Phase::Move && previous(entry) == node
}

fn check_planned(owners: &[usize], nodes: usize, decider: Decider) -> Result<usize, String> {
    let history = planned(owners);
    let all = vectors(nodes, &history, |views| gated(&history, views));
    for views in &all {
        for mode in [Mode::Directed, Mode::Flood] {
            for claims in claimed(nodes) {
                let world = World { history: &history, views, closed: &[], claims, mode, decider };
                one_acceptor(&world)?;
                for entry in 0..nodes {
                    check_vector(&world, entry)?;
                }
            }
        }
    }
    Ok(all.len())
}

fn check_vector(world: &World, entry: usize) -> Result<(), String> {
    let (history, views) = (world.history, world.views);
    for sort in NEW {
        expect(world, Packet::New(sort), entry, |walk| walk.accepted.len() == 1)?;
    }
    for holder in 0..views.len() {
        expect(world, Packet::Recycled(holder), entry, |walk| walk.accepted.len() == 1)?;
        if may_hold_awaited(history, views, holder) {
            for sort in [SYN, DATAGRAM, DATAGRAM_ERROR] {
                expect(world, Packet::Held(sort, holder), entry, |walk| walk.accepted == [holder])?;
            }
        }
        // Whoever has an old connected socket, a datagram is served by one node; by two only in flood mode, while a P
        // that was not waited for has yet to learn so.
        let given_up = !may_hold_awaited(history, views, holder) && leaves(&history[views[holder]], holder);
        for sort in [DATAGRAM, DATAGRAM_ERROR] {
            expect(world, Packet::Held(sort, holder), entry, |walk| match world.mode {
                Mode::Flood if given_up => true,
                Mode::Flood | Mode::Directed => walk.accepted.len() == 1,
            })?;
        }
        if may_hold(history, views, holder) {
            let (segment, error) = (Packet::Held(SEGMENT, holder), Packet::Held(SEGMENT_ERROR, holder));
            for packet in [segment, Packet::Cookie(holder), error] {
                expect(world, packet, entry, |walk| walk.accepted == [holder])?;
            }
        }
    }
    // Nobody's segments may end in a reset by one node, never by two, except by P whose drain timed out.
    expect(world, Packet::Stray(SEGMENT), entry, |walk| walk.accepted.len() <= 1)?;
    let settled = (1..=newest(views)).any(|version| phase(&history[version]) == Phase::Stable);
    // P accepts fragments in an open change; once it has drained, those on their way to it may be lost.
    expect(world, Packet::Stray(TCP_FRAGMENT), entry, |walk| match world.mode {
        _ if !settled => walk.accepted.len() == 1,
        Mode::Directed => walk.accepted.len() <= 1,
        Mode::Flood => true,
    })
}

/// New flows have one acceptor at most, wherever they enter; each frame once; and no walk loops.
fn one_acceptor(world: &World) -> Result<(), String> {
    let mut acceptors = BTreeSet::new();
    for (sort, entry) in NEW.iter().flat_map(|sort| (0..world.views.len()).map(move |entry| (*sort, entry))) {
        expect(world, Packet::New(sort), entry, |walk| walk.accepted.len() <= 1)?;
        acceptors.extend(world.walk(Packet::New(sort), entry).accepted);
    }
    let World { views, mode, claims, .. } = world;
    if acceptors.len() <= 1 {
        Ok(())
    } else {
        Err(format!("views {views:?}, {mode:?}, {claims:?}: {acceptors:?} accept"))
    }
}

fn expect(world: &World, packet: Packet, entry: usize, good: impl Fn(&Walk) -> bool) -> Result<(), String> {
    let walk = world.walk(packet, entry);
    if good(&walk) && walk.forwards <= FORWARDS {
        return Ok(());
    }
    let World { views, mode, claims, .. } = world;
    Err(format!("views {views:?}, {mode:?}, {claims:?}, {packet:?} entering at {entry}: {walk:?}"))
}

/// New flows have at most one acceptor and no walk loops, whatever has rebooted or lost its lease.
fn check_fenced(history: &[Entry], nodes: usize, decider: Decider) -> Result<usize, String> {
    let mut count = 0;
    let leases = (0..nodes).map(Some).chain([None]);
    for closed in leases.map(|node| node.into_iter().collect::<Vec<_>>()) {
        let all = vectors(nodes, history, |views| fenced(history, views, &closed));
        count += all.len();
        for views in &all {
            for mode in [Mode::Directed, Mode::Flood] {
                for claims in claimed(nodes) {
                    one_acceptor(&World { history, views, closed: &closed, claims, mode, decider })?;
                }
            }
        }
    }
    Ok(count)
}

fn real(question: &Question, host: &Host) -> Verdict {
    decide(question, host)
}

#[test]
fn one_change_has_the_vectors_of_the_model_and_one_acceptor_in_each() {
    assert_eq!(check_planned(&[0, 1], 3, real), Ok(47));
}

#[test]
fn two_changes_have_one_acceptor_in_each_vector() {
    for owners in [[0, 1, 0], [0, 1, 2]] {
        let count = check_planned(&owners, 4, real).unwrap();
        assert!(count > 400, "only {count} vectors");
    }
}

#[test]
fn reboots_and_lost_leases_never_make_a_second_acceptor() {
    let failure = [
        entry(Phase::Stable, None, 0),
        entry(Phase::Move, Some(0), 1),
        entry(Phase::Activate, Some(0), 1),
        entry(Phase::Stable, None, 1),
    ];
    let closed = [
        entry(Phase::Stable, None, 0),
        entry(Phase::Move, Some(0), 1),
        entry(Phase::MoveClosed, Some(0), 2),
        entry(Phase::Activate, Some(0), 2),
        entry(Phase::Stable, None, 2),
    ];
    let redirected = [
        entry(Phase::Stable, None, 0),
        entry(Phase::Prepare, Some(0), 1),
        entry(Phase::Move, Some(0), 2),
        entry(Phase::Activate, Some(0), 2),
    ];
    for history in
        [&failure[..], &closed, &redirected, &planned(&[0, 1]), &planned(&[0, 1, 0]), &planned(&[0, 1, 2])]
    {
        let count = check_fenced(history, 3, real).unwrap();
        assert!(count > 40, "only {count} vectors");
    }
}

#[test]
fn a_client_of_a_dead_previous_owner_is_served_after_activate() {
    let history = planned(&[0, 1]);
    for mode in [Mode::Directed, Mode::Flood] {
        let world =
            World { history: &history, views: &[0, 3, 3], closed: &[0], claims: None, mode, decider: real };
        for sort in NEW {
            assert_eq!(world.walk(Packet::New(sort), 1).accepted, [1]);
            assert_eq!(world.walk(Packet::New(sort), 2).accepted, [1]);
        }
        // Unknown established segments meet silence, not a reset.
        assert_eq!(world.walk(Packet::Stray(SEGMENT), 1).accepted, []);
    }
}

#[test]
fn a_closed_change_serves_only_sockets() {
    let history = [entry(Phase::MoveClosed, Some(0), 2)];
    for mode in [Mode::Directed, Mode::Flood] {
        let world =
            World { history: &history, views: &[0, 0, 0], closed: &[], claims: None, mode, decider: real };
        for node in 0..3 {
            for sort in NEW {
                assert_eq!(world.walk(Packet::New(sort), node).accepted, []);
            }
            assert_eq!(world.walk(Packet::Held(SEGMENT, node), node).accepted, [node]);
            assert_eq!(world.walk(Packet::Held(SYN, node), node).accepted, [node]);
            // Several may have a connected socket for a client that was theirs once: P's counts, as in Move.
            let kept = if node == 0 { vec![node] } else { vec![] };
            assert_eq!(world.walk(Packet::Held(DATAGRAM, node), node).accepted, kept);
        }
    }
}

// Planted mistakes.

fn ignores_the_mark(question: &Question, host: &Host) -> Verdict {
    let from = match question.from {
        Sender::Node { node, marked: _ } => Sender::Node { node, marked: true },
        Sender::Direct => Sender::Direct,
    };
    let entering = question.me.0 == question.entry.current;
    decide(&Question { from: if entering { from } else { question.from }, ..*question }, host)
}

fn opens_in_move_to_anyone(question: &Question, host: &Host) -> Verdict {
    let entering = question.entry.phase == u8::from(Phase::Move) && question.me.0 == question.entry.current;
    let phase = if entering { Phase::Activate.into() } else { question.entry.phase };
    decide(&Question { entry: Entry { phase, ..question.entry }, ..*question }, host)
}

fn never_sends_back(question: &Question, host: &Host) -> Verdict {
    match (decide(question, host), question.from) {
        (Verdict::Forward { node, .. }, Sender::Node { node: sender, .. }) if node == sender => {
            Verdict::Drop(Reason::FromNode)
        }
        (verdict, _) => verdict,
    }
}

fn stops_bouncing_after_activate(question: &Question, host: &Host) -> Verdict {
    match decide(question, host) {
        Verdict::Forward { course: Course::Bounce, .. }
            if question.entry.phase == u8::from(Phase::Activate) =>
        {
            Verdict::Drop(Reason::NotOwner)
        }
        verdict => verdict,
    }
}

fn sends_on_for_nodes(question: &Question, host: &Host) -> Verdict {
    let me = question.me.0;
    let third = me != question.entry.current && me != question.entry.previous;
    let from = if third { Sender::Direct } else { question.from };
    decide(&Question { from, ..*question }, host)
}

fn takes_bounced_copies_in_flood(question: &Question, host: &Host) -> Verdict {
    match decide(question, host) {
        Verdict::Drop(Reason::Duplicate) => Verdict::Accept(farm_common::verdict::Acceptance::New),
        verdict => verdict,
    }
}

fn looks_up_no_sockets_for_syns(question: &Question, host: &Host) -> Verdict {
    let syn = question.flow.kind == Kind::Syn;
    let socket = if syn { Socket::None } else { host.socket };
    decide(question, &Host { socket, alive: host.alive })
}

fn looks_up_no_sockets_for_datagrams(question: &Question, host: &Host) -> Verdict {
    let udp = question.flow.protocol == protocol::UDP;
    decide(question, &Host { socket: if udp { Socket::None } else { host.socket }, alive: host.alive })
}

fn takes_an_unconnected_socket_for_a_connected_one(question: &Question, host: &Host) -> Verdict {
    let udp = question.flow.protocol == protocol::UDP;
    decide(question, &Host { socket: if udp { Socket::Flow } else { host.socket }, alive: host.alive })
}

fn takes_a_listener_for_an_established_socket(question: &Question, host: &Host) -> Verdict {
    let listens = question.flow.protocol == protocol::TCP && matches!(host.socket, Socket::Listener { .. });
    decide(question, &Host { socket: if listens { Socket::Flow } else { host.socket }, alive: host.alive })
}

/// The new owner takes a segment of a flow that it does not hold: its stack answers with a reset.
fn resets_what_the_other_holds(question: &Question, host: &Host) -> Verdict {
    let open = question.entry.phase != u8::from(Phase::Stable) && question.me.0 == question.entry.current;
    if open && question.flow.kind == Kind::Segment && question.from == Sender::Direct {
        return Verdict::Accept(farm_common::verdict::Acceptance::Owner);
    }
    decide(question, host)
}

/// Any node in any open change, instead of P in Move.
fn keeps_datagrams_for_every_connected_socket(question: &Question, host: &Host) -> Verdict {
    let held = question.flow.protocol == protocol::UDP && host.socket == Socket::Flow;
    if held && question.entry.phase != u8::from(Phase::Stable) && question.from == Sender::Direct {
        return Verdict::Accept(farm_common::verdict::Acceptance::Socket);
    }
    decide(question, host)
}

fn drops_errors_about_datagrams(question: &Question, host: &Host) -> Verdict {
    let error = (question.flow.kind, question.flow.protocol) == DATAGRAM_ERROR;
    match decide(question, host) {
        Verdict::Accept(farm_common::verdict::Acceptance::New) if error => Verdict::Drop(Reason::NoSocket),
        verdict => verdict,
    }
}

fn ignores_the_lease(question: &Question, host: &Host) -> Verdict {
    decide(question, &Host { socket: host.socket, alive: true })
}

fn found_by_fenced(decider: Decider) -> bool {
    [planned(&[0, 1]), planned(&[0, 1, 0])].iter().any(|history| check_fenced(history, 3, decider).is_err())
}

fn found_by_planned(decider: Decider) -> bool {
    [&[0, 1][..], &[0, 1, 0], &[0, 1, 2]].iter().any(|owners| check_planned(owners, 3, decider).is_err())
}

#[test]
fn planted_mistakes_are_found() {
    assert!(found_by_fenced(ignores_the_mark), "C4: an ordinary forward passes for a bounce");
    assert!(found_by_fenced(ignores_the_lease), "two owners");
    assert!(found_by_planned(opens_in_move_to_anyone), "two owners in flood mode");
    assert!(found_by_planned(never_sends_back), "C5: lost SYN");
    assert!(found_by_planned(stops_bouncing_after_activate), "C5: lost SYN in flood mode");
    assert!(found_by_planned(sends_on_for_nodes) || found_by_fenced(sends_on_for_nodes), "loop");
    assert!(found_by_planned(takes_bounced_copies_in_flood), "a datagram served twice");
    assert!(found_by_planned(looks_up_no_sockets_for_syns), "a reset by the twin request socket");
    assert!(found_by_planned(looks_up_no_sockets_for_datagrams), "a connected socket without its client");
    assert!(found_by_planned(takes_an_unconnected_socket_for_a_connected_one), "new datagrams at two nodes");
    assert!(found_by_planned(takes_a_listener_for_an_established_socket), "two acceptors of one SYN");
    assert!(found_by_planned(resets_what_the_other_holds), "a reset inside the window");
    assert!(found_by_planned(keeps_datagrams_for_every_connected_socket), "a datagram served twice");
    assert!(found_by_planned(drops_errors_about_datagrams), "path MTU unknown to the new owner");
}
