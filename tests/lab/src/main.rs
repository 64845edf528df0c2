//! `farm-lab`: labs from the command line (`farmctl lab` and `farmctl demo` start it).

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::{Parser, Subcommand};
use farm_lab::record::{Directory, Role};
use farm_lab::{Lab, LabName, Mode, Place, Spec, bench, demo, guardian};

/// Name of the lab that needs no name.
const DEFAULT_LAB: &str = "default";

/// Farms in network namespaces.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
    Status,
    /// Show a farm under load while its servers die and return.
    Demo(Demo),
    /// Measure every figure, with its budget.
    Bench(Bench),
    /// Take a lab down when standard input ends (started by every lab for itself).
    #[command(hide = true)]
    Guard {
        #[command(flatten)]
        lab: Which,
    },
}

#[derive(clap::Args)]
struct Which {
    /// Name of the lab; labs of different names share nothing.
    #[arg(long, env = "FARM_LAB", default_value = DEFAULT_LAB)]
    name: LabName,
}

#[derive(clap::Args)]
struct Up {
    #[command(flatten)]
    lab: Which,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// How clients' frames reach the nodes.
    #[arg(long, value_enum, default_value_t = Mode::Directed)]
    mode: Mode,
    /// Give the nodes a second cluster network.
    #[arg(long)]
    second_network: bool,
    /// Attach the filter in native mode.
    #[arg(long)]
    native: bool,
    /// Machines and cables only: no daemons.
    #[arg(long)]
    bare: bool,
    /// Stay in the foreground: the lab goes down with this process, for example on Ctrl-C.
    #[arg(long)]
    foreground: bool,
    /// Leave the lab as it is when the farm does not come up, to look at its logs.
    #[arg(long)]
    keep_broken: bool,
}

#[derive(clap::Args)]
struct Demo {
    /// Name of the lab that the demo makes for itself.
    #[arg(long, default_value = "demo")]
    name: LabName,
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// How clients' frames reach the nodes.
    #[arg(long, value_enum, default_value_t = Mode::Directed)]
    mode: Mode,
    /// Requests per second.
    #[arg(long, default_value_t = demo::RATE, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Bench {
    /// Where the figures go, as JSON.
    #[arg(long)]
    out: std::path::PathBuf,
    /// Runs of everything that is repeated.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Only figures of this name, or whose group contains it.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// How long every core is kept busy for the lease margins.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    seconds_busy: u64,
    /// Name of the labs that the bench makes for itself.
    #[arg(long, default_value = "bench")]
    name: LabName,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("farm-lab: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(up) => bring_up(up),
        Command::Exec { lab, place, command } => exec(&lab.name, place, &command),
        Command::Cut { lab, place } => Lab::attach(&lab.name)?.cut(place),
        Command::Heal { lab, place } => Lab::attach(&lab.name)?.heal(place),
        Command::Down { lab } => farm_lab::down(&lab.name),
        Command::Status => status(),
        Command::Demo(demo) => show(demo),
        Command::Bench(bench) => measure(bench),
        Command::Guard { lab } => guardian::watch(&lab.name),
    }
}

fn bring_up(up: Up) -> Result<()> {
    let spec = Spec {
        name: up.lab.name,
        nodes: up.nodes,
        mode: up.mode,
        second_network: up.second_network,
        native: up.native,
    };
    let (lab, name) = (Lab::build(spec.clone())?, spec.name);
    let running = if up.bare { Ok(()) } else { lab.run_farm() };
    let keep = if running.is_ok() { !up.foreground } else { up.keep_broken };
    let owned = if keep { lab.keep().map(|()| None)? } else { Some(lab) };
    running?;
    let exec = if name.as_str() == DEFAULT_LAB { "exec".into() } else { format!("exec --name {name}") };
    println!("lab {name} is up; try:");
    println!("  farmctl lab {exec} node1 -- farmctl cluster status");
    println!("  farmctl lab {exec} client -- curl -s http://{}/", farm_lab::FIRST_VIP);
    // The guardian takes an owned lab down when this process is ended.
    while owned.is_some() {
        std::thread::park();
    }
    Ok(())
}

/// The picture goes to standard error, the result to standard output.
fn show(args: Demo) -> Result<()> {
    let spec = Spec::new(args.name, args.nodes).mode(args.mode);
    let rows = demo::run(spec, demo::Show { rate: args.rate, picture: std::io::stderr().is_terminal() })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("\n{}", demo::table(&rows));
    }
    let failed = rows.iter().filter(|row| !row.recovered).count();
    ensure!(failed == 0, "the farm did not recover from {failed} of {} steps", rows.len());
    Ok(())
}

/// Progress goes to standard error, the table to standard output. A missed budget is a result, no failure.
fn measure(args: Bench) -> Result<()> {
    let plan = bench::Plan {
        runs: args.runs.into(),
        only: args.only,
        busy: std::time::Duration::from_secs(args.seconds_busy),
        name: args.name,
    };
    let figures = bench::run(&plan)?;
    ensure!(!figures.is_empty(), "--only names no figure");
    std::fs::write(&args.out, serde_json::to_string_pretty(&figures)? + "\n")?;
    print!("{}", bench::table(&figures));
    Ok(())
}

/// Becomes the command: signals, terminal and exit code are the command's own.
fn exec(name: &LabName, place: Place, command: &[String]) -> Result<()> {
    let [program, args @ ..] = command else { bail!("no command") };
    let error = Lab::attach(name)?.command(place, program)?.args(args).exec();
    bail!("{program} on {place}: {error}")
}

fn status() -> Result<()> {
    for name in Directory::existing()? {
        let Some(record) = Directory::of(&name).read()? else { continue };
        let owner = record.owner.map_or("kept".into(), |owner| format!("owned by process {}", owner.pid));
        println!("{name}: {} nodes, {}, {owner}", record.spec.nodes, record.spec.mode.name());
        for node in Place::nodes(record.spec.nodes) {
            let pid = |role| record.running(node, role).map_or("-".into(), |p| p.pid.to_string());
            println!("  {node} {} farmd {} nginx {}", node.address(), pid(Role::Farmd), pid(Role::Nginx));
        }
    }
    Ok(())
}
