//! Processes by identity: a process id alone may be another process by now, with its start time it is not.
#![expect(
    unsafe_code,
    reason = "pidfd_open and pidfd_send_signal have no safe wrapper among our dependencies"
)]

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// One run of a program: process id and start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start: u64,
}

impl Process {
    /// The process that has the id `pid` now.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub fn of(pid: i32) -> Result<Self> {
        let process = stat(pid).filter(|(state, _)| state.runs());
        let (_, start) = process.with_context(|| format!("no process {pid}"))?;
        Ok(Self { pid, start })
    }

    /// This process.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::of(i32::try_from(std::process::id())?)
    }

    /// Does it still run? A zombie does not.
    #[must_use]
    pub fn alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, start)| state.runs() && start == self.start)
    }

    /// Sends `signal`; `false` if it had ended and was waited for.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn signal(self, signal: Signal) -> Result<bool> {
        let Some(handle) = self.open()? else { return Ok(false) };
        // SAFETY: a system call on a descriptor that we own; the info pointer may be null, flags must be 0.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                handle.as_raw_fd(),
                signal as libc::c_int,
                0usize,
                0u32,
            )
        };
        match Errno::result(sent) {
            Ok(_) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("{signal} to process {}", self.pid)),
        }
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn await_end(self, limit: Duration) -> Result<()> {
        let Some(handle) = self.open()? else { return Ok(()) };
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) | Err(Errno::EINTR) => {
                    ensure!(
                        !left.is_zero(),
                        "process {} still runs after {} ms",
                        self.pid,
                        limit.as_millis()
                    );
                }
                Ok(_) => return Ok(()),
                Err(e) => return Err(e).context("poll on a pidfd"),
            }
        }
    }

    /// Ends it at once and waits for that.
    ///
    /// # Errors
    /// It does not end: only a task stuck in the kernel does that.
    pub fn kill(self) -> Result<()> {
        /// A killed process only has to leave the kernel and to free its memory.
        const LIMIT: Duration = Duration::from_secs(10);
        if self.signal(Signal::SIGKILL)? { self.await_end(LIMIT) } else { Ok(()) }
    }

    /// A handle that cannot come to mean another process; `None` if it has ended.
    fn open(self) -> Result<Option<OwnedFd>> {
        // SAFETY: a system call without pointers.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0u32) };
        let raw = match Errno::result(opened) {
            Ok(raw) => i32::try_from(raw)?,
            Err(Errno::ESRCH) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("pidfd_open {}", self.pid)),
        };
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        let handle = unsafe { OwnedFd::from_raw_fd(raw) };
        // Compared after opening: from here on the handle stands for the process whose start time was read. A zombie
        // too: its first thread has ended, others may still hold its files.
        Ok(stat(self.pid).is_some_and(|(_, start)| start == self.start).then_some(handle))
    }
}

/// As `PID:START`.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.pid, self.start)
    }
}

impl FromStr for Process {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (pid, start) = text.split_once(':').with_context(|| format!("{text:?} is not PID:START"))?;
        Ok(Self { pid: pid.parse()?, start: start.parse()? })
    }
}

/// State of a process's first thread.
#[derive(Clone, Copy)]
struct State(char);

impl State {
    fn runs(self) -> bool {
        !matches!(self.0, 'Z' | 'X')
    }
}

/// State and start time of a process.
fn stat(pid: i32) -> Option<(State, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything: fields count from the last `)`; state is the third of all.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((State(fields.first()?.chars().next()?), fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_its_successor() -> Result<()> {
        let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
        let process = Process::of(i32::try_from(child.id())?)?;
        let successor = Process { start: process.start + 1, ..process };
        assert!(!successor.alive());
        assert!(!successor.signal(Signal::SIGKILL)?);
        assert!(process.alive());
        process.kill()?;
        assert!(!process.alive(), "a zombie counts as ended");
        child.wait()?;
        assert!(!process.signal(Signal::SIGKILL)?);
        Ok(())
    }

    #[test]
    fn an_identity_survives_as_text() -> Result<()> {
        let process = Process::current()?;
        assert_eq!(process.to_string().parse::<Process>()?, process);
        assert!("17".parse::<Process>().is_err());
        Ok(())
    }

    #[test]
    fn waiting_ends() -> Result<()> {
        assert!(Process::current()?.await_end(Duration::from_millis(1)).is_err());
        Ok(())
    }
}
