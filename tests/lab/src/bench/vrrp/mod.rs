//! Failover beside keepalived: the same machines, web servers and client, which opens a connection every few ms from
//! one address; the victim is the node that answers it.

mod rival;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use tokio::time::timeout;

pub(super) use self::rival::Rival;
use super::figure::{Budget, Figure};
use super::group::Group;
use crate::demo::{Load, Plan, ask, longest_gap};
use crate::lab::Lab;
use crate::names::{Family, LabName, Network, Place};
use crate::topology::mac_text;
use crate::{FIRST_VIP, WEB_PORT, shell};

/// Name of the group.
pub(super) const NAME: &str = "against-keepalived";
const SERVICE: SocketAddr = SocketAddr::new(FIRST_VIP, WEB_PORT);
/// Connections per second.
const RATE: u32 = 250;
const BEFORE: Duration = Duration::from_millis(500);
/// Runs of each fault, at most.
const RUNS_MAX: usize = 3;
/// A connection that is not answered by then is not answered by that node.
const PATIENCE: Duration = Duration::from_millis(250);
/// Ports of single questions: the load's lie below.
const PORTS: std::ops::RangeInclusive<u16> = 50_000..=60_000;

/// What happens to the node that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Cut,
    Killed,
    /// Its daemon is stopped with SIGSTOP and goes on later.
    Frozen,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Cut, Self::Killed, Self::Frozen];

    fn name(self) -> &'static str {
        match self {
            Self::Cut => "node-cut",
            Self::Killed => "node-killed",
            Self::Frozen => "daemon-frozen",
        }
    }
}

/// What one fault did.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    gap: Duration,
    /// Nodes that accept connections of the one client while the daemon is frozen, and when it has gone on.
    holders: Option<[usize; 2]>,
}

/// Every fault of `rival`, each in a lab of its own by the name `name`.
pub(super) fn measure(name: &LabName, runs: usize, rival: Rival) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for fault in Fault::ALL.into_iter().filter(|fault| rival.suffers(*fault)) {
        let lab = rival.up(name).context(fault.name())?;
        let mut samples = Vec::new();
        let failed = (0..runs.min(RUNS_MAX)).find_map(|_| match run(&lab, rival, fault) {
            Ok(sample) => {
                samples.push(sample);
                None
            }
            // Who did not come back is no ground for another run; what was measured before holds.
            Err(error) => Some(error),
        });
        figures.extend(figures_of(rival, fault, &samples, failed.as_ref()));
        lab.down()?;
    }
    Ok(figures)
}

fn run(lab: &Lab, rival: Rival, fault: Fault) -> Result<Sample> {
    let (client, victim) = rival.client_and_victim(lab)?;
    let plan = Plan { rate: RATE, only: Some(client), ..Plan::new(FIRST_VIP) };
    let load = Load::start(lab, plan)?;
    std::thread::sleep(BEFORE);
    let at = load.now();
    rival.strike(lab, fault, victim)?;
    std::thread::sleep(rival.settles_within() + crate::demo::TIMEOUT);
    let requests = load.since(at);
    load.stop()?;
    let holders = (fault == Fault::Frozen).then(|| -> Result<[usize; 2]> {
        let frozen = holders(lab, client, victim)?;
        rival.thaw(lab, victim)?;
        Ok([frozen, holders(lab, client, victim)?])
    });
    let sample = Sample { gap: longest_gap(&requests), holders: holders.transpose()? };
    rival.mend(lab, fault, victim)?;
    Ok(sample)
}

/// How many different nodes answer connections of `client`, whoever the client's frames are sent to; `first` is asked
/// first. In a farm a node that is not the owner sends them on to the owner.
fn holders(lab: &Lab, client: IpAddr, first: Place) -> Result<usize> {
    let others = lab.nodes().filter(|node| *node != first);
    let mut found: Vec<Place> = Vec::new();
    for node in std::iter::once(first).chain(others) {
        let mac = mac_text(node.mac(Network::Lan).context("a node is on the link")?);
        let entry = format!("neigh replace {FIRST_VIP} dev eth0 lladdr {mac} nud permanent\n");
        lab.namespace(Place::Client).ip(&entry)?;
        let answer = answer(lab, client)?;
        found.extend(answer.filter(|by| !found.contains(by)));
    }
    lab.namespace(Place::Client).ip(&format!("neigh del {FIRST_VIP} dev eth0\n"))?;
    Ok(found.len())
}

