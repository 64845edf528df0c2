//! Two nodes and a router: every reachable state of a contest. The machines are the core's own
//! [`farm_core::arbiter::Arbiter`]; around them are clocks that run at different rates, messages that are lost, wait as long
//! as they like and overtake one another, nodes that stand still, crash and restart, and a router whose table has one place.
//!
//! Time is ticks; a clock counts nine, ten or eleven units in each. Of each kind of message one is under way per sender: a
//! later one takes its place, which is a loss. A lease is what the peer's answer grants, counted from the sending; a
//! survivor opens the other one's buckets when that has run out on the slowest clock. What is left out: the log (there is
//! one survivor or none), more than one router, and what happens after a survivor is there: its peer is refused everywhere.

use std::fmt::{self, Write as _};

use farm_core::arbiter::{Act, Arbiter, Kind, Loss, Phase, Rules};
use farm_core::time::{BootTime, Span};

use super::protocol::store::{Known, fingerprint};

/// Lengths, in units of a clock that counts ten in a tick: as short as the inequality lets them be.
const RULES: Rules = Rules { quiet: Span(20), back: Span(30), gap: Span(10), hold: Span(30), ping: Span(10) };
/// L, and W for the ratio 11 to 9.
const LEASE: Span = Span(20);
const WAIT: Span = Span(26);

/// How much happens, at most.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// For people.
    pub name: &'static str,
    /// What each node's clock counts in a tick.
    pub rates: [u64; 2],
    /// Ticks.
    pub ticks: u64,
    /// Surprises. None is: the nodes are cut off from each other, run in every tick, and the router hears and answers at
    /// once. Each message between nodes that comes, each turn that a node stands still, each claim, ping, answer or write
    /// that takes longer than a tick is one.
    pub surprises: u32,
    /// Crashes, of both together.
    pub crashes: u8,
    /// Times that the router forgets its table.
    pub forgets: u8,
    /// Whether the search may end before all states were met, and where.
    pub states: usize,
}

/// Something that must be met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Met {
    /// Both claim at once.
    BothClaim,
    /// The lock is lost during a contest.
    LockLost,
    /// The decision is taken back.
    TakenBack,
    /// The peer is heard during a contest.
    PeerHeard,
    /// One goes on alone.
    Alone,
    /// A crash between the record and the first step, and the restart that goes on from it.
    FromRecord,
    /// A survivor accepts what was the other one's.
    Opened,
}

/// All of them.
pub const ALL: [Met; 7] =
    [Met::BothClaim, Met::LockLost, Met::TakenBack, Met::PeerHeard, Met::Alone, Met::FromRecord, Met::Opened];

/// A promise that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// Both go on alone.
    TwoSurvivors,
    /// Both accept the same clients.
    TwoAcceptors,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    arbiter: Arbiter,
    clock: BootTime,
    up: bool,
    /// In the kernel: it holds whatever becomes of the daemon.
    lease: BootTime,
    /// When it last answered its peer.
    granted: BootTime,
    recording: bool,
    recorded: bool,
    alone: bool,
    /// On the way: to the peer, from the peer, to the router, from the router.
    renewal: Option<BootTime>,
    answer: Option<BootTime>,
    claim: bool,
    ping: Option<BootTime>,
    pong: Option<BootTime>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    nodes: [Node; 2],
    /// Who has the address, as the router knows.
    holder: Option<usize>,
    ticks: u64,
    /// Whose turn it is.
    turn: usize,
    surprises: u32,
    crashes: u8,
    forgets: u8,
}

/// What happens to a node within a tick, in this order. What does not come waits, or is lost to a later one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Turn {
    /// The router forgets its table.
    forget: bool,
    crash: bool,
    restart: bool,
    /// The peer's renewal comes.
    renewal: bool,
    /// The peer's answer comes.
    answer: bool,
    /// The router's answer comes.
    pong: bool,
    /// What was decided is durable.
    written: bool,
    /// The thread runs; else it stands still.
    run: bool,
    /// The claim comes to the router.
    claim: bool,
    /// The ping comes to the router.
    ping: bool,
}

/// The turn of one node.
type Step = (usize, Turn);

impl Node {
    fn new(number: usize) -> Self {
        let mut arbiter = Self::arbiter(number);
        arbiter.answered(BootTime(0));
        arbiter.heard(BootTime(0));
        Self {
            arbiter,
            clock: BootTime(0),
            up: true,
            lease: BootTime(0) + LEASE,
            granted: BootTime(0),
            recording: false,
            recorded: false,
            alone: false,
            renewal: None,
            answer: None,
            claim: false,
            ping: None,
            pong: None,
        }
    }

    fn arbiter(number: usize) -> Arbiter {
        Arbiter::new(RULES, Kind::Exclusive, 1, number == 1)
    }

