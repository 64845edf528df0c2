//! The side that grants leases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::timing::{Timing, wait};
use super::{Grant, Renewal};
use crate::id::{EntryId, Epoch, Generation, Incarnation, Leadership, NodeId, Seq};
use crate::restart::{self, Inherited, Restart, Restarts};
use crate::time::{BootTime, Span};

/// Runs of one daemon that are remembered as superseded. Datagrams live for milliseconds, restarts take longer.
const SUPERSEDED: usize = 4;

/// Grants leases and reports when they have run out (DESIGN L1, L2, L4). One thread owns it, so that a check, its
/// stamp and its answer are one step that no report can come between.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Elector {
    me: NodeId,
    generation: Generation,
    timing: Timing,
    /// Planned restarts of the applied state: whom more is granted than the profile says.
    restarts: Restarts,
    nodes: BTreeMap<NodeId, Known>,
    /// Until then anybody, known or not, may hold a lease that this elector granted before it was restarted.
    inherited: BootTime,
    /// The same for longer ones, per planned restart that may have allowed them.
    inherited_longer: Vec<(NodeId, Restart, BootTime)>,
    /// Before the state has come to this entry of the log, no longer lease is granted.
    settled: u64,
    /// Fences of entries that are in the durable log and not applied, by index.
    log: BTreeMap<u64, (EntryId, Vec<(NodeId, Epoch)>)>,
    applied: AppliedFences,
    /// Highest fence per node over `log` and `applied`.
    fence: BTreeMap<NodeId, Epoch>,
    newest: Epoch,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Known {
    heard: Heard,
    seq: Seq,
    superseded: VecDeque<Incarnation>,
    /// Newest renewal of this incarnation that was granted.
    granted: Option<Seq>,
    /// When everything granted so far has run out on the slowest clock.
    busy_until: BootTime,
    #[cfg(feature = "planted")]
    passed: bool,
}

/// What the applied state (or a snapshot) says about fences.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AppliedFences {
    /// Index of the last applied entry.
    pub index: u64,
    /// Highest target epoch of an applied Move or Seal against each node.
    pub fences: BTreeMap<NodeId, Epoch>,
    /// Moves and Seals whose evidence is still open: (entry, node).
    pub open: BTreeSet<(EntryId, NodeId)>,
}

/// When a node was last heard, and with what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Heard {
    /// Receipt of its newest renewal, granted or not.
    pub at: BootTime,
    /// Epoch it reported.
    pub applied: Epoch,
    /// Run that reported it.
    pub incarnation: Incarnation,
    /// Whether it said that it holds a lease.
    pub leased: bool,
    /// Length of the lease that it asked for.
    pub lease: Span,
}

impl Heard {
    fn by(renewal: &Renewal, at: BootTime) -> Self {
        let Renewal { applied, incarnation, leased, lease, .. } = *renewal;
        Self { at, applied, incarnation, leased, lease }
    }
}

/// A leader's question: how long until what was granted to `node` before the fence of `entry` has run out?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ask {
    /// The Move (or Seal).
    pub entry: EntryId,
    /// Who lost buckets by it.
    pub node: NodeId,
    /// The leadership that asks; it alone may use the answer.
    pub leadership: Leadership,
}

/// Answer to an [`Ask`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expiry {
    /// It has run out so long after the receipt of this answer.
    Remaining(Span),
    /// This elector does not hold the fence of exactly that entry: it may still grant.
    NotFenced,
}

/// Why a renewal is not answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// It is of another generation.
    #[error("renewal of another generation")]
    Generation,
    /// A later run of that daemon was heard.
    #[error("renewal of a run of the daemon that has been superseded")]
    Superseded,
    /// A newer renewal was heard.
    #[error("renewal older than one already heard")]
    Outdated,
    /// The node lost buckets at `fence` and its filter does not know it yet.
    #[error("renewal below the fence at epoch {fence}")]
    Fenced {
        /// The lowest epoch that is granted.
        fence: Epoch,
    },
}