/// Who answers a new connection of `client`.
fn answer(lab: &Lab, client: IpAddr) -> Result<Option<Place>> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let ports = PORTS.end() - PORTS.start();
    let port = PORTS.start() + NEXT.fetch_add(1, Ordering::Relaxed) % ports;
    lab.namespace(Place::Client).run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asked = async { timeout(PATIENCE, ask(SocketAddr::new(client, port), SERVICE)).await };
        Ok(runtime.block_on(asked).ok().and_then(Result::ok).flatten())
    })
}

/// Waits until `wanted` holds for who answers `client`.
fn await_answer(lab: &Lab, client: IpAddr, limit: Duration, wanted: impl Fn(Place) -> bool) -> Result<Place> {
    shell::await_value(&format!("the wanted node answers {client}"), limit, || {
        Ok(answer(lab, client)?.filter(|by| wanted(*by)))
    })
}

/// The addresses that ask.
fn clients() -> impl Iterator<Item = IpAddr> {
    Place::Client.crowd(Family::V4)
}

fn figures_of(rival: Rival, fault: Fault, samples: &[Sample], failed: Option<&Error>) -> Vec<Figure> {
    let figure = |name: &str, what: &str, unit: &str, values: Vec<f64>| {
        let lost = failed.map(|_| None);
        let values: Vec<Option<f64>> = values.into_iter().map(Some).chain(lost).collect();
        let name = format!("{}/{name}", fault.name());
        let complaints = failed.map(|error| format!("{error:#}")).into_iter().collect();
        Figure { complaints, ..Figure::of(Group::Vrrp(rival), &name, what, unit, &values) }
    };
    let gap = "longest time in which connections of one client, one every 4 ms, were not answered";
    let gaps = samples.iter().map(|s| s.gap.as_secs_f64() * 1e3).collect();
    let holders = |at: usize| -> Vec<f64> {
        samples.iter().filter_map(|s| s.holders).map(|holders| holders[at] as f64).collect()
    };
    let mut figures = vec![figure("gap", gap, "ms", gaps)];
    if fault == Fault::Frozen {
        let what = "nodes that accept connections of the one client, each asked in turn at its own MAC";
        let (frozen, continued) = (format!("{what}; after the take-over"), format!("{what}; after SIGCONT"));
        figures.push(figure("holders-frozen", &frozen, "nodes", holders(0)));
        figures.push(figure("holders-continued", &continued, "nodes", holders(1)));
        if rival.is_farm() {
            let bounded = figures.drain(1..).map(|f| f.within(Budget::at_most(1.0))).collect::<Vec<_>>();
            figures.extend(bounded);
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_miss_the_farms_budget_and_nobody_elses() {
        let twice = [Sample { gap: Duration::ZERO, holders: Some([2, 1]) }];
        let met = |rival| -> Vec<Option<bool>> {
            figures_of(rival, Fault::Frozen, &twice, None).iter().map(|figure| figure.met).collect()
        };
        assert_eq!(met(Rival::Farm), [None, Some(false), Some(true)]);
        assert_eq!(met(Rival::ALL[0]), [None, None, None]);
    }

    #[test]
    fn a_run_that_fails_takes_nothing_from_those_before_it() {
        let one = [Sample { gap: Duration::from_millis(7), holders: None }];
        let why = anyhow::anyhow!("nobody answers");
        let figures = figures_of(Rival::ALL[0], Fault::Killed, &one, Some(&why));
        assert_eq!(figures[0].value.map(|v| v.max), Some(7.0));
        assert_eq!((figures[0].without_value, figures[0].complaints.len()), (1, 1));
    }
}
