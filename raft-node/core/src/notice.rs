//! Telling somebody: what is worth a message, and when. Level-triggered: a message is made of what is open now and what
//! was told before, so that one that could not be delivered is made anew, and nothing piles up.
//!
//! ```text
//! opens ─ stays for `after` ─▶ told ─ is gone for `after` ─▶ told that it is over
//! ```
//! Between two messages lies `pause`; what came and went meanwhile is in the next one.

use std::collections::BTreeMap;

use crate::time::{BootTime, Span};

/// Things that came and went untold, and critical events, that one message names; of more only the number.
const NAMED_MAX: usize = 20;
/// Waits after failed deliveries: doubled each time, up to the last.
const RETRY: (Span, Span) = (Span::seconds(5), Span::seconds(300));

/// Something that is not green.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Open {
    /// What it is about.
    pub resource: String,
    /// Its code, or the word for the state.
    pub word: String,
    /// Whether somebody should look; else it ends by itself.
    pub red: bool,
    /// Why.
    pub cause: String,
    /// What to do.
    pub next: String,
}

/// What makes two of them the same.
pub type Key = (String, String);

impl Open {
    /// What it is known by.
    #[must_use]
    pub fn key(&self) -> Key {
        (self.resource.clone(), self.word.clone())
    }

    fn title(&self) -> String {
        format!("{}: {}", self.resource, self.word)
    }
}

/// How patient it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// What does not last so long is not told.
    pub after: Span,
    /// Least time between two messages.
    pub pause: Span,
}

/// What somebody is told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Message {
    /// What is new.
    pub new: Vec<Open>,
    /// What was told before and goes on.
    pub still: Vec<Open>,
    /// What was told before and is over.
    pub over: Vec<Open>,
    /// What came and went since the last message.
    pub passed: Vec<Open>,
    /// What happened that says something by itself.
    pub critical: Vec<String>,
    /// How many more of the last two there were.
    pub more: usize,
}

/// The state between messages.
#[derive(Clone, Debug)]
pub struct Notices {
    patience: Patience,
    /// What is open, since when.
    seen: BTreeMap<Key, (BootTime, Open)>,
    /// What was told as open.
    told: BTreeMap<Key, Open>,
    /// What was told and is not open any more, since when.
    gone: BTreeMap<Key, BootTime>,
    passed: Vec<Open>,
    critical: Vec<String>,
    more: usize,
    quiet_until: BootTime,
    /// The wait after the next failure.
    retry: Span,
}

impl Notices {
    /// Nothing is open, nothing was told.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            gone: BTreeMap::new(),
            passed: Vec::new(),
            critical: Vec::new(),
            more: 0,
            quiet_until: BootTime(0),
            retry: RETRY.0,
        }
    }

    /// What this node has told, and what is so still.
    pub fn told(&self) -> impl Iterator<Item = &Open> {
        self.told.values()
    }

    /// What another node has told before this one spoke: it is not told again, and its end is.
    pub fn adopt(&mut self, told: impl IntoIterator<Item = Open>) {
        for open in told {
            self.told.entry(open.key()).or_insert(open);
        }
    }

    /// All that is open now.
    pub fn look(&mut self, now: BootTime, open: &[Open]) {
        let open: BTreeMap<Key, &Open> = open.iter().map(|open| (open.key(), open)).collect();
        let left = std::mem::take(&mut self.seen);
        for (key, (since, before)) in left {
            match open.get(&key) {
                Some(now) => {
                    self.seen.insert(key, (since, (*now).clone()));
                }
                // It was worth telling, and there was no time to.
                None if !self.told.contains_key(&key) && self.lasts(since, now) => self.pass(before),
                None => {}
            }
        }
        for (key, open) in &open {
            self.seen.entry(key.clone()).or_insert_with(|| (now, (*open).clone()));
            if let Some(told) = self.told.get_mut(key) {
                told.clone_from(open);
            }
        }
        self.gone.retain(|key, _| !open.contains_key(key));
        for key in self.told.keys().filter(|key| !open.contains_key(*key)) {
            self.gone.entry(key.clone()).or_insert(now);
        }
    }

    /// Somebody else speaks: what is over is his to tell.
    pub fn listen(&mut self, open: &[Open]) {
        let keys: std::collections::BTreeSet<Key> = open.iter().map(Open::key).collect();
        self.told.retain(|key, _| keys.contains(key));
        self.seen.clear();
        self.gone.clear();
        self.passed.clear();
    }

    /// Something happened that is worth a message by itself.
    pub fn note(&mut self, text: &str) {
        if self.critical.len() < NAMED_MAX {
            self.critical.push(text.to_owned());
        } else {
            self.more += 1;
        }
    }

    fn pass(&mut self, open: Open) {
        if self.passed.len() < NAMED_MAX {
            self.passed.push(open);
        } else {
            self.more += 1;
        }
    }

    fn lasts(&self, since: BootTime, now: BootTime) -> bool {
        now.since(since) >= self.patience.after
    }

    /// What somebody is to be told now.
    #[must_use]
    pub fn due(&self, now: BootTime) -> Option<Message> {
        if now < self.quiet_until {
            return None;
        }
        let lasting = self.seen.iter().filter(|(_, (since, _))| self.lasts(*since, now));
        let lasting = lasting.map(|(key, (_, open))| (self.told.contains_key(key), open.clone()));
        let (still, new): (Vec<_>, Vec<_>) = lasting.partition(|(told, _)| *told);
        let over = self.gone.iter().filter(|(_, since)| self.lasts(**since, now));
        let message = Message {
            new: new.into_iter().map(|(_, open)| open).collect(),
            still: still.into_iter().map(|(_, open)| open).collect(),
            over: over.filter_map(|(key, _)| self.told.get(key).cloned()).collect(),
            passed: self.passed.clone(),
            critical: self.critical.clone(),
            more: self.more,
        };
        let says = !message.new.is_empty() || !message.over.is_empty() || !message.passed.is_empty();
        (says || !message.critical.is_empty()).then_some(message)
    }

    /// The message was delivered.
    pub fn delivered(&mut self, now: BootTime, message: &Message) {
        self.told.extend(message.new.iter().map(|open| (open.key(), open.clone())));
        for open in &message.over {
            self.told.remove(&open.key());
            self.gone.remove(&open.key());
        }
        self.passed.drain(..message.passed.len().min(self.passed.len()));
        self.critical.drain(..message.critical.len().min(self.critical.len()));
        self.more = self.more.saturating_sub(message.more);
        self.quiet_until = now + self.patience.pause;
        self.retry = RETRY.0;
    }

    /// It was not, in no way.
    pub fn failed(&mut self, now: BootTime) {
        self.quiet_until = now + self.retry;
        self.retry = Span((self.retry.0 * 2).min(RETRY.1.0));
    }
}