impl Elector {
    /// An elector that has just started: its predecessor may have granted a lease of length `bound` to anybody the
    /// moment before, and longer ones in the course of planned restarts. Both are what the own state *and log* allow
    /// ([`crate::state::ClusterState::lease_bound`], [`crate::command::Command::lease`], [`Inherited::follow`]).
    /// Fences of unapplied entries follow by [`Elector::appended`], before the first renewal.
    #[must_use]
    pub fn start(
        me: NodeId,
        generation: Generation,
        timing: Timing,
        applied: AppliedFences,
        bound: Span,
        longer: &Inherited,
        now: BootTime,
    ) -> Self {
        let inherited =
            if planted!(NoGrantReset) { BootTime(0) } else { now + wait(bound.max(timing.lease)) };
        let possible = longer.restarts.iter().filter(|_| !planted!(RestartForgotten));
        let inherited_longer = possible.map(|(id, r)| (*id, *r, now + wait(r.lease))).collect();
        let mut elector = Self {
            me,
            generation,
            timing,
            restarts: Restarts::new(),
            nodes: BTreeMap::new(),
            inherited,
            inherited_longer,
            settled: longer.settled,
            log: BTreeMap::new(),
            applied,
            fence: BTreeMap::new(),
            newest: Epoch(0),
        };
        elector.recompute();
        elector
    }

    /// Grants in `generation` only, from now on. What was granted before stays out.
    pub fn set_generation(&mut self, generation: Generation) {
        self.generation = generation;
    }

    /// Takes the timing of a newly applied profile; earlier grants keep their length.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// Takes the planned restarts of the applied state. Where one is forgotten, nobody holds a lease any more that is
    /// longer than `bound` ([`crate::state::ClusterState::lease_bound`]) or than what the others allow: whoever could
    /// has said so, and what was granted for longer has been cut off.
    pub fn set_restarts(&mut self, restarts: Restarts, bound: Span, now: BootTime) {
        let before = core::mem::replace(&mut self.restarts, restarts);
        let (restarts, index) = (&self.restarts, self.applied.index);
        // What only the log knows may still have to be applied; and what it knows may be a Begin that was refused,
        // because another one was open: as long as the state names any restart of the node, none is forgotten.
        let forgotten = |node: &NodeId, r: &Restart| {
            let named =
                restarts.get(node).is_some_and(|now| now.entry == r.entry || !planted!(RefusedRestart));
            r.entry.index <= index && !named
        };
        for (node, restart, until) in &mut self.inherited_longer {
            if forgotten(node, restart) {
                *until = (*until).min(now + wait(bound));
            }
        }
        let ends = before.iter().any(|(node, restart)| forgotten(node, restart));
        for (node, known) in self.nodes.iter_mut().filter(|_| ends) {
            let left = restart::outstanding(restarts, *node).unwrap_or_default();
            known.busy_until = known.busy_until.min(now + wait(bound.max(left)));
        }
    }

    /// What is granted to a node that asks for a lease of this length.
    fn length(&self, renewal: &Renewal) -> Span {
        let ordinary = self.timing.lease;
        let allowed = restart::allowed(&self.restarts, renewal.node).filter(|_| self.is_settled());
        let allowed = allowed.unwrap_or(ordinary).max(ordinary);
        renewal.lease.min(allowed).max(ordinary)
    }

    fn is_settled(&self) -> bool {
        self.applied.index >= self.settled || planted!(LongerBeforeSettled)
    }

    /// Checks, stamps and answers a renewal in one step.
    ///
    /// # Errors
    /// [`Refused`]: nothing is sent, the node's lease lapses unless a later renewal is answered.
    pub fn renewal(&mut self, renewal: &Renewal, now: BootTime) -> Result<Grant, Refused> {
        if renewal.generation != self.generation {
            return Err(Refused::Generation);
        }
        let fence = self.fence(renewal.node);
        let lease = self.length(renewal);
        self.newest = self.newest.max(renewal.applied);
        let epoch = self.newest;
        let known = self.hear(renewal, now)?;
        if !known.passes(renewal.applied >= fence) {
            return Err(Refused::Fenced { fence });
        }
        known.stamp(renewal.seq, now + wait(lease));
        Ok(Grant {
            generation: renewal.generation,
            elector: self.me,
            node: renewal.node,
            incarnation: renewal.incarnation,
            seq: renewal.seq,
            lease,
            epoch,
        })
    }

    /// `entry` is durable in the own log, with these fences ([`crate::command::Command::fences`]). Call it before
    /// the entry is acknowledged to the leader.
    pub fn appended(&mut self, entry: EntryId, fences: &[(NodeId, Epoch)]) {
        if entry.index > self.applied.index && !fences.is_empty() {
            self.log.insert(entry.index, (entry, fences.to_vec()));
            self.recompute();
        }
    }

    /// The own log was cut behind index `after`.
    pub fn truncated(&mut self, after: u64) {
        self.log.retain(|index, _| *index <= after);
        self.recompute();
    }

