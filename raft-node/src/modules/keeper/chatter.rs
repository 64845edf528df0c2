//! What scripts say, as events: little of it, so that one that says much does not push out of the journal what happened.

use farm_core::time::UnixTime;

/// Lines that become events within [`WINDOW`]; all are in the application log.
const LINES: u32 = 20;
/// In ms.
const WINDOW: u64 = 60_000;
/// Characters of a line that become part of an event.
const LENGTH: usize = 300;

/// How much was said lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chatter {
    since: UnixTime,
    lines: u32,
}

impl Chatter {
    /// Whether one more line becomes an event.
    pub(super) fn allows(&mut self, now: UnixTime) -> bool {
        // A clock may be set back.
        if now.0.abs_diff(self.since.0) >= WINDOW {
            *self = Self { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= LINES
    }
}

/// A line for an event.
pub(super) fn sentence(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_says_much_is_heard_a_little_each_minute() {
        let mut chatter = Chatter::default();
        let start = 1_700_000_000_000;
        let heard =
            |chatter: &mut Chatter, at: u64| (0..100).filter(|_| chatter.allows(UnixTime(at))).count();
        assert_eq!(heard(&mut chatter, start), 20);
        assert_eq!(heard(&mut chatter, start + WINDOW - 1), 0);
        assert_eq!(heard(&mut chatter, start + WINDOW), 20);
        assert_eq!(heard(&mut chatter, start - WINDOW), 20);
        assert_eq!(sentence("a\nb\u{1b}c"), "a b c");
        assert_eq!(sentence(&"é".repeat(1000)).chars().count(), LENGTH);
    }
}
