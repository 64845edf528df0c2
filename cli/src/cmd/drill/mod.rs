//! `farmctl drill`: rehearses a failure and reports what clients felt.

mod report;

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use farm_proto::v1;
use tokio::time::{Instant, sleep};

use super::{ask_status, status};
use crate::args::Global;
use crate::client::{Daemon, LONG, ORDINARY};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::probe::{self, Probe};
use crate::values::{limit, module_name, name};
use crate::view::Open;
use report::{Clients, Report};

/// How long the ordinary is watched before and after: connections that are under way come to their end.
const AROUND: Duration = Duration::from_secs(1);
/// How often the farm is looked at until all is green again.
const EVERY: Duration = Duration::from_millis(100);
/// What says nothing about the end of an outage: what somebody switched off before, and single connections that are left.
const HARMLESS: [&str; 2] = ["check_off", "change_open"];
/// Services that are watched; more would be a burden of their own.
const SERVICES_MAX: usize = 8;

/// Fail on purpose, for a while: refused unless the cluster would survive it now. Without --yes it only says whether it
/// would. The report says what clients felt when farmctl runs where one could be, on no node of the farm:
/// ssh -N -L ./farm.sock:/run/farm/farmd.sock NODE &  farmctl --socket ./farm.sock drill leader
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Drill {
    /// The node whose daemon stands still, as on a machine that hangs
    #[arg(required = true, value_parser = name)]
    node: Option<String>,
    #[command(flatten)]
    how: How,
    #[command(subcommand)]
    what: Option<What>,
}

/// What else may fail.
#[derive(Debug, Subcommand)]
enum What {
    /// The node that leads, whichever it is
    Leader(How),
    /// An application: its processes are killed
    App {
        /// Its module
        #[arg(value_parser = module_name)]
        module: String,
        /// Where [default: on a node on which it is up]
        #[arg(long, value_parser = name)]
        node: Option<String>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Clone, Debug, Default, Args)]
struct How {
    /// How long a node stands still [default: 10s; at most 2m]
    #[arg(long = "for", value_parser = limit, value_name = "TIME")]
    length: Option<Duration>,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Where the report goes [default: farm-drill-TIME.txt in this directory]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Carries out `farmctl drill …`.
///
/// # Errors
/// What went wrong; nothing fails on purpose then.
pub async fn run(drill: Drill, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let (request, how) = asked(drill);
    let daemon = Daemon::connect(global).await?;
    let before = status(&daemon).await?;
    let plan = order(&daemon, &request, true).await?;
    if !how.yes {
        out.show(&report::Rehearsed::plan(&request, &plan), || report::plan(&request, &plan))?;
        return Ok(Exit::Done);
    }
    // Found out before anything fails, not after.
    let path = how.report.unwrap_or_else(|| format!("farm-drill-{}.txt", stamp()).into());
    let mut file = File::create(&path).map_err(|error| Problem::unwritable(&path, &error))?;
    let services = services(&before, &request.module);
    let (here, away): (Vec<SocketAddr>, Vec<SocketAddr>) =
        services.into_iter().partition(|at| probe::is_here(*at));
    let mut probes = Vec::new();
    for at in away {
        probes.push(Probe::start(at).await);
    }
    let begun = SystemTime::now();
    let ordered = order(&daemon, &request, false).await?;
    if !out.json {
        out.line(&report::what(&request, &ordered, false))?;
    }
    let outage = Duration::from_millis(ordered.begins_in_ms + ordered.for_ms);
    let out_at = Instant::now() + outage;
    sleep(outage + AROUND).await;
    probes.iter_mut().for_each(Probe::let_go);
    let back = await_back(&before, &ordered, &request.module, out_at, global).await;
    sleep(AROUND).await;
    let clients = probes.into_iter().map(|probe| Clients::of(probe.at(), &probe.finish())).collect();
    let about = if request.module.is_empty() { &ordered.name } else { &request.module };
    let report = Report {
        cluster: before.name.clone(),
        what: report::what(&request, &ordered, true),
        begun: humantime::format_rfc3339_seconds(begun).to_string(),
        back,
        clients,
        here,
        why: story(about, global).await,
    };
    let text = report.text();
    file.write_all(text.as_bytes()).map_err(|error| Problem::unwritable(&path, &error))?;
    out.show(&report::Rehearsed::done(&ordered, &report), || {
        format!("{text}\nThe report is in {}.\n", path.display())
    })?;
    Ok(if report.passed() { Exit::Done } else { Exit::Failed })
}

fn asked(drill: Drill) -> (v1::DrillRequest, How) {
    let Drill { node, how, what } = drill;
    let (request, how) = match what {
        None => (v1::DrillRequest { node: node.unwrap_or_default(), ..Default::default() }, how),
        Some(What::Leader(how)) => (v1::DrillRequest { leader: true, ..Default::default() }, how),
        Some(What::App { module, node, how }) => {
            (v1::DrillRequest { module, node: node.unwrap_or_default(), ..Default::default() }, how)
        }
    };
    let ms = how.length.map_or(0, |length| u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    (v1::DrillRequest { for_ms: ms, ..request }, how)
}

async fn order(
    daemon: &Daemon,
    request: &v1::DrillRequest,
    dry_run: bool,
) -> Result<v1::DrillResponse, Error> {
    let request = v1::DrillRequest { dry_run, ..request.clone() };
    daemon.call(ORDINARY, async |mut c| c.drill(request).await).await
}

/// Services over TCP that clients may feel it at.
fn services(status: &v1::StatusResponse, module: &str) -> Vec<SocketAddr> {
    let modules = status.modules.iter().filter_map(|m| m.module.as_ref());
    let meant = modules.filter(|m| module.is_empty() || m.name == module);
    let services = meant.flat_map(|m| &m.services).filter(|s| s.protocol() == v1::Protocol::Tcp);
    let at = services
        .filter_map(|s| Some(SocketAddr::new(s.vip.parse::<IpAddr>().ok()?, u16::try_from(s.port).ok()?)));
    at.take(SERVICES_MAX).collect()
}

fn life<'a>(status: &'a v1::StatusResponse, module: &str, node: u64) -> Option<&'a v1::ModuleLife> {
    let of = status.modules.iter().find(|m| m.module.as_ref().is_some_and(|m| m.name == module))?;
    of.lives.iter().find(|life| life.node == node)
}

