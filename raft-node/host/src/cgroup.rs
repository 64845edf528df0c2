//! Control groups (v2) for applications: everything that a script starts is in one, can be found again by a daemon that
//! has just started, and is ended as a whole (Linux, Documentation/admin-guide/cgroup-v2.rst).
//!
//! Only the unified hierarchy is used, wherever it is mounted; it needs no controller for that.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::Interest;

/// Rounds of killing where the kernel cannot kill a group at once (before 5.14): who forks meanwhile is met in the next.
const ROUNDS: usize = 64;

/// A control group. Dropping the value changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The group at `name` below the mount, made when it is missing. One that is there is taken as it is.
    ///
    /// # Errors
    /// `InvalidInput` where the name leads elsewhere, `NotFound` where the machine has no cgroup2 mount; otherwise of the
    /// file system.
    pub fn open(name: &str) -> io::Result<Self> {
        let at = below_mount(name)?;
        fs::create_dir_all(&at)?;
        Ok(Self(at))
    }

    /// The group at `name`, where there is one.
    ///
    /// # Errors
    /// `InvalidInput` where the name leads elsewhere, `NotFound` where there is no such group or no cgroup2 mount.
    pub fn existing(name: &str) -> io::Result<Self> {
        let at = below_mount(name)?;
        fs::metadata(&at).map(|_| Self(at))
    }

    /// The group with this directory.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The processes in it and below it. Empty where it does not exist.
    ///
    /// # Errors
    /// Of the file system.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for group in self.all()? {
            let listed = match fs::read_to_string(group.join("cgroup.procs")) {
                Ok(listed) => listed,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            // 0 stands for those of a PID namespace that is not visible here, and for kill(2) it is the caller's group.
            found.extend(listed.lines().filter_map(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid != 0));
        }
        Ok(found)
    }

    /// Whether anything runs in it or below it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.events()) {
            Ok(events) => Ok(says_populated(&events)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends everything in it and below it with SIGKILL.
    ///
    /// # Errors
    /// Of the file system; `Other` where processes come faster than they can be killed.
    pub fn kill(&self) -> io::Result<()> {
        match set(&self.0.join("cgroup.kill"), "1") {
            Err(error) if is_gone(&error) => self.kill_in_rounds(),
            done => done,
        }
    }

    /// Who was killed may still be listed, but forks no more: a round without a new one is the last.
    fn kill_in_rounds(&self) -> io::Result<()> {
        let mut killed = BTreeSet::new();
        for _ in 0..ROUNDS {
            let left: BTreeSet<u32> = self.processes()?.into_iter().collect();
            if left.is_subset(&killed) {
                return Ok(());
            }
            for pid in &left {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            killed.extend(left);
        }
        Err(io::Error::other(format!("processes of {} come faster than they end", self.0.display())))
    }

    /// Returns when nothing runs in it any more.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn emptied(&self) -> io::Result<()> {
        let events = match fs::File::open(self.events()) {
            Err(error) if is_gone(&error) => return Ok(()),
            opened => opened?,
        };
        let mut watch = crate::event::of(events, Interest::PRIORITY)?;
        loop {
            let mut text = String::new();
            let events = watch.get_mut();
            events.rewind()?;
            // Reading acknowledges what has happened so far; who changes it afterwards wakes the wait below.
            match events.read_to_string(&mut text) {
                Err(error) if is_gone(&error) => return Ok(()),
                read => read?,
            };
            if !says_populated(&text) {
                return Ok(());
            }
            watch.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }

    /// How much of the processor it gets beside others, 1 to 10000 (100: as anybody). `false` where this machine does
    /// not share out the processor by groups of this hierarchy.
    ///
    /// # Errors
    /// Of the file system.
    pub fn set_weight(&self, weight: u16) -> io::Result<bool> {
        if let Some(parent) = self.0.parent() {
            share_processor(parent);
        }
        let file = self.0.join("cpu.weight");
        if !file.exists() {
            return Ok(false);
        }
        set(&file, &weight.to_string()).map(|()| true)
    }

    /// Removes it, with the empty groups below it.
    ///
    /// # Errors
    /// `ResourceBusy` where something runs in it.
    pub fn remove(&self) -> io::Result<()> {
        for group in self.all()?.iter().rev() {
            match fs::remove_dir(group) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn events(&self) -> PathBuf {
        self.0.join("cgroup.events")
    }

    /// It and the groups below it, parents first.
    fn all(&self) -> io::Result<Vec<PathBuf>> {
        let mut groups = vec![self.0.clone()];
        let mut next = 0;
        while let Some(group) = groups.get(next).cloned() {
            next += 1;
            let entries = match fs::read_dir(&group) {
                Err(error) if is_gone(&error) => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    groups.push(entry.path());
                }
            }
        }
        Ok(groups)
    }
}

/// Lets the groups below `group` have the controller. It comes down only by every group in between, so those above are
/// asked first, up to the first that has it.
fn share_processor(group: &Path) {
    // Above the mount there is none.
    let Ok(has) = fs::read_to_string(group.join("cgroup.controllers")) else { return };
    if !has.split_whitespace().any(|controller| controller == "cpu") {
        group.parent().into_iter().for_each(share_processor);
    }
    // Refused where the controller is not there, or others than groups live in it.
    let _ = set(&group.join("cgroup.subtree_control"), "+cpu");
}

/// Writes a file that is there. `fs::write` would try to make one that is not, and have EACCES for an answer.
fn set(file: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).truncate(true).open(file)?.write_all(value.as_bytes())
}

/// A name that leads elsewhere would have directories made, and later processes killed, that are none of ours.
fn below_mount(name: &str) -> io::Result<PathBuf> {
    let mut parts = Path::new(name).components();
    if name.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
        let why = format!("`{name}` is no name of a control group below the mount");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(mount()?.join(name))
}

/// A group that was removed meanwhile reads as one without a device.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn says_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

/// Where the unified hierarchy is mounted (proc_pid_mountinfo(5): mount point in the fifth field, type after `-`).
fn mount() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let unified = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_unified = after.split(' ').next() == Some("cgroup2");
        is_unified.then(|| before.split(' ').nth(4)).flatten()
    });
    unified.map(PathBuf::from).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup2 file system is mounted; mount -t cgroup2 none /sys/fs/cgroup",
        )
    })
}
