//! What a lab has made, written down before it is made: so a crash leaves nothing that `down` cannot find.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::lab::Spec;
use crate::names::{LabName, Place};
use crate::process::Process;

/// The environment variable that moves the directory of all labs.
pub const LAB_DIR: &str = "FARM_LAB_DIR";
const DEFAULT_DIR: &str = "/run/farm-lab";

/// What a process of the lab is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The daemon under test.
    Farmd,
    /// The web server of a node.
    Nginx,
    /// What the farm is compared with.
    Keepalived,
    /// The same: a proxy.
    Haproxy,
    /// A server for connections that are checked.
    Echo,
}

/// A process that the lab started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// On which machine.
    pub place: Place,
    /// What for.
    pub role: Role,
    /// Its identity.
    pub process: Process,
}

/// The state of a lab on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was asked for.
    pub spec: Spec,
    /// The process that takes the lab down when it ends; `None` for a lab that stays until `down`.
    pub owner: Option<Process>,
    /// Names of the namespaces.
    pub namespaces: Vec<String>,
    /// Directories of pins in the BPF file system.
    pub pins: Vec<PathBuf>,
    /// Processes, the newest last.
    pub processes: Vec<Started>,
}

impl Record {
    /// The living process of `role` on `place`.
    #[must_use]
    pub fn running(&self, place: Place, role: Role) -> Option<Process> {
        let wanted = self.processes.iter().rev().filter(|s| s.place == place && s.role == role);
        wanted.map(|s| s.process).find(|p| p.alive())
    }

    /// Has the owner ended without taking the lab down?
    #[must_use]
    pub fn orphaned(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.alive())
    }
}

/// The directory of one lab.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory of the lab `name`; it need not exist.
    #[must_use]
    pub fn of(name: &LabName) -> Self {
        Self { path: all_labs().join(name.as_str()) }
    }

    /// The labs that have a directory.
    ///
    /// # Errors
    /// The directory of all labs cannot be read.
    pub fn existing() -> Result<Vec<LabName>> {
        let entries = match std::fs::read_dir(all_labs()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| all_labs().display().to_string()),
        };
        let directories = entries.filter_map(|e| e.ok().filter(|e| e.path().is_dir()));
        let mut names: Vec<LabName> =
            directories.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of one machine, made if it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn of_place(&self, place: Place) -> Result<PathBuf> {
        let path = self.path.join(place.to_string());
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Keeps other processes from building or taking down this lab until the result is dropped.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn lock(&self) -> Result<Flock<File>> {
        std::fs::create_dir_all(all_labs()).with_context(|| all_labs().display().to_string())?;
        let path = self.lock_path();
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = file.with_context(|| path.display().to_string())?;
            let lock = match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => lock,
                Err((_, e)) => bail!("locking {}: {e}", path.display()),
            };
            // Who held it before may have removed the file with the lab: then this lock is nobody else's.
            let locked = lock.metadata()?.ino();
            if std::fs::metadata(&path).is_ok_and(|current| current.ino() == locked) {
                return Ok(lock);
            }
        }
    }

    /// The record; `None` if there is no such lab.
    ///
    /// # Errors
    /// It cannot be read or is damaged.
    pub fn read(&self) -> Result<Option<Record>> {
        let path = self.record_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display())).map(Some)
    }

    /// Replaces the record as a whole; the caller holds the lock.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, record: &Record) -> Result<()> {
        std::fs::create_dir_all(&self.path).with_context(|| self.path.display().to_string())?;
        let fresh = self.path.join("lab.json.new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(record)?)?;
        std::fs::rename(&fresh, self.record_path()).context("lab.json")
    }

    /// Changes the record under the lock.
    ///
    /// # Errors
    /// There is no such lab, or the record cannot be written.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let _lock = self.lock()?;
        let mut record = self.read()?.with_context(|| format!("no lab in {}", self.path.display()))?;
        change(&mut record);
        self.write(&record)
    }

    /// Removes the directory with all that is in it, and the lock, which the caller holds.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let absent = |e: std::io::Error| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) };
        let removed = std::fs::remove_dir_all(&self.path).or_else(absent);
        removed.with_context(|| self.path.display().to_string())?;
        std::fs::remove_file(self.lock_path()).or_else(absent).context("the lock of the lab")
    }

    fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("lab.json")
    }
}

fn all_labs() -> PathBuf {
    std::env::var_os(LAB_DIR).map_or_else(|| DEFAULT_DIR.into(), PathBuf::from)
}
