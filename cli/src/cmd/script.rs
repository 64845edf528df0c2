//! `farmctl script …`: what a script of a module tells the daemon that runs it.

use clap::Subcommand;
use farm_proto::v1::{ScriptRequest, ScriptVerb};

use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;

/// Where the daemon leaves the token for its scripts.
const TOKEN: &str = "FARM_TOKEN";

/// What a script may say.
#[derive(Debug, Subcommand)]
pub enum Script {
    /// Write a line into the log of the module
    Log {
        /// The line
        text: Vec<String>,
    },
    /// The same, and make it an event
    Error {
        /// The line
        text: Vec<String>,
    },
    /// Stop the module on this node when this script has ended
    Stop,
    /// Stop and start its application when this script has ended; counts as an automatic action
    Restart,
    /// Stop the module and start it when this script has ended; counts as an automatic action
    Stopstart,
    /// Count an automatic action; exit code 1 when no more are left
    Incloop,
    /// Exit code 1 when one more automatic action would stop the module
    Checkloop,
    /// Forget the automatic actions so far
    Resetloop,
}

pub(super) async fn run(script: Script, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let (verb, text) = match script {
        Script::Log { text } => (ScriptVerb::Log, text.join(" ")),
        Script::Error { text } => (ScriptVerb::Error, text.join(" ")),
        Script::Stop => (ScriptVerb::Stop, String::new()),
        Script::Restart => (ScriptVerb::Restart, String::new()),
        Script::Stopstart => (ScriptVerb::Stopstart, String::new()),
        Script::Incloop => (ScriptVerb::Incloop, String::new()),
        Script::Checkloop => (ScriptVerb::Checkloop, String::new()),
        Script::Resetloop => (ScriptVerb::Resetloop, String::new()),
    };
    let request = ScriptRequest { token: token()?.into(), verb: verb.into(), text };
    let daemon = Daemon::connect(global).await?;
    let answer = daemon.call(ORDINARY, async |mut c| c.script(request).await).await?;
    let asks = matches!(verb, ScriptVerb::Incloop | ScriptVerb::Checkloop);
    if out.json {
        out.json(&crate::view::ScriptResponse::from(&answer))?;
    }
    Ok(if asks && answer.limit_reached { Exit::Refused } else { Exit::Done })
}

fn token() -> Result<Vec<u8>, Problem> {
    let refused = |fact: &str| Problem::new(Exit::Usage, "bad_token", fact, "farmctl script --help");
    let text =
        std::env::var(TOKEN).map_err(|_| refused("FARM_TOKEN is not set: this is for scripts of modules"))?;
    let pairs: Vec<&str> =
        text.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    bytes.ok_or_else(|| refused("FARM_TOKEN is not what the daemon left there"))
}
