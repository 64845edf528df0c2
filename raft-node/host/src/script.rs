//! Runs one script: in a cgroup from its first instruction, with a limit, its output to whoever was given.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::processes;

/// Enters the group `$0`, sheds what is the daemon's alone (its mask for new files, that the kernel spares it when memory
/// is short), then becomes the rest: no instruction of the script runs outside.
pub const ENTER: &str = "echo 0 > \"$0\"/cgroup.procs || exit 126; umask 022; \
    { echo 0 > /proc/self/oom_score_adj; } 2>/dev/null; exec \"$@\"";
/// What the shell says when it could not do either.
const NOT_ENTERED: [i32; 2] = [126, 127];
/// Between SIGTERM and SIGKILL of a script that takes too long, for all of its process group.
const GRACE: Duration = Duration::from_secs(2);
/// Where scripts find programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A script to be run.
#[derive(Debug)]
pub struct Script {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment; beside that it has a `PATH` and nothing.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Directory of the cgroup.
    pub cgroup: PathBuf,
    /// Where both its outputs go. What it leaves running keeps it.
    pub output: File,
    /// How long it may take.
    pub limit: Duration,
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It took too long and was ended, with all of its process group.
    TimedOut,
    /// It did not begin; why.
    NotRun(String),
}

impl Script {
    /// Runs it to its end; what it leaves running goes on. Where the future is dropped before, the script is killed.
    pub async fn run(self) -> Outcome {
        let (limit, cgroup) = (self.limit, self.cgroup.clone());
        let mut running = match self.start() {
            Ok(child) => Running(child),
            Err(error) => return Outcome::NotRun(error.to_string()),
        };
        match timeout(limit, running.0.wait()).await {
            Ok(Ok(status)) => outcome(status),
            Ok(Err(error)) => Outcome::NotRun(error.to_string()),
            Err(_) => {
                running.end(&cgroup).await;
                Outcome::TimedOut
            }
        }
    }

    fn start(self) -> std::io::Result<Child> {
        let (out, err) = (self.output.try_clone()?, self.output);
        Command::new("/bin/sh")
            .args(["-c", ENTER])
            .arg(&self.cgroup)
            .arg(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(err))
            .process_group(0)
            .spawn()
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(code), _) if NOT_ENTERED.contains(&code) => {
            Outcome::NotRun("it cannot be executed, or its interpreter is missing; the log says more".into())
        }
        (Some(code), _) => Outcome::Exited(code),
        (None, signal) => Outcome::Signalled(signal.unwrap_or_default()),
    }
}

/// Ends the script's process group when dropped, unless the script has ended.
struct Running(Child);

impl Running {
    /// Ends all of the process group, not the script alone. The script is not waited for before the last signal: as long
    /// as it is a zombie, the number of the group is nobody else's.
    async fn end(&mut self, cgroup: &Path) {
        self.signal(Signal::SIGTERM);
        if let Some(group) = self.0.id() {
            let _ = timeout(GRACE, processes::group_ended(group, cgroup)).await;
        }
        self.signal(Signal::SIGKILL);
        // One that hangs in the kernel is left to the runtime.
        let _ = timeout(GRACE, self.0.wait()).await;
    }

    fn signal(&self, signal: Signal) {
        // `None` once it was waited for: then its number may be somebody else's.
        if let Some(pid) = self.0.id() {
            let _ = killpg(Pid::from_raw(pid.cast_signed()), signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}
