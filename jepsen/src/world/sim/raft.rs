//! An abstract replicated log: terms, unique leaders by a majority of up-to-date voters, append, truncation, commit,
//! single-step membership. Only what is durable is acknowledged, counted or survives.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use farm_core::id::{EntryId, Leadership, NodeId};
use farm_core::lease::Timing;
use farm_core::time::{BootTime, Span};

use super::entry::{Entry, Members, Payload, Stored};

/// Entries of one append message: few, so that a follower that lags catches up in steps.
const BATCH: usize = 4;

/// Messages between logs.
#[derive(Clone, Debug)]
pub enum RaftMessage {
    /// Entries after `prev`, or none: a heartbeat.
    Append {
        /// The leader's term.
        term: u64,
        /// The leader.
        leader: NodeId,
        /// The entry before.
        prev: EntryId,
        /// What follows it.
        entries: Vec<Rc<Entry>>,
        /// What is committed.
        commit: u64,
    },
    /// Answer: durable and the same as the leader's up to `matched`; or `refused`: the leader must go back to there.
    Appended {
        /// The follower's term.
        term: u64,
        /// The follower.
        from: NodeId,
        /// See the variant.
        matched: u64,
        /// See the variant.
        refused: bool,
    },
    /// A candidate asks for a vote.
    Ask {
        /// Its term.
        term: u64,
        /// Who.
        candidate: NodeId,
        /// Its last entry.
        last: EntryId,
        /// Why.
        round: Round,
    },
    /// A vote.
    Vote {
        /// Term of the election.
        term: u64,
        /// Who votes.
        from: NodeId,
        /// In which round.
        round: Round,
    },
    /// No vote: who is asked has seen this term, and a candidate of an older one can never win.
    Denial {
        /// That term.
        term: u64,
    },
    /// The leader tells a voter to stand at once.
    Stand {
        /// The leader's term.
        term: u64,
    },
}

/// Round of an election.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Round {
    /// Would you vote for me? Changes nothing.
    Pre,
    /// Vote for me.
    Election,
    /// The same; the leader itself told me to stand.
    Forced,
}

#[derive(Clone, Debug)]
enum Role {
    Follower,
    Candidate(Round, BTreeSet<NodeId>),
    Leader(BTreeMap<NodeId, Progress>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    next: u64,
    matched: u64,
}

/// The log of one run of a daemon.
///
/// ```text
/// Follower ── no leader heard ──▶ Candidate(Pre) ── majority ──▶ Candidate(Election) ── majority ──▶ Leader
///    │  ▲                              │                          │                                 │
///    │  └──────────────────────── higher term, or a leader of this term ◀───────────────────────────┘
///    └────── told to stand ──▶ Candidate(Forced) ── majority ──▶ Leader
/// ```
pub struct Raft {
    me: NodeId,
    timing: Timing,
    rng: fastrand::Rng,
    term: u64,
    vote: Option<NodeId>,
    log: Vec<Rc<Entry>>,
    /// Indexes of its entries about membership.
    changes: Vec<u64>,
    /// Synced to disk.
    on_disk: u64,
    /// Synced, and every fence in it installed: counts, and is acknowledged.
    durable: u64,
    /// Up to where this log is the same as the current leader's.
    verified: u64,
    commit: u64,
    role: Role,
    leader: Option<NodeId>,
    heard_leader: BootTime,
    election_at: BootTime,
    heartbeat_at: BootTime,
    /// To be sent.
    pub out: Vec<(NodeId, RaftMessage)>,
    /// Where the log was cut last, until somebody takes it.
    pub cut: Option<u64>,
    /// Whether a fence was cut off, until somebody takes it.
    pub cut_fence: bool,
}

impl Raft {
    /// The log of a daemon that starts now.
    #[must_use]
    pub fn start(me: NodeId, stored: &Stored, timing: Timing, now: BootTime, rng: fastrand::Rng) -> Self {
        let last = stored.log.len() as u64;
        let mut raft = Self {
            me,
            timing,
            rng,
            term: stored.term,
            vote: stored.vote,
            log: Vec::new(),
            changes: Vec::new(),
            on_disk: last,
            durable: last,
            verified: 0,
            commit: stored.committed,
            role: Role::Follower,
            leader: None,
            heard_leader: BootTime(0),
            election_at: now,
            heartbeat_at: now,
            out: Vec::new(),
            cut: None,
            cut_fence: false,
        };
        stored.log.iter().for_each(|e| raft.push(e.clone()));
        raft.rest(now);
        raft
    }

