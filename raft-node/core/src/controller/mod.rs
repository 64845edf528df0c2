//! What the leader does: it compares what is with what should be, again and again, and takes one step at a time.
//!
//! Nothing is remembered across leaderships but what the replicated state says; a controller belongs to one. Every
//! decision is made anew from the state and the observations, so that a lost effect only costs time.

mod changes;
pub mod evidence;
mod members;
mod presence;
mod restarts;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use crate::assignment::{Group, groups};
use crate::command::Command;
use crate::id::{EntryId, Epoch, Leadership, NodeId};
use crate::lease::{Ask, Heard, Timing};
use crate::model::{BucketSet, ModuleName, Pending};
use crate::state::ClusterState;
use crate::time::{BootTime, Span};
use evidence::Reports;
use presence::Presence;
use view::View;

/// How long connections may stay with their previous node where a module says nothing else: most end by themselves
/// in a minute, few in the next ones, and the rest for no reason that could be waited for.
pub const DRAIN: Span = Span::seconds(300);

/// How long the leader waits for what may never come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Patience {
    /// Activate waits at most so long for request sockets of the previous owner: a client that has not answered a
    /// SYN-ACK by then has most likely gone.
    pub requests: Span,
    /// Settle waits at most so long for the previous owner's connections, where the module says nothing else.
    pub drain: Span,
    /// A node that is heard and does not follow the epochs is waited for at most so long.
    pub lag: Span,
    /// After the previous owner died, unknown established segments are left unanswered for so long: if only its
    /// daemon died, its connections go on.
    pub hold: Span,
    /// A voter that is silent for so long is replaced or removed.
    pub evict: Span,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            requests: Span::millis(3_000),
            drain: DRAIN,
            lag: Span::seconds(10),
            hold: Span::millis(3_000),
            evict: Span::millis(10_000),
        }
    }
}

/// Sockets that a previous owner still has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DrainState {
    /// Epoch that its filter worked with before the sockets were counted.
    pub epoch: Epoch,
    /// Buckets with request sockets (SYN received).
    pub requests: BucketSet,
    /// Buckets with connected UDP sockets, as long as their datagrams still reach this node (until Activate).
    pub datagrams: BucketSet,
    /// Buckets with any other socket.
    pub established: BucketSet,
    /// Sockets in all.
    pub sockets: u64,
    /// When the report arrived.
    pub at: BootTime,
}

/// What this node sees of the others; instants are of its own clock.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Observed {
    /// The newest renewal of each node, from the elector of this node.
    pub heard: BTreeMap<NodeId, Heard>,
    /// Voters of the effective Raft membership (the last in this node's log, committed or not); while it is joint,
    /// those of both sets.
    pub voters: BTreeSet<NodeId>,
    /// Its learners.
    pub learners: BTreeSet<NodeId>,
    /// Learners and voters whose log is close to the leader's.
    pub caught_up: BTreeSet<NodeId>,
    /// The last entry that is part of the state given with this.
    pub last_applied: EntryId,
    /// The newest report of each previous owner.
    pub drains: BTreeMap<(NodeId, ModuleName), DrainState>,
}

/// Why the controller is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Input {
    /// Time passed, or state or observations changed.
    Tick,
    /// An elector answered [`Effect::AskExpiry`].
    Expiry {
        /// Who answered.
        elector: NodeId,
        /// The question.
        ask: Ask,
        /// Receipt of the answer plus what remained.
        expires_at: BootTime,
    },
    /// An elector does not hold the fence, or did not answer.
    ExpiryUnknown {
        /// Who was asked.
        elector: NodeId,
        /// The question.
        ask: Ask,
    },
    /// The proposal was applied; the state given with this input shows it.
    ProposalDone,
    /// The proposal was refused by `apply`, or did not get into the log and never will. One whose fate is unknown is
    /// still in flight: it ends with the leadership at the latest.
    ProposalFailed,
    /// Raft finished [`Effect::SetVoters`], well or badly.
    VotersDone,
}

/// What the shell is to do. Every effect may fail; it is asked for again when it is still needed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// Append a command; answer with [`Input::ProposalDone`] or [`Input::ProposalFailed`].
    Propose(Command),
    /// Ask an elector (this node too may be one); answer with [`Input::Expiry`] or [`Input::ExpiryUnknown`].
    AskExpiry {
        /// Whom.
        elector: NodeId,
        /// What.
        ask: Ask,
    },
    /// Change the voters of Raft; answer with [`Input::VotersDone`], whatever came of it.
    SetVoters(BTreeSet<NodeId>),
    /// Let a member follow the log.
    AddLearner(NodeId),
    /// A former member is to be forgotten by Raft.
    RemoveFromRaft(NodeId),
    /// This node is about to go: hand the leadership to another voter.
    TransferLeader(NodeId),
    /// Something worth an event that is not in the log.
    Notice(Notice),
}

