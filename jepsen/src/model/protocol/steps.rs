//! The steps of a state: an abstract log and the daemons around the machines of the core.

use farm_core::command::Body;
use farm_core::id::{Epoch, Leadership, NodeId};
use farm_core::planted::{Bug, is_planted};

use super::book::{Book, Payload};
use super::clock::Ticks;
use super::config::Config;
use super::judge::Judge;
use super::leases::{Leases, NOBODY};
use super::menu;
use super::pool::Merge;
use super::reached::{Past, Reached, Tally};
use super::setup::Founded;
use super::state::{Action, LOG, NODES, NONE, Node, State};
use super::units::RUNS_MAX;

/// A model: one configuration, and all that was met in it.
#[derive(Debug)]
pub struct Protocol {
    /// What may happen.
    pub config: Config,
    /// Entries and replicated states.
    pub book: Book,
    /// Lease machines.
    pub leases: Leases,
    /// What was met.
    pub tally: Tally,
    judge: Judge,
}

/// A broken promise: the fact.
pub type Broken = String;

/// The id of the node at a position.
fn id(node: u8) -> NodeId {
    NodeId(u64::from(node) + 1)
}

fn at(node: u8) -> usize {
    usize::from(node)
}

fn count(n: usize) -> u8 {
    u8::try_from(n).expect("logs are short")
}

impl Protocol {
    /// A model in which nothing happened yet.
    #[must_use]
    pub fn new(config: Config, merge: Merge) -> Self {
        assert!(usize::from(config.log) <= LOG && usize::from(config.nodes) <= NODES, "too large");
        assert!(config.reboots + config.restarts < RUNS_MAX, "views do not tell so many runs apart");
        Self {
            config,
            book: Book::new(Founded::new(config.nodes, config.electors, config.owners)),
            leases: Leases::new(Ticks::new(config.lease), merge),
            tally: Tally::default(),
            judge: Judge::default(),
        }
    }

    /// Every node has applied and published the founding; nobody has a lease, and none is out.
    pub fn first(&mut self) -> State {
        let nobody = Node {
            log: [NONE; LOG],
            elector: NOBODY,
            holder: NOBODY,
            reports: NOBODY,
            state: 0,
            table: NONE,
            stale: NONE,
            writing: NONE,
            len: 0,
            commit: 0,
            applied: 0,
            term: 1,
            leads: false,
        };
        let mut state = State { nodes: [nobody; NODES], term: 1, reboots: 0, restarts: 0 };
        for node in 0..self.config.nodes {
            state.nodes[at(node)] = self.founded(node, nobody);
        }
        if self.config.history.is_empty() { state } else { self.past(state) }
    }

    /// One leader did what the history says, everybody followed.
    fn past(&mut self, state: State) -> State {
        let leader = count(self.config.leaders.trailing_zeros() as usize);
        let votes = self.config.voters & !(1 << leader);
        let mut state = self.must(state, Action::Elect(leader, votes));
        for intent in self.config.history {
            while let Some(command) = menu::next(self.book.state(state.nodes[at(leader)].state), *intent) {
                let command = self.book.command_number(command);
                state = self.must(state, Action::Propose(leader, command));
                state = self.follow_all(state, leader);
            }
        }
        state
    }

    fn follow_all(&mut self, mut state: State, leader: u8) -> State {
        for _ in 0..2 {
            for node in (0..self.config.nodes).filter(|n| *n != leader) {
                state = self.must(state, Action::Replicate(leader, node));
            }
        }
        (0..self.config.nodes).fold(state, |state, node| self.must(state, Action::Apply(node)))
    }

    fn must(&mut self, state: State, action: Action) -> State {
        self.step(&state, action).expect("no promise is broken in the past").unwrap_or(state)
    }

