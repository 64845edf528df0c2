//! What was found, what it means, what to do.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works; could be better, or could not be looked at.
    Advice,
    /// Works until something else goes wrong.
    Warning,
    /// Does not work.
    Fault,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Which check; stable.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What it is about: an interface, a directory, a peer and its network.
    pub resource: String,
    /// What was observed, in one sentence.
    pub fact: String,
    /// A command or sentence that mends it; empty where there is nothing to mend.
    pub remedy: String,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: &'static str, resource: impl Into<String>, fact: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, resource, fact, "")
    }

    /// Something is to be said.
    #[must_use]
    pub fn new(
        check: &'static str,
        level: Level,
        resource: impl Into<String>,
        fact: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, level, resource: resource.into(), fact: fact.into(), remedy: remedy.into() }
    }

    /// It is not known.
    #[must_use]
    pub fn unknown(
        check: &'static str,
        resource: impl Into<String>,
        why: &str,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, Level::Advice, resource, format!("could not be looked at: {why}"), remedy)
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<7} {} {}: {}", self.level.word(), self.check, self.resource, self.fact)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "\n        {}", self.remedy) }
    }
}

/// How many there are of what is bad.
#[must_use]
pub fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!("{}, {}", of(count(Level::Fault), "fault"), of(count(Level::Warning), "warning"))
}
