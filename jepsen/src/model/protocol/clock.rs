//! Ticks.
//!
//! One tick lets the clock of every holder advance by a part of a lease, and the clock of every elector and leader by the
//! same part of the wait for it. That is real time at the worst rates: holders at the slowest, electors and leaders at
//! the fastest, so that a lease and its wait end with the same tick. What ends earlier ends earlier everywhere.

use farm_core::lease::Timing;
use farm_core::lease::timing::wait;
use farm_core::model::Profile;
use farm_core::planted::{Bug, is_planted, plant};
use farm_core::time::{BootTime, Span};

/// What all machines run with; leases have the length of this profile.
pub const PROFILE: Profile = Profile::Fast;

/// Where every clock starts: no instant before it is met.
pub const START: BootTime = BootTime(1_000_000_000_000);

/// How far clocks advance in a tick.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticks {
    /// Ticks of a lease.
    pub lease: u8,
    /// A holder's clock.
    pub slow: Span,
    /// An elector's or leader's clock.
    pub fast: Span,
}

impl Ticks {
    /// Ticks of which `lease` make a lease.
    ///
    /// # Panics
    /// When lease and wait are no multiples of that.
    #[must_use]
    pub fn new(lease: u8) -> Self {
        let (length, wait) = (Timing::of(PROFILE).lease.0, right_wait().0);
        let parts = u64::from(lease);
        assert!(length % parts == 0 && wait % parts == 0, "no instant falls between two ticks");
        Self { lease, slow: Span(length / parts), fast: Span(wait / parts) }
    }

    /// Ticks until `at`, on a slow clock.
    #[must_use]
    pub fn slow_until(&self, at: BootTime, now: BootTime) -> u8 {
        ticks(at.since(now), self.slow)
    }

    /// Ticks until `span` has passed, on a fast clock.
    #[must_use]
    pub fn fast_left(&self, span: Span) -> u8 {
        ticks(span, self.fast)
    }
}

fn ticks(span: Span, tick: Span) -> u8 {
    u8::try_from(span.0.div_ceil(tick.0)).unwrap_or(u8::MAX)
}

/// W, also where a bug makes it shorter.
fn right_wait() -> Span {
    let planted = is_planted(Bug::WaitEqualsLease);
    if planted {
        plant(None);
    }
    let right = wait(Timing::of(PROFILE).lease);
    if planted {
        plant(Some(Bug::WaitEqualsLease));
    }
    right
}
