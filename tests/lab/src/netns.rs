//! Network namespaces: made, entered, deleted. A namespace is entered with `setns(CLONE_NEWNET)` only, never
//! with `ip netns exec`: that gives the process a mount namespace of its own, and pins made there die with it.
#![expect(unsafe_code, reason = "pre_exec, to enter the namespace between fork and exec")]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::shell;

/// Where `ip netns` keeps the named namespaces.
const DIRECTORY: &str = "/run/netns";

/// A named network namespace; `ip netns exec NAME` works on it too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// The handle for `name`; the namespace need not exist.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Makes the namespace, with `lo` up.
    ///
    /// # Errors
    /// It exists already, or the caller is not root.
    pub fn create(&self) -> Result<()> {
        shell::run(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.ip("link set dev lo up\n")
    }

    /// Deletes the namespace if it exists. It lives on while a process is in it.
    ///
    /// # Errors
    /// `ip` refused.
    pub fn delete(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        shell::run(Command::new("ip").args(["netns", "delete", &self.name])).map(drop)
    }

    /// Its name below `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is there a namespace of this name?
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.name)
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("namespace {} does not exist", self.name))
    }

    /// Runs `work` on a thread of its own inside the namespace: sockets that it opens stay there.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` failed.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entrance = self.open()?;
        let inside = || {
            setns(entrance.as_fd(), CloneFlags::CLONE_NEWNET)
                .context("setns(CLONE_NEWNET): are you root?")?;
            work()
        };
        std::thread::scope(|scope| {
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command whose process starts inside the namespace and otherwise shares everything with the host.
    ///
    /// # Errors
    /// The namespace does not exist.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let entrance = self.open()?;
        let mut command = Command::new(program);
        let enter = move || setns(entrance.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from);
        // SAFETY: between fork and exec only the system call setns is made: async-signal-safe, no allocation.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// Runs lines of `ip -batch` inside the namespace.
    ///
    /// # Errors
    /// The first line that `ip` refuses, with its message.
    pub fn ip(&self, batch: &str) -> Result<()> {
        shell::feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch).map(drop)
    }

    /// Sets kernel parameters of the namespace, given as `path value` below `/proc/sys`.
    ///
    /// # Errors
    /// A parameter does not exist or refuses the value.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(path, value)| {
                std::fs::write(format!("/proc/sys/{path}"), value)
                    .with_context(|| format!("sysctl {path} = {value}"))
            })
        })
    }

    /// The processes whose network namespace is this one.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        let own = self.open()?.metadata()?.ino();
        let entries = std::fs::read_dir("/proc").context("/proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        // A process may end meanwhile: then it is not in the namespace.
        Ok(pids
            .filter(|pid| std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| m.ino() == own))
            .collect())
    }
}
