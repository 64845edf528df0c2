//! `farmctl module …`

mod apply;
mod control;
mod directory;
mod log;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use farm_proto::v1;

use super::done;
use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{drain, module_name, name};

/// Applications.
#[derive(Debug, Subcommand)]
pub enum Module {
    /// Make a module what a directory says: module.toml, bin/; shows what changes
    Apply {
        /// The directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Name of the module [default: the directory's]
        #[arg(long, value_parser = module_name)]
        name: Option<String>,
        /// Say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a module what an earlier definition of it says
    Rollback {
        /// The module
        #[arg(value_parser = module_name)]
        module: String,
        /// Which; see module show [default: the one before the present one]
        #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
        revision: u64,
        /// Say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write the directory of a new module, from a template: nginx, apache, service, container
    New {
        /// Name of the module, and of the directory
        #[arg(value_parser = module_name)]
        name: String,
        /// What it is made from
        #[arg(long, default_value = "service")]
        template: String,
    },
    /// Write the definition of a module into a directory
    Export {
        /// The module
        #[arg(value_parser = module_name)]
        module: String,
        /// The directory; it must not exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Which; see module show [default: the present one]
        #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
        revision: u64,
    },
    /// List the modules, and how they are on each node
    List,
    /// Show one module: services, definitions, applications, processes
    Show {
        /// The module
        #[arg(value_parser = module_name)]
        module: String,
    },
    /// Remove a module that runs nowhere
    Remove {
        /// The module
        #[arg(value_parser = module_name)]
        module: String,
    },
    /// Start the application of a module
    Start(control::Which),
    /// Stop it: its clients go elsewhere first
    Stop(control::Stopped),
    /// Stop and start it in place
    Restart(control::Stopped),
    /// Stop the module altogether, and start it
    Stopstart(control::Stopped),
    /// What happened to the module and its application: states, checks, shares, what its scripts say
    Log(log::Log),
    /// What its scripts and its application have written
    Applog(log::Applog),
    /// Set the relative share of a node; 100 when never set, 0 drains
    Weight {
        /// The module
        #[arg(value_parser = module_name)]
        module: String,
        /// The node
        #[arg(value_parser = name)]
        node: String,
        /// 0 to 65535
        weight: u16,
    },
    /// Set how the module is treated
    Set {
        /// The module
        #[arg(value_parser = module_name)]
        module: String,
        /// How long connections may stay with their previous node after a change: 30s, 10m, up to 24h
        #[arg(long, value_parser = drain, value_name = "TIME")]
        drain: Duration,
    },
}

pub(super) async fn run(command: Module, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    use v1::ModuleAction;
    match command {
        Module::Apply { directory, name, dry_run } => {
            apply::apply(&directory, name, dry_run, global, out).await
        }
        Module::Rollback { module, revision, dry_run } => {
            apply::rollback(module, revision, dry_run, global, out).await
        }
        Module::New { name, template } => apply::new(name, template, global, out).await,
        Module::Export { module, directory, revision } => {
            apply::export(module, &directory, revision, global, out).await
        }
        Module::List => show::list(global, out).await,
        Module::Show { module } => show::show(&module, global, out).await,
        Module::Remove { module } => remove(module, global, out).await,
        Module::Start(which) => control::run(which.into(), ModuleAction::Start, global, out).await,
        Module::Stop(which) => control::run(which, ModuleAction::Stop, global, out).await,
        Module::Restart(which) => control::run(which, ModuleAction::Restart, global, out).await,
        Module::Stopstart(which) => control::run(which, ModuleAction::Stopstart, global, out).await,
        Module::Log(which) => log::happened(which, global, out).await,
        Module::Applog(which) => log::written(which, global, out).await,
        Module::Set { module, drain } => set_drain(module, drain, global, out).await,
        Module::Weight { module, node, weight } => set_weight(module, node, weight, global, out).await,
    }
}

async fn remove(module: String, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let said = format!("{module} is removed");
    let daemon = Daemon::connect(global).await?;
    let request = v1::ModuleRemoveRequest { module };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_remove(request).await).await?;
    done(out, &answer, &said)
}

async fn set_weight(
    module: String,
    node: String,
    weight: u16,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let said = format!("{node} has weight {weight} for {module}");
    let daemon = Daemon::connect(global).await?;
    let request = v1::ModuleWeightRequest { module, node, weight: weight.into() };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_weight(request).await).await?;
    done(out, &answer, &said)
}

async fn set_drain(
    module: String,
    drain: Duration,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let said = format!(
        "connections of {module} may stay with their previous node for {}",
        humantime::format_duration(drain)
    );
    let daemon = Daemon::connect(global).await?;
    let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
    let request = v1::ModuleSetRequest { module, drain_ms };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_set(request).await).await?;
    done(out, &answer, &said)
}
