//! Which situations a simulation came into. A suite that never met one of them has not tested it.

use core::fmt;
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// A situation that the protocol must survive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Situation {
    /// A daemon stood still until after the lease of the buckets it owned.
    OwnerPausedPastLease,
    /// A leader was elected while another node held a lease.
    LeaderChangeWithLease,
    /// Filters worked with epochs that are two or more apart.
    TwoEpochsInFlight,
    /// Two nodes believed to lead.
    MinorityLeader,
    /// An elector restarted from an older state while leases that it had granted were out.
    ElectorRestartedWithOldMemory,
    /// A node renewed with an epoch below its fence.
    RenewedBeforeApplied,
    /// A restarted daemon came to an epoch below the one its filter worked with.
    ReplayedBelowPins,
    /// A machine came back without its pins.
    Rebooted,
    /// A Move was cut from a log before it was committed.
    MoveTruncated,
    /// Evidence was the node's own report.
    Released,
    /// Evidence was the electors' reports.
    Expired,
    /// A Move on top of a Move.
    ClosedMove,
    /// A planned change went through all its steps.
    Settled,
    /// The electors changed.
    ElectorsChanged,
    /// A step met another epoch than the one it was made for.
    StaleStep,
    /// An elector was asked for an entry that it did not hold.
    NotFenced,
    /// A flip was still being waited for when its daemon died.
    DiedBeforeGrace,
    /// An answer came to a later run of the daemon.
    AnswerToOlderRun,
    /// A daemon was restarted while its filter went by a longer lease.
    RestartedUnderLongerLease,
    /// A leader handed over.
    Transferred,
}

impl Situation {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::OwnerPausedPastLease,
        Self::LeaderChangeWithLease,
        Self::TwoEpochsInFlight,
        Self::MinorityLeader,
        Self::ElectorRestartedWithOldMemory,
        Self::RenewedBeforeApplied,
        Self::ReplayedBelowPins,
        Self::Rebooted,
        Self::MoveTruncated,
        Self::Released,
        Self::Expired,
        Self::ClosedMove,
        Self::Settled,
        Self::ElectorsChanged,
        Self::StaleStep,
        Self::NotFenced,
        Self::DiedBeforeGrace,
        Self::AnswerToOlderRun,
        Self::RestartedUnderLongerLease,
        Self::Transferred,
    ];
}

/// How often each was met.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage(BTreeMap<Situation, u64>);

impl Coverage {
    /// It was met once more.
    pub fn met(&mut self, situation: Situation) {
        *self.0.entry(situation).or_default() += 1;
    }

    /// How often it was met.
    #[must_use]
    pub fn count(&self, situation: Situation) -> u64 {
        self.0.get(&situation).copied().unwrap_or(0)
    }

    /// What was never met.
    #[must_use]
    pub fn missing(&self) -> Vec<Situation> {
        Situation::ALL.into_iter().filter(|s| self.count(*s) == 0).collect()
    }
}

impl AddAssign<&Coverage> for Coverage {
    fn add_assign(&mut self, other: &Coverage) {
        for (situation, count) in &other.0 {
            *self.0.entry(*situation).or_default() += count;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Situation::ALL.iter().try_for_each(|s| writeln!(f, "{:>12}  {s:?}", self.count(*s)))
    }
}