/// Observations that explain what the leader does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Notice {
    /// Three renewals of a node did not come.
    NodeSilent {
        /// The node.
        node: NodeId,
    },
    /// A silent node is heard again.
    NodeHeard {
        /// The node.
        node: NodeId,
    },
    /// A node asks for a lease again and again, and gets none.
    NodeIdle {
        /// The node.
        node: NodeId,
    },
    /// It has one again.
    NodeLeased {
        /// The node.
        node: NodeId,
    },
}

impl Notice {
    /// Stable code for scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NodeSilent { .. } => "node_silent",
            Self::NodeHeard { .. } => "node_heard",
            Self::NodeIdle { .. } => "node_idle",
            Self::NodeLeased { .. } => "node_leased",
        }
    }

    /// The node it is about.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        match self {
            Self::NodeSilent { node }
            | Self::NodeHeard { node }
            | Self::NodeIdle { node }
            | Self::NodeLeased { node } => *node,
        }
    }

    /// The sentence; `name` is the node's.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        match self {
            Self::NodeSilent { .. } => format!("{name} does not renew its lease"),
            Self::NodeHeard { .. } => format!("{name} renews its lease"),
            Self::NodeIdle { .. } => format!("{name} is heard, but has no lease: it serves nobody"),
            Self::NodeLeased { .. } => format!("{name} has a lease again"),
        }
    }
}

/// What an epoch comes to; worked out once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
struct Digest {
    epoch: Epoch,
    groups: BTreeMap<ModuleName, Vec<Group>>,
    pending: BTreeSet<Pending>,
}

/// The leader's logic for one leadership.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Controller {
    me: NodeId,
    leadership: Leadership,
    patience: Patience,
    presence: Presence,
    reports: Reports,
    in_flight: bool,
    /// After a failed proposal: not before.
    retry_at: BootTime,
    /// When each open epoch was first seen; timers count from it.
    first_seen: BTreeMap<Epoch, BootTime>,
    /// Since when a majority of the electors has told that it grants ordinary leases again, per planned restart that is
    /// over, by the entry that began it.
    ordinary_since: BTreeMap<EntryId, BootTime>,
    digest: Digest,
    /// Last Settle of only a part of what one change moved.
    settled_part: BootTime,
    /// When buckets of a change were activated while others still waited.
    activated_part: BootTime,
    /// What the last plan that changed nothing was made from.
    at_rest: Option<changes::PlanKey>,
    /// Last request for a change of Raft's membership.
    raft_asked: Option<BootTime>,
    voters_in_flight: bool,
    /// No majority of the electors is heard since.
    deaf_since: Option<BootTime>,
    /// Whom a deaf leader wanted to hand over to last.
    offered: Option<NodeId>,
    next: BootTime,
}

impl Controller {
    /// A controller for a leadership that began at `now`.
    #[must_use]
    pub fn new(me: NodeId, leadership: Leadership, now: BootTime) -> Self {
        Self::with_patience(me, leadership, now, Patience::default())
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_patience(me: NodeId, leadership: Leadership, now: BootTime, patience: Patience) -> Self {
        Self {
            me,
            leadership,
            patience,
            presence: Presence::new(now),
            reports: Reports::new(leadership),
            in_flight: false,
            retry_at: BootTime(0),
            first_seen: BTreeMap::new(),
            ordinary_since: BTreeMap::new(),
            digest: Digest::default(),
            settled_part: now,
            activated_part: now,
            at_rest: None,
            raft_asked: None,
            voters_in_flight: false,
            deaf_since: None,
            offered: None,
            next: now,
        }
    }

    /// This node's elector was heard without a break since `since`: a node that has been silent since before this
    /// leadership need not be silent anew, which saves a failover of the leader three renewals.
    #[must_use]
    pub fn having_listened_since(mut self, since: BootTime) -> Self {
        self.presence.listened_since(since);
        self
    }

    /// Whether `node` can serve clients, as far as this leader sees: its renewals come, and it holds a lease.
    #[must_use]
    pub fn serves(&self, node: NodeId) -> bool {
        self.presence.serves(node)
    }

    /// The leadership it belongs to.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.leadership
    }

    /// When to call [`Controller::step`] at the latest, with [`Input::Tick`] if nothing else happened.
    #[must_use]
    pub fn wake_at(&self) -> Option<BootTime> {
        Some(self.next)
    }

