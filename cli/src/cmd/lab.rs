//! `farmctl lab …` and `farmctl demo …`: farm-lab does the work.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::args::Global;
use crate::error::{Error, Problem};
use crate::exit::Exit;

/// The program.
const PROGRAM: &str = "farm-lab";
/// Names the directory of Farm's programs, before all others.
const BIN_DIR: &str = "FARM_BIN_DIR";
/// Installs it, in a source tree.
const CURE: &str = "cargo build -p farm-lab";

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
    let program = find(&directories()).ok_or_else(missing)?;
    let error = Command::new(&program).args(group.first_word()).args(passed.args).exec();
    let fact = format!("cannot run {}: {error}", program.display());
    Err(Problem::new(Exit::Local, "lab_not_started", fact, CURE).into())
}

/// `FARM_BIN_DIR`, the directory of this program, `PATH`; best first.
fn directories() -> Vec<PathBuf> {
    let named = env::var_os(BIN_DIR).map(PathBuf::from);
    let own = env::current_exe().ok().and_then(|p| p.parent().map(PathBuf::from));
    let path = env::var_os("PATH").unwrap_or_default();
    named.into_iter().chain(own).chain(env::split_paths(&path)).collect()
}

fn find(directories: &[PathBuf]) -> Option<PathBuf> {
    directories.iter().map(|d| d.join(PROGRAM)).find(|p| p.is_file())
}

fn missing() -> Problem {
    let fact =
        format!("{PROGRAM} is not installed: it is neither beside farmctl nor in {BIN_DIR} nor in PATH");
    Problem::new(Exit::Local, "lab_not_installed", fact, CURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_has_it_wins() {
        let (empty, full, later) = (tempfile::tempdir(), tempfile::tempdir(), tempfile::tempdir());
        let dirs = [empty, full, later].map(|d| d.unwrap());
        for dir in &dirs[1..] {
            std::fs::write(dir.path().join(PROGRAM), "").unwrap();
        }
        let paths: Vec<PathBuf> = dirs.iter().map(|d| d.path().into()).collect();
        assert_eq!(find(&paths), Some(paths[1].join(PROGRAM)));
        assert_eq!(find(&paths[..1]), None);
    }
}
