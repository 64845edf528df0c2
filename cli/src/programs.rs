//! Farm's other programs, which some commands become.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::error::Problem;
use crate::exit::Exit;

/// Names the directory of Farm's programs, before all others.
const BIN_DIR: &str = "FARM_BIN_DIR";

/// A program, and what installs it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its file name.
    pub name: &'static str,
    /// The command that brings it.
    pub cure: &'static str,
}

impl Program {
    /// Becomes the program; returns only if that fails.
    ///
    /// # Errors
    /// That it is not there, or cannot be run.
    pub fn become_with<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Exit, Problem> {
        let program = self.find(&directories()).ok_or_else(|| self.missing())?;
        let error = Command::new(&program).args(arguments).exec();
        let fact = format!("cannot run {}: {error}", program.display());
        Err(Problem::new(Exit::Local, "program_not_started", fact, self.cure))
    }

    fn find(self, directories: &[PathBuf]) -> Option<PathBuf> {
        directories.iter().map(|d| d.join(self.name)).find(|p| p.is_file())
    }

    fn missing(self) -> Problem {
        let fact = format!(
            "{} is not installed: it is neither beside farmctl nor in {BIN_DIR} nor in PATH",
            self.name
        );
        Problem::new(Exit::Local, "program_not_installed", fact, self.cure)
    }
}

/// `FARM_BIN_DIR`, the directory of this program, `PATH`; best first.
fn directories() -> Vec<PathBuf> {
    let named = env::var_os(BIN_DIR).map(PathBuf::from);
    let own = env::current_exe().ok().and_then(|p| p.parent().map(PathBuf::from));
    let path = env::var_os("PATH").unwrap_or_default();
    named.into_iter().chain(own).chain(env::split_paths(&path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_has_it_wins() {
        let (empty, full, later) = (tempfile::tempdir(), tempfile::tempdir(), tempfile::tempdir());
        let dirs = [empty, full, later].map(|d| d.unwrap());
        let program = Program { name: "farm-lab", cure: "" };
        for dir in &dirs[1..] {
            std::fs::write(dir.path().join(program.name), "").unwrap();
        }
        let paths: Vec<PathBuf> = dirs.iter().map(|d| d.path().into()).collect();
        assert_eq!(program.find(&paths), Some(paths[1].join(program.name)));
        assert_eq!(program.find(&paths[..1]), None);
    }
}
