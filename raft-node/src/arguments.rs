//! The command line of the daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use farm_core::apply::LEVEL;
use farm_core::id::FeatureLevel;

use crate::config::Config;
use crate::problem::Problem;
use crate::run::run;

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
    /// With --check: whether this build knows the feature level of the cluster.
    #[arg(long, requires = "check", default_value_t = 0, value_name = "LEVEL")]
    needs_level: u32,
}

/// Reads the arguments and runs the daemon.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments {
        Arguments { check: true, config, needs_level } => check(&config, needs_level),
        Arguments { config, .. } => run(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("farmd: error{problem}");
            ExitCode::FAILURE
        }
    }
}

fn check(config: &Path, needs: u32) -> Result<(), Problem> {
    Config::load(config)?;
    if FeatureLevel(needs) <= LEVEL {
        return Ok(());
    }
    let fact = format!("the cluster uses feature level {needs}, this build knows {LEVEL}");
    Err(Problem::new("old_version", fact, "farmd --version"))
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
