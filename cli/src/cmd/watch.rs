//! `farmctl watch`

use farm_proto::v1;

use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::{render, view};

/// Home; each line then ends with "erase to the end of the line", the last with "erase below".
const HOME: &str = "\x1b[H";
const ERASE_LINE: &str = "\x1b[K\n";
const ERASE_BELOW: &str = "\x1b[J";
/// Erase everything, once, before the first picture.
const CLEAR: &str = "\x1b[2J";

pub(super) async fn run(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let mut stream = daemon.call(ORDINARY, async |mut c| c.watch(v1::StatusRequest {}).await).await?;
    let mut last: Option<v1::StatusResponse> = None;
    let mut next = daemon.first(&mut stream).await?;
    loop {
        show(last.as_ref(), &next, out)?;
        last = Some(next);
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
