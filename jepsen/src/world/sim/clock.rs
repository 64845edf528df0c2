//! Real time, and the boot clocks that nodes read instead of it.

use core::fmt;

use farm_core::time::{BootTime, Span};

/// True time of the simulation in nanoseconds since its start. No node can read it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RealTime(pub u64);

impl RealTime {
    /// `ms` milliseconds after the start.
    #[must_use]
    pub const fn millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// Time since `earlier`; zero if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Span> for RealTime {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl fmt::Debug for RealTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0 / 1_000;
        write!(f, "{}.{:03}ms", us / 1_000, us % 1_000)
    }
}

/// Rate of a clock in thousandths of the true one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate(pub u64);

impl Rate {
    /// No error.
    pub const TRUE: Self = Self(1_000);
}

/// A boot clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    since: RealTime,
    showed: BootTime,
    rate: Rate,
}

impl Clock {
    /// A clock that shows `boot` at `now`.
    #[must_use]
    pub const fn new(now: RealTime, boot: BootTime, rate: Rate) -> Self {
        Self { since: now, showed: boot, rate }
    }

    /// The machine boots at `now`: its clock begins anew.
    pub fn reboot(&mut self, now: RealTime) {
        // A machine is not up in no time, and 0 means closed.
        *self = Self::new(now, BootTime(1_000_000_000), self.rate);
    }

    /// What it shows at `now`.
    #[must_use]
    pub fn read(&self, now: RealTime) -> BootTime {
        self.showed + Span(scale(now.since(self.since).0, self.rate.0, 1_000))
    }

    /// The first instant at which it shows `at`.
    #[must_use]
    pub fn shows(&self, at: BootTime) -> RealTime {
        self.since + Span(scale(at.since(self.showed).0, 1_000, self.rate.0).saturating_add(1))
    }
}

fn scale(n: u64, by: u64, over: u64) -> u64 {
    let scaled = u128::from(n) * u128::from(by) / u128::from(over);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_shows_is_shown_at_the_instant_it_says() {
        for rate in [900, 1_000, 1_099] {
            let clock = Clock::new(RealTime::millis(5), BootTime(77), Rate(rate));
            for at in [78, 1_000, 1_000_000_007] {
                let real = clock.shows(BootTime(at));
                assert!(clock.read(real) >= BootTime(at));
                assert!(clock.read(RealTime(real.0 - 3)) < BootTime(at), "not much earlier");
            }
        }
    }
}