    /// Takes an input and decides. At most one command is in flight at a time.
    pub fn step(
        &mut self,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        input: Input,
    ) -> Vec<Effect> {
        let timing = Timing::of(state.profile);
        self.take(now, input, &timing);
        if !state.is_founded() {
            self.next = now + timing.renewal;
            return Vec::new();
        }
        let notices = self.presence.update(now, state, observed, &timing);
        self.refresh(now, state);
        self.follow_restarts(now, state, observed);
        let deaf = !View::new(self, now, state, observed, &timing).hears_majority();
        self.deaf_since = deaf.then(|| self.deaf_since.unwrap_or(now));
        let mut effects: Vec<Effect> = notices.into_iter().map(Effect::Notice).collect();
        effects.extend(self.ask(now, state, observed, &timing));
        effects.extend(self.change_raft(now, state, observed, &timing));
        if let Some(command) = self.decide(now, state, observed, &timing) {
            self.in_flight = true;
            effects.push(Effect::Propose(command));
        }
        self.next = self.wake(now, observed, &timing);
        effects
    }

    fn take(&mut self, now: BootTime, input: Input, timing: &Timing) {
        match input {
            Input::Tick => {}
            Input::Expiry { elector, ask, expires_at } => self.reports.take(elector, ask, expires_at),
            Input::ExpiryUnknown { elector, ask } => self.reports.unknown(elector, ask, now + timing.renewal),
            Input::ProposalDone => self.in_flight = false,
            Input::VotersDone => self.voters_in_flight = false,
            Input::ProposalFailed => {
                self.in_flight = false;
                self.retry_at = now + timing.renewal;
            }
        }
    }

    fn refresh(&mut self, now: BootTime, state: &ClusterState) {
        if self.digest.epoch != state.epoch {
            let groups =
                state.modules.iter().map(|(name, m)| (name.clone(), groups(&m.assignment))).collect();
            self.digest = Digest { epoch: state.epoch, groups, pending: state.pending() };
            self.reports.retain(&self.digest.pending);
        }
        let changed = self.digest.groups.values().flatten().map(|g| g.state.changed);
        let open: BTreeSet<Epoch> = changed.chain(self.digest.pending.iter().map(|p| p.epoch)).collect();
        self.first_seen.retain(|epoch, _| open.contains(epoch));
        for epoch in open {
            self.first_seen.entry(epoch).or_insert(now);
        }
    }

    /// Electors are asked about nodes that are silent, and about nodes that should have let go long ago.
    fn ask(
        &mut self,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        timing: &Timing,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for p in &self.digest.pending {
            let overdue = self.first_seen.get(&p.epoch).is_some_and(|at| now.since(*at) >= timing.silence());
            let released = observed.heard.get(&p.node).is_some_and(|h| h.applied >= p.epoch);
            if !released && (overdue || self.presence.is_silent(p.node)) {
                effects.extend(self.reports.ask(p, &state.electors, now, timing.renewal));
            }
        }
        effects
    }

    /// The most urgent step: first who serves clients, then everything else.
    fn decide(
        &mut self,
        now: BootTime,
        state: &ClusterState,
        observed: &Observed,
        timing: &Timing,
    ) -> Option<Command> {
        if self.in_flight || now < self.retry_at {
            return None;
        }
        let view = View::new(self, now, state, observed, timing);
        let whole = |body| (body, false);
        let urgent = view
            .move_now()
            .map(whole)
            .or_else(|| view.activate())
            .or_else(|| view.cancel().map(whole))
            .or_else(|| view.move_prepared().map(whole))
            .or_else(|| view.change_electors().map(whole))
            .or_else(|| view.remove_node().map(whole))
            .or_else(|| view.end_restart().map(whole))
            .or_else(|| view.forget_restart().map(whole));
        if let Some((body, part)) = urgent {
            if part {
                self.activated_part = now;
            }
            return Some(Command::at(state.epoch, body));
        }
        if let Some((body, part)) = view.settle() {
            if part {
                self.settled_part = now;
            }
            return Some(Command::at(state.epoch, body));
        }
        let (body, at_rest) = view.prepare();
        self.at_rest = at_rest;
        body.map(|body| Command::at(state.epoch, body))
    }

    fn wake(&self, now: BootTime, observed: &Observed, timing: &Timing) -> BootTime {
        let next = [self.presence.next(now, observed, timing), self.reports.next(now)];
        next.into_iter().flatten().fold(now + timing.renewal, BootTime::min)
    }
}
