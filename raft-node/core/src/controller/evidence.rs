//! What the leader knows about nodes that lost buckets: reports of the electors, kept by entry and only for this
//! leadership (DESIGN L4).

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, Observed};
use crate::command::Evidence;
use crate::electors::Electors;
use crate::id::{EntryId, Leadership, NodeId};
use crate::lease::Ask;
use crate::model::Pending;
use crate::time::{BootTime, Span};

/// Renewals after which an elector that did not answer is asked again (fast: 200 ms).
const UNANSWERED_RENEWALS: u64 = 8;

/// Reports and open questions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reports {
    leadership: Leadership,
    /// Per loss and elector, when everything granted before the fence has run out.
    expires: BTreeMap<(EntryId, NodeId), BTreeMap<NodeId, BootTime>>,
    /// When a question is asked again.
    again: BTreeMap<(EntryId, NodeId, NodeId), BootTime>,
}

impl Reports {
    /// No report yet.
    #[must_use]
    pub fn new(leadership: Leadership) -> Self {
        Self { leadership, expires: BTreeMap::new(), again: BTreeMap::new() }
    }

    /// Takes an elector's report. One that was asked for in another leadership counts for nothing.
    pub fn take(&mut self, elector: NodeId, ask: Ask, expires_at: BootTime) {
        if ask.leadership == self.leadership {
            let reports = self.expires.entry((ask.entry, ask.node)).or_default();
            let at = reports.entry(elector).or_insert(expires_at);
            *at = (*at).min(expires_at);
        }
    }

    /// The elector does not hold that fence (yet).
    pub(super) fn unknown(&mut self, elector: NodeId, ask: Ask, again: BootTime) {
        if ask.leadership == self.leadership {
            self.again.insert((ask.entry, ask.node, elector), again);
        }
    }

    /// Forgets everything about losses that are no longer pending.
    pub fn retain(&mut self, pending: &BTreeSet<Pending>) {
        let open: BTreeSet<(EntryId, NodeId)> = pending.iter().map(|p| (p.entry, p.node)).collect();
        self.expires.retain(|key, _| open.contains(key));
        self.again.retain(|(entry, node, _), _| open.contains(&(*entry, *node)));
    }

    /// Asks every elector that has not reported on `pending`.
    pub(super) fn ask(
        &mut self,
        pending: &Pending,
        electors: &Electors,
        now: BootTime,
        renewal: Span,
    ) -> Vec<Effect> {
        let ask = Ask { entry: pending.entry, node: pending.node, leadership: self.leadership };
        let reports = self.expires.get(&(pending.entry, pending.node));
        let mut effects = Vec::new();
        for elector in electors.all() {
            let reported = reports.is_some_and(|r| r.contains_key(&elector));
            let again = self.again.entry((pending.entry, pending.node, elector)).or_default();
            if !reported && *again <= now {
                *again = now + Span(renewal.0 * UNANSWERED_RENEWALS);
                effects.push(Effect::AskExpiry { elector, ask });
            }
        }
        effects
    }

    /// The evidence that `pending` is over, if there is any.
    #[must_use]
    pub fn evidence(
        &self,
        pending: &Pending,
        electors: &Electors,
        observed: &Observed,
        now: BootTime,
    ) -> Option<Evidence> {
        let Pending { node, epoch, entry } = *pending;
        if observed.heard.get(&node).is_some_and(|h| h.applied >= epoch) {
            return Some(Evidence::Released { node, epoch });
        }
        let expired = self.is_expired(pending, electors, now) || planted!(ActivateWithoutWaiting);
        expired.then_some(Evidence::Expired { node, entry })
    }

    /// The next instant at which a report runs out.
    pub(super) fn next(&self, now: BootTime) -> Option<BootTime> {
        let expiries = self.expires.values().flat_map(BTreeMap::values);
        expiries.chain(self.again.values()).copied().filter(|at| *at > now).min()
    }

    fn is_expired(&self, pending: &Pending, electors: &Electors, now: BootTime) -> bool {
        let Some(reports) = self.expires.get(&(pending.entry, pending.node)) else { return false };
        electors.majority(|e| reports.get(&e).is_some_and(|at| *at <= now))
    }
}
