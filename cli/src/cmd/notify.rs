//! `farmctl notify test`.

use clap::Subcommand;
use farm_proto::v1;

use crate::args::Global;
use crate::client::{Daemon, LONG};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::view;

/// Telling people.
#[derive(Debug, Subcommand)]
pub enum Notify {
    /// Have this node send a message for a test, in every way that its farmd.toml names
    Test,
}

pub(super) async fn run(notify: &Notify, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let Notify::Test = notify;
    let daemon = Daemon::connect(global).await?;
    let request = v1::NotifyTestRequest {};
    let answer = daemon.call(LONG, async |mut c| c.notify_test(request).await).await?;
    let line = |way: &v1::NotifyWay| match way.failed.as_str() {
        "" => format!("{}: taken\n", way.way),
        failed => format!("{}: {failed}\n", way.way),
    };
    out.show(&view::NotifyTest::from(&answer), || match answer.ways.as_slice() {
        [] => "farmd.toml of this node names nobody to tell: [notify]\n".into(),
        ways => ways.iter().map(line).collect(),
    })?;
    let works = !answer.ways.is_empty() && answer.ways.iter().all(|way| way.failed.is_empty());
    Ok(if works { Exit::Done } else { Exit::Failed })
}
