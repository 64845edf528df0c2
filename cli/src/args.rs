//! The command line. Every word here is also a word of the protocol and of the documents.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::exit::HELP;
use crate::values::{HostPort, limit};
use crate::{cmd, usage};

/// Where farmd listens unless told otherwise.
pub const SOCKET: &str = "/run/farm/farmd.sock";

/// Look at a farm and change it.
#[derive(Debug, Parser)]
#[command(name = "farmctl", version, after_help = HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Unix socket of the daemon
    #[arg(long, global = true, env = "FARM_SOCKET", default_value = SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// Ask over TCP instead of the socket (port 7600 when not given); a daemon only shows things there
    #[arg(long, global = true, value_parser = HostPort::api, value_name = "ADDR[:PORT]")]
    pub server: Option<HostPort>,
    /// Print JSON: field names as in farm/v1/*.proto, and `schema`, the version of the shape
    #[arg(long, global = true)]
    pub json: bool,
    /// Longest wait for an answer [default: 10s; 60s for cluster init, node join, node leave and doctor]
    #[arg(long, global = true, value_parser = limit, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// The commands, one group per file under `cmd/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Nodes, modules, what is not green and what to do next, in 24 lines; cluster status shows everything
    Status,
    /// Found a cluster, look at it, set its timing, finish an upgrade
    #[command(subcommand)]
    Cluster(cmd::cluster::Cluster),
    /// Members: join, leave, drain, maintenance, restart, list, set, counters
    #[command(subcommand)]
    Node(cmd::node::Node),
    /// Virtual IPs and ports: add, list, remove
    #[command(subcommand)]
    Service(cmd::service::Service),
    /// Applications: apply, start, stop, show, log, applog, shares of the nodes, how long connections may stay
    #[command(subcommand)]
    Module(cmd::module::Module),
    /// What modules depend on: let a check count for nothing for a while
    #[command(subcommand)]
    Checker(cmd::checker::Checker),
    /// From a script of a module: log, error, stop, restart, incloop, checkloop
    #[command(subcommand)]
    Script(cmd::script::Script),
    /// Who serves a client, and why
    Explain(cmd::explain::Explain),
    /// Follow the state of the cluster and what happens, on the whole screen
    Watch(cmd::watch::Watch),
    /// What went wrong: the cause, what followed, what clients felt, what to do
    Why(cmd::why::Why),
    /// Rehearse a failure: a node, whoever leads, an application; measured, bounded, with a report
    Drill(cmd::drill::Drill),
    /// Telling people: try it
    #[command(subcommand)]
    Notify(cmd::notify::Notify),
    /// One archive for whoever helps, of all nodes that answer
    Snapshot(cmd::snapshot::Snapshot),
    /// What keeps the nodes from working well, and what to do about it
    Doctor(cmd::doctor::Doctor),
    /// What happened, on one node or on all
    Events(cmd::events::Events),
    /// Let this server go on alone with what is on its disk, when no majority is left; farmd must not run here
    Recover(cmd::recover::Recover),
    /// Farms in network namespaces; see `farmctl lab --help`
    #[command(disable_help_flag = true)]
    Lab(cmd::lab::Passed),
    /// Faults against a running farm; see `farmctl demo --help`
    #[command(disable_help_flag = true)]
    Demo(cmd::lab::Passed),
    /// What a code means and what to do, or how a command is used
    Help(cmd::help::Help),
    /// Print completions for a shell
    Completions(cmd::completions::Completions),
    /// Print the version
    Version,
}

/// Parses a command line, program name first.
///
/// # Errors
/// Clap's; [`usage::problem`] says it in one sentence.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let passed = args.get(1).is_some_and(|a| a == OsStr::new("lab") || a == OsStr::new("demo"));
    if passed {
        // Everything behind is farm-lab's, also options that look like ours.
        args.insert(2, "--".into());
    }
    Cli::try_parse_from(args)
}

/// Checks a cure or next step that the project prints: it must be one command without prose, and if that
/// command is `farmctl` it must parse. Words are separated by blanks; there is no quoting. Words in capitals
/// that the usage texts have too (`NODE`, `IP`, …) stand for what the operator knows.
///
/// # Errors
/// One sentence that says what is wrong with it.
pub fn parse_cure(cure: &str) -> Result<(), String> {
    let words: Vec<&str> = cure.split_whitespace().collect();
    let farmctl = match words.as_slice() {
        [] => return Err("an empty cure cures nothing".into()),
        ["farmctl", ..] => &words[..],
        ["sudo", "farmctl", ..] => &words[1..],
        [program, ..] if PROGRAMS.contains(program) => return Ok(()),
        [program, ..] => {
            return Err(format!("{program:?} is not a program that a cure may name: {PROGRAMS:?}"));
        }
    };
    match parse(farmctl.iter().map(|word| filled(word).into())) {
        Ok(_) => Ok(()),
        Err(error) if !error.use_stderr() => Ok(()),
        Err(error) => Err(format!("{cure:?}: {}", usage::problem(&error, &[]).fact)),
    }
}

/// What stands for something in a cure, with an example of it.
const PLACEHOLDERS: [(&str, &str); 10] = [
    ("CLIENT", "192.0.2.7"),
    ("DIR", "web"),
    ("IP", "192.0.2.100"),
    ("MODULE", "web"),
    ("NAME", "node1"),
    ("NETWORK", "lan"),
    ("NODE", "node1"),
    ("PEER", "192.0.2.11"),
    ("PORT", "80"),
    ("VIP", "192.0.2.100"),
];

/// `word` with its placeholders filled in.
fn filled(word: &str) -> String {
    let example =
        |part: &str| PLACEHOLDERS.iter().find(|(name, _)| *name == part).map(|(_, e)| (*e).to_owned());
    let whole = word.split_inclusive(|c: char| !c.is_ascii_uppercase()).map(|part| {
        let name = part.trim_end_matches(|c: char| !c.is_ascii_uppercase());
        example(name).map_or_else(|| part.to_owned(), |e| e + &part[name.len()..])
    });
    whole.collect()
}

/// Other programs that a cure may name: they are on every supported system.
const PROGRAMS: &[&str] = &[
    "bpftool",
    "cargo",
    "chmod",
    "cp",
    "df",
    "dmesg",
    "farmd",
    "getent",
    "install",
    "ip",
    "journalctl",
    "make",
    "mkdir",
    "mount",
    "mv",
    "nft",
    "scp",
    "ss",
    "systemctl",
];