    fn carry_out(&mut self, acts: &[Act]) {
        for act in acts {
            match act {
                Act::Claim(_) => (self.claim, self.ping) = (true, Some(self.clock)),
                Act::Ping(_) => self.ping = Some(self.clock),
                Act::Record => self.recording = true,
                Act::TakeOver => self.alone = true,
                Act::Withdraw => self.recorded = false,
            }
        }
    }

    fn run(&mut self) {
        self.renewal = Some(self.clock).filter(|_| !self.alone);
        let acts = self.arbiter.tick(self.clock, true);
        self.carry_out(&acts);
    }

    fn accepts_own(&self) -> bool {
        self.alone || self.clock < self.lease
    }

    /// Opened when what it granted has run out.
    fn accepts_other(&self) -> bool {
        self.alone && self.up && self.clock >= self.granted + WAIT
    }
}

impl State {
    fn first(config: &Config) -> Self {
        let Config { crashes, forgets, .. } = *config;
        Self { nodes: [0, 1].map(Node::new), holder: None, ticks: 0, turn: 0, surprises: 0, crashes, forgets }
    }

    /// Everything that can happen to the node whose turn it is.
    fn turns(&self, config: &Config) -> Vec<Turn> {
        if self.ticks >= config.ticks {
            return Vec::new();
        }
        let (node, peer) = (&self.nodes[self.turn], &self.nodes[1 - self.turn]);
        let mut turns = vec![Turn::default()];
        let mut either = |possible: bool, set: fn(&mut Turn)| {
            let with = turns.clone().into_iter().map(|mut turn| {
                set(&mut turn);
                turn
            });
            turns.extend(with.filter(|_| possible));
        };
        either(self.forgets > 0 && self.holder.is_some(), |turn| turn.forget = true);
        either(node.up && self.crashes > 0, |turn| turn.crash = true);
        either(!node.up, |turn| turn.restart = true);
        either(node.up && peer.renewal.is_some(), |turn| turn.renewal = true);
        either(node.up && node.answer.is_some(), |turn| turn.answer = true);
        either(node.up && node.pong.is_some(), |turn| turn.pong = true);
        either(node.up && node.recording, |turn| turn.written = true);
        either(node.up, |turn| turn.run = true);
        either(true, |turn| turn.claim = true);
        either(true, |turn| turn.ping = true);
        turns.retain(|turn| self.surprises + self.surprise(*turn) <= config.surprises);
        turns
    }

    /// How many surprises there are in a turn.
    fn surprise(&self, turn: Turn) -> u32 {
        let node = &self.nodes[self.turn];
        let asks = node.claim || node.ping.is_some();
        let all = [
            turn.renewal,
            turn.answer,
            node.up && !turn.run,
            node.up && node.pong.is_some() && !turn.pong,
            node.up && node.recording && !turn.written,
            !turn.claim && (asks || turn.run),
            !turn.ping && (asks || turn.run),
        ];
        all.into_iter().map(u32::from).sum()
    }

    fn take(&mut self, (n, turn): Step, config: &Config) {
        self.surprises += self.surprise(turn);
        self.nodes[n].clock = self.nodes[n].clock + Span(config.rates[n]);
        if turn.forget {
            (self.forgets, self.holder) = (self.forgets - 1, None);
        }
        if turn.crash {
            self.crash(n);
        }
        if turn.restart {
            self.restart(n);
        }
        if self.nodes[n].up {
            self.live(n, turn);
        }
        self.reach_router(n, turn);
        self.turn = 1 - n;
        self.ticks += u64::from(n == 1);
    }

    fn live(&mut self, n: usize, turn: Turn) {
        if turn.renewal {
            self.renewal(1 - n);
        }
        let node = &mut self.nodes[n];
        if let Some(sent) = node.answer.take_if(|_| turn.answer) {
            node.arbiter.heard(node.clock);
            node.arbiter.answered(sent);
            node.lease = node.lease.max(sent + LEASE);
        }
        if let Some(sent) = node.pong.take_if(|_| turn.pong) {
            node.arbiter.pong(0, sent, node.clock);
        }
        if turn.written {
            (node.recording, node.recorded) = (false, true);
            let acts = node.arbiter.recorded(node.clock);
            node.carry_out(&acts);
        }
        if turn.run {
            node.run();
        }
    }

    /// A claim leaves before its ping, on the same cable.
    fn reach_router(&mut self, n: usize, turn: Turn) {
        if turn.claim && self.nodes[n].claim {
            self.nodes[n].claim = false;
            self.holder = Some(n);
        }
        if turn.ping && !self.nodes[n].claim {
            let sent = self.nodes[n].ping.take();
            if self.holder == Some(n) && sent.is_some() {
                self.nodes[n].pong = sent;
            }
        }
    }

    /// What was being written is durable: the worse of the two.
    fn crash(&mut self, n: usize) {
        self.crashes -= 1;
        let node = &mut self.nodes[n];
        node.recorded |= node.recording;
        (node.up, node.alone, node.recording) = (false, false, false);
    }

    fn restart(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        (node.up, node.alone) = (true, node.recorded);
        node.arbiter = Node::arbiter(n);
        // It may have answered the moment before.
        node.granted = node.clock;
    }

