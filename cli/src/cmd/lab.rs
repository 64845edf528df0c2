//! `farmctl lab …` and `farmctl demo …`: farm-lab does the work.

use std::ffi::OsString;

use clap::Args;

use crate::args::Global;
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::programs::Program;

/// Installed by hand, in a source tree.
const FARM_LAB: Program = Program { name: "farm-lab", cure: "cargo build -p farm-lab" };

/// What farm-lab is told, word for word.
#[derive(Debug, Args)]
pub struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Which of the two was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Group {
    /// `farmctl lab ARGS` is `farm-lab ARGS`.
    Lab,
    /// `farmctl demo ARGS` is `farm-lab demo ARGS`.
    Demo,
}

impl Group {
    const fn first_word(self) -> Option<&'static str> {
        match self {
            Self::Lab => None,
            Self::Demo => Some("demo"),
        }
    }
}

/// Becomes farm-lab; returns only if that fails.
pub(super) fn run(group: Group, passed: Passed, global: &Global) -> Result<Exit, Error> {
    if global.json {
        // Where it belongs among farm-lab's own words only the caller knows.
        let fact = "--json stands before lab or demo: what farm-lab is told stands behind";
        return Err(Problem::new(Exit::Usage, "usage", fact, "farmctl demo --json").into());
    }
    let words = group.first_word().map(OsString::from).into_iter().chain(passed.args);
    Ok(FARM_LAB.become_with(words)?)
}
