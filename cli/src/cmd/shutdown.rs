//! `farmctl node shutdown`: stops the applications of this machine before it goes down.

use std::time::Duration;

use farm_proto::v1::{self, LifeStatus, ModuleAction, ModuleLife, Place};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tonic::Streaming;

use super::status;
use crate::args::Global;
use crate::client::{Daemon, ORDINARY, follow};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;

/// How long it waits: a drain, a script, and another one that is forced.
const WAIT: Duration = Duration::from_secs(15 * 60);

/// What was stopped.
#[derive(Serialize)]
struct Stopped {
    modules: Vec<String>,
}

pub(super) async fn run(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let before = status(&daemon).await?;
    let me = before.answered_by;
    let name =
        before.nodes.iter().filter_map(|n| n.node.as_ref()).find(|n| n.id == me).map(|n| n.name.clone());
    let modules: Vec<String> =
        own(&before, me).filter(|life| !is_over(life)).map(|l| l.module.clone()).collect();
    for module in &modules {
        let request = v1::ModuleControlRequest {
            module: module.clone(),
            node: name.clone().unwrap_or_default(),
            action: ModuleAction::Shutdown.into(),
            ..v1::ModuleControlRequest::default()
        };
        daemon.call(ORDINARY, async |mut c| c.module_control(request).await).await?;
    }
    if !modules.is_empty() {
        let mut stream = daemon.call(ORDINARY, async |mut c| c.watch(v1::StatusRequest {}).await).await?;
        let limit = global.timeout.unwrap_or(WAIT);
        let waited = timeout_at(Instant::now() + limit, stopped(&mut stream, me, &modules)).await;
        waited.map_err(|_| Problem::timeout(limit))??;
    }
    let said = match modules.as_slice() {
        [] => "no application runs here\n".into(),
        some => format!("stopped: {}\n", some.join(", ")),
    };
    out.show(&Stopped { modules }, || said)?;
    Ok(Exit::Done)
}

/// Returns when `modules` are stopped on node `me`.
async fn stopped(
    stream: &mut Streaming<v1::StatusResponse>,
    me: u64,
    modules: &[String],
) -> Result<(), Error> {
    loop {
        let status = follow(stream).await?;
        if own(&status, me).filter(|life| modules.contains(&life.module)).all(is_over) {
            return Ok(());
        }
    }
}

fn own(status: &v1::StatusResponse, me: u64) -> impl Iterator<Item = &ModuleLife> {
    status.modules.iter().flat_map(|module| &module.lives).filter(move |life| life.node == me)
}

fn is_over(life: &ModuleLife) -> bool {
    life.place() == Place::Stop && life.status() == LifeStatus::NotReady && !life.busy
}
