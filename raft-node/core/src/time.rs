//! Boot-clock time (`CLOCK_BOOTTIME`, what `bpf_ktime_get_boot_ns` reads) and spans of it, in nanoseconds.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;
use std::time::UNIX_EPOCH;

/// An instant of this machine's boot clock. Instants of two machines are never compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

/// An instant of the wall clock, in milliseconds since 1970 (UTC): for people. Nothing that must be safe depends on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixTime(pub u64);

impl fmt::Display for UnixTime {
    /// To the second, as RFC 3339 has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = UNIX_EPOCH.checked_add(Duration::from_millis(self.0));
        // Beyond the year 9999 RFC 3339 has no words.
        match instant.filter(|_| *self <= Self::MAX) {
            Some(instant) => humantime::format_rfc3339_seconds(instant).fmt(f),
            None => f.write_str("never"),
        }
    }
}

impl UnixTime {
    /// The last second of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_000);
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// The most milliseconds that a span can have.
    pub const MAX_MILLIS: u64 = u64::MAX / 1_000_000;

    /// `ms` milliseconds, at most [`Self::MAX_MILLIS`].
    #[must_use]
    pub const fn millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// `s` seconds.
    #[must_use]
    pub const fn seconds(s: u64) -> Self {
        Self(s * 1_000_000_000)
    }

    /// `us` microseconds.
    #[must_use]
    pub const fn micros(us: u64) -> Self {
        Self(us * 1_000)
    }

    /// Whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl fmt::Display for Span {
    /// To the millisecond, in units that people use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_millis(self.as_millis())).fmt(f)
    }
}

impl BootTime {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for BootTime {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for BootTime {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Add for Span {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Debug for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}us", self.0 / 1_000)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0 / 1_000)
    }
}
