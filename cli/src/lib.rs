//! `farmctl`, the command line of Farm: arguments → call → rendering, one file per command group in [`cmd`].
//!
//! Results go to the standard output, as text or, with `--json`, as the objects of [`view`]. What goes wrong
//! is one [`error::Problem`] on the standard error, and the exit code is one of [`exit::Exit`].
#![forbid(unsafe_code)]

pub mod args;
pub mod client;
pub mod cmd;
pub mod error;
pub mod exit;
pub mod output;
pub mod probe;
pub mod programs;
pub mod render;
pub mod usage;
pub mod values;

pub use farm_view as view;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::args::Cli;
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match args::parse(args.clone()) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, &args).into(),
    };
    let json = cli.global.json;
    let mut stdout = io::stdout();
    let mut out = Output::standard(&mut stdout, json);
    finish(run(cli, &mut out), json).into()
}

/// Carries out a parsed command line.
///
/// # Errors
/// What went wrong; nothing has been told to the operator yet.
pub fn run(cli: Cli, out: &mut Output<'_>) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cmd::run(cli, out))
}

/// Help and versions are no mistakes; everything else is told in one sentence.
fn not_parsed(error: &clap::Error, args: &[OsString]) -> Exit {
    if error.use_stderr() {
        let json = args.iter().any(|a| a == "--json");
        return finish(Err(usage::problem(error, args).into()), json);
    }
    match error.print() {
        Ok(()) => Exit::Done,
        Err(failed) => finish(Err(failed.into()), false),
    }
}

/// Tells the operator what went wrong, if anything, and the shell.
fn finish(result: Result<Exit, Error>, json: bool) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(Error::PipeClosed) => Exit::Done,
        Err(Error::Problem(problem)) => {
            // Without a standard error nobody is left to be told; the exit code remains.
            let _ = io::stderr().write_all(told(&problem, json).as_bytes());
            problem.exit
        }
    }
}

/// A problem as it stands on the standard error.
#[must_use]
pub fn told(problem: &Problem, json: bool) -> String {
    if json {
        let object = serde_json::json!({ "schema": view::SCHEMA, "error": problem });
        return format!("{object}\n");
    }
    let Problem { code, fact, cure, .. } = problem;
    format!("error[{code}]: {fact}\n  try: {cure}\n")
}