impl Message {
    /// What the first line of it says; fits a line of a phone.
    #[must_use]
    pub fn subject(&self, cluster: &str) -> String {
        let word = |open: &[Open]| if open.iter().any(|o| o.red) { "RED" } else { "YELLOW" };
        let named = |open: &[Open]| match open {
            [] => String::new(),
            [only] => only.title(),
            [first, more @ ..] => format!("{} and {} more", first.title(), more.len()),
        };
        let says = if !self.new.is_empty() {
            format!("{}: {}", word(&self.new), named(&self.new))
        } else if !self.over.is_empty() && self.still.is_empty() {
            format!("GREEN again: {}", named(&self.over))
        } else if !self.over.is_empty() {
            format!("{}, but over: {}", word(&self.still), named(&self.over))
        } else if !self.passed.is_empty() {
            format!("came and went: {}", named(&self.passed))
        } else {
            self.critical.first().cloned().unwrap_or_default()
        };
        format!("[farm {cluster}] {says}")
    }

    /// All of it, with the story of the incident, told by `node`.
    #[must_use]
    pub fn body(&self, node: &str, story: &[String]) -> String {
        let mut text = String::new();
        let list = |title: &str, open: &[Open], next: bool| {
            let line = |o: &Open| {
                let next = if next && !o.next.is_empty() {
                    format!("\n    next: {}", o.next)
                } else {
                    String::new()
                };
                format!("  {}: {}{next}\n", o.title(), o.cause)
            };
            let lines: String = open.iter().map(line).collect();
            if lines.is_empty() { String::new() } else { format!("{title}\n{lines}\n") }
        };
        text.push_str(&list("New:", &self.new, true));
        text.push_str(&list("Over:", &self.over, false));
        text.push_str(&list("Came and went since the last message:", &self.passed, false));
        text.push_str(&list("Still:", &self.still, true));
        if !self.critical.is_empty() {
            let lines: String = self.critical.iter().map(|line| format!("  {line}\n")).collect();
            text.push_str(&format!("Happened:\n{lines}\n"));
        }
        if self.more > 0 {
            text.push_str(&format!("And {} more that are not named here.\n\n", self.more));
        }
        if !story.is_empty() {
            let lines: String = story.iter().map(|line| format!("  {line}\n")).collect();
            text.push_str(&format!("What happened (farmctl why):\n{lines}\n"));
        }
        text + &format!("{node} says so. See farmctl status on any node.\n")
    }
}

#[cfg(test)]
#[path = "notice_test.rs"]
mod tests;
