//! `farmctl module start | stop | restart | stopstart`.

use std::time::Duration;

use clap::Args;
use farm_proto::v1::{self, LifeStatus, ModuleAction, Place};
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::values::{module_name, name};
use crate::{render, view};

/// How long `--wait` waits: what a script may take, twice.
const WAIT: Duration = Duration::from_secs(10 * 60);

/// Which part of which module.
#[derive(Debug, Args)]
pub struct Which {
    /// The module
    #[arg(value_parser = module_name)]
    module: String,
    /// On one node only [default: on all]
    #[arg(long, value_parser = name)]
    node: Option<String>,
    /// Return when it has come to where it goes, or cannot
    #[arg(long)]
    wait: bool,
}

/// The same of something that is stopped first.
#[derive(Debug, Args)]
pub struct Stopped {
    #[command(flatten)]
    which: Which,
    /// Do not wait for connections that are open; also ends a drain that is under way
    #[arg(long)]
    no_drain: bool,
}

impl From<Which> for Stopped {
    fn from(which: Which) -> Self {
        Self { which, no_drain: false }
    }
}

pub(super) async fn run(
    stopped: Stopped,
    action: ModuleAction,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let Stopped { which: Which { module, node, wait }, no_drain } = stopped;
    let request = v1::ModuleControlRequest {
        module: module.clone(),
        node: node.unwrap_or_default(),
        action: action.into(),
        no_drain,
        ..v1::ModuleControlRequest::default()
    };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_control(request).await).await?;
    let failed = answer.nodes.iter().any(|node| !node.failed.is_empty());
    if wait {
        let nodes: Vec<u64> = answer.nodes.iter().filter(|n| n.failed.is_empty()).map(|n| n.node).collect();
        let mut stream = daemon.call(ORDINARY, async |mut c| c.watch(v1::StatusRequest {}).await).await?;
        let limit = global.timeout.unwrap_or(WAIT);
        let waited = timeout_at(Instant::now() + limit, arrive(&mut stream, &module, &nodes, action)).await;
        waited.map_err(|_| Problem::timeout(limit))??;
    }
    out.show(&view::ModuleControlled::from(&answer), || render::controlled(&module, action, &answer))?;
    Ok(if failed { Exit::Refused } else { Exit::Done })
}

/// Returns when the module is at rest on `nodes`: where it was to go, or it fails.
async fn arrive(
    stream: &mut Streaming<v1::StatusResponse>,
    module: &str,
    nodes: &[u64],
    action: ModuleAction,
) -> Result<(), Error> {
    let goal = if action == ModuleAction::Stop { Place::Stop } else { Place::Up };
    loop {
        let status = follow(stream).await?;
        let lives = lives(&status, module, nodes);
        let rests = |life: &&v1::ModuleLife| !life.busy && life.status() != LifeStatus::Transient;
        if lives.len() < nodes.len() || !lives.iter().all(rests) {
            continue;
        }
        return match lives.iter().find(|life| life.place() != goal) {
            None => Ok(()),
            Some(life) => Err(elsewhere(module, life, &status).into()),
        };
    }
}

fn lives<'a>(status: &'a v1::StatusResponse, module: &str, nodes: &[u64]) -> Vec<&'a v1::ModuleLife> {
    let lives = status.modules.iter().flat_map(|m| &m.lives);
    lives.filter(|life| life.module == module && nodes.contains(&life.node)).collect()
}

fn elsewhere(module: &str, life: &v1::ModuleLife, status: &v1::StatusResponse) -> Problem {
    let node = render::Names::of(status).name(life.node);
    let fact = format!("{module} on {node} is in {}: {}", render::life(life), life.cause);
    Problem::new(
        Exit::Refused,
        "module_failed",
        fact,
        format!("farmctl module applog {module} --node {node}"),
    )
}
