//! Whether the processes of an application run. A death is told by the kernel at once, through a descriptor of the process
//! (pidfd_open(2)); only what appears is looked for.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures::future::select_all;
use regex::Regex;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::cgroup::Cgroup;

/// How often processes are looked for that nobody tells of: new ones.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which processes are meant.
#[derive(Clone, Debug)]
pub enum What {
    /// By the name of the command: what `ps -o comm` shows, at most 15 bytes (proc_pid_comm(5)).
    Command(String),
    /// By the whole command line, arguments separated by blanks.
    CommandLine(Regex),
    /// The main process of a systemd unit.
    Unit(String),
}

/// Among which processes.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Those of this cgroup, whatever else runs on the machine.
    Cgroup(PathBuf),
    /// All.
    Host,
}

/// What is to be watched.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Which processes.
    pub what: What,
    /// Among which.
    pub scope: Scope,
    /// No fewer.
    pub at_least: u32,
    /// No more.
    pub at_most: Option<u32>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As many as there should be.
    Up,
    /// Too few or too many; in words.
    Down(String),
}

/// Watches the processes of one [`Spec`].
#[derive(Debug)]
pub struct Watch {
    spec: Spec,
    told: Option<Verdict>,
    found: Vec<Found>,
}

/// A process, held so that its number cannot become another one's unnoticed.
#[derive(Debug)]
struct Found {
    pid: u32,
    descriptor: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Nothing is looked for before [`Watch::changed`].
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, told: None, found: Vec::new() }
    }

    /// The verdict: the first one at once, later ones when they differ from the last. Cancel-safe.
    pub async fn changed(&mut self) -> Verdict {
        loop {
            let verdict = self.look().await;
            if self.told.as_ref() != Some(&verdict) {
                self.told = Some(verdict.clone());
                return verdict;
            }
            tokio::select! {
                () = self.death() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Returns when one of the processes that were found has ended.
    async fn death(&self) {
        if self.found.is_empty() {
            return std::future::pending().await;
        }
        let ends = self.found.iter().map(|found| Box::pin(found.descriptor.readable()));
        let _ = select_all(ends).await;
    }

    async fn look(&mut self) -> Verdict {
        let listed = match self.list().await {
            Ok(listed) => listed,
            Err(error) => return Verdict::Down(error.to_string()),
        };
        self.found.retain(|found| listed.contains(&found.pid) && matches(&self.spec.what, found.pid));
        for pid in listed {
            if self.found.iter().all(|found| found.pid != pid) {
                // One that ended meanwhile is none.
                self.found.extend(hold(pid).filter(|_| matches(&self.spec.what, pid)));
            }
        }
        judge(&self.spec, self.found.len())
    }

    async fn list(&self) -> io::Result<Vec<u32>> {
        let all = match (&self.spec.what, &self.spec.scope) {
            (What::Unit(unit), _) => return Ok(main_process(unit).await?.into_iter().collect()),
            (_, Scope::Cgroup(path)) => Cgroup::at(path).processes()?,
            (_, Scope::Host) => host_processes()?,
        };
        Ok(all.into_iter().filter(|pid| matches(&self.spec.what, *pid)).collect())
    }
}

fn judge(spec: &Spec, count: usize) -> Verdict {
    let (count, what) = (u32::try_from(count).unwrap_or(u32::MAX), describe(&spec.what));
    match spec.at_most {
        _ if count < spec.at_least && count == 0 => Verdict::Down(format!("no process {what} runs")),
        _ if count < spec.at_least => {
            Verdict::Down(format!("{count} processes {what} run, {} should", spec.at_least))
        }
        Some(most) if count > most => {
            Verdict::Down(format!("{count} processes {what} run, at most {most} should"))
        }
        Some(_) | None => Verdict::Up,
    }
}

fn describe(what: &What) -> String {
    match what {
        What::Command(command) => command.clone(),
        What::CommandLine(regex) => format!("like {regex}"),
        What::Unit(unit) => format!("of {unit}"),
    }
}

/// `None` when it has ended.
fn hold(pid: u32) -> Option<Found> {
    let id = Pid::from_raw(pid.cast_signed())?;
    let descriptor = pidfd_open(id, PidfdFlags::empty()).ok()?;
    let descriptor = crate::event::of(descriptor, Interest::READABLE).ok()?;
    Some(Found { pid, descriptor })
}

/// Whether `pid` is one of those that are meant, and alive: a zombie only waits to be reaped.
fn matches(what: &What, pid: u32) -> bool {
    let Some(command) = alive(pid) else { return false };
    match what {
        What::Command(wanted) => *wanted == command,
        What::CommandLine(regex) => command_line(pid).is_some_and(|line| regex.is_match(&line)),
        What::Unit(_) => true,
    }
}

/// The command of a process that runs (proc_pid_stat(5): command in parentheses, state behind it).
fn alive(pid: u32) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (before, after) = stat.rsplit_once(')')?;
    let state = after.trim_start().chars().next()?;
    let command = before.split_once('(')?.1;
    (!matches!(state, 'Z' | 'X' | 'x')).then(|| command.to_owned())
}

fn command_line(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line: Vec<u8> = line.into_iter().map(|byte| if byte == 0 { b' ' } else { byte }).collect();
    Some(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn host_processes() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The main process of a unit that is active.
async fn main_process(unit: &str) -> io::Result<Option<u32>> {
    let mut systemctl = tokio::process::Command::new("systemctl");
    systemctl.args(["show", "--property=MainPID,ActiveState", unit]);
    systemctl.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = systemctl.output().await.map_err(|error| {
        io::Error::new(error.kind(), format!("systemd cannot be asked about {unit}: systemctl: {error}"))
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let active = value("ActiveState") == Some("active");
    Ok(value("MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| active && *pid != 0))
}
