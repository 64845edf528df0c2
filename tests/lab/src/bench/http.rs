//! Requests to one web server: directly, through the farm, and through a proxy on another node; in turn, with the
//! same load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::figure::Figure;
use super::group::Group;
use super::pivot::Pivot;
use crate::lab::{Lab, Spec};
use crate::names::{LabName, Network, Place};
use crate::record::Role;
use crate::topology::mac_text;
use crate::{BUCKETS, FIRST_VIP, WEB_MODULE, WEB_PORT, shell};

/// Name of the group.
pub(super) const NAME: &str = "http";
pub(super) const TABLE: Pivot = Pivot {
    group: NAME,
    rows: "way",
    columns: &[("p50", "us"), ("p99", "us"), ("requests", "1/s"), ("to-direct", "ratio")],
};
/// The web server of this node answers everything.
const SERVER: Place = Place::Node(1);
/// Where the proxy runs, and where frames enter that the farm sends on.
const OTHER: Place = Place::Node(2);
const PROXY_PORT: u16 = 8080;
/// Rounds of all ways, at most.
const ROUNDS_MAX: usize = 5;
/// Of wrk, each time.
const SECONDS: &str = "2s";
const CONNECTIONS: &str = "16";
/// Buckets move to the one server, and their connections end.
const LIMIT: Duration = Duration::from_secs(60);

/// How requests come to the web server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Direct,
    /// Frames enter at the node that answers.
    Farm,
    /// Frames enter at another node, which sends them on.
    FarmForwarded,
    Haproxy,
}

/// Is a connection used again?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reuse {
    KeepAlive,
    Close,
}

/// What wrk says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
}

impl Way {
    const ALL: [Self; 4] = [Self::Direct, Self::Farm, Self::FarmForwarded, Self::Haproxy];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Farm => "farm",
            Self::FarmForwarded => "farm-forwarded",
            Self::Haproxy => "haproxy",
        }
    }

    fn target(self) -> SocketAddr {
        match self {
            Self::Direct => (SERVER.address(), WEB_PORT).into(),
            Self::Farm | Self::FarmForwarded => SocketAddr::new(FIRST_VIP, WEB_PORT),
            Self::Haproxy => (OTHER.address(), PROXY_PORT).into(),
        }
    }

    /// Where the client's frames for the virtual IP enter the farm.
    fn entry(self) -> Place {
        match self {
            Self::Direct | Self::Farm | Self::Haproxy => SERVER,
            Self::FarmForwarded => OTHER,
        }
    }
}

impl Reuse {
    const ALL: [Self; 2] = [Self::KeepAlive, Self::Close];

    fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Close => "connection-each",
        }
    }
}

/// Every way in turn, so that what disturbs the machine disturbs all.
pub(super) fn measure(name: &LabName, runs: usize) -> Result<Vec<Figure>> {
    let lab = Lab::up(Spec::new(name.clone(), 2))?;
    let weight = ["module", "weight", WEB_MODULE, &OTHER.to_string(), "0"];
    lab.farmctl(SERVER, &weight)?;
    lab.await_status(SERVER, "one node answers everything", LIMIT, |status| {
        let still = status.module(WEB_MODULE).is_some_and(|m| m.open_changes == 0);
        still && status.buckets(WEB_MODULE, SERVER) == BUCKETS
    })?;
    start_haproxy(&lab)?;
    let mut found: BTreeMap<(Reuse, Way), Vec<Run>> = BTreeMap::new();
    for _ in 0..runs.min(ROUNDS_MAX) {
        for reuse in Reuse::ALL {
            for way in Way::ALL {
                let run = load(&lab, way, reuse).with_context(|| way.name())?;
                found.entry((reuse, way)).or_default().push(run);
            }
        }
    }
    lab.down()?;
    let row = |(key, runs): (&(Reuse, Way), &Vec<Run>)| {
        let direct = found.get(&(key.0, Way::Direct)).map_or(&[][..], Vec::as_slice);
        figures(*key, runs, direct)
    };
    Ok(found.iter().flat_map(row).collect())
}

