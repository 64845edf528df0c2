//! The command line of the daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use farm_core::apply::LEVEL;
use farm_core::id::FeatureLevel;
use farm_core::model::Role;

use crate::config::{Config, RoleName};
use crate::modules::LOG_LIMITS;
use crate::problem::Problem;
use crate::recover;
use crate::run::run;

/// The daemon of a Farm node.
#[derive(Parser)]
#[command(name = "farmd", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, default_value = "/etc/farm/farmd.toml", global = true)]
    config: PathBuf,
    /// What this node is for; in place of the configuration's role.
    #[arg(long, global = true)]
    role: Option<RoleName>,
    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,
    /// With --check: whether this build can take the place of a daemon in a cluster of that feature level. It must
    /// know the level, and the kernel must take its filter.
    #[arg(long, requires = "check", value_name = "LEVEL")]
    needs_level: Option<u32>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Parts of the daemon that run as processes of their own.
#[derive(Subcommand)]
enum Part {
    /// Writes what comes from standard input into the log of a module. Started by the daemon; it outlives it.
    #[command(hide = true)]
    Applog(Applog),
    /// Tells what keeps this machine from running Farm well, whether or not the daemon runs, and what to do about it.
    /// Ends with 1 where there is a fault. In a cluster `farmctl doctor` tells more.
    Doctor(Doctor),
    /// Lets this server go on alone with what is on its disk, when the others are lost for good or no majority of them
    /// is left. Shows what would be lost, and asks. The daemon must not run.
    Recover(Recover),
}

#[derive(Args)]
struct Recover {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Applog {
    /// Directory of the log.
    directory: PathBuf,
    /// Who writes.
    #[arg(long)]
    label: String,
    /// Bytes of a file.
    #[arg(long)]
    size: u64,
    /// Older files that are kept.
    #[arg(long)]
    files: u32,
}

/// Reads the arguments and runs the daemon.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments {
        Arguments { part: Some(Part::Applog(log)), .. } => applog(&log),
        Arguments { part: Some(Part::Doctor(asked)), config, role, .. } => {
            return ended(doctor(&asked, &config, role));
        }
        Arguments { part: Some(Part::Recover(asked)), config, .. } => recover::run(&config, asked.yes),
        Arguments { check: true, config, role, needs_level, part: None } => {
            check(&config, role, needs_level.map(FeatureLevel))
        }
        Arguments { config, role, .. } => run(&config, role),
    };
    ended(done.map(|()| ExitCode::SUCCESS))
}

fn ended(done: Result<ExitCode, Problem>) -> ExitCode {
    done.unwrap_or_else(|problem| {
        eprintln!("farmd: error{problem}");
        ExitCode::FAILURE
    })
}

fn doctor(asked: &Doctor, config: &Path, role: Option<RoleName>) -> Result<ExitCode, Problem> {
    let plan = crate::doctor::plan(&Config::load(config, role)?);
    let runtime = crate::run::runtime()?;
    let facts = runtime.block_on(farm_doctor::look(&plan, Vec::new()));
    // A probe that hangs, as a disk does, must not keep what is known from being told.
    runtime.shutdown_background();
    let findings = farm_doctor::judge(&facts);
    if asked.json {
        println!("{}", serde_json::json!({ "schema": 1, "findings": findings }));
    } else {
        let shown = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        println!("{shown}\n{}", farm_doctor::summary(&findings));
    }
    let faults = findings.iter().any(|finding| finding.level == farm_doctor::Level::Fault);
    Ok(if faults { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn applog(log: &Applog) -> Result<(), Problem> {
    let limits = farm_host::applog::Limits { file_bytes: log.size, files: log.files, ..LOG_LIMITS };
    farm_host::applog::pump(std::io::stdin().lock(), &log.directory, &log.label, &limits).map_err(|error| {
        let fact = format!("{} cannot be written: {error}", log.directory.display());
        Problem::new("log_failed", fact, format!("df {}", log.directory.display()))
    })
}

fn check(config: &Path, role: Option<RoleName>, needs: Option<FeatureLevel>) -> Result<(), Problem> {
    let config = Config::load(config, role)?;
    let Some(needs) = needs else { return Ok(()) };
    if needs > LEVEL {
        let fact = format!("the cluster uses feature level {needs}, this build knows {LEVEL}");
        return Err(Problem::new("old_version", fact, "farmd --version"));
    }
    if config.role == Role::Witness {
        return Ok(());
    }
    farm_dataplane::attach::rehearse().map(drop).map_err(|error| {
        let fact = format!("the kernel does not take the filter of this build: {error}");
        Problem::new("filter_refused", fact, "farmctl node restart")
    })
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
        let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s'));
        let stop: u64 = stop.and_then(|s| s.parse().ok()).expect("seconds");
        assert!(crate::member::HAND_OVER_MAX.as_secs() + 5 <= stop, "systemd would kill a hand-over");
        assert!(!arguments.check && example.ends_with(&format!("; {installed}.")), "{installed}: {example}");
    }

    #[test]
    fn the_unit_of_a_witness_starts_one() {
        let unit = include_str!("../../conf/farm-witness.service");
        let start =
            unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("the unit starts it");
        let arguments = Arguments::try_parse_from(start.split_whitespace()).expect("known arguments");
        let example = include_str!("../../conf/witness.toml").lines().next().expect("a first line");
        let installed = arguments.config.display().to_string();
        assert!(example.ends_with(&format!("; {installed}.")), "{installed}: {example}");
        assert_eq!(arguments.role, Some(RoleName::Witness));
        // What the unit hands over is where the example looks for it.
        let secret = "secret_file = \"/run/credentials/farm-witness.service/secret\"";
        assert!(
            unit.contains("LoadCredential=secret:")
                && include_str!("../../conf/witness.toml").contains(secret)
        );
    }
}
