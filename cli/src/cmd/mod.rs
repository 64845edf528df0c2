//! One file per command group: its arguments, its call, what it prints.

pub mod checker;
pub mod cluster;
pub mod completions;
pub mod doctor;
mod drain;
pub mod drill;
pub mod events;
pub mod explain;
pub mod help;
pub mod lab;
pub mod module;
pub mod node;
pub mod notify;
pub mod recover;
mod restart;
pub mod script;
pub mod service;
mod shutdown;
pub mod snapshot;
pub mod tiebreak;
pub mod version;
pub mod watch;
pub mod why;

use farm_proto::v1;

use crate::args::{Cli, Command, Global};
use crate::client::{Daemon, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::render::Names;
use crate::view;

/// Carries out a command.
///
/// # Errors
/// What went wrong.
pub async fn run(cli: Cli, out: &mut Output<'_>) -> Result<Exit, Error> {
    let global = &cli.global;
    match cli.command {
        Command::Status => cluster::screen(global, out).await,
        Command::Cluster(command) => cluster::run(command, global, out).await,
        Command::Node(command) => node::run(command, global, out).await,
        Command::Service(command) => service::run(command, global, out).await,
        Command::Module(command) => module::run(command, global, out).await,
        Command::Checker(command) => checker::run(command, global, out).await,
        Command::Script(command) => script::run(command, global, out).await,
        Command::Explain(command) => explain::run(command, global, out).await,
        Command::Drill(command) => drill::run(command, global, out).await,
        Command::Snapshot(command) => snapshot::run(command, global, out).await,
        Command::Notify(command) => notify::run(&command, global, out).await,
        Command::Watch(command) => watch::run(&command, global, out).await,
        Command::Why(command) => why::run(command, global, out).await,
        Command::Doctor(command) => doctor::run(command, global, out).await,
        Command::Events(command) => events::run(command, global, out).await,
        Command::Recover(command) => recover::run(&command, global),
        Command::Lab(passed) => lab::run(lab::Group::Lab, passed, global),
        Command::Demo(passed) => lab::run(lab::Group::Demo, passed, global),
        Command::Help(command) => help::run(&command, out),
        Command::Completions(command) => completions::run(command, out),
        Command::Version => version::run(out),
    }
}

/// The state of the cluster as one daemon knows it.
async fn status(daemon: &Daemon) -> Result<v1::StatusResponse, Error> {
    daemon.call(ORDINARY, async |mut c| c.status(v1::StatusRequest {}).await).await
}

/// The state of the cluster behind `global`.
async fn ask_status(global: &Global) -> Result<v1::StatusResponse, Error> {
    status(&Daemon::connect(global).await?).await
}

/// The names of the nodes. A courtesy: without them the ids are shown.
async fn names(daemon: &Daemon) -> Names {
    status(daemon).await.map(|s| Names::of(&s)).unwrap_or_default()
}

/// Says that a change was made.
fn done(out: &mut Output<'_>, done: &v1::Done, what: &str) -> Result<Exit, Error> {
    out.show(&view::Done::from(done), || format!("{what} (epoch {})\n", done.epoch))?;
    Ok(Exit::Done)
}
