//! `farmctl checker off | on`.

use clap::{Args, Subcommand};
use farm_proto::v1::{self, ModuleAction};

use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{Until, module_name, name};
use crate::{render, view};

/// What is watched.
#[derive(Debug, Subcommand)]
pub enum Checker {
    /// Go on looking at it, but do nothing about what it shows
    Off {
        /// Which
        #[command(flatten)]
        which: Which,
        /// Until then: 15m, 2h, 2026-12-24T18:00:00Z [default: until checker on]
        #[arg(long)]
        until: Option<Until>,
    },
    /// Let it count again
    On(Which),
}

/// Which resource of which module.
#[derive(Debug, Args)]
pub struct Which {
    /// The module
    #[arg(value_parser = module_name)]
    module: String,
    /// The resource, as module show names it: tcp.web
    resource: String,
    /// On one node only [default: on all]
    #[arg(long, value_parser = name)]
    node: Option<String>,
}

/// Carries out `farmctl checker …`.
///
/// # Errors
/// What went wrong.
pub async fn run(checker: Checker, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let (which, action, until) = match checker {
        Checker::Off { which, until } => (which, ModuleAction::CheckOff, until),
        Checker::On(which) => (which, ModuleAction::CheckOn, None),
    };
    let daemon = Daemon::connect(global).await?;
    let Which { module, resource, node } = which;
    let request = v1::ModuleControlRequest {
        module: module.clone(),
        node: node.unwrap_or_default(),
        action: action.into(),
        resource: resource.clone(),
        until_ms: until.map(Until::unix_ms).unwrap_or_default(),
        no_drain: false,
    };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_control(request).await).await?;
    let failed = answer.nodes.iter().any(|node| !node.failed.is_empty());
    let of = format!("{resource} of {module}");
    out.show(&view::ModuleControlled::from(&answer), || render::controlled(&of, action, &answer))?;
    Ok(if failed { Exit::Refused } else { Exit::Done })
}
