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
    /// Of all nodes, in the order of their clocks
    #[arg(long)]
    all: bool,
    /// How many of the past
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    last: u64,
}

pub(super) async fn run(command: Events, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let Events { follow: follows, node, all, last } = command;
    let request = v1::EventsRequest { follow: follows, last, node: node.unwrap_or_default(), all };
    let mut stream = daemon.call(ORDINARY, async |mut c| c.events(request).await).await?;
    let names = names(&daemon).await;
    loop {
        let event = if follows {
            follow(&mut stream).await?
        } else {
            match daemon.next(&mut stream).await? {
                Some(event) => event,
                None => return Ok(Exit::Done),
            }
        };
        if out.json {
            out.json(&view::Event::from(&event))?;
        } else {
            out.line(&render::event(&event, &names))?;
        }
    }
}
