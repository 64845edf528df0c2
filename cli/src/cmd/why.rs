//! `farmctl why`

use std::time::SystemTime;

use clap::Args;
use farm_proto::v1;

use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::{render, view};

/// What went wrong, in about ten lines: the cause, what followed, what clients felt, what to do.
#[derive(Debug, Args)]
pub struct Why {
    /// A module, a node, or a time (2026-01-31T06:00:00Z, or 20m for twenty minutes ago) [default: what was last]
    #[arg(value_name = "MODULE|NODE|TIME", default_value = "", hide_default_value = true)]
    about: String,
}

pub(super) async fn run(why: Why, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = match instant(&why.about) {
        Some(at_ms) => v1::WhyRequest { about: String::new(), at_ms },
        None => v1::WhyRequest { about: why.about.clone(), at_ms: 0 },
    };
    let answer = daemon.call(ORDINARY, async |mut c| c.why(request).await).await?;
    out.show(&view::Why::from(&answer), || render::why(&why.about, &answer))?;
    Ok(Exit::Done)
}

/// Unix time in ms, where the word is a time.
fn instant(word: &str) -> Option<u64> {
    let ago = humantime::parse_duration(word).ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    let at = ago.or_else(|| humantime::parse_rfc3339_weak(word).ok())?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}
