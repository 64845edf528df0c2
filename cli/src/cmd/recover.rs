//! `farmctl recover`: farmd does the work, on the data directory.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::args::Global;
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::programs::Program;

const FARMD: Program = Program { name: "farmd", cure: "farmctl help program_not_installed" };

/// Which server, and whether to ask.
#[derive(Debug, Args)]
pub struct Recover {
    /// Configuration of the daemon
    #[arg(long, default_value = "/etc/farm/farmd.toml", value_name = "FILE")]
    config: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Becomes farmd; returns only if that fails.
pub(super) fn run(recover: &Recover, global: &Global) -> Result<Exit, Error> {
    if global.json {
        let fact = "farmctl recover has no --json: it shows what would be lost, and asks";
        return Err(Problem::new(Exit::Usage, "usage", fact, "farmctl recover --yes").into());
    }
    let words = ["recover".into(), "--config".into(), recover.config.clone().into_os_string()];
    Ok(FARMD.become_with(words.into_iter().chain(recover.yes.then(|| OsString::from("--yes"))))?)
}
