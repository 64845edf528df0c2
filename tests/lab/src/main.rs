//! `farm-lab`: labs from the command line (`farmctl lab` and `farmctl demo` start it).

mod args;

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use farm_lab::{Lab, LabName, Place, Spec, bench, demo, echo, guardian, page, status};

use crate::args::{Args, Bench, Command, DEFAULT_LAB, Demo, Up};

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
        Command::Status { json } => show_labs(json),
        Command::Demo(demo) => show(demo),
        Command::Bench(bench) => measure(bench),
        Command::Pages { root } => page::write(&root),
        Command::Echo { node, port } => echo::serve(node, port),
        Command::Guard { lab, owner } => guardian::watch(&lab.name, owner),
    }
}

fn bring_up(up: Up) -> Result<()> {
    let spec = Spec {
        name: up.lab.name,
        nodes: up.nodes,
        mode: up.mode,
        second_network: up.second_network,
        native: up.native,
        witness: up.witness,
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
    if let Some(out) = &args.out {
        demo::write(&rows, out)?;
    }
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
    let report = bench::run(&plan, |report| report.write(&args.out))?;
    ensure!(!report.figures.is_empty(), "--only names no figure");
    print!("{}", report.table());
    report.pivots().filter(|(_, table)| table.lines().count() > 2).for_each(|(_, table)| print!("\n{table}"));
    Ok(())
}

/// Becomes the command: signals, terminal and exit code are the command's own.
fn exec(name: &LabName, place: Place, command: &[String]) -> Result<()> {
    let [program, args @ ..] = command else { bail!("no command") };
    let error = Lab::attach(name)?.command(place, program)?.args(args).exec();
    bail!("{program} on {place}: {error}")
}

fn show_labs(json: bool) -> Result<()> {
    let labs = status::Labs::read()?;
    if json {
        println!("{}", serde_json::to_string(&labs)?);
    } else {
        print!("{labs}");
    }
    Ok(())
}