    /// What survives if the daemon dies now; `committed` is what it wrote down of that.
    #[must_use]
    pub fn stored(&self, committed: u64) -> Stored {
        let log = self.log[..index(self.on_disk)].to_vec();
        Stored { term: self.term, vote: self.vote, committed: committed.min(self.on_disk), log }
    }

    /// Stands for election as soon as it may: the first leader of a simulation.
    pub fn hurry(&mut self, now: BootTime) {
        self.election_at = now;
    }

    /// The leadership, while this node believes to have it.
    #[must_use]
    pub fn leads(&self) -> Option<Leadership> {
        match self.role {
            Role::Leader(_) => Some(Leadership { term: self.term, leader: self.me }),
            Role::Follower | Role::Candidate(..) => None,
        }
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Index of the last committed entry that it knows of.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.commit
    }

    /// Up to here entries count.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The entry at `index`.
    #[must_use]
    pub fn entry(&self, at: u64) -> Option<&Rc<Entry>> {
        at.checked_sub(1).and_then(|i| self.log.get(index(i)))
    }

    /// Entries behind `after`.
    #[must_use]
    pub fn behind(&self, after: u64) -> &[Rc<Entry>] {
        &self.log[index(after).min(self.log.len())..]
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.log.last().map(|e| e.id).unwrap_or_default()
    }

    /// Who replicates, by the last word of the log.
    #[must_use]
    pub fn members(&self) -> Members {
        self.membership().map_or_else(Members::default, |(_, members)| members.clone())
    }

    /// Members whose log is close to the leader's own.
    #[must_use]
    pub fn caught_up(&self) -> BTreeSet<NodeId> {
        match &self.role {
            Role::Leader(progress) => {
                let near = |p: &Progress| p.matched + 5 >= self.log.len() as u64;
                progress.iter().filter(|(_, p)| near(p)).map(|(n, _)| *n).chain([self.me]).collect()
            }
            Role::Follower | Role::Candidate(..) => BTreeSet::new(),
        }
    }

