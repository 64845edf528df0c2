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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_the_daemon_with_arguments_that_it_knows() {
        let unit = include_str!("../../conf/farmd.service");
        let start =
            unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("the unit starts it");
        let arguments = Arguments::try_parse_from(start.split_whitespace()).expect("known arguments");
        let example = include_str!("../../conf/farmd.toml").lines().next().expect("a first line");
        let installed = arguments.config.display().to_string();
        assert!(!arguments.check && example.ends_with(&format!("; {installed}.")), "{installed}: {example}");
    }
}
