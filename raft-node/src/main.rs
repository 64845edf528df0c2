//! `farmd`: arguments in, exit code out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The daemon of a Farm node.
#[derive(Parser)]
#[command(name = "farmd", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "/etc/farm/farmd.toml")]
    config: PathBuf,
    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match farmd::run::run(&arguments.config, arguments.check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("farmd: error{problem}");
            ExitCode::FAILURE
        }
    }
}
