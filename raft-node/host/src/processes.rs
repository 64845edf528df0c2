//! Whether the processes of an application run. A death is told by the kernel at once, through a descriptor of the process
//! (pidfd_open(2)); only what appears is looked for.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::select_all;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use regex::Regex;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::cgroup::Cgroup;
use crate::helper::{SHOW, is_helper};

/// How often processes are looked for that nobody tells of: new ones.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a death of one among several is doubted: a parent replaces a worker that it recycles within an instant.
const DOUBT: Duration = Duration::from_millis(50);
/// How often is looked for the new one meanwhile, of which nobody tells.
const DOUBT_EVERY: Duration = Duration::from_millis(10);
/// How long systemd may take to say what it knows; it mostly takes a few milliseconds. Meanwhile no death is seen.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(3);

/// Which processes are meant.
#[derive(Clone, Debug)]
pub enum What {
    /// By the name of the command: what `ps -o comm` shows, at most 15 bytes (proc_pid_comm(5)).
    Command(String),
    /// By the whole command line, arguments separated by blanks.
    CommandLine(Regex),
    /// A systemd unit: its main process; where it has none, the unit as a whole counts as one.
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
    /// The unit, where it runs without a main process.
    unit: Option<Group>,
    /// Since when there are too few, and that is not told.
    doubted: Option<Instant>,
    /// Whom to ask about units.
    systemctl: PathBuf,
}

/// A unit that runs without a main process: the group of its processes, if it has any.
#[derive(Debug, PartialEq, Eq)]
struct Group(Option<Cgroup>);

