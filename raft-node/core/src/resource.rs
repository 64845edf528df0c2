//! What a node knows of one thing that it watches for a module: a process, a port, a router.
//!
//! ```text
//!          good                     `fall` bad ones in a row
//!  init ─────────▶ up ◀────────────────────────────────────────▶ down
//!   │                     `rise` good ones in a row               ▲
//!   └─────────────────────────────────────────────────────────────┘ `fall` bad ones in a row
//!
//!  `fall` that could not be made: any ─▶ unknown, and from there as from init
//! ```

use std::collections::VecDeque;

use crate::time::UnixTime;

/// Changes that are remembered: what a person reads of one thing on a terminal.
pub const HISTORY: usize = 16;

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Health {
    /// Nothing is known yet, or it is not watched now.
    #[default]
    Init,
    /// Good.
    Up,
    /// Bad.
    Down,
    /// It cannot be found out.
    Unknown,
}

impl Health {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Init, Self::Up, Self::Down, Self::Unknown];

    /// As people and rules read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// What one look has shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Not; why.
    Bad(String),
    /// There was no finding out; why.
    Unknown(String),
}

/// How many verdicts in a row count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Damping {
    /// Good ones, until what was down is up.
    pub rise: u32,
    /// Bad ones, until it is down.
    pub fall: u32,
}

impl Damping {
    /// Each counts.
    pub const NONE: Self = Self { rise: 1, fall: 1 };
}

/// A change of [`Resource`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Change {
    /// When, by the clock of the node.
    pub at: UnixTime,
    /// To what.
    pub to: Health,
    /// Why.
    pub why: String,
}

/// One thing that is watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Resource {
    health: Health,
    since: UnixTime,
    why: String,
    /// Verdicts in a row that say something else than `health`, and what.
    against: (Health, u32),
    /// The last changes, the newest at the end.
    history: VecDeque<Change>,
}

impl Resource {
    /// Nothing is known of it.
    #[must_use]
    pub fn new(now: UnixTime) -> Self {
        let against = (Health::Init, 0);
        Self { health: Health::Init, since: now, why: String::new(), against, history: VecDeque::new() }
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> UnixTime {
        self.since
    }

    /// Why; empty where there is nothing to say.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The last [`HISTORY`] changes, the oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Change> {
        self.history.iter()
    }

    /// Takes a verdict; whether that changed how it is.
    pub fn judge(&mut self, verdict: Verdict, damping: Damping, now: UnixTime) -> bool {
        let (health, why) = match verdict {
            Verdict::Good => (Health::Up, String::new()),
            Verdict::Bad(why) => (Health::Down, why),
            Verdict::Unknown(why) => (Health::Unknown, why),
        };
        if health == self.health {
            self.against = (health, 0);
            // The newest words are the best: a port that was closed may hang by now.
            self.why = why;
            return false;
        }
        let row = if self.against.0 == health { self.against.1.saturating_add(1) } else { 1 };
        self.against = (health, row);
        let enough = match (self.health, health) {
            (Health::Down, Health::Up) => damping.rise,
            (_, Health::Up) => 1,
            (_, Health::Init | Health::Down | Health::Unknown) => damping.fall,
        };
        let changes = row >= enough.max(1);
        if changes {
            self.become_(health, why, now);
        }
        changes
    }

    /// What is to be said while nothing is known yet.
    pub fn excuse(&mut self, why: String) {
        if self.health == Health::Init {
            self.why = why;
        }
    }

    /// It is watched no more, or anew: what was known of it is old.
    pub fn forget(&mut self, now: UnixTime) {
        self.against = (Health::Init, 0);
        self.why = String::new();
        if self.health != Health::Init {
            self.become_(Health::Init, String::new(), now);
        }
    }

    fn become_(&mut self, health: Health, why: String, now: UnixTime) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Change { at: now, to: health, why: why.clone() });
        (self.health, self.why, self.since, self.against) = (health, why, now, (health, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMPING: Damping = Damping { rise: 2, fall: 3 };

    fn after(verdicts: &str) -> Resource {
        let mut resource = Resource::new(UnixTime(0));
        for (at, verdict) in (1..).zip(verdicts.chars()) {
            let verdict = match verdict {
                'g' => Verdict::Good,
                'b' => Verdict::Bad("refused".into()),
                _ => Verdict::Unknown("no files left".into()),
            };
            resource.judge(verdict, DAMPING, UnixTime(at));
        }
        resource
    }

    #[test]
    fn it_changes_when_enough_verdicts_in_a_row_say_so() {
        let cases = [
            ("", Health::Init),
            ("g", Health::Up),
            ("bb", Health::Init),
            ("bbb", Health::Down),
            ("gbb", Health::Up),
            ("gbbgbb", Health::Up),
            ("gbbb", Health::Down),
            ("bbbg", Health::Down),
            ("bbbgbg", Health::Down),
            ("bbbgg", Health::Up),
            ("guu", Health::Up),
            ("guubuu", Health::Up),
            ("guuu", Health::Unknown),
            ("guuug", Health::Up),
        ];
        for (verdicts, health) in cases {
            assert_eq!(after(verdicts).health(), health, "{verdicts}");
        }
    }

    #[test]
    fn it_knows_since_when_and_what_was_before() {
        let mut resource = after("gbbbb");
        assert_eq!((resource.since(), resource.why()), (UnixTime(4), "refused"));
        resource.forget(UnixTime(9));
        let history: Vec<_> = resource.history().map(|c| (c.at.0, c.to)).collect();
        assert_eq!(history, [(1, Health::Up), (4, Health::Down), (9, Health::Init)]);
        for at in 10..100 {
            resource.judge(Verdict::Good, Damping::NONE, UnixTime(at));
            resource.forget(UnixTime(at));
        }
        assert_eq!(resource.history().count(), HISTORY);
    }
}