/// How long after the outage all was as before; what was not at last, where that is longer than the limit. An application
/// that was up since before has not been missed yet.
async fn await_back(
    before: &v1::StatusResponse,
    ordered: &v1::DrillResponse,
    module: &str,
    out_at: Instant,
    global: &Global,
) -> Result<Duration, String> {
    let limit = global.timeout.unwrap_or(LONG);
    let since = life(before, module, ordered.node).map_or(0, |life| life.since_ms);
    let enough = buckets(before, ordered.node) * 9 / 10;
    let mut left = "no daemon answers".to_owned();
    while out_at.elapsed() < limit {
        // The daemon that is asked may be the one that stood still.
        if let Ok(now) = ask_status(global).await {
            let again = |life: &v1::ModuleLife| life.since_ms > since && life.place() == v1::Place::Up;
            let is_back = module.is_empty() || life(&now, module, ordered.node).is_some_and(again);
            let open = Open::all(&now).into_iter().filter(|open| !HARMLESS.contains(&open.word.as_str()));
            let open: Vec<String> = open.map(|open| format!("{}: {}", open.resource, open.word)).collect();
            let has_its_share = buckets(&now, ordered.node) >= enough;
            if is_back && has_its_share && open.is_empty() && now.member {
                return Ok(out_at.elapsed());
            }
            left = match (is_back, has_its_share) {
                (false, _) => format!("{module} is not up again on {}", ordered.name),
                (true, false) => format!("{} does not have its share of the clients again", ordered.name),
                (true, true) => open.join(", "),
            };
        }
        sleep(EVERY).await;
    }
    Err(left)
}

/// Buckets that a node owns, of all modules.
fn buckets(status: &v1::StatusResponse, id: u64) -> u32 {
    let of = status.nodes.iter().find(|entry| entry.node.as_ref().is_some_and(|node| node.id == id));
    of.map_or(0, |entry| entry.buckets)
}

/// The incident as the farm tells it; without it the report is shorter.
async fn story(about: &str, global: &Global) -> Vec<String> {
    let request = v1::WhyRequest { about: about.to_owned(), at_ms: 0 };
    let Ok(daemon) = Daemon::connect(global).await else { return Vec::new() };
    daemon.call(ORDINARY, async |mut c| c.why(request).await).await.map(|why| why.lines).unwrap_or_default()
}

fn stamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(':', "")
}