/// What runs of a unit.
#[derive(Debug, PartialEq, Eq)]
enum Unit {
    /// Its main process.
    Main(u32),
    /// Processes of which none is the main one (`Type=forking` without `PIDFile=`), or none at all, by intent
    /// (`Type=oneshot` with `RemainAfterExit=yes`).
    Whole(Group),
    /// Nothing.
    Nothing,
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
        let systemctl = "systemctl".into();
        Self { spec, told: None, found: Vec::new(), unit: None, doubted: None, systemctl }
    }

    /// The verdict: the first one at once, later ones when they differ from the last. That some are left, but too few, is
    /// told after [`DOUBT`] only; that none is left, at once. Cancel-safe.
    pub async fn changed(&mut self) -> Verdict {
        loop {
            let verdict = self.look().await;
            let pause = if self.told.as_ref() == Some(&verdict) {
                self.doubted = None;
                LOOK_EVERY
            } else if self.is_doubtful(Instant::now()) {
                DOUBT_EVERY
            } else {
                self.doubted = None;
                self.told = Some(verdict.clone());
                return verdict;
            };
            tokio::select! {
                () = self.death() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Whether there may be enough again at once: all was well, and some are left. The doubt outlives a call that is
    /// cancelled; otherwise one who is busy would never be told.
    fn is_doubtful(&mut self, now: Instant) -> bool {
        let count = self.count();
        let lacks_some = count > 0 && count < usize::try_from(self.spec.at_least).unwrap_or(usize::MAX);
        let began = *self.doubted.get_or_insert(now);
        lacks_some && self.told == Some(Verdict::Up) && now.saturating_duration_since(began) < DOUBT
    }

    /// Returns when one of the processes that were found has ended, or the last of a unit's.
    async fn death(&self) {
        match &self.unit {
            Some(Group(Some(group))) => {
                // Where it cannot be watched, the unit is looked at anew as often as anything.
                if group.emptied().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Some(Group(None)) => std::future::pending().await,
            None if self.found.is_empty() => std::future::pending().await,
            None => first_end(&self.found).await,
        }
    }

    fn count(&self) -> usize {
        self.found.len() + usize::from(self.unit.is_some())
    }

    async fn look(&mut self) -> Verdict {
        match self.list().await {
            Ok(listed) => self.take(listed),
            Err(error) => {
                self.found.retain(|found| !found.has_ended());
                self.unit.take_if(|unit| !unit.has_processes());
                // Those that are held do run, though nobody else can be looked for: systemd is being exchanged.
                if self.count() == 0 {
                    return Verdict::Down(error.to_string());
                }
            }
        }
        judge(&self.spec, self.count())
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

    async fn list(&mut self) -> io::Result<Vec<u32>> {
        let all = match (&self.spec.what, &self.spec.scope) {
            (What::Unit(name), _) => {
                let unit = look_at(&self.systemctl, name).await?;
                let (main, whole) = match unit {
                    Unit::Main(pid) => (vec![pid], None),
                    Unit::Whole(group) => (Vec::new(), Some(group)),
                    Unit::Nothing => (Vec::new(), None),
                };
                self.unit = whole;
                return Ok(main);
            }
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

/// Whether `pid` is one of those that are meant, and alive: a zombie only waits to be reaped. Farm's own helpers are
/// never meant, though module and script are in their command lines.
fn matches(what: &What, pid: u32) -> bool {
    let Some(stat) = alive(pid) else { return false };
    match what {
        What::Command(wanted) => {
            *wanted == stat.command && command_line(pid).is_some_and(|line| !line.is_helper())
        }
        What::CommandLine(regex) => {
            command_line(pid).is_some_and(|line| regex.is_match(&line.text()) && !line.is_helper())
        }
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

/// Arguments, each ended by a zero byte (proc_pid_cmdline(5)).
struct CommandLine(Vec<u8>);

impl CommandLine {
    fn text(&self) -> String {
        let line: Vec<u8> = self.0.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    fn is_helper(&self) -> bool {
        is_helper(&self.0.split(|byte| *byte == 0).collect::<Vec<_>>())
    }
}

fn command_line(pid: u32) -> Option<CommandLine> {
    fs::read(format!("/proc/{pid}/cmdline")).ok().map(CommandLine)
}

fn host_processes() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

impl Group {
    fn has_processes(&self) -> bool {
        self.0.as_ref().is_some_and(|group| group.is_populated().unwrap_or(false))
    }
}

/// What runs of a unit, by the word of systemd.
async fn look_at(systemctl: &Path, unit: &str) -> io::Result<Unit> {
    let mut systemctl = tokio::process::Command::new(systemctl);
    systemctl.args(SHOW).arg(unit).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |why: &str| io::Error::other(format!("systemd cannot be asked about {unit}: {why}"));
    let output = match timeout(SYSTEMD_LIMIT, systemctl.output()).await {
        Ok(output) => output.map_err(|error| failed(&format!("systemctl: {error}")))?,
        Err(_) => return Err(failed("it does not answer")),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(said.lines().next().unwrap_or("systemctl failed")));
    }
    Ok(running(&String::from_utf8_lossy(&output.stdout)))
}

/// What runs, in what systemctl says. A unit that reloads its configuration serves meanwhile (systemctl(1)).
fn running(said: &str) -> Unit {
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let runs = matches!(value("ActiveState"), Some("active" | "reloading" | "refreshing"));
    match value("MainPID").and_then(|pid| pid.parse().ok()) {
        Some(pid) if runs && pid != 0 => Unit::Main(pid),
        Some(_) if runs => whole(value("ControlGroup"), value("SubState") == Some("exited")),
        _ => Unit::Nothing,
    }
}

/// A unit without a main process. Where its last process has just ended systemd does not know yet, but for one that is to
/// be active without (`exited`).
fn whole(group: Option<&str>, may_be_empty: bool) -> Unit {
    let group = group.and_then(|name| Cgroup::existing(name.trim_matches('/')).ok()).map(Some).map(Group);
    match group {
        Some(group) if group.has_processes() => Unit::Whole(group),
        Some(_) if !may_be_empty => Unit::Nothing,
        // Without a group that can be seen, systemd alone knows.
        Some(_) | None => Unit::Whole(Group(None)),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    struct Sleep(std::process::Child);

    impl Sleep {
        fn new() -> Self {
            Self::of("600")
        }

        /// The kernel says that it is executed an instant before its command line is there.
        fn of(seconds: &str) -> Self {
            let sleep = Self(std::process::Command::new("sleep").arg(seconds).spawn().unwrap());
            while command_line(sleep.0.id()).is_none_or(|line| line.text() != format!("sleep {seconds}")) {
                std::thread::yield_now();
            }
            sleep
        }

        fn end(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
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
        Watch { found: vec![found], ..Watch::new(spec) }
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
        let main = |state: &str| running(&format!("MainPID=42\nActiveState={state}\n"));
        for runs in ["active", "reloading", "refreshing"] {
            assert_eq!(main(runs), Unit::Main(42), "{runs}");
        }
        for rests in ["activating", "deactivating", "failed", "inactive"] {
            assert_eq!(main(rests), Unit::Nothing, "{rests}");
        }
        assert_eq!(running(""), Unit::Nothing);
        assert_eq!(running("MainPID=0\nActiveState=failed\nControlGroup=\n"), Unit::Nothing);
    }

    /// A group, and a `systemctl` that says of a unit in it what is in a file.
    struct Units {
        directory: tempfile::TempDir,
        name: String,
        group: Cgroup,
    }

    impl Units {
        fn new() -> Self {
            let name = format!("farm-test-unit-{}", std::process::id());
            let units =
                Self { directory: tempfile::tempdir().unwrap(), group: Cgroup::open(&name).unwrap(), name };
            // Written by another process: one that a test forks meanwhile would keep the file busy.
            let write = "echo '#!/bin/sh\nexec cat \"${0%/*}/said\"' > \"$0\" && chmod 755 \"$0\"";
            let written =
                std::process::Command::new("/bin/sh").args(["-c", write]).arg(units.systemctl()).status();
            assert!(written.unwrap().success());
            units
        }

        fn systemctl(&self) -> PathBuf {
            self.directory.path().join("systemctl")
        }

        fn say(&self, state: &str, detail: &str) {
            let group = &self.name;
            let said = format!("MainPID=0\nActiveState={state}\nSubState={detail}\nControlGroup=/{group}\n");
            fs::write(self.directory.path().join("said"), said).unwrap();
        }

        fn watch(&self) -> Watch {
            let what = What::Unit("web.service".into());
            let spec = Spec { what, scope: Scope::Host, at_least: 1, at_most: Some(1) };
            Watch { systemctl: self.systemctl(), ..Watch::new(spec) }
        }
    }

    impl Drop for Units {
        fn drop(&mut self) {
            let _ = self.group.remove();
        }
    }

    #[tokio::test]
    async fn a_unit_without_a_main_process_runs_as_long_as_any_of_its_processes() {
        let units = Units::new();
        let mut workers = [Sleep::new(), Sleep::new()];
        for worker in &workers {
            fs::write(units.group.path().join("cgroup.procs"), worker.0.id().to_string()).unwrap();
        }
        units.say("active", "running");
        let mut watch = units.watch();
        assert_eq!(watch.changed().await, Verdict::Up);
        for worker in &mut workers {
            assert_eq!(watch.look().await, Verdict::Up);
            worker.0.kill().unwrap();
            worker.0.wait().unwrap();
        }
        // systemd does not say so yet, but nothing is left.
        assert_eq!(watch.changed().await, Verdict::Down("no process of web.service runs".into()));
        // As `Type=oneshot` with `RemainAfterExit=yes`.
        units.say("active", "exited");
        assert_eq!(watch.changed().await, Verdict::Up);
        units.say("inactive", "dead");
        assert_eq!(watch.changed().await, Verdict::Down("no process of web.service runs".into()));
    }

    /// Each step is looked at while the watch waits for the next.
    #[tokio::test]
    async fn a_worker_that_is_recycled_is_not_missing() {
        let own = format!("600.{}", std::process::id());
        let what = What::CommandLine(Regex::new(&format!("^sleep {own}$")).unwrap());
        let mut workers = [Sleep::of(&own), Sleep::of(&own)];
        let mut watch = Watch::new(Spec { what, scope: Scope::Host, at_least: 2, at_most: None });
        assert_eq!(watch.changed().await, Verdict::Up);
        workers[0].end();
        assert_eq!(watch.changed().now_or_never(), None);
        assert!(watch.doubted.is_some(), "the death was not seen");
        workers[0] = Sleep::of(&own);
        assert_eq!(watch.changed().now_or_never(), None);
        assert_eq!(watch.doubted, None, "the new one was not seen");
        workers[0].end();
        let missing = format!("1 processes like ^sleep {own}$ run, 2 should");
        assert_eq!(watch.changed().await, Verdict::Down(missing));
    }

    #[tokio::test]
    async fn only_that_some_are_left_is_doubted_and_not_for_long() {
        let two = [Sleep::new(), Sleep::new()];
        let mut watch = watch(Scope::Host, hold(two[0].0.id()).unwrap());
        watch.spec.at_least = 2;
        let now = Instant::now();
        assert!(!watch.is_doubtful(now), "the first verdict");
        (watch.told, watch.doubted) = (Some(Verdict::Up), None);
        assert!(watch.is_doubtful(now));
        assert!(watch.is_doubtful(now + DOUBT - Duration::from_millis(1)));
        assert!(!watch.is_doubtful(now + DOUBT), "it lasts");
        (watch.found, watch.doubted) = (Vec::new(), None);
        assert!(!watch.is_doubtful(now), "none is left");
        (watch.found, watch.doubted) = (two.iter().filter_map(|one| hold(one.0.id())).collect(), None);
        assert!(!watch.is_doubtful(now), "enough are left");
    }
}
