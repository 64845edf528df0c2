//! `farmctl node restart`: replaces daemons one after the other, and says when each is back.

use std::time::Duration;

use farm_proto::v1;
use tokio::time::{Instant, sleep};

use super::{ask_status, status};
use crate::args::Global;
use crate::client::{Daemon, LONG, ORDINARY};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::view;

/// How often the node is looked at until it is back.
const EVERY: Duration = Duration::from_millis(100);
/// Tries of a restart while another one is not quite over, and the pause between them.
const TRIES: u32 = 50;

pub(super) async fn run(
    name: Option<String>,
    all: bool,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let mut last = v1::Done::default();
    for node in chosen(&status, name.as_deref(), all)? {
        // While the others were restarted it may have got another daemon.
        let now = look(global).await?;
        let node = Before { run: run_of(&now, node.id).unwrap_or_default(), ..node };
        last = restart(&node, global).await?;
        if !out.json {
            out.line(&format!("the daemon of {} is back", node.name))?;
        }
    }
    if out.json {
        out.json(&view::Done::from(&last))?;
    }
    Ok(Exit::Done)
}

/// A daemon before its restart.
struct Before {
    id: u64,
    name: String,
    run: Vec<u8>,
}

/// The run of the daemon of node `id`; `None` when it does not answer.
fn run_of(status: &v1::StatusResponse, id: u64) -> Option<Vec<u8>> {
    let entry = status.nodes.iter().find(|entry| entry.node.as_ref().is_some_and(|n| n.id == id))?;
    (!entry.run.is_empty()).then(|| entry.run.to_vec())
}

/// Whom to restart; the one that is asked comes last.
fn chosen(status: &v1::StatusResponse, name: Option<&str>, all: bool) -> Result<Vec<Before>, Problem> {
    let known = status.nodes.iter().filter_map(|entry| {
        let node = entry.node.as_ref()?;
        Some(Before { id: node.id, name: node.name.clone(), run: entry.run.to_vec() })
    });
    let is_meant = |node: &Before| match name {
        Some(name) => node.name == name,
        None => all || node.id == status.answered_by,
    };
    let mut meant: Vec<Before> = known.filter(is_meant).collect();
    meant.sort_by_key(|node| node.id == status.answered_by);
    if let Some(deaf) = meant.iter().find(|node| node.run.is_empty()) {
        return Err(silent(&deaf.name));
    }
    if meant.is_empty() {
        let fact = format!("no node is called {}", name.unwrap_or_default());
        return Err(Problem::new(Exit::Refused, "unknown_node", fact, "farmctl node list"));
    }
    Ok(meant)
}

async fn restart(node: &Before, global: &Global) -> Result<v1::Done, Error> {
    if node.run.is_empty() {
        return Err(silent(&node.name).into());
    }
    let begun = begin(node, global).await?;
    let end = Instant::now() + global.timeout.unwrap_or(LONG);
    loop {
        sleep(EVERY).await;
        // The daemon that is asked may be the one that restarts.
        let now = match look(global).await {
            Ok(now) => now,
            Err(Error::Problem(_)) if Instant::now() < end => continue,
            Err(error) => return Err(error),
        };
        match outcome(node, begun.index, &now) {
            Some(true) => return Ok(begun),
            Some(false) => return Err(failed(&node.name).into()),
            None if Instant::now() >= end => return Err(lost(&node.name).into()),
            None => {}
        }
    }
}

/// Of two restarts in a row the first is over a moment after its node is back.
async fn begin(node: &Before, global: &Global) -> Result<v1::Done, Error> {
    let mut tries = 0;
    loop {
        let daemon = Daemon::connect(global).await?;
        let request = v1::NodeRestartRequest { node: node.name.clone() };
        match daemon.call(ORDINARY, async |mut c| c.node_restart(request).await).await {
            Err(Error::Problem(problem)) if problem.code == "restart_open" && tries < TRIES => {
                tries += 1;
                sleep(EVERY).await;
            }
            answer => return answer,
        }
    }
}

async fn look(global: &Global) -> Result<v1::StatusResponse, Error> {
    status(&Daemon::connect(global).await?).await
}

/// Whether the restart that began with entry `begun` of the log succeeded; `None` while it is under way, or not known
/// to who answers: the daemon that is asked may be the one that has just begun to read its log.
fn outcome(before: &Before, begun: u64, status: &v1::StatusResponse) -> Option<bool> {
    if status.commit_index < begun {
        return None;
    }
    let is_it = |entry: &&v1::NodeStatus| entry.node.as_ref().is_some_and(|n| n.id == before.id);
    let entry = status.nodes.iter().find(is_it)?;
    let over = !entry.restarting && !entry.run.is_empty();
    over.then(|| entry.run.as_ref() != before.run.as_slice())
}

fn silent(name: &str) -> Problem {
    let fact = format!("the daemon of {name} does not answer: there is nothing to restart");
    Problem::new(Exit::Refused, "node_silent", fact, "farmctl node list")
}

fn failed(name: &str) -> Problem {
    let fact = format!("the daemon of {name} goes on as it was: it could not be replaced");
    Problem::new(Exit::Refused, "restart_failed", fact, "farmctl events")
}

fn lost(name: &str) -> Problem {
    let fact = format!("the daemon of {name} has not come back yet");
    Problem::new(Exit::Unknown, "not_back", fact, "systemctl status farmd")
}
