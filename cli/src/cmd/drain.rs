//! `farmctl node drain`: frees a node of clients and waits until the last has gone.

use farm_proto::v1;
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use super::node::{Terms, begin_maintenance};
use super::{done, status};
use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;

pub(super) async fn run(
    name: Option<String>,
    terms: Terms,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let begun = begin_maintenance(&daemon, name.clone(), terms).await?;
    let id = id_of(&status(&daemon).await?, name.as_deref())?;
    let mut stream = daemon.call(ORDINARY, async |mut c| c.watch(v1::StatusRequest {}).await).await?;
    // Connections may last for hours: nothing but `--timeout` ends the wait.
    let empty = empty(&mut stream, id, begun.index, out);
    let name = match global.timeout {
        None => empty.await?,
        Some(limit) => match timeout_at(Instant::now() + limit, empty).await {
            Ok(emptied) => emptied?,
            Err(_) => return Err(not_yet(limit).into()),
        },
    };
    done(
        out,
        &begun,
        &format!("{name} has no clients left; it stays free until `farmctl node maintenance off {name}`"),
    )
}

/// The id of the node that was named, or that answers.
fn id_of(status: &v1::StatusResponse, name: Option<&str>) -> Result<u64, Problem> {
    let Some(name) = name else { return Ok(status.answered_by) };
    let found = status.nodes.iter().filter_map(|n| n.node.as_ref()).find(|n| n.name == name);
    found.map(|n| n.id).ok_or_else(|| gone(name))
}

/// Tells what is left until nothing is, once entry `begun` of the log is known; returns the node's name.
async fn empty(
    stream: &mut Streaming<v1::StatusResponse>,
    id: u64,
    begun: u64,
    out: &mut Output<'_>,
) -> Result<String, Error> {
    let mut told = String::new();
    loop {
        let status = follow(stream).await?;
        // Who answers may not know of the maintenance yet.
        if status.commit_index < begun {
            continue;
        }
        let Some((entry, name)) = find(&status, id) else { return Err(gone("the node").into()) };
        if entry.maintenance.is_none() {
            return Err(ended(name).into());
        }
        if entry.buckets == 0 && entry.buckets_draining == 0 {
            return Ok(name.to_owned());
        }
        let left = left(entry, name);
        if left != told && !out.json {
            out.line(&left)?;
            told = left;
        }
    }
}

fn find(status: &v1::StatusResponse, id: u64) -> Option<(&v1::NodeStatus, &str)> {
    let mut nodes = status.nodes.iter().filter_map(|entry| Some((entry, entry.node.as_ref()?)));
    nodes.find(|(_, node)| node.id == id).map(|(entry, node)| (entry, node.name.as_str()))
}

fn left(entry: &v1::NodeStatus, name: &str) -> String {
    let buckets = entry.buckets + entry.buckets_draining;
    match entry.sockets_draining {
        Some(sockets) if entry.buckets == 0 => format!("{name}: {sockets} connections left"),
        Some(_) | None => format!("{name}: {buckets} of its buckets are still with it"),
    }
}

fn gone(name: &str) -> Problem {
    Problem::new(Exit::Refused, "unknown_node", format!("{name} is no member any more"), "farmctl node list")
}

fn ended(name: &str) -> Problem {
    let fact = format!("somebody ended the maintenance of {name} before it had no clients left");
    Problem::new(Exit::Refused, "maintenance_ended", fact, "farmctl events")
}

fn not_yet(limit: std::time::Duration) -> Problem {
    let limit = humantime::format_duration(limit);
    let fact = format!("clients are left after {limit}; the node stays in maintenance and goes on to drain");
    Problem::new(Exit::Unknown, "still_draining", fact, "farmctl watch")
}
