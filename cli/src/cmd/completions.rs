//! `farmctl completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;

/// Print completions for a shell: `farmctl completions bash > /etc/bash_completion.d/farmctl`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

pub(super) fn run(command: Completions, out: &mut Output<'_>) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "farmctl", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