    /// When [`Raft::tick`] is due.
    #[must_use]
    pub fn wake_at(&self) -> BootTime {
        match self.role {
            Role::Leader(_) => self.heartbeat_at,
            Role::Follower | Role::Candidate(..) => self.election_at,
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: BootTime) {
        match self.role {
            Role::Leader(_) if now >= self.heartbeat_at => self.send_all(now),
            Role::Follower | Role::Candidate(..) if now >= self.election_at => self.stand(now, Round::Pre),
            Role::Leader(_) | Role::Follower | Role::Candidate(..) => {}
        }
    }

    /// Appends as the leader; `None` if it is not.
    pub fn propose(&mut self, payload: Payload, now: BootTime) -> Option<EntryId> {
        let by = self.leads()?;
        let id = EntryId { by, index: self.log.len() as u64 + 1 };
        self.push(Rc::new(Entry { id, payload }));
        self.send_all(now);
        Some(id)
    }

    /// Changes who replicates, if no such change is open and the leadership is established.
    pub fn change(&mut self, members: Members, now: BootTime) -> Option<EntryId> {
        let settled = self.membership().is_none_or(|(at, _)| at <= self.commit);
        let established = self.entry(self.commit).is_some_and(|e| e.id.by.term == self.term);
        if settled && established { self.propose(Payload::Members(members), now) } else { None }
    }

    /// Tells `to` to stand.
    pub fn transfer(&mut self, to: NodeId) {
        if self.leads().is_some() && to != self.me {
            self.out.push((to, RaftMessage::Stand { term: self.term }));
        }
    }

    /// The entry is on disk, and all before it.
    pub fn synced(&mut self, entry: EntryId) {
        if self.holds(entry) {
            self.on_disk = self.on_disk.max(entry.index);
        }
    }

    /// The fences of the entry are installed too, and all before it: it counts.
    pub fn acknowledge(&mut self, entry: EntryId) {
        if !self.holds(entry) {
            return;
        }
        self.durable = self.durable.max(entry.index);
        match (&self.role, self.leader) {
            (Role::Leader(_), _) => self.advance(),
            (Role::Follower | Role::Candidate(..), Some(leader)) if self.verified > 0 => self.confirm(leader),
            (Role::Follower | Role::Candidate(..), _) => {}
        }
    }

    /// Takes a message.
    pub fn receive(&mut self, message: RaftMessage, now: BootTime) {
        match message {
            RaftMessage::Append { term, leader, prev, entries, commit } => {
                self.append((term, leader), prev, entries, commit, now);
            }
            RaftMessage::Appended { term, from, matched, refused } => {
                self.appended(term, from, matched, refused, now);
            }
            RaftMessage::Ask { term, candidate, last, round } => {
                self.asked(term, candidate, last, round, now);
            }
            RaftMessage::Vote { term, from, round } => self.voted(term, from, round, now),
            RaftMessage::Denial { term } if term > self.term => self.follow(term, now),
            RaftMessage::Denial { .. } => {}
            RaftMessage::Stand { term } if term == self.term => self.stand(now, Round::Forced),
            RaftMessage::Stand { .. } => {}
        }
    }

    fn append(
        &mut self,
        (term, leader): (u64, NodeId),
        prev: EntryId,
        entries: Vec<Rc<Entry>>,
        commit: u64,
        now: BootTime,
    ) {
        if term < self.term {
            self.out.push((leader, self.refusal()));
            return;
        }
        self.follow(term, now);
        if self.leader != Some(leader) {
            self.verified = 0;
        }
        self.leader = Some(leader);
        self.heard_leader = now;
        if prev.index > 0 && !self.holds(prev) {
            self.out.push((leader, self.refusal_at(prev.index - 1)));
            return;
        }
        let end = prev.index + entries.len() as u64;
        self.take(entries);
        self.verified = self.verified.max(end);
        self.commit = self.commit.max(commit.min(self.verified));
        self.confirm(leader);
    }

    fn take(&mut self, entries: Vec<Rc<Entry>>) {
        for entry in entries {
            if self.holds(entry.id) {
                continue;
            }
            self.truncate(entry.id.index - 1);
            self.push(entry);
        }
    }

    fn push(&mut self, entry: Rc<Entry>) {
        if matches!(entry.payload, Payload::Members(_)) {
            self.changes.push(entry.id.index);
        }
        self.log.push(entry);
    }

    fn truncate(&mut self, after: u64) {
        if after >= self.log.len() as u64 {
            return;
        }
        assert!(after >= self.commit, "a committed entry is cut off");
        self.cut_fence |= self.behind(after).iter().any(|e| !e.fences().is_empty());
        self.log.truncate(index(after));
        self.changes.retain(|at| *at <= after);
        self.on_disk = self.on_disk.min(after);
        self.durable = self.durable.min(after);
        self.cut = Some(self.cut.map_or(after, |c| c.min(after)));
    }

    fn confirm(&mut self, leader: NodeId) {
        let matched = self.verified.min(self.durable);
        let message = RaftMessage::Appended { term: self.term, from: self.me, matched, refused: false };
        self.out.push((leader, message));
    }

    fn refusal(&self) -> RaftMessage {
        self.refusal_at(self.log.len() as u64)
    }

    fn refusal_at(&self, at: u64) -> RaftMessage {
        let matched = at.min(self.log.len() as u64);
        RaftMessage::Appended { term: self.term, from: self.me, matched, refused: true }
    }

    fn appended(&mut self, term: u64, from: NodeId, matched: u64, refused: bool, now: BootTime) {
        if term > self.term {
            self.follow(term, now);
            return;
        }
        let Role::Leader(progress) = &mut self.role else { return };
        if term < self.term {
            return;
        }
        let known = progress.entry(from).or_default();
        if refused {
            known.next = matched.max(known.matched) + 1;
            self.send(from);
            return;
        }
        known.matched = known.matched.max(matched);
        known.next = known.next.max(known.matched + 1);
        let behind = known.next <= self.log.len() as u64;
        if behind {
            self.send(from);
        }
        self.advance();
    }

    fn advance(&mut self) {
        let Role::Leader(progress) = &self.role else { return };
        let reached =
            |n: &NodeId| if *n == self.me { self.durable } else { progress.get(n).map_or(0, |p| p.matched) };
        let mut reached: Vec<u64> = self.members().voters.iter().map(reached).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let Some(majority) = reached.get(reached.len() / 2).copied() else { return };
        if self.entry(majority).is_some_and(|e| e.id.by.term == self.term) {
            self.commit = self.commit.max(majority);
        }
    }

    fn asked(&mut self, term: u64, candidate: NodeId, last: EntryId, round: Round, now: BootTime) {
        let content = self.leads().is_some() || now.since(self.heard_leader) < self.timing.election_min;
        if content && round != Round::Forced {
            return;
        }
        let denial = RaftMessage::Denial { term: self.term };
        if term < self.term {
            self.out.push((candidate, denial));
            return;
        }
        let mine = self.last();
        let complete = (last.by.term, last.index) >= (mine.by.term, mine.index);
        let free = || term > self.term || self.vote.is_none_or(|v| v == candidate);
        let vote = RaftMessage::Vote { term, from: self.me, round };
        if round == Round::Pre {
            if complete {
                self.out.push((candidate, if free() { vote } else { denial }));
            }
            return;
        }
        if term > self.term {
            self.follow(term, now);
        }
        if complete && self.vote.is_none_or(|v| v == candidate) {
            self.vote = Some(candidate);
            self.rest(now);
            self.out.push((candidate, vote));
        }
    }

    fn voted(&mut self, term: u64, from: NodeId, of: Round, now: BootTime) {
        let voters = self.members().voters;
        let Role::Candidate(round, votes) = &mut self.role else { return };
        let asked = if *round == Round::Pre { self.term + 1 } else { self.term };
        if term != asked || of != *round {
            return;
        }
        votes.insert(from);
        if votes.intersection(&voters).count() <= voters.len() / 2 {
            return;
        }
        if of == Round::Pre {
            self.stand(now, Round::Election);
        } else {
            self.role = Role::Leader(BTreeMap::new());
            self.leader = Some(self.me);
            self.propose(Payload::Blank, now);
        }
    }

    fn stand(&mut self, now: BootTime, round: Round) {
        self.rest(now);
        let voters = self.members().voters;
        if !voters.contains(&self.me) {
            return;
        }
        let term = self.term + 1;
        if round != Round::Pre {
            self.term = term;
            self.vote = Some(self.me);
            self.leader = None;
        }
        self.role = Role::Candidate(round, BTreeSet::new());
        let ask = RaftMessage::Ask { term, candidate: self.me, last: self.last(), round };
        self.out.extend(voters.iter().filter(|n| **n != self.me).map(|n| (*n, ask.clone())));
        self.voted(term, self.me, round, now);
    }

    fn follow(&mut self, term: u64, now: BootTime) {
        if term > self.term {
            self.vote = None;
            self.leader = None;
        }
        self.term = term;
        self.role = Role::Follower;
        self.rest(now);
    }

    fn rest(&mut self, now: BootTime) {
        let Timing { election_min, election_max, .. } = self.timing;
        self.election_at = now + Span(self.rng.u64(election_min.0..=election_max.0));
    }

    fn send_all(&mut self, now: BootTime) {
        self.heartbeat_at = now + self.timing.renewal;
        for to in self.members().others(self.me) {
            self.send(to);
        }
    }

    fn send(&mut self, to: NodeId) {
        let end = self.log.len() as u64;
        let Role::Leader(progress) = &mut self.role else { return };
        let known = progress.entry(to).or_insert(Progress { next: end, matched: 0 });
        let next = known.next.clamp(1, end + 1);
        // What is lost on the way is noticed when the next message does not fit.
        known.next = (next + BATCH as u64).min(end + 1);
        let prev = self.entry(next - 1).map(|e| e.id).unwrap_or_default();
        let entries = self.behind(next - 1).iter().take(BATCH).cloned().collect();
        let message =
            RaftMessage::Append { term: self.term, leader: self.me, prev, entries, commit: self.commit };
        self.out.push((to, message));
    }

    fn membership(&self) -> Option<(u64, &Members)> {
        let at = *self.changes.last()?;
        match &self.entry(at)?.payload {
            Payload::Members(members) => Some((at, members)),
            Payload::Blank | Payload::Command(_) => None,
        }
    }

    fn holds(&self, entry: EntryId) -> bool {
        self.entry(entry.index).is_some_and(|e| e.id == entry)
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("a simulated log fits into memory")
}
