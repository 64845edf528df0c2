//! `farmctl watch`

mod lines;
mod live;

use std::io::{IsTerminal, stdin};
use std::time::Duration;

use clap::Args;
use farm_proto::v1;
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;

/// Pause before a daemon that went away is asked again: less than a restart takes.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest pause, after doubling: a person still sees at once that the daemon is back.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Follow the state of the cluster and what happens, on the whole screen; q leaves, up and down scroll the events.
/// A daemon that goes away is asked again, for as long as --timeout or for ever.
#[derive(Debug, Args)]
pub struct Watch {
    /// A line per change, as where the output is no terminal
    #[arg(long)]
    plain: bool,
}

/// A stream with its first picture.
type Opened = (Streaming<v1::StatusResponse>, v1::StatusResponse);

pub(super) async fn run(watch: &Watch, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    if out.terminal && stdin().is_terminal() && !out.json && !watch.plain {
        return live::run(global, out.colour).await;
    }
    lines::run(global, out).await
}

/// Connects, and waits for the first picture.
async fn open(global: &Global) -> Result<Opened, Error> {
    let daemon = Daemon::connect(global).await?;
    let mut stream = daemon.call(ORDINARY, async |mut c| c.watch(v1::StatusRequest {}).await).await?;
    let first = daemon.first(&mut stream).await?;
    Ok((stream, first))
}

/// Asks again until a daemon answers, or none did for `--timeout`.
async fn reopen(global: &Global) -> Result<Opened, Error> {
    let lost = Instant::now();
    let mut pause = PAUSE;
    loop {
        sleep(pause).await;
        let problem = match open(global).await {
            Ok(opened) => return Ok(opened),
            Err(error) => went_away(error)?,
        };
        if global.timeout.is_some_and(|limit| lost.elapsed() >= limit) {
            return Err(problem.into());
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The problem, if it is one that passes when the daemon comes back.
fn went_away(error: Error) -> Result<Problem, Error> {
    match error {
        Error::Problem(problem) if matches!(problem.exit, Exit::Unreachable | Exit::Unknown) => Ok(problem),
        Error::Problem(_) | Error::PipeClosed => Err(error),
    }
}
