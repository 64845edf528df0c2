//! `farmctl watch`

use std::convert::Infallible;
use std::time::Duration;

use farm_proto::v1;
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::{render, told, view};

/// Home; each line then ends with "erase to the end of the line", the last with "erase below".
const HOME: &str = "\x1b[H";
const ERASE_LINE: &str = "\x1b[K\n";
const ERASE_BELOW: &str = "\x1b[J";
/// Erase everything, once, before the first picture.
const CLEAR: &str = "\x1b[2J";

/// Pause before a daemon that went away is asked again: less than a restart takes.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest pause, after doubling: a person still sees at once that the daemon is back.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// A stream with its first picture.
type Opened = (Streaming<v1::StatusResponse>, v1::StatusResponse);

pub(super) async fn run(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let mut last = None;
    let mut opened = open(global).await?;
    loop {
        let Err(error) = show_all(opened, &mut last, out).await;
        let problem = went_away(error)?;
        say(&problem, out)?;
        opened = reopen(global).await?;
        if !out.json && !out.terminal {
            out.line("the daemon answers again")?;
        }
    }
}

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

/// Says that the daemon went away: below the picture, as a line, or beside the objects.
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
    if out.terminal {
        let clear = if last.is_none() { CLEAR } else { "" };
        let picture = render::status(next, out.colour).replace('\n', ERASE_LINE);
        return out.text(&format!("{clear}{HOME}{picture}{ERASE_BELOW}"));
    }
    render::changes(last, next).iter().try_for_each(|line| out.line(line))
}
