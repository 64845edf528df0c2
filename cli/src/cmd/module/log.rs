//! `farmctl module log | applog`.

use clap::Args;
use farm_proto::v1;

use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::cmd::events;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{module_name, name};
use crate::{render, view};

/// What happened to the module and its application, oldest first; with --json one object per line.
#[derive(Debug, Args)]
pub struct Log {
    /// The module
    #[arg(value_parser = module_name)]
    module: String,
    /// As this node tells it [default: as all do]
    #[arg(long, value_parser = name)]
    node: Option<String>,
    /// How much of the past
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    last: u64,
    /// Go on with what happens next
    #[arg(long)]
    follow: bool,
}

/// What the scripts and the application of a module have written on one node.
#[derive(Debug, Args)]
pub struct Applog {
    /// The module
    #[arg(value_parser = module_name)]
    module: String,
    /// On which node [default: the one that is asked]
    #[arg(long, value_parser = name)]
    node: Option<String>,
    /// Lines of the past
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    last: u64,
    /// Go on with what is written next
    #[arg(long)]
    follow: bool,
}

pub(super) async fn happened(log: Log, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let Log { module, node, last, follow } = log;
    let (node, all) = (node.unwrap_or_default(), false);
    let request = v1::EventsRequest { follow, last, node, all, module };
    events::show(request, render::happened, global, out).await
}

pub(super) async fn written(log: Applog, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let Applog { module, node, last, follow: follows } = log;
    let request = v1::ModuleApplogRequest { module, node: node.unwrap_or_default(), last, follow: follows };
    let daemon = Daemon::connect(global).await?;
    let mut stream = daemon.call(ORDINARY, async |mut c| c.module_applog(request).await).await?;
    loop {
        let told = if follows { Some(follow(&mut stream).await?) } else { daemon.next(&mut stream).await? };
        let Some(told) = told else { return Ok(Exit::Done) };
        out.show(&view::ModuleLogLines::from(&told), || {
            told.lines.iter().map(|line| format!("{line}\n")).collect()
        })?;
    }
}
