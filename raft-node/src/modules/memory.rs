//! What this node remembers of a module: whether it is to run, and how often it had to be helped. A file of its own,
//! not the log: it must be there at boot, also without a majority.

use std::collections::BTreeMap;
use std::path::Path;

use farm_core::life::Loops;
use farm_core::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::file;

/// Where the kernel says which boot this is (Documentation/admin-guide/sysctl/kernel.rst, random/boot_id).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Somebody wants it to run here.
    pub wanted: bool,
    /// It had come up, and was not being stopped.
    pub up: bool,
    /// Something of it may run: it is not stopped, or is being stopped.
    pub busy: bool,
    /// It waited for something, and nothing of it ran.
    pub waits: bool,
    /// What its scripts are of that run now.
    pub revision: u64,
    /// Index of the entry that brought the module: of another one of its name nothing is remembered.
    pub born: u64,
    /// Why it was given up, where it was.
    pub failed: Option<String>,
    /// What counts for nothing, and until when, Unix time in ms.
    pub off: BTreeMap<String, Option<u64>>,
    /// The boot in which that was so.
    pub boot: String,
    /// First automatic action that counts, Unix time in ms.
    pub loops_since: Option<u64>,
    /// How many there were.
    pub loops: u32,
}

impl Memory {
    /// What the file says; nothing, where there is none or it cannot be read: a module of which nothing is known is not
    /// started by itself.
    pub fn load(path: &Path) -> Self {
        let read = std::fs::read(path)
            .map_err(|error| (error.kind() != std::io::ErrorKind::NotFound).then_some(error));
        match read {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(%error, path = %path.display(), "what was remembered of a module is lost");
                Self::default()
            }),
            Err(None) => Self::default(),
            Err(Some(error)) => {
                tracing::error!(%error, path = %path.display(), "what was remembered of a module cannot be read");
                Self::default()
            }
        }
    }

    /// Writes it so that a power cut leaves the old one or the new one.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        file::replace(path, &serde_json::to_vec(self)?)
    }

    /// Whether the machine has been started anew since.
    pub fn rebooted(&self) -> bool {
        self.boot != this_boot()
    }

    /// The automatic actions as the life counts them.
    pub fn loops(&self) -> Loops {
        Loops::resumed(self.loops_since.map(UnixTime), self.loops)
    }

    /// The same in this boot, with these automatic actions.
    pub fn now(self, loops: &Loops) -> Self {
        let (since, count) = loops.noted();
        Self { boot: this_boot(), loops_since: since.map(|t| t.0), loops: count, ..self }
    }
}

fn this_boot() -> String {
    // Without it every start of the daemon counts as one of the machine: nothing is taken for running that is not.
    std::fs::read_to_string(BOOT_ID)
        .map_or_else(|_| format!("pid {}", std::process::id()), |id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory.json");
        assert_eq!(Memory::load(&path), Memory::default());
        let mut loops = Loops::default();
        loops.count(farm_core::life::Limit::default(), UnixTime(7));
        let off = [("tcp.web".to_owned(), Some(9))].into();
        let memory = Memory { wanted: true, up: true, off, ..Memory::default() }.now(&loops);
        memory.save(&path).unwrap();
        assert_eq!(Memory::load(&path), memory);
        assert_eq!((Memory::load(&path).loops(), memory.rebooted()), (loops, false));
        std::fs::write(&path, b"{\"wanted\": tru").unwrap();
        assert_eq!(Memory::load(&path), Memory::default());
    }
}
