//! Where a module lives on this node: its files by revision, what its scripts write, its log, what is remembered of it.
//!
//! ```text
//! DATA/modules/NAME/memory.json
//!                   revision-17/module.toml, bin/start_both, …    what revision 17 says
//!                   var/                                          for the scripts (FARM_VAR)
//!                   log/                                          the application log
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use farm_core::model::ModuleName;
use farm_module::Files;

/// Files of a revision: readable, and executable where they were.
const MODE_FILE: u32 = 0o644;
const MODE_PROGRAM: u32 = 0o755;

/// The directory of one module.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// Below the daemon's `data_dir`.
    #[must_use]
    pub fn of(data_dir: &Path, name: &ModuleName) -> Self {
        Self(data_dir.join("modules").join(&name.0))
    }

    /// What is remembered.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.0.join("memory.json")
    }

    /// The application log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What scripts may write.
    #[must_use]
    pub fn var(&self) -> PathBuf {
        self.0.join("var")
    }

    /// The files of a revision.
    #[must_use]
    pub fn revision(&self, number: u64) -> PathBuf {
        self.0.join(format!("revision-{number}"))
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// Of the file system.
    pub fn make(&self) -> io::Result<()> {
        [self.log(), self.var()].iter().try_for_each(fs::create_dir_all)
    }

    /// Writes the files of a revision, all or none: a half written directory never has its name.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, number: u64, files: &Files) -> io::Result<PathBuf> {
        let place = self.revision(number);
        if place.exists() {
            return Ok(place);
        }
        let fresh = place.with_extension("new");
        match fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for (path, file) in &files.0 {
            let at = fresh.join(path);
            fs::create_dir_all(at.parent().unwrap_or(&fresh))?;
            fs::write(&at, &file.bytes)?;
            let mode = if file.executable { MODE_PROGRAM } else { MODE_FILE };
            fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
        }
        fs::rename(&fresh, &place)?;
        Ok(place)
    }

    /// Removes revisions of which nothing runs and that the cluster does not keep any more.
    pub fn tidy(&self, keep: &[u64]) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let number = |name: &std::ffi::OsStr| name.to_str()?.strip_prefix("revision-")?.parse::<u64>().ok();
        for entry in entries.flatten() {
            if number(&entry.file_name()).is_some_and(|number| !keep.contains(&number)) {
                // What stays takes room and nothing else.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Removes everything but the log: the module is no more.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.memory());
        self.tidy(&[]);
        let _ = fs::remove_dir_all(self.var());
    }
}