    fn founded(&mut self, node: u8, nobody: Node) -> Node {
        let epoch = self.epoch(0);
        let elector = self.leases.start_elector(id(node), &self.book, &[], &self.config);
        // What its predecessor may have granted has run out.
        let elector = (0..=self.config.lease).fold(elector, |e, _| self.leases.elector_tick(e));
        let holder = self.leases.start_holder(id(node), &self.book, Epoch(0), None);
        let holder = self.leases.holder_applied(holder, 0, Epoch(0), &self.book);
        let holder = self.leases.reported(holder, epoch);
        Node { elector, holder, table: 0, ..nobody }
    }

    fn epoch(&self, state: u16) -> Epoch {
        if state == NONE { Epoch(0) } else { self.book.state(state).epoch }
    }

    /// What `action` comes to; `None` when nothing.
    ///
    /// # Errors
    /// The broken promise.
    pub fn step(&mut self, before: &State, action: Action) -> Result<Option<State>, Broken> {
        let mut state = *before;
        let done = match action {
            Action::Tick => self.tick(&mut state),
            Action::Renew(node, elector) => self.renew(&mut state, node, elector),
            Action::Ask(node, elector) => self.ask(&mut state, node, elector),
            Action::Hear(node) => self.hear(&mut state, node),
            Action::Answer(node) => self.answer(&mut state, node),
            Action::Elect(node, by) => self.elect(&mut state, node, by),
            Action::Propose(leader, command) => self.append(&mut state, leader, Payload::Command(command)),
            Action::Voters(leader, set) => self.append(&mut state, leader, Payload::Voters(set)),
            Action::Replicate(from, to) => self.replicate(&mut state, from, to)?,
            Action::Apply(node) => self.apply(&mut state, node)?,
            Action::Flip(node) => self.flip(&mut state, node),
            Action::Grace(node) => self.grace(&mut state, node),
            Action::Report(leader, elector, node, record) => {
                self.report(&mut state, leader, elector, node, record)
            }
            Action::Restart(node) => self.restart(&mut state, node),
            Action::Reboot(node) => self.reboot(&mut state, node),
        };
        if !done || state == *before {
            return Ok(None);
        }
        self.judge(&state)?;
        Ok(Some(state))
    }

    fn tick(&mut self, state: &mut State) -> bool {
        for node in state.nodes.iter_mut().take(at(self.config.nodes)) {
            node.holder = self.leases.holder_tick(node.holder);
            node.elector = self.leases.elector_tick(node.elector);
            node.reports = self.leases.reports_tick(node.reports);
        }
        true
    }

    fn renew(&mut self, state: &mut State, node: u8, elector: u8) -> bool {
        let asks = &state.nodes[at(node)];
        if asks.stale != NONE || !self.leases.counts(asks.holder, id(elector)) {
            return false;
        }
        let (holder, machine, granted) = self.leases.exchange(asks.holder, state.nodes[at(elector)].elector);
        self.tally.count(Reached::Refused, !granted);
        state.nodes[at(node)].holder = holder;
        state.nodes[at(elector)].elector = machine;
        true
    }

    fn ask(&mut self, state: &mut State, node: u8, elector: u8) -> bool {
        let asks = &mut state.nodes[at(node)];
        if asks.stale != NONE || !self.leases.counts(asks.holder, id(elector)) {
            return false;
        }
        asks.holder = self.leases.ask(asks.holder, id(elector));
        true
    }

    fn hear(&mut self, state: &mut State, node: u8) -> bool {
        let Some(flight) = self.leases.flight(state.nodes[at(node)].holder).filter(|f| !f.answered) else {
            return false;
        };
        let elector = usize::try_from(flight.elector.0 - 1).expect("few nodes");
        let holder = state.nodes[at(node)].holder;
        let (holder, machine) = self.leases.hear(holder, state.nodes[elector].elector);
        state.nodes[at(node)].holder = holder;
        state.nodes[elector].elector = machine;
        true
    }

    fn answer(&mut self, state: &mut State, node: u8) -> bool {
        let asks = &mut state.nodes[at(node)];
        let Some(flight) = self.leases.flight(asks.holder).filter(|f| f.answered && asks.stale == NONE)
        else {
            return false;
        };
        self.tally.count(Reached::AnswerToOlderRun, flight.run != self.leases.run(asks.holder));
        asks.holder = self.leases.answer(asks.holder);
        true
    }

