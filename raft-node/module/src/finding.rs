//! What is wrong with a module.

use core::fmt;

/// The file of the settings.
pub(crate) const SETTINGS: &str = "module.toml";
/// The module as a whole.
pub(crate) const WHOLE: &str = ".";
/// Findings that are told at once. Nobody reads more, and a hostile file could make millions.
const MOST: usize = 100;

/// One thing that is wrong with a module, where, and what to do about it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Finding {
    /// Path in the module; `.` for the module as a whole.
    pub file: String,
    /// Line of the file, from 1; `None` when it is about the whole file.
    pub line: Option<u32>,
    /// What is so.
    pub fact: String,
    /// What to do.
    pub remedy: String,
}

/// `module.toml:3: port = 0 is not 1 to 65535; write a number in that range`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, fact, remedy } = self;
        match line {
            Some(line) => write!(f, "{file}:{line}: {fact}; {remedy}"),
            None => write!(f, "{file}: {fact}; {remedy}"),
        }
    }
}

/// All findings of a module, while they are made.
#[derive(Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    /// About a line of `module.toml`.
    pub(crate) fn line(&mut self, line: u32, fact: impl Into<String>, remedy: impl Into<String>) {
        self.push(SETTINGS, Some(line), fact.into(), remedy.into());
    }

    /// About a whole file.
    pub(crate) fn file(&mut self, file: &str, fact: impl Into<String>, remedy: impl Into<String>) {
        self.push(file, None, fact.into(), remedy.into());
    }

    fn push(&mut self, file: &str, line: Option<u32>, fact: String, remedy: String) {
        if self.0.len() < MOST {
            self.0.push(Finding { file: file.into(), line, fact, remedy });
        }
    }

    /// `what` when nothing was found, or else the findings by file and line.
    pub(crate) fn or<T>(mut self, what: Option<T>) -> Result<T, Vec<Finding>> {
        self.0.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        match what.filter(|_| self.0.is_empty()) {
            Some(what) => Ok(what),
            None => Err(self.0),
        }
    }
}
