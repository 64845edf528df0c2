//! `farmctl module …`

use clap::Subcommand;
use farm_proto::v1;

use super::done;
use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{module_name, name};

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
}

pub(super) async fn run(command: Module, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    match command {
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
