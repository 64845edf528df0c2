//! A program that checks: exit status 0 is good, 1 is bad, and its first line says why.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::{Found, Limit, bad, unknown, words};
use crate::cgroup::Cgroup;
use crate::script::{Outcome, Script};

/// How much of the first line is kept, in bytes. The rest of what it writes is read and thrown away: one that nobody
/// reads would hang.
const LINE_BYTES: usize = 300;
/// What a pipe holds at most, in bytes (pipe(7)): all that can be left in it when its writers have ended.
const PIPE_BYTES: usize = 64 << 10;
/// How long those who were killed may take to be gone. Only one that hangs in the kernel takes longer than an instant.
const GONE: Duration = Duration::from_secs(1);

/// A program to be run as a check: 0 is good, 1 bad with the first line it writes, to either output, as the reason. Any
/// other end is bad as well. One that cannot be executed finds nothing, which its shell says with status 126 or 127.
///
/// At the limit all of it is killed at once, without SIGTERM: a check has nothing to put in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment; beside that it has a `PATH` and nothing.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Directory of a cgroup that is for this check alone: everything in it is killed before, at the end, and when
    /// nobody waits for it any more. It is made when it is missing, and removed at the end where nothing hangs in it.
    pub cgroup: PathBuf,
}

impl Program {
    pub(super) async fn check(&self, limit: Limit) -> Found {
        self.sweep(limit).await?;
        let group = Emptied(self.group());
        let (input, receiver) =
            outputs().or_else(|error| unknown(format!("{self} cannot be run: {}", words(&error))))?;
        let mut output = Output::new(receiver);
        let script = self.script(input, limit);
        let outcome = tokio::select! {
            outcome = timeout(limit.left(), script.run()) => outcome.unwrap_or(Outcome::TimedOut),
            never = output.read() => match never {},
        };
        drop(group);
        let _ = timeout(GONE.min(limit.left()), self.group().emptied()).await;
        let _ = self.group().remove();
        self.judge(outcome, &output.rest(), limit)
    }

    fn group(&self) -> Cgroup {
        Cgroup::at(&self.cgroup)
    }

    /// Makes the group, without what a run before has left in it.
    async fn sweep(&self, limit: Limit) -> Found {
        let group = self.group();
        let swept = async {
            std::fs::create_dir_all(group.path())?;
            // In any other directory the shell would make that file, and enter nothing.
            std::fs::metadata(group.path().join("cgroup.procs"))?;
            group.kill()?;
            group.emptied().await
        };
        let swept =
            async { swept.await.or_else(|e| unknown(format!("{self} has no control group: {}", words(&e)))) };
        limit.of(swept, || format!("{self} still hangs since it was run before, and cannot be killed")).await
    }

    fn script(&self, output: OwnedFd, limit: Limit) -> Script {
        Script {
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
            cgroup: self.cgroup.clone(),
            output: File::from(output),
            // Never reached: it is dropped, and with that killed, before.
            limit: limit.left() + GONE,
        }
    }

    fn judge(&self, outcome: Outcome, line: &str, limit: Limit) -> Found {
        let said = if line.is_empty() { String::new() } else { format!(": {line}") };
        match outcome {
            Outcome::Exited(0) => Ok(()),
            Outcome::Exited(1) if !line.is_empty() => bad(line),
            Outcome::Exited(code) => bad(format!("{self} ended with exit code {code}{said}")),
            Outcome::Signalled(signal) => bad(format!("{self} was ended by signal {signal}{said}")),
            Outcome::TimedOut => bad(format!("{self} did not end within {limit}{said}")),
            Outcome::NotRun(why) if line.is_empty() => unknown(format!("{self} cannot be run: {why}")),
            Outcome::NotRun(_) => unknown(format!("{self} cannot be run{said}")),
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.program.file_name().unwrap_or(self.program.as_os_str()).display().fmt(f)
    }
}

/// Kills what is in the group when dropped.
struct Emptied(Cgroup);

impl Drop for Emptied {
    fn drop(&mut self) {
        // Who cannot be killed now is met by the next run.
        let _ = self.0.kill();
    }
}

/// A pipe: what the program writes into, and where that comes out.
fn outputs() -> io::Result<(OwnedFd, pipe::Receiver)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender.into_blocking_fd()?, receiver))
}

/// What comes out of a pipe, of which only the first line is kept.
struct Output {
    from: pipe::Receiver,
    line: Vec<u8>,
    ended: bool,
}

enum Never {}

impl Output {
    fn new(from: pipe::Receiver) -> Self {
        Self { from, line: Vec::new(), ended: false }
    }

    /// Reads for ever.
    async fn read(&mut self) -> Never {
        let mut buffer = vec![0; PIPE_BYTES];
        loop {
            match self.from.read(&mut buffer).await {
                Ok(length) if length > 0 => self.take(&buffer[..length]),
                // Nobody can write any more.
                Ok(_) | Err(_) => return std::future::pending().await,
            }
        }
    }

    /// The line, with what is still in the pipe.
    fn rest(mut self) -> String {
        let mut buffer = vec![0; PIPE_BYTES];
        if let Ok(length) = self.from.try_read(&mut buffer) {
            self.take(&buffer[..length]);
        }
        let text = String::from_utf8_lossy(&self.line);
        let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        text.trim().to_owned()
    }

    /// Empty lines before the first that says something are none.
    fn take(&mut self, written: &[u8]) {
        for byte in written {
            match byte {
                _ if self.ended => return,
                b'\n' => self.ended = !self.line.trim_ascii().is_empty(),
                byte if self.line.len() < LINE_BYTES => self.line.push(*byte),
                _ => self.ended = true,
            }
        }
    }
}
