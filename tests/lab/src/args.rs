//! What can be said to `farm-lab`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use farm_lab::process::Process;
use farm_lab::{LabName, Mode, Place, demo};

/// Name of the lab that needs no name.
pub const DEFAULT_LAB: &str = "default";

/// Farms in network namespaces.
#[derive(Parser)]
#[command(version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make a lab: nodes with daemons and web servers, a client, a router, a client behind it.
    Up(Up),
    /// Run a command on a machine: node1, node2, ..., client, router, remote, switch.
    Exec {
        #[command(flatten)]
        lab: Which,
        /// The machine.
        place: Place,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Pull the network cables of a machine.
    Cut {
        #[command(flatten)]
        lab: Which,
        /// The machine.
        place: Place,
    },
    /// Plug the network cables of a machine in again.
    Heal {
        #[command(flatten)]
        lab: Which,
        /// The machine.
        place: Place,
    },
    /// Take a lab down, or what is left of it.
    Down {
        #[command(flatten)]
        lab: Which,
    },
    /// Show the labs that are up.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a farm under load while its servers die and return.
    Demo(Demo),
    /// Measure every figure, with its budget.
    Bench(Bench),
    /// Write the results in docs/demo.json and docs/bench.json into README.md and docs/figures.md.
    Pages {
        /// The root of the source tree.
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        root: PathBuf,
    },
    /// Send back what comes, for ever (started on nodes of a lab).
    #[command(hide = true)]
    Echo {
        /// Number of the node, which is said first.
        #[arg(long)]
        node: u8,
        /// TCP port.
        #[arg(long)]
        port: u16,
    },
    /// Take a lab down when standard input ends (started by every lab for itself).
    #[command(hide = true)]
    Guard {
        #[command(flatten)]
        lab: Which,
        /// Who owns the lab, as PID:START.
        #[arg(long)]
        owner: Process,
    },
}

#[derive(clap::Args)]
pub struct Which {
    /// Name of the lab; labs of different names share nothing.
    #[arg(long, env = "FARM_LAB", default_value = DEFAULT_LAB)]
    pub name: LabName,
}

#[derive(clap::Args)]
pub struct Up {
    #[command(flatten)]
    pub lab: Which,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    pub nodes: u8,
    /// How clients' frames reach the nodes.
    #[arg(long, value_enum, default_value_t = Mode::Directed)]
    pub mode: Mode,
    /// Give the nodes a second cluster network.
    #[arg(long)]
    pub second_network: bool,
    /// Attach the filter in native mode.
    #[arg(long)]
    pub native: bool,
    /// The last node votes and serves nothing.
    #[arg(long)]
    pub witness: bool,
    /// Machines and cables only: no daemons.
    #[arg(long)]
    pub bare: bool,
    /// Stay in the foreground: the lab goes down with this process, for example on Ctrl-C.
    #[arg(long)]
    pub foreground: bool,
    /// Leave the lab as it is when the farm does not come up, to look at its logs.
    #[arg(long)]
    pub keep_broken: bool,
}

#[derive(clap::Args)]
pub struct Demo {
    /// Name of the lab that the demo makes for itself.
    #[arg(long, default_value = "demo")]
    pub name: LabName,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    pub nodes: u8,
    /// How clients' frames reach the nodes.
    #[arg(long, value_enum, default_value_t = Mode::Directed)]
    pub mode: Mode,
    /// Requests per second.
    #[arg(long, default_value_t = demo::RATE, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the result to a file, too, as JSON.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct Bench {
    /// Where the figures go, as JSON.
    #[arg(long, value_name = "FILE", default_value = "bench.json")]
    pub out: PathBuf,
    /// Runs of everything that is repeated: of each fault in each mode.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// Only figures of this name, or whose group contains it.
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// How long every core is kept busy for the lease margins.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub seconds_busy: u64,
    /// Name of the labs that the bench makes for itself.
    #[arg(long, default_value = "bench")]
    pub name: LabName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn every_measuring_command_that_a_figure_names_is_understood() {
        let commands = farm_lab::bench::commands();
        assert!(!commands.is_empty());
        for command in commands {
            let parsed = Args::try_parse_from(command.split_whitespace()).map(|args| args.command);
            let Ok(Command::Bench(bench)) = parsed else { panic!("{command:?} does not measure") };
            assert_eq!(bench.only.as_deref(), command.split_whitespace().last());
        }
    }
}
