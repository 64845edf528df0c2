//! The side that holds a lease.

use std::collections::{BTreeMap, VecDeque};

use super::{Grant, Renewal, Timing};
use crate::electors::Electors;
use crate::id::{Epoch, Generation, Incarnation, NodeId, Seq};
use crate::time::{BootTime, Span};

/// Renewals whose answers are still of use. A lease spans at most eight renewals; every applied epoch adds one.
const REMEMBERED: usize = 64;

/// Renews the lease of one node and knows its deadline (DESIGN L3).
///
/// The deadline is closed (0) at start: a rebooted node accepts nothing before a majority granted. Only
/// [`Holder::set_electors`] and [`Holder::set_lease`] shorten it: otherwise time does, in the filter. A run that takes
/// up what its predecessor left in the filter goes on with that deadline ([`Holder::inherit`]).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Holder {
    me: NodeId,
    incarnation: Incarnation,
    generation: Generation,
    electors: Electors,
    timing: Timing,
    /// Length of the leases that it asks for: the profile's, or a longer one (L8).
    lease: Span,
    applied: Epoch,
    /// Of the newest renewal that was sent.
    seq: Seq,
    sent: VecDeque<(Seq, BootTime)>,
    /// Per elector the end of the newest lease it granted.
    granted: BTreeMap<NodeId, BootTime>,
    next: BootTime,
    deadline: BootTime,
}

impl Holder {
    /// A holder without a lease. `applied` is the epoch that the filter works with.
    #[must_use]
    pub fn new(
        me: NodeId,
        incarnation: Incarnation,
        generation: Generation,
        electors: Electors,
        timing: Timing,
        applied: Epoch,
    ) -> Self {
        Self {
            me,
            incarnation,
            generation,
            electors,
            timing,
            lease: timing.lease,
            applied,
            seq: Seq(0),
            sent: VecDeque::new(),
            granted: BTreeMap::new(),
            next: BootTime(0),
            deadline: BootTime(0),
        }
    }

    /// When [`Holder::renew`] is due; in the past: at once.
    #[must_use]
    pub fn next_renewal(&self) -> BootTime {
        self.next
    }

    /// Until when this node may accept; 0 = closed.
    #[must_use]
    pub fn deadline(&self) -> BootTime {
        self.deadline
    }

    /// Whom to send renewals to.
    #[must_use]
    pub fn electors(&self) -> &Electors {
        &self.electors
    }

    /// The epoch that is reported.
    #[must_use]
    pub fn reported(&self) -> Epoch {
        self.applied
    }

    /// The renewal to send now. `now` must be read before the sending: the lease is counted from it.
    pub fn renew(&mut self, now: BootTime) -> Renewal {
        self.seq = Seq(self.seq.0 + 1);
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.seq, now));
        self.next = now + self.timing.renewal;
        Renewal {
            generation: self.generation,
            node: self.me,
            incarnation: self.incarnation,
            seq: self.seq,
            applied: self.applied,
            leased: now < self.deadline,
            lease: self.lease,
        }
    }

    /// Takes an answer received at `now`; the deadline if it grew. Answers to another node, run, generation or to
    /// a renewal that is too old to matter are dropped.
    pub fn granted(&mut self, grant: &Grant, now: BootTime) -> Option<BootTime> {
        let sent = self.sent_at(grant)?;
        let from = if planted!(LeaseFromAnswer) { now } else { sent };
        let end = self.granted.entry(grant.elector).or_default();
        // An elector may still answer what was asked when more was asked for.
        *end = (*end).max(from + grant.lease.min(self.lease));
        let reached = self.reached();
        (reached > self.deadline).then(|| {
            self.deadline = reached;
            reached
        })
    }

    /// Asks in `generation` from now on. Answers of another one that are still on the way are dropped.
    pub fn set_generation(&mut self, generation: Generation) {
        if generation != self.generation {
            self.generation = generation;
            self.next = BootTime(0);
        }
    }

    /// Takes the electors of a newly applied epoch; the deadline, recomputed and never later than it was. Publish it
    /// *before* [`Holder::applied`] reports that epoch (L7).
    pub fn set_electors(&mut self, electors: Electors) -> BootTime {
        if electors != self.electors {
            let all = electors.all();
            self.granted.retain(|elector, _| all.contains(elector));
            self.electors = electors;
            self.deadline = self.deadline.min(self.reached());
        }
        self.deadline
    }

    /// Takes the timing of a newly applied profile, and the length of the leases to ask for. The deadline, never later
    /// than a lease of that length from `now`. Publish it *before* [`Holder::applied`] reports the epoch that brings it.
    pub fn set_lease(&mut self, timing: Timing, lease: Span, now: BootTime) -> BootTime {
        if (self.timing, self.lease) != (timing, lease) {
            self.next = BootTime(0);
        }
        self.timing = timing;
        self.lease = lease;
        self.cap(now);
        self.deadline
    }

    /// The filter of this node goes by a lease until `deadline`, of which an earlier run of the daemon was the holder;
    /// 0 when there is none. The deadline from now on: no later than a lease of the length that is asked for. In a
    /// change of electors it counts for nothing: that a majority of both sets granted it is not known.
    pub fn inherit(&mut self, deadline: BootTime, now: BootTime) -> BootTime {
        if self.electors.change.is_none() {
            self.deadline = self.deadline.max(deadline);
        }
        self.cap(now);
        self.deadline
    }

    fn cap(&mut self, now: BootTime) {
        let latest = now + self.lease;
        self.granted.values_mut().for_each(|end| *end = (*end).min(latest));
        self.deadline = self.deadline.min(latest);
    }

    /// The filter works with `epoch` (after its grace period): a renewal that says so is due at once.
    ///
    /// # Panics
    /// When `epoch` is below the one reported before: epochs only grow.
    pub fn applied(&mut self, epoch: Epoch) {
        assert!(epoch >= self.applied, "applied {epoch} after {}", self.applied);
        if epoch > self.applied {
            self.applied = epoch;
            self.next = BootTime(0);
        }
    }

    /// When the renewal that `grant` answers was sent; `None` for what is not an answer to this run.
    #[must_use]
    pub fn sent_at(&self, grant: &Grant) -> Option<BootTime> {
        let own_run = grant.incarnation == self.incarnation || planted!(NoIncarnation);
        let ours = own_run && grant.node == self.me && grant.generation == self.generation;
        if !ours || !self.electors.all().contains(&grant.elector) {
            return None;
        }
        self.sent.iter().find(|(seq, _)| *seq == grant.seq).map(|(_, at)| *at)
    }

    fn reached(&self) -> BootTime {
        self.electors.reached(|e| self.granted.get(&e).copied().unwrap_or_default())
    }
}
