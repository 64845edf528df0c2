//! Takes a lab down when its owner ends, in whatever way: a small process that waits for the end of a pipe.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::lab;
use crate::names::LabName;
use crate::process::Process;
use crate::{binaries, shell};

/// Says that the lab stays although its owner ends.
const LET_GO: u8 = b'.';

/// The owner's end.
#[derive(Debug)]
pub struct Guardian {
    process: Child,
}

impl Guardian {
    /// Starts watching over `name`.
    ///
    /// # Errors
    /// The program `farm-lab` is missing.
    pub fn start(name: &LabName) -> Result<Self> {
        let mut command = Command::new(binaries::find("farm-lab")?);
        let owner = Process::current()?.to_string();
        command.args(["guard", "--owner", &owner, "--name", name.as_str()]);
        // A process group of its own: Ctrl-C in the terminal must reach the owner only.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("starting the guardian of the lab")?;
        Ok(Self { process })
    }

    /// Ends the watch; the lab stays as it is.
    ///
    /// # Errors
    /// The guardian has ended before.
    pub fn let_go(mut self) -> Result<()> {
        let mut pipe = self.process.stdin.take().context("the guardian's stdin is a pipe")?;
        pipe.write_all(&[LET_GO]).context("the guardian of the lab has ended")?;
        drop(pipe);
        self.process.wait().context("the guardian of the lab").map(drop)
    }
}

/// The guardian's end: waits for the owner and takes its lab down unless it was let go.
///
/// # Errors
/// The lab could not be taken down.
pub fn watch(name: &LabName, owner: Process) -> Result<()> {
    let mut said = Vec::new();
    std::io::stdin().read_to_end(&mut said)?;
    if said == [LET_GO] { Ok(()) } else { lab::down_owned(name, owner) }
}

/// Waits until a lab is gone: for those who saw its owner end.
///
/// # Errors
/// It is still there after a generous time.
pub fn await_gone(name: &LabName) -> Result<()> {
    /// Killing a dozen processes and deleting a dozen namespaces takes well below a second on an idle machine.
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
    let gone = || Ok(lab::exists(name)?.eq(&false).then_some(()));
    shell::await_value(&format!("lab {name} is gone"), LIMIT, gone)
}
