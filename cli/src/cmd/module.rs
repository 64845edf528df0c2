//! `farmctl module …`

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
    match command {
        Module::Set { module, drain } => set_drain(module, drain, global, out).await,
        Module::Weight { module, node, weight } => set_weight(module, node, weight, global, out).await,
    }
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
