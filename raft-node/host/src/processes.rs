//! Whether the processes of an application run. A death is told by the kernel at once, through a descriptor of the process
//! (pidfd_open(2)); only what appears is looked for.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::future::select_all;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use regex::Regex;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::cgroup::Cgroup;

/// How often processes are looked for that nobody tells of: new ones.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long systemd may take to say what it knows; it mostly takes a few milliseconds. Meanwhile no death is seen.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(3);

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
        first_end(&self.found).await;
    }

    async fn look(&mut self) -> Verdict {
        match self.list().await {
            Ok(listed) => self.take(listed),
            Err(error) => {
                self.found.retain(|found| !found.has_ended());
                // Those that are held do run, though nobody else can be looked for: systemd is being exchanged.
                if self.found.is_empty() {
                    return Verdict::Down(error.to_string());
                }
            }
        }
        judge(&self.spec, self.found.len())
    }

    fn take(&mut self, listed: Vec<u32>) {
        let what = &self.spec.what;
        self.found.retain(|found| listed.contains(&found.pid) && found.is(what));
        for pid in listed {
            if self.found.iter().all(|found| found.pid != pid) {
                // One that ended meanwhile is none.
                self.found.extend(hold(pid).filter(|found| found.is(what)));
            }
        }
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

impl Found {
    /// Whether it runs and is one of those that are meant. As long as it has not ended its number is nobody else's, so
    /// what was read before that is asked is about it.
    fn is(&self, what: &What) -> bool {
        matches(what, self.pid) && !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        let mut ended = [PollFd::new(self.descriptor.get_ref().as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

/// Returns when one of them has ended; there must be one.
async fn first_end(found: &[Found]) {
    let ends = found.iter().map(|found| Box::pin(found.descriptor.readable()));
    let _ = select_all(ends).await;
}

/// Returns when none of a process group runs any more in a cgroup.
pub(crate) async fn group_ended(group: u32, cgroup: &Path) {
    let is_of_group = |pid: &u32| alive(*pid).is_some_and(|stat| stat.group == group);
    loop {
        let listed = Cgroup::at(cgroup).processes().unwrap_or_default();
        let left: Vec<Found> = listed.into_iter().filter(is_of_group).filter_map(hold).collect();
        if left.is_empty() {
            return;
        }
        first_end(&left).await;
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
    let Some(stat) = alive(pid) else { return false };
    match what {
        What::Command(wanted) => *wanted == stat.command,
        What::CommandLine(regex) => command_line(pid).is_some_and(|line| regex.is_match(&line)),
        What::Unit(_) => true,
    }
}

/// Of a process that runs.
struct Stat {
    command: String,
    /// Its process group.
    group: u32,
}

/// `None` where it does not run (proc_pid_stat(5): command in parentheses; behind it state, parent, process group).
fn alive(pid: u32) -> Option<Stat> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (before, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let (state, group) = (fields.next()?, fields.nth(1)?.parse().ok()?);
    let command = before.split_once('(')?.1.to_owned();
    (!matches!(state, "Z" | "X" | "x")).then_some(Stat { command, group })
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
    systemctl.args(["show", "--property=MainPID,ActiveState", "--", unit]);
    systemctl.stdin(Stdio::null()).kill_on_drop(true);
    let failed = |why: &str| io::Error::other(format!("systemd cannot be asked about {unit}: {why}"));
    let output = match timeout(SYSTEMD_LIMIT, systemctl.output()).await {
        Ok(output) => output.map_err(|error| failed(&format!("systemctl: {error}")))?,
        Err(_) => return Err(failed("it does not answer")),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(said.lines().next().unwrap_or("systemctl failed")));
    }
    Ok(running_main(&String::from_utf8_lossy(&output.stdout)))
}

/// The main process in what systemctl says. A unit that reloads its configuration serves meanwhile (systemctl(1)).
fn running_main(said: &str) -> Option<u32> {
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let runs = matches!(value("ActiveState"), Some("active" | "reloading" | "refreshing"));
    value("MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| runs && *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleep(std::process::Child);

    impl Sleep {
        fn new() -> Self {
            Self(std::process::Command::new("sleep").arg("600").spawn().unwrap())
        }
    }

    impl Drop for Sleep {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn watch(scope: Scope, found: Found) -> Watch {
        let what = What::CommandLine(Regex::new("sleep 600").unwrap());
        let spec = Spec { what, scope, at_least: 1, at_most: None };
        Watch { spec, told: None, found: vec![found] }
    }

    /// The old one's descriptor would tell of a death at once, for ever.
    #[tokio::test]
    async fn a_number_that_is_another_ones_now_is_held_anew() {
        let (mut old, new) = (Sleep::new(), Sleep::new());
        let mut found = hold(old.0.id()).unwrap();
        old.0.kill().unwrap();
        old.0.wait().unwrap();
        found.pid = new.0.id();
        assert!(found.has_ended());
        let mut watch = watch(Scope::Host, found);
        watch.take(vec![new.0.id()]);
        let held: Vec<_> = watch.found.iter().map(|found| (found.pid, found.has_ended())).collect();
        assert_eq!(held, [(new.0.id(), false)]);
    }

    #[tokio::test]
    async fn who_is_held_runs_though_nobody_can_be_looked_for() {
        let unreadable = tempfile::tempdir().unwrap();
        fs::create_dir(unreadable.path().join("cgroup.procs")).unwrap();
        let mut process = Sleep::new();
        let mut watch = watch(Scope::Cgroup(unreadable.path().into()), hold(process.0.id()).unwrap());
        assert_eq!(watch.look().await, Verdict::Up);
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        assert!(matches!(watch.look().await, Verdict::Down(_)));
    }

    #[test]
    fn a_unit_runs_while_it_reloads_and_not_while_it_starts_or_stops() {
        let main = |state: &str| running_main(&format!("MainPID=42\nActiveState={state}\n"));
        assert_eq!(["active", "reloading", "refreshing"].map(main), [Some(42); 3]);
        assert_eq!(["activating", "deactivating", "failed", "inactive"].map(main), [None; 4]);
        assert_eq!(running_main("MainPID=0\nActiveState=active\n"), None);
        assert_eq!(running_main(""), None);
    }
}
