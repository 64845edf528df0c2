//! Inputs to begin with: the oracle's frames, and what was found before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farm_common::layout::Entry;
use farm_common::verdict::{Mode, Phase, Socket};
use serde::Deserialize;

use crate::Case;

#[derive(Deserialize)]
struct Oracle {
    worlds: Vec<World>,
}

/// The part of one of the oracle's worlds that differs from the table here.
#[derive(Deserialize)]
struct World {
    me: u8,
    mode: String,
    step: String,
    current: u8,
    previous: u8,
    deadline: u64,
    /// Name, frame, action, frame afterwards.
    cases: Vec<(String, String, String, Option<String>)>,
}

impl World {
    fn case(&self, frame: &str) -> Option<Case> {
        let phase = match self.step.as_str() {
            "stable" => Phase::Stable,
            "prepare" => Phase::Prepare,
            "move" => Phase::Move,
            "closed" => Phase::MoveClosed,
            "activate" => Phase::Activate,
            _ => return None,
        };
        let entry =
            Entry { current: self.current, previous: self.previous, phase: phase.into(), reserved: 0 };
        Some(Case {
            me: self.me,
            entry,
            mode: if self.mode == "flood" { Mode::Flood } else { Mode::Directed },
            expired: self.deadline == 1,
            no_link: false,
            socket: Socket::None,
            frame: bytes(frame)?,
        })
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    pairs.collect()
}

/// Every case of the oracle.
///
/// # Errors
/// When its file cannot be read.
pub fn oracle() -> io::Result<Vec<Case>> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/cases.json"))?;
    let oracle: Oracle = serde_json::from_str(&text)?;
    let cases = oracle.worlds.iter().flat_map(|world| world.cases.iter().map(|case| world.case(&case.1)));
    let cases: Option<Vec<Case>> = cases.collect();
    cases.ok_or_else(|| io::Error::other("the oracle names a step or a frame that cannot be read"))
}

/// Where inputs are kept that once broke a property.
#[must_use]
pub fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// The inputs in a directory, each with the name of its file, in the order of the names.
///
/// # Errors
/// When it cannot be read.
pub fn kept(directory: &Path) -> io::Result<Vec<(String, Case)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.extend(Case::read(&fs::read(entry.path())?).map(|case| (name, case)));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}
