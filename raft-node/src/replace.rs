//! The daemon replaces itself by the program on disk: an upgrade without a gap.
//!
//! The process calls `execve`: it keeps its pid, so that whoever supervises it sees no end. What it holds in the kernel
//! by pins (filter, table, lease) goes on; the new program takes it up as after any restart.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use farm_core::id::FeatureLevel;

/// A program that has not judged its configuration within this hangs.
const CHECK_WAIT: Duration = Duration::from_secs(5);

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The running one. To be asked at the start: once a package has replaced the file, the kernel no longer knows its
    /// path. Where it was started by an absolute path, as service managers do, it is that one: a link that leads to
    /// another version by now is followed anew.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn running() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let called = arguments.next().map(PathBuf::from).filter(|path| path.is_absolute());
        let path = called.map_or_else(std::env::current_exe, Ok)?;
        Ok(Self { path, arguments: arguments.collect() })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks what lies there now whether it would start in a cluster of that feature level: a broken upgrade must not
    /// cost the node its daemon.
    ///
    /// # Errors
    /// Its own words, or the system's.
    pub async fn check(&self, needs: FeatureLevel) -> Result<(), String> {
        let mut command = tokio::process::Command::new(&self.path);
        command
            .args(&self.arguments)
            .args(["--check", "--needs-level", &needs.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(CHECK_WAIT, command.output()).await;
        let output = output
            .map_err(|_| format!("{} --check did not end within {CHECK_WAIT:?}", self.path.display()))?
            .map_err(|error| format!("{} cannot be run: {error}", self.path.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("{} --check failed ({}): {said}", self.path.display(), output.status))
    }

    /// Becomes what lies there now. All other threads end where they are, as in a crash, which everything on disk and
    /// in the kernel is made for.
    ///
    /// # Errors
    /// Returns only when the system refused.
    pub fn exec(&self) -> io::Result<Infallible> {
        Err(std::process::Command::new(&self.path).args(&self.arguments).exec())
    }
}