    /// The own state reached `applied` ([`crate::state::ClusterState::applied_fences`]), by an entry or a snapshot.
    /// From then on the state speaks for the log up to there, which may be purged. An older state than one that was
    /// told before says nothing: the fences behind it would be in neither.
    pub fn applied(&mut self, applied: AppliedFences) {
        if applied.index < self.applied.index {
            return;
        }
        self.log.retain(|index, _| *index > applied.index);
        self.applied = applied;
        self.recompute();
    }

    /// Answers a leader's question about exactly one entry.
    #[must_use]
    pub fn expiry(&self, ask: &Ask, now: BootTime) -> Expiry {
        if !self.holds(ask.entry, ask.node) {
            return Expiry::NotFenced;
        }
        let granted = self.nodes.get(&ask.node).map_or(BootTime(0), |k| k.busy_until);
        let longer = self.inherited_longer.iter().filter(|(id, r, _)| r.everybody || *id == ask.node);
        let inherited = longer.map(|(_, _, until)| *until).fold(self.inherited, BootTime::max);
        Expiry::Remaining(granted.max(inherited).since(now))
    }

    /// When `node` was last heard since the start.
    #[must_use]
    pub fn heard(&self, node: NodeId) -> Option<Heard> {
        self.nodes.get(&node).map(|k| k.heard)
    }

    /// Everybody that was heard since the start.
    #[must_use]
    pub fn all_heard(&self) -> BTreeMap<NodeId, Heard> {
        self.nodes.iter().map(|(n, k)| (*n, k.heard)).collect()
    }

    /// Lowest epoch with which `node` is granted a lease.
    #[must_use]
    pub fn fence(&self, node: NodeId) -> Epoch {
        self.fence.get(&node).copied().unwrap_or_default()
    }

    fn holds(&self, entry: EntryId, node: NodeId) -> bool {
        if planted!(EvidenceByEpoch) {
            return self.fence(node) > Epoch(0);
        }
        let in_log = |(id, fences): &(EntryId, Vec<(NodeId, Epoch)>)| {
            *id == entry && fences.iter().any(|(fenced, _)| *fenced == node)
        };
        self.log.get(&entry.index).is_some_and(in_log) || self.applied.open.contains(&(entry, node))
    }

    fn hear(&mut self, renewal: &Renewal, now: BootTime) -> Result<&mut Known, Refused> {
        let known = self.nodes.entry(renewal.node).or_insert_with(|| Known::new(renewal, now));
        known.hear(renewal, now)?;
        Ok(known)
    }

    fn recompute(&mut self) {
        self.fence = self.applied.fences.clone();
        for (node, epoch) in self.log.values().flat_map(|(_, fences)| fences) {
            let fence = self.fence.entry(*node).or_default();
            *fence = (*fence).max(*epoch);
        }
    }
}

impl Known {
    fn new(renewal: &Renewal, now: BootTime) -> Self {
        Self {
            heard: Heard::by(renewal, now),
            seq: renewal.seq,
            superseded: VecDeque::new(),
            granted: None,
            busy_until: BootTime(0),
            #[cfg(feature = "planted")]
            passed: false,
        }
    }

    /// A copy of the newest renewal (another network brought it too) is heard, but is no new sign of life.
    fn hear(&mut self, renewal: &Renewal, now: BootTime) -> Result<(), Refused> {
        if self.superseded.contains(&renewal.incarnation) {
            return Err(Refused::Superseded);
        }
        if renewal.incarnation != self.heard.incarnation {
            self.supersede(renewal);
        } else if renewal.seq < self.seq {
            return Err(Refused::Outdated);
        } else if renewal.seq == self.seq {
            return Ok(());
        }
        self.seq = renewal.seq;
        self.heard = Heard::by(renewal, now);
        Ok(())
    }

    fn supersede(&mut self, renewal: &Renewal) {
        if self.superseded.len() == SUPERSEDED {
            self.superseded.pop_front();
        }
        self.superseded.push_back(self.heard.incarnation);
        self.heard.incarnation = renewal.incarnation;
        self.granted = None;
    }

    #[cfg(not(feature = "planted"))]
    #[allow(clippy::unused_self, reason = "the planted build remembers the check before")]
    fn passes(&mut self, passed: bool) -> bool {
        passed
    }

    #[cfg(feature = "planted")]
    fn passes(&mut self, passed: bool) -> bool {
        let before = core::mem::replace(&mut self.passed, passed);
        passed || (before && planted!(CheckApartFromStamp))
    }

    /// A copy of a renewal that was granted already extends nothing: its lease counts from the same sending.
    fn stamp(&mut self, seq: Seq, until: BootTime) {
        if self.granted < Some(seq) {
            self.granted = Some(seq);
            self.busy_until = self.busy_until.max(until);
        }
    }
}
