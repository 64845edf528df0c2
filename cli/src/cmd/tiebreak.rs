//! `farmctl cluster tie-break …`

use std::net::IpAddr;

use clap::{Args, Subcommand};
use farm_proto::v1;

use super::ask_status;
use crate::args::Global;
use crate::client::{Daemon, LONG};
use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;
use crate::{render, view};

/// Without a word: what is set, and when it was tried.
#[derive(Debug, Args)]
pub struct TieBreak {
    #[command(subcommand)]
    to: Option<To>,
}

#[derive(Debug, Subcommand)]
enum To {
    /// The node goes on that claims an address at a router and is answered there: never both
    Exclusive {
        /// A free address of the routers' network, which no machine ever gets
        #[arg(long, value_name = "IP")]
        address: IpAddr,
        /// Own addresses of routers, not those of VRRP or HSRP; of several a majority decides
        #[arg(required = true, value_name = "ROUTER")]
        routers: Vec<IpAddr>,
    },
    /// A node goes on that a router answers. Two that reach a router and not each other both go on
    Plain {
        /// Routers; one that answers is enough
        #[arg(required = true, value_name = "ROUTER")]
        routers: Vec<IpAddr>,
    },
    /// Nothing decides: without a majority nobody goes on
    None,
    /// Try what is set, with every server claiming in turn
    Rehearse,
}

pub(super) async fn run(command: TieBreak, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let Some(to) = command.to else { return show(global, out).await };
    let (kind, routers, address) = match to {
        To::Exclusive { address, routers } => (v1::TieBreakKind::Exclusive, routers, address.to_string()),
        To::Plain { routers } => (v1::TieBreakKind::Plain, routers, String::new()),
        To::None => (v1::TieBreakKind::Unspecified, Vec::new(), String::new()),
        To::Rehearse => return rehearse(global, out).await,
    };
    let routers = routers.iter().map(ToString::to_string).collect();
    let request = v1::TieBreakRequest { kind: kind.into(), routers, address };
    let daemon = Daemon::connect(global).await?;
    let answer = daemon.call(LONG, async |mut c| c.tie_break_set(request).await).await?;
    told(&answer, out)
}

async fn rehearse(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::TieBreakRehearseRequest {};
    let answer = daemon.call(LONG, async |mut c| c.tie_break_rehearse(request).await).await?;
    told(&answer, out)
}

fn told(answer: &v1::TieBreakResponse, out: &mut Output<'_>) -> Result<Exit, Error> {
    out.show(&view::TieBreakSet::from(answer), || render::tie_break(answer.tie_break.as_ref(), ""))?;
    let rehearsed = answer.tie_break.as_ref().and_then(|t| t.rehearsed.as_ref());
    let failed = rehearsed.is_some_and(|rehearsed| !rehearsed.failure.is_empty());
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

async fn show(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let answer = v1::TieBreakResponse { tie_break: status.tie_break.clone() };
    out.show(&view::TieBreakSet::from(&answer), || {
        render::tie_break(answer.tie_break.as_ref(), &status.contest)
    })?;
    Ok(if status.member { Exit::Done } else { Exit::NotMember })
}
