//! `farmctl events`

use clap::Args;
use farm_proto::v1;

use super::names;
use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::values::name;
use crate::{render, view};

/// What happened, oldest first; with --json one object per line.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what happens next
    #[arg(long)]
    follow: bool,
    /// Of this node [default: the one that is asked]
    #[arg(long, value_parser = name, conflicts_with = "all")]
    node: Option<String>,
    /// Of all nodes, in the order of the log and, between its entries, of their clocks put right
    #[arg(long)]
    all: bool,
    /// How many of the past
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    last: u64,
}

pub(super) async fn run(command: Events, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let Events { follow, node, all, last } = command;
    let (node, module) = (node.unwrap_or_default(), String::new());
    let request = v1::EventsRequest { follow, last, node, all, module };
    show(request, render::event, global, out).await
}

/// Prints events, each as `line` has it.
pub(super) async fn show(
    request: v1::EventsRequest,
    line: fn(&v1::Event, &render::Names) -> String,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let follows = request.follow;
    let mut stream = daemon.call(ORDINARY, async |mut c| c.events(request).await).await?;
    let names = names(&daemon).await;
    loop {
        let event = if follows { Some(follow(&mut stream).await?) } else { daemon.next(&mut stream).await? };
        let Some(event) = event else { return Ok(Exit::Done) };
        if out.json {
            out.json(&view::Event::from(&event))?;
        } else {
            out.line(&line(&event, &names))?;
        }
    }
}
