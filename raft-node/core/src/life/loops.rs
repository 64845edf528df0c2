//! How often a module is helped before it is given up on a node.

use crate::time::{Span, UnixTime};

/// Automatic actions that are taken before the next one stops the module.
pub const MAX: u32 = 3;
/// How long they are remembered.
pub const INTERVAL: Span = Span::seconds(24 * 60 * 60);

/// What a module says about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Limit {
    /// So many automatic actions are taken; the next one stops the module.
    pub max: u32,
    /// From the first of them on, so long; 0: without end, and without limit.
    pub interval: Span,
}

impl Limit {
    /// What holds when nothing was said.
    pub const DEFAULT: Self = Self { max: MAX, interval: INTERVAL };
}

impl Default for Limit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The automatic actions of a module on a node since somebody last acted by hand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Loops {
    /// When the first was taken.
    since: Option<UnixTime>,
    /// How many were.
    count: u32,
}

impl Loops {
    /// Takes up what was noted before a restart of the daemon.
    #[must_use]
    pub fn resumed(since: Option<UnixTime>, count: u32) -> Self {
        Self { since, count: if since.is_some() { count } else { 0 } }
    }

    /// When the first was taken, and how many there were.
    #[must_use]
    pub fn noted(&self) -> (Option<UnixTime>, u32) {
        (self.since, self.count)
    }

    /// How many count now.
    #[must_use]
    pub fn counted(&self, limit: Limit, now: UnixTime) -> u32 {
        if self.is_over(limit, now) { 0 } else { self.count }
    }

    /// A clock that was set back makes the interval longer, never the count smaller.
    fn is_over(&self, limit: Limit, now: UnixTime) -> bool {
        self.since.is_some_and(|since| now.0.saturating_sub(since.0) >= limit.interval.as_millis())
    }

    /// Counts one more. Whether it is one too many.
    pub fn count(&mut self, limit: Limit, now: UnixTime) -> bool {
        if limit.interval == Span::ZERO {
            return false;
        }
        if self.is_over(limit, now) {
            *self = Self::default();
        }
        self.since.get_or_insert(now);
        self.count = self.count.saturating_add(1).min(limit.max.saturating_add(1));
        self.count > limit.max
    }

    /// Somebody acted by hand.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;

    #[test]
    fn the_fourth_within_a_day_is_one_too_many() {
        let mut loops = Loops::default();
        let counted = [0, 1, 2, 23].map(|hour| loops.count(Limit::default(), UnixTime(hour * HOUR)));
        assert_eq!(counted, [false, false, false, true]);
    }

    #[test]
    fn a_day_after_the_first_it_begins_anew() {
        let mut loops = Loops::default();
        let counted = [0, 1, 2, 24, 25].map(|hour| loops.count(Limit::default(), UnixTime(hour * HOUR)));
        assert_eq!(counted, [false; 5]);
        assert_eq!(loops.noted(), (Some(UnixTime(24 * HOUR)), 2));
        let counted = [25, 47, 48].map(|hour| loops.counted(Limit::default(), UnixTime(hour * HOUR)));
        assert_eq!(counted, [2, 2, 0], "what is too old counts no more, also before the next");
    }

    #[test]
    fn acting_by_hand_forgets_them_and_no_interval_counts_none() {
        let mut loops = Loops::resumed(Some(UnixTime(0)), 3);
        loops.reset();
        assert!(!loops.count(Limit::default(), UnixTime(1)));
        let never = Limit { interval: Span::ZERO, ..Limit::default() };
        assert!((0..100).all(|hour| !loops.count(never, UnixTime(hour * HOUR))));
    }
}