fn load(lab: &Lab, way: Way, reuse: Reuse) -> Result<Run> {
    let mac = mac_text(way.entry().mac(Network::Lan).context("a node is on the link")?);
    let entry = format!("neigh replace {FIRST_VIP} dev eth0 lladdr {mac} nud permanent\n");
    lab.namespace(Place::Client).ip(&entry)?;
    let mut wrk = lab.namespace(Place::Client).command("wrk")?;
    wrk.args(["--threads", "1", "--connections", CONNECTIONS, "--duration", SECONDS, "--latency"]);
    if reuse == Reuse::Close {
        wrk.args(["--header", "Connection: close"]);
    }
    let printed = shell::run(wrk.arg(format!("http://{}/", way.target())))?;
    parse(&printed)
}

/// What `wrk --latency` prints. Requests that failed make the run void.
fn parse(printed: &str) -> Result<Run> {
    ensure!(!printed.contains("Non-2xx") && !printed.contains("Socket errors"), "{printed}");
    let after = |label: &str| {
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("no {label} in {printed}"))
    };
    let per_second = after("Requests/sec:")?.parse().context("Requests/sec")?;
    Ok(Run { p50_us: microseconds(after("50%")?)?, p99_us: microseconds(after("99%")?)?, per_second })
}

/// As wrk writes times: `873.00us`, `1.07ms`, `1.20s`.
fn microseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>().with_context(|| text.to_owned())? * factor);
        }
    }
    bail!("{text:?} is no time")
}

fn figures((reuse, way): (Reuse, Way), runs: &[Run], direct: &[Run]) -> Vec<Figure> {
    let figure = |column: &str, what: &str, values: Vec<f64>| {
        let values: Vec<Option<f64>> = values.into_iter().map(Some).collect();
        let name = format!("{}-{}/{column}", way.name(), reuse.name());
        Figure::of(Group::Http, &name, what, TABLE.unit(column), &values)
    };
    let latency = "of the requests of one run of wrk, one thread, 16 connections, always the same web server";
    let of = |part: fn(&Run) -> f64| runs.iter().map(part).collect::<Vec<f64>>();
    let ratios = runs.iter().zip(direct).map(|(run, direct)| run.per_second / direct.per_second);
    vec![
        figure("p50", latency, of(|run| run.p50_us)),
        figure("p99", latency, of(|run| run.p99_us)),
        figure("requests", "requests per second of that run", of(|run| run.per_second)),
        figure("to-direct", "requests per second to those of direct in the same round", ratios.collect()),
    ]
}

fn start_haproxy(lab: &Lab) -> Result<()> {
    /// It listens at once; a busy machine gets more.
    const LIMIT: Duration = Duration::from_secs(20);
    let home = lab.directory(OTHER)?;
    let config = home.join("haproxy.cfg");
    let (listens, server) = (Way::Haproxy.target(), Way::Direct.target());
    let text = format!(
        "global\n  maxconn 4096\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  \
         timeout server 30s\nlisten web\n  bind {listens}\n  server nginx {server}\n"
    );
    std::fs::write(&config, text)?;
    let mut command = lab.namespace(OTHER).command("haproxy")?;
    command.arg("-db").arg("-f").arg(&config);
    let log = home.join("haproxy.log");
    let process = lab.spawn(OTHER, Role::Haproxy, &mut command, &log)?;
    shell::await_value("haproxy listens", LIMIT, || {
        ensure!(process.alive(), "haproxy ended: {}", crate::node::tail(&log));
        lab.namespace(OTHER).run(|| Ok(std::net::TcpStream::connect(listens).ok().map(drop)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 2s test @ http://10.77.0.100:80/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   412.06us  210.15us   5.10ms   91.00%
    Req/Sec    38.40k     1.90k   40.90k    75.00%
  Latency Distribution
     50%  387.00us
     75%  450.00us
     90%  540.00us
     99%    1.07ms
  76432 requests in 2.00s, 12.17MB read
Requests/sec:  38210.33
Transfer/sec:      6.08MB
";

    #[test]
    fn what_wrk_prints_is_read() -> Result<()> {
        let expected = Run { p50_us: 387.0, p99_us: 1_070.0, per_second: 38_210.33 };
        assert_eq!(parse(PRINTED)?, expected);
        assert!(parse(&format!("{PRINTED}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(parse("nothing").is_err());
        Ok(())
    }
}
