//! What an operator is told when something is refused: a stable code, the observed fact, and the command
//! or edit that cures it. Written once, shown alike by the log, the API and `farmctl`.

use std::borrow::Cow;
use std::fmt;

/// A refusal or failure in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable code, `snake_case`; `docs/operate/codes.md` has each.
    pub code: Cow<'static, str>,
    /// What was observed, naming the thing.
    pub fact: String,
    /// The command to type or the edit to make.
    pub cure: String,
}

impl Problem {
    /// A problem with its three parts.
    pub fn new(code: impl Into<Cow<'static, str>>, fact: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { code: code.into(), fact: fact.into(), cure: cure.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}\n  try: {}", self.code, self.fact, self.cure)
    }
}

impl std::error::Error for Problem {}