    /// Who votes, as the log of `node` says.
    #[must_use]
    pub fn voters(&self, node: &Node) -> u8 {
        let says = |record: &u16| match self.book.record(*record).payload {
            Payload::Voters(set) => Some(set),
            Payload::Blank | Payload::Command(_) => None,
        };
        node.log().iter().rev().find_map(says).unwrap_or(self.config.voters)
    }

    fn last(&self, node: &Node) -> (u64, u8) {
        (node.log().last().map_or(0, |r| self.book.record(*r).id.by.term), node.len)
    }

    fn elect(&mut self, state: &mut State, node: u8, by: u8) -> bool {
        let voters = self.voters(&state.nodes[at(node)]);
        let votes = by | 1 << node;
        let majority = (votes & voters).count_ones() * 2 > voters.count_ones();
        let last = self.last(&state.nodes[at(node)]);
        let behind = |n: u8| votes & (1 << n) == 0 || self.last(&state.nodes[at(n)]) <= last;
        let possible = state.term < self.config.terms + 1 && votes & !voters == 0 && majority;
        if !possible || !(0..self.config.nodes).all(behind) {
            return false;
        }
        state.term += 1;
        for n in (0..self.config.nodes).filter(|n| votes & (1 << n) != 0) {
            Self::follow(&mut state.nodes[at(n)], state.term);
        }
        let leader = &mut state.nodes[at(node)];
        leader.leads = true;
        leader.reports = self.leases.lead(Leadership { term: u64::from(state.term), leader: id(node) });
        let others = state.nodes.iter().filter(|n| n.leads).count() > 1;
        self.tally.count(Reached::TwoLeaders, others);
        if self.config.blank { self.append(state, node, Payload::Blank) } else { true }
    }

    /// A higher term ends a leadership, and with it all reports.
    fn follow(node: &mut Node, term: u8) {
        node.term = term;
        node.leads = false;
        node.reports = NOBODY;
    }

    fn append(&mut self, state: &mut State, leader: u8, payload: Payload) -> bool {
        let node = &mut state.nodes[at(leader)];
        if node.len >= self.config.log {
            return false;
        }
        let by = Leadership { term: u64::from(node.term), leader: id(leader) };
        let record = self.book.append(by, usize::from(node.len), payload);
        self.put(node, record);
        self.commit(state, leader);
        true
    }

    /// An entry is durable, and its fences hold before anybody hears of that.
    fn put(&mut self, node: &mut Node, record: u16) {
        node.log[usize::from(node.len)] = record;
        node.len += 1;
        if !is_planted(Bug::FenceOnlyCommitted) {
            node.elector = self.leases.appended(node.elector, record, &self.book);
        }
    }

    fn cut(&mut self, node: &mut Node, len: u8) {
        assert!(len >= node.commit, "a committed entry is never cut");
        let cut = &node.log()[usize::from(len)..];
        let moves = cut.iter().any(|r| !self.book.fences(*r).is_empty());
        self.tally.count(Reached::MoveCut, moves);
        node.log[usize::from(len)..].fill(NONE);
        node.len = len;
        node.elector = self.leases.truncated(node.elector, self.book.base + u64::from(len));
    }

    fn learn(&mut self, node: &mut Node, commit: u8) {
        let new = usize::from(node.commit)..usize::from(commit.max(node.commit));
        if is_planted(Bug::FenceOnlyCommitted) {
            for record in node.log[new].iter().copied() {
                node.elector = self.leases.appended(node.elector, record, &self.book);
            }
        }
        node.commit = commit.max(node.commit);
    }

    /// A leader commits what a majority holds, up to the last entry of its own term that one holds.
    fn commit(&mut self, state: &mut State, leader: u8) {
        let node = state.nodes[at(leader)];
        let voters = self.voters(&node);
        let holds = |n: &u8| voters & (1 << n) != 0;
        let mut held: Vec<usize> =
            (0..self.config.nodes).filter(holds).map(|n| node.common(&state.nodes[at(n)])).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        let majority = held.get(held.len() / 2).copied().unwrap_or_default();
        let own = |i: &usize| self.book.record(node.log[i - 1]).id.by.term == u64::from(node.term);
        if let Some(commit) = (usize::from(node.commit) + 1..=majority).rev().find(own) {
            self.learn(&mut state.nodes[at(leader)], count(commit));
        }
    }

