//! Lengths of time, and the one inequality that leases rest on.

use crate::model::Profile;
use crate::time::Span;

/// ρ in percent: by how much the rate of a node's clock may differ from real time.
pub const RATE_ERROR_PERCENT: u64 = 10;
/// ε: scheduling and rounding that the rate error does not cover.
pub const EPSILON: Span = Span::millis(5);
/// Renewals without an answer after which a node counts as silent.
pub const SILENT_RENEWALS: u64 = 3;

/// Timing of a profile (DESIGN §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timing {
    /// Between two renewals.
    pub renewal: Span,
    /// L, length of a lease.
    pub lease: Span,
    /// Shortest election timeout of Raft.
    pub election_min: Span,
    /// Longest election timeout of Raft.
    pub election_max: Span,
}

impl Timing {
    /// The numbers of `profile`.
    #[must_use]
    pub const fn of(profile: Profile) -> Self {
        let (renewal, lease, election_min, election_max) = match profile {
            Profile::Fast => (25, 100, 75, 150),
            Profile::Standard => (100, 500, 300, 600),
            Profile::Virtual => (250, 2_000, 1_000, 2_000),
        };
        Self {
            renewal: Span::millis(renewal),
            lease: Span::millis(lease),
            election_min: Span::millis(election_min),
            election_max: Span::millis(election_max),
        }
    }

    /// How long a node must say nothing to count as silent.
    #[must_use]
    pub const fn silence(&self) -> Span {
        Span(self.renewal.0 * SILENT_RENEWALS)
    }
}

/// W(L) = ⌈L·(100+ρ)/(100−ρ)⌉ + ε, rounded up to a millisecond: when so much has passed on the fastest clock
/// since a grant, a lease of length `lease` has run out on the slowest.
#[must_use]
pub fn wait(lease: Span) -> Span {
    if planted!(WaitEqualsLease) {
        return lease;
    }
    let stretched = u128::from(lease.0) * u128::from(100 + RATE_ERROR_PERCENT);
    let ms = stretched.div_ceil(u128::from(100 - RATE_ERROR_PERCENT) * 1_000_000);
    Span::millis(u64::try_from(ms).expect("leases are seconds, not centuries")) + EPSILON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_of_each_profile_is_the_documented_one() {
        let waits = [Profile::Fast, Profile::Standard, Profile::Virtual]
            .map(|p| wait(Timing::of(p).lease).as_millis());
        assert_eq!(waits, [128, 617, 2_450]);
    }

    #[test]
    fn a_lease_on_the_slowest_clock_ends_before_its_wait_on_the_fastest() {
        for lease_ms in 1..5_000 {
            let lease = Span::millis(lease_ms);
            // Real time: the holder's clock runs at 0.9, the counter's at 1.1.
            let lease_real = u128::from(lease.0) * 100 * 110;
            let wait_real = u128::from(wait(lease).0) * 100 * 90;
            assert!(wait_real >= lease_real, "{lease_ms} ms");
        }
    }

    #[test]
    fn a_lease_outlives_three_lost_renewals_in_every_profile() {
        for profile in [Profile::Fast, Profile::Standard, Profile::Virtual] {
            let timing = Timing::of(profile);
            assert!(timing.lease > timing.silence(), "{profile:?}");
            assert!(timing.election_min < timing.election_max, "{profile:?}");
        }
    }
}
