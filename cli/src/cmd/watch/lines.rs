//! `farmctl watch` where nothing can be redrawn: a line per change, or an object per state.

use std::convert::Infallible;

use farm_proto::v1;

use super::{Opened, open, reopen, went_away};
use crate::args::Global;
use crate::client::follow;
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::{render, told, view};

pub(super) async fn run(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let mut last = None;
    let mut opened = open(global).await?;
    loop {
        let Err(error) = show_all(opened, &mut last, out).await;
        let problem = went_away(error)?;
        say(&problem, out)?;
        opened = reopen(global).await?;
        if !out.json {
            out.line("the daemon answers again")?;
        }
    }
}

/// Says that the daemon went away: as a line, or beside the objects.
fn say(problem: &Problem, out: &mut Output<'_>) -> Result<(), Error> {
    if out.json {
        // Without a standard error nobody is left to be told.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), told(problem, true).as_bytes());
        return Ok(());
    }
    out.line(&format!("{}; asking again", problem.fact))
}

/// Shows what comes until the stream breaks.
async fn show_all(
    (mut stream, mut next): Opened,
    last: &mut Option<v1::StatusResponse>,
    out: &mut Output<'_>,
) -> Result<Infallible, Error> {
    loop {
        show(last.as_ref(), &next, out)?;
        *last = Some(next);
        next = follow(&mut stream).await?;
    }
}

fn show(
    last: Option<&v1::StatusResponse>,
    next: &v1::StatusResponse,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    if out.json {
        return out.json(&view::Status::from(next));
    }
    render::changes(last, next).iter().try_for_each(|line| out.line(line))
}