    fn replicate(&mut self, state: &mut State, from: u8, to: u8) -> Result<bool, Broken> {
        let leader = state.nodes[at(from)];
        let follower = &mut state.nodes[at(to)];
        if !leader.leads || follower.term > leader.term {
            return Ok(false);
        }
        if follower.term < leader.term {
            Self::follow(follower, leader.term);
        }
        let mut matched = leader.common(follower);
        if matched < usize::from(leader.len) {
            if matched < usize::from(follower.len) {
                if matched < usize::from(follower.commit) {
                    return Err(format!("a committed entry of n{} is cut", to + 1));
                }
                self.cut(follower, count(matched));
            }
            self.put(follower, leader.log[matched]);
            matched += 1;
        }
        self.learn(follower, leader.commit.min(count(matched)));
        self.commit(state, from);
        Ok(true)
    }

    fn apply(&mut self, state: &mut State, node: u8) -> Result<bool, Broken> {
        let daemon = &mut state.nodes[at(node)];
        if daemon.applied >= daemon.commit || daemon.writing != NONE || daemon.stale != NONE {
            return Ok(false);
        }
        let record = daemon.log[usize::from(daemon.applied)];
        let before = daemon.state;
        let step = self.book.apply(before, record)?;
        self.tally_apply(&state.nodes[at(node)], record, before, step);
        let daemon = &mut state.nodes[at(node)];
        daemon.applied += 1;
        daemon.state = step.state;
        let index = self.book.base + u64::from(daemon.applied);
        daemon.elector = self.leases.elector_applied(daemon.elector, step.state, index, &self.book);
        if daemon.leads {
            daemon.reports = self.leases.retain(daemon.reports, step.state, &self.book);
        }
        self.take(daemon);
        self.agree(state, node)?;
        Ok(true)
    }

    /// Two nodes that applied as many entries have applied the same.
    fn agree(&self, state: &State, node: u8) -> Result<(), Broken> {
        let applied = &state.nodes[at(node)];
        for (n, other) in state.nodes.iter().enumerate().take(at(self.config.nodes)) {
            if applied.common(other) < usize::from(applied.applied.min(other.applied)) {
                return Err(format!("n{} and n{} applied different entries", node + 1, n + 1));
            }
        }
        Ok(())
    }

    fn tally_apply(&mut self, node: &Node, record: u16, before: u16, step: super::book::Step) {
        let entry = self.book.record(record).id;
        let Some(command) = self.book.command_of(record) else {
            let voters = matches!(self.book.record(record).payload, Payload::Voters(_));
            self.tally.count(Reached::VotersChanged, voters);
            return;
        };
        if !step.applied {
            self.tally.count(Reached::Stale, command.base != Some(self.epoch(before)));
            return;
        }
        let past = self.past_of(node);
        let (before, after) = (self.book.state(before), self.book.state(step.state));
        self.tally.applied(command, entry, before, after, past);
    }

    fn past_of(&self, node: &Node) -> Past {
        let mut past = Past::default();
        for record in &node.log()[..usize::from(node.applied)] {
            match self.book.command_of(*record).map(|c| &c.body) {
                Some(Body::ElectorsJoint(_)) => past.joint = Some(self.book.record(*record).id.by.term),
                Some(Body::Move { .. }) => past.moves += 1,
                _ => {}
            }
        }
        past
    }