    /// Of `from`, at its peer: heard, and answered unless no answer may leave.
    fn renewal(&mut self, from: usize) {
        let sent = self.nodes[from].renewal.take();
        let peer = &mut self.nodes[1 - from];
        if peer.alone {
            return;
        }
        peer.arbiter.heard(peer.clock);
        if !peer.arbiter.hushed() {
            peer.granted = peer.clock;
            self.nodes[from].answer = sent;
        }
    }

    fn broken(&self) -> Option<Broken> {
        let [one, two] = &self.nodes;
        if one.alone && two.alone {
            return Some(Broken::TwoSurvivors);
        }
        let twice = (one.accepts_own() && two.accepts_other()) || (two.accepts_own() && one.accepts_other());
        twice.then_some(Broken::TwoAcceptors)
    }

    fn met(&self, before: &Self, step: Step) -> Vec<Met> {
        let contest = |n: &Node| matches!(n.arbiter.phase(), Phase::Contest { .. });
        let lost = |n: &Node, was: &Node| match n.arbiter.phase() {
            Phase::Spent { loss, .. } if contest(was) => Some(loss),
            _ => None,
        };
        let mut met = Vec::new();
        if self.nodes.iter().all(contest) {
            met.push(Met::BothClaim);
        }
        for (node, was) in self.nodes.iter().zip(&before.nodes) {
            match lost(node, was) {
                Some(Loss::Unanswered | Loss::Claimed) => met.push(Met::LockLost),
                Some(Loss::Heard) => met.push(Met::PeerHeard),
                Some(Loss::Ineligible) | None => {}
            }
            met.extend(
                (was.recording && !node.recording && node.up && !node.recorded).then_some(Met::TakenBack),
            );
            met.extend(node.alone.then_some(Met::Alone));
            met.extend(node.accepts_other().then_some(Met::Opened));
        }
        let (n, turn) = step;
        met.extend((turn.restart && self.nodes[n].alone).then_some(Met::FromRecord));
        met
    }
}

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps to the farthest.
    pub depth: usize,
    /// All were met; else the search was cut.
    pub complete: bool,
    /// What was met on the way, ascending.
    pub met: Vec<Met>,
    /// The shortest way to a broken promise, in words.
    pub broken: Option<(Broken, usize, String)>,
}

/// Searches `config`, breadth first.
#[must_use]
pub fn search(config: &Config) -> Found {
    let first = State::first(config);
    let mut seen = Known::<()>::default();
    seen.insert(fingerprint(&first), ());
    let mut origins: Vec<(u32, Step)> = vec![(0, (0, Turn::default()))];
    let mut level = vec![(0_u32, first)];
    let mut found = Found { states: 1, depth: 0, complete: true, met: Vec::new(), broken: None };
    while !level.is_empty() && found.broken.is_none() {
        let mut next = Vec::new();
        for (origin, state) in &level {
            for turn in state.turns(config) {
                let step = (state.turn, turn);
                let mut after = state.clone();
                after.take(step, config);
                if !seen.insert(fingerprint(&after), ()) {
                    continue;
                }
                let number = u32::try_from(origins.len()).expect("fewer than 2^32 states");
                origins.push((*origin, step));
                found.met.extend(after.met(state, step));
                if let Some(broken) = after.broken() {
                    let way = way(&origins, number);
                    found.broken = Some((broken, way.len(), story(&way, config)));
                    found.states = seen.len();
                    return found;
                }
                next.push((number, after));
            }
        }
        found.met.sort_unstable();
        found.met.dedup();
        found.depth += usize::from(!next.is_empty());
        found.states = seen.len();
        if seen.len() >= config.states {
            found.complete = next.is_empty();
            return found;
        }
        level = next;
    }
    found
}

fn way(origins: &[(u32, Step)], to: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = to;
    while at != 0 {
        let (before, step) = origins[usize::try_from(at).expect("an index")];
        steps.push(step);
        at = before;
    }
    steps.reverse();
    steps
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { forget, crash, restart, renewal, answer, pong, written, run, claim, ping } = *self;
        let all = [
            (forget, "the router forgets"),
            (crash, "crash"),
            (restart, "restart"),
            (renewal, "renewal comes"),
            (answer, "answer comes"),
            (pong, "pong comes"),
            (written, "written"),
            (run, "runs"),
            (claim, "claim arrives"),
            (ping, "ping arrives"),
        ];
        let words: Vec<&str> = all.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        f.write_str(&words.join(", "))
    }
}

fn story(way: &[Step], config: &Config) -> String {
    let mut state = State::first(config);
    let mut text = String::new();
    for step in way {
        state.take(*step, config);
        let phases = state.nodes.each_ref().map(|n| (n.clock.0, n.arbiter.phase(), n.alone));
        // Writing into a string does not fail.
        let _ = writeln!(text, "  {}: {}; holder {:?}, {phases:?}", step.0, step.1, state.holder);
    }
    text
}
