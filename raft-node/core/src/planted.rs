//! Known ways to break the protocol, planted one at a time. A test suite that does not catch each of them
//! proves nothing. Compiled only with the feature `planted`.

use core::cell::Cell;

/// One broken rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Bug {
    /// The holder counts its lease from the answer instead of from its own send (L3).
    LeaseFromAnswer,
    /// The elector learns of a fence only when its entry is committed (L2). Planted by the shell.
    FenceOnlyCommitted,
    /// A restarted elector believes that no lease is out (L1).
    NoGrantReset,
    /// The elector answers a renewal on the check it made for the renewal before (L1).
    CheckApartFromStamp,
    /// The holder takes answers to another run's renewals (L1).
    NoIncarnation,
    /// The leader activates without evidence (L4).
    ActivateWithoutWaiting,
    /// An elector reports expiry for any fence of the node instead of for exactly the entry asked for (L4).
    EvidenceByEpoch,
    /// W(L) = L: clock rates are taken to be equal (L3).
    WaitEqualsLease,
    /// Epoch entries apply whatever epoch they were made for.
    NoBaseCheck,
    /// In Move the new owner takes frames from anyone as bounced. Planted by the shell.
    AcceptFromAnyone,
    /// An epoch is reported before the filter works with it. Planted by the shell.
    ReportBeforeFlip,
    /// A restarted daemon publishes below the pinned epoch. Planted by the shell.
    LowerEpochAfterRestart,
    /// A restarted elector believes that no longer lease of a planned restart is out (L8).
    RestartForgotten,
    /// A restarted elector takes an open restart for forgotten because a later Begin, which was refused, is in its log
    /// (L8).
    RefusedRestart,
    /// A restarted elector grants longer leases by a state that is older than what it told before (L8).
    LongerBeforeSettled,
    /// The longer leases of a restart count as over though a node that lags may hold one (L8).
    ForgottenByLaggard,
    /// The electors change from Joint to Final without a Seal (L7).
    JointWithoutSeal,
    /// A node that has lost its peer claims the lock however long ago the last round trip was (DESIGN §5).
    LateClaim,
    /// Possession of the lock is counted from the receipt of answers (DESIGN §5).
    PossessionByReceipt,
    /// A lock that was lost is claimed again (DESIGN §5).
    ClaimAgain,
    /// The first answer decides (DESIGN §5).
    NoHold,
    /// It does not matter whether answers stop (DESIGN §5).
    GapIgnored,
}

impl Bug {
    /// Every bug of leases and changes, for the test that plants them in turn.
    pub const ALL: [Self; 17] = [
        Self::LeaseFromAnswer,
        Self::FenceOnlyCommitted,
        Self::NoGrantReset,
        Self::CheckApartFromStamp,
        Self::NoIncarnation,
        Self::ActivateWithoutWaiting,
        Self::EvidenceByEpoch,
        Self::WaitEqualsLease,
        Self::NoBaseCheck,
        Self::AcceptFromAnyone,
        Self::ReportBeforeFlip,
        Self::LowerEpochAfterRestart,
        Self::RestartForgotten,
        Self::RefusedRestart,
        Self::LongerBeforeSettled,
        Self::ForgottenByLaggard,
        Self::JointWithoutSeal,
    ];

    /// Those of [`crate::arbiter`], which two nodes and a router show.
    pub const ARBITER: [Self; 5] =
        [Self::LateClaim, Self::PossessionByReceipt, Self::ClaimAgain, Self::NoHold, Self::GapIgnored];
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants `bug` in every machine that runs on this thread, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether `bug` is planted on this thread.
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