    /// The lease thread takes the state of its daemon.
    fn take(&mut self, node: &mut Node) {
        let pinned = self.epoch(node.table);
        let open = self.leases.is_open(node.holder);
        node.holder = self.leases.holder_applied(node.holder, node.state, pinned, &self.book);
        self.tally.count(Reached::Resumed, open && self.leases.run(node.holder) > 0);
        let epoch = self.epoch(node.state);
        if epoch <= self.leases.reports_epoch(node.holder) {
            return;
        }
        if !self.config.grace {
            node.table = node.state;
            node.holder = self.leases.reported(node.holder, epoch);
            return;
        }
        node.writing = node.state;
        if is_planted(Bug::ReportBeforeFlip) {
            node.holder = self.leases.reported(node.holder, epoch);
        }
    }

    fn flip(&mut self, state: &mut State, node: u8) -> bool {
        let node = &mut state.nodes[at(node)];
        if node.writing == NONE {
            return false;
        }
        (node.stale, node.table, node.writing) = (node.table, node.writing, NONE);
        self.tally.count(Reached::OpenBeforeGrace, self.leases.is_open(node.holder));
        if node.stale == NONE { self.counted(node) } else { true }
    }

    fn grace(&mut self, state: &mut State, node: u8) -> bool {
        let node = &mut state.nodes[at(node)];
        if node.stale == NONE {
            return false;
        }
        node.stale = NONE;
        self.counted(node)
    }

    /// The epoch counts as applied.
    fn counted(&mut self, node: &mut Node) -> bool {
        node.holder = self.leases.reported(node.holder, self.epoch(node.table));
        true
    }

    fn report(&mut self, state: &mut State, leader: u8, elector: u8, node: u8, record: u16) -> bool {
        let entry = self.book.record(record).id;
        let (reports, machine) = (state.nodes[at(leader)].reports, state.nodes[at(elector)].elector);
        let after = self.leases.report(reports, machine, record, entry, id(node));
        self.tally.count(Reached::NotFenced, after.is_none());
        state.nodes[at(leader)].reports = after.unwrap_or(reports);
        after.is_some()
    }

    fn restart(&mut self, state: &mut State, node: u8) -> bool {
        state.restarts += 1;
        self.start(&mut state.nodes[at(node)], id(node));
        true
    }

    fn reboot(&mut self, state: &mut State, node: u8) -> bool {
        state.reboots += 1;
        let machine = &mut state.nodes[at(node)];
        machine.holder = self.leases.unpinned(machine.holder);
        machine.table = NONE;
        self.start(machine, id(node));
        true
    }

    /// A daemon starts with the oldest state that its disk can have, and does not know what is committed.
    fn start(&mut self, node: &mut Node, me: NodeId) {
        (node.state, node.applied, node.commit) = (0, 0, 0);
        (node.writing, node.stale) = (NONE, NONE);
        Self::follow(node, node.term);
        let known = if is_planted(Bug::FenceOnlyCommitted) { &[] } else { node.log() };
        node.elector = self.leases.start_elector(me, &self.book, known, &self.config);
        let pinned = self.epoch(node.table);
        let reported = if is_planted(Bug::LowerEpochAfterRestart) { Epoch(0) } else { pinned };
        node.holder = self.leases.start_holder(me, &self.book, reported, Some(node.holder));
        self.take(node);
    }

    fn judge(&mut self, state: &State) -> Result<(), Broken> {
        let open: [bool; NODES] = core::array::from_fn(|n| {
            n < at(self.config.nodes)
                && (self.config.leased & (1 << n) == 0 || self.leases.is_open(state.nodes[n].holder))
        });
        let table = |n: usize, old: bool| {
            let node = &state.nodes[n];
            let table = if old { node.stale } else { node.table };
            if open[n] { table } else { NONE }
        };
        for old in 0..1_u8 << self.config.nodes {
            let is_old = |n: usize| old & (1 << n) != 0;
            if (0..NODES).any(|n| is_old(n) && (state.nodes[n].stale == NONE || !open[n])) {
                continue;
            }
            let tables = core::array::from_fn(|n| table(n, is_old(n)));
            if let Some((bucket, nodes)) = self.judge.doubles(&tables, &self.book) {
                return Err(format!("nodes {nodes:#b} accept new flows of bucket {bucket}"));
            }
        }
        Ok(())
    }
}
