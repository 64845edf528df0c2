//! What a search must have come to, or it has proved little.

use std::collections::BTreeMap;

use farm_core::command::{Body, Command, Evidence};
use farm_core::id::EntryId;
use farm_core::model::Phase;
use farm_core::state::ClusterState;

/// Something that must happen in some reachable state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reached {
    /// A bucket was activated because its previous owner said that it knows.
    Released,
    /// A bucket was activated because leases had run out.
    Expired,
    /// The same in a later term than that of the Move.
    ReleasedInLaterTerm,
    /// The same in a later term than that of the Move.
    ExpiredInLaterTerm,
    /// A Move on a bucket that was still in Move.
    Closed,
    /// A bucket was activated after that, with evidence against two nodes.
    TwoLosersActivated,
    /// A change was settled.
    Settled,
    /// A change was settled after more than one Move.
    SettledAfterTwoMoves,
    /// A Prepare was taken back.
    Cancelled,
    /// The electors changed.
    ElectorsChanged,
    /// The electors changed, and who finished it did not begin it.
    ElectorsChangedByAnother,
    /// A change of electors was taken back.
    ElectorsKept,
    /// A step met another epoch than the one that it was made for.
    Stale,
    /// A Move was cut from a log.
    MoveCut,
    /// A renewal was refused.
    Refused,
    /// An elector did not hold the fence that it was asked about.
    NotFenced,
    /// Two nodes believed to lead.
    TwoLeaders,
    /// A restarted daemon took up the lease that its filter still had.
    Resumed,
    /// An answer came to a later run of the daemon.
    AnswerToOlderRun,
    /// Somebody accepted by a table while packets might go by the one before.
    OpenBeforeGrace,
    /// Other nodes voted.
    VotersChanged,
}

/// How often each was met.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally(BTreeMap<Reached, u64>);

impl Tally {
    /// It was met, if `met`.
    pub fn count(&mut self, what: Reached, met: bool) {
        if met {
            *self.0.entry(what).or_default() += 1;
        }
    }

    /// How often it was met.
    #[must_use]
    pub fn of(&self, what: Reached) -> u64 {
        self.0.get(&what).copied().unwrap_or_default()
    }

    /// Everything that was met.
    pub fn iter(&self) -> impl Iterator<Item = (Reached, u64)> + '_ {
        self.0.iter().map(|(what, n)| (*what, *n))
    }

    /// A command did something to `before`.
    pub fn applied(
        &mut self,
        command: &Command,
        entry: EntryId,
        before: &ClusterState,
        after: &ClusterState,
        past: Past,
    ) {
        match &command.body {
            Body::Activate { evidence, .. } => self.activated(evidence, entry, before),
            Body::Move { .. } => {
                self.count(Reached::Closed, buckets(after).any(|b| b.phase == Phase::MoveClosed));
            }
            Body::Settle(_) => {
                self.count(Reached::Settled, true);
                self.count(Reached::SettledAfterTwoMoves, past.moves > 1);
            }
            Body::Cancel(_) => self.count(Reached::Cancelled, true),
            Body::ElectorsFinal(_) => {
                self.count(Reached::ElectorsChanged, true);
                let another = past.joint.is_some_and(|term| term < entry.by.term);
                self.count(Reached::ElectorsChangedByAnother, another);
            }
            Body::ElectorsCancel => self.count(Reached::ElectorsKept, true),
            _ => {}
        }
    }

    fn activated(&mut self, evidence: &[Evidence], entry: EntryId, before: &ClusterState) {
        for pending in buckets(before).flat_map(|b| &b.pending) {
            let later = pending.entry.by.term < entry.by.term;
            for found in evidence.iter().filter(|e| pending.is_evidenced(&[**e])) {
                let (now, in_later) = match found {
                    Evidence::Released { .. } => (Reached::Released, Reached::ReleasedInLaterTerm),
                    Evidence::Expired { .. } => (Reached::Expired, Reached::ExpiredInLaterTerm),
                };
                self.count(now, true);
                self.count(in_later, later);
            }
        }
        let two = |b: &&farm_core::model::BucketState| {
            b.pending.len() > 1 && b.pending.iter().all(|p| p.is_evidenced(evidence))
        };
        self.count(Reached::TwoLosersActivated, buckets(before).any(|b| two(&b)));
    }
}

/// What the log says before a command.
#[derive(Clone, Copy, Default, Debug)]
pub struct Past {
    /// Term of the last Joint.
    pub joint: Option<u64>,
    /// How many Moves.
    pub moves: usize,
}

fn buckets(state: &ClusterState) -> impl Iterator<Item = &farm_core::model::BucketState> {
    state.modules.values().flat_map(|m| &m.assignment)
}
