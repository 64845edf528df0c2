//! The families, with their names, units and meanings. Labels are bounded: modules, resources and scripts of the
//! configuration, and words of this code.

use std::fmt::Error;

use farm_proto::v1;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::sample::{Lease, Part, Raft, Sample, Seen};
use super::table::{Family, Page};
use crate::node::Spread;

/// Where an application may be.
const PLACES: [(v1::Place, &str); 3] =
    [(v1::Place::Stop, "stop"), (v1::Place::Wait, "wait"), (v1::Place::Up, "up")];
/// How it may be there.
const STATUSES: [(v1::LifeStatus, &str); 3] = [
    (v1::LifeStatus::NotReady, "not-ready"),
    (v1::LifeStatus::Transient, "transient"),
    (v1::LifeStatus::Ready, "ready"),
];
/// What a check may say.
const STATES: [(v1::ResourceState, &str); 4] = [
    (v1::ResourceState::Init, "init"),
    (v1::ResourceState::Up, "up"),
    (v1::ResourceState::Down, "down"),
    (v1::ResourceState::Unknown, "unknown"),
];

impl Collector for Sample {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut page = Page(encoder);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let labels = [("version", version), ("node", self.node.clone())];
        page.info(&Family("build", None, "The daemon that answers."), &labels)?;
        page.gauge(
            &Family("member", None, "1 when the node belongs to a cluster."),
            truth(self.seen.is_some()),
        )?;
        self.seen.as_ref().map_or(Ok(()), |seen| seen.write(&mut page))
    }
}

impl Seen {
    fn write(&self, page: &mut Page) -> Result<(), Error> {
        self.filter(page)?;
        self.lease.write(page)?;
        self.epochs(page)?;
        parts(&self.modules, page)?;
        self.applications(page)?;
        let help = "From the request to append to the log until that was durable.";
        page.histogram(&Family("store_append", Some(Unit::Seconds), help), &self.flushes)?;
        self.raft.write(page)?;
        let family =
            Family("conditions", None, "States that are not green, as this node sees them, by code.");
        let level = |passing: bool| if passing { "yellow" } else { "red" }.to_owned();
        let rows = self
            .conditions
            .iter()
            .map(|((code, passing), n)| ([("code", code.clone()), ("level", level(*passing))], number(*n)));
        page.gauges(&family, rows)
    }

    fn filter(&self, page: &mut Page) -> Result<(), Error> {
        let family = Family("packets", None, "Frames that the filter has seen, by what it did and why.");
        let labels = |c: &v1::Counter| [("verdict", c.verdict.clone()), ("reason", c.reason.clone())];
        page.counters(&family, self.packets.iter().map(|c| (labels(c), c.packets)))?;
        page.gauge(&Family("filter_attached", None, "1 when a filter is attached."), truth(self.attached))?;
        let help = "1 when filter and guard are in place, or not needed; 0: the node accepts nothing.";
        page.gauge(&Family("filter_sound", None, help), truth(self.sound))
    }

    fn epochs(&self, page: &mut Page) -> Result<(), Error> {
        let (known, applied) = self.epochs;
        page.gauge(&Family("epoch", None, "Epoch of the state that this node knows."), number(known))?;
        let help = "Epoch that this node's filter works with.";
        page.gauge(&Family("epoch_applied", None, help), number(applied))
    }

    fn applications(&self, page: &mut Page) -> Result<(), Error> {
        let lives = || self.lives.iter();
        let family = Family("module_state", None, "1 for the state of the module's application here.");
        page.gauges(&family, lives().flat_map(|life| one_of("state", &PLACES, life.place(), &life.module)))?;
        let family = Family("module_status", None, "1 for how the application is in that state.");
        page.gauges(
            &family,
            lives().flat_map(|life| one_of("status", &STATUSES, life.status(), &life.module)),
        )?;
        let family = Family("module_loops", None, "Automatic actions that count against maxloop.");
        let rows = lives().map(|life| ([("module", life.module.clone())], f64::from(life.loops)));
        page.gauges(&family, rows)?;
        let family =
            Family("resource_state", None, "1 for the state of a resource that the module depends on.");
        page.gauges(&family, lives().flat_map(resources))?;
        let family =
            Family("script_run", Some(Unit::Seconds), "Runs of a module's scripts, by how they ended.");
        let result = |ok: bool| if ok { "ok" } else { "failed" }.to_owned();
        let rows = self.runs.iter().map(|(of, tally)| {
            let labels =
                [("module", of.module.clone()), ("script", of.script.to_owned()), ("result", result(of.ok))];
            (labels, tally.clone())
        });
        page.histograms(&family, rows)
    }
}

impl Lease {
    fn write(&self, page: &mut Page) -> Result<(), Error> {
        let help = "Until this node's lease runs out; 0: it accepts nothing.";
        page.gauge(&Family("lease_left", Some(Unit::Seconds), help), self.left)?;
        let help = "What was left of the lease each time a grant extended it; 0: it had run out.";
        page.histogram(&Family("lease_margin", Some(Unit::Seconds), help), &self.margins)?;
        page.counter(&Family("lease_grants", None, "Grants that extended the lease."), self.grants)?;
        let help = "Grants that came when the lease had run out.";
        page.counter(&Family("lease_lapses", None, help), self.lapses)?;
        let help = "Lease datagrams that were refused: malformed, forged or of another cluster.";
        page.counter(&Family("lease_datagrams_refused", None, help), self.refused)
    }
}

fn parts(parts: &[Part], page: &mut Page) -> Result<(), Error> {
    let each = |value: fn(&Part) -> f64| {
        parts.iter().map(move |part| ([("module", part.module.clone())], value(part)))
    };
    let help = "1 when this node accepts clients of the module, as ready.txt says.";
    page.gauges(&Family("module_ready", None, help), each(|part| truth(part.ready)))?;
    let help = "Buckets of the module that this node owns, or is to own when their change is done.";
    page.gauges(&Family("module_buckets", None, help), each(|part| count(part.owned)))?;
    let help = "Buckets that this node has given away, and whose connections it may still have.";
    page.gauges(&Family("module_buckets_leaving", None, help), each(|part| count(part.leaving)))?;
    let help = "Buckets of the module, of any node, whose change is open.";
    page.gauges(&Family("module_changes_open", None, help), each(|part| count(part.open)))?;
    let help =
        "Buckets of the module that no node owns, as this node knows: their clients are served by nobody.";
    page.gauges(&Family("module_buckets_unowned", None, help), each(|part| count(part.unowned)))?;
    let help = "Connections that are to leave this node.";
    page.gauges(&Family("module_connections_draining", None, help), each(|part| number(part.draining)))?;
    let spread = |value: fn(&Spread) -> u64| {
        let row = move |part: &Part| {
            Some(([("module", part.module.clone())], number(value(part.spread.as_ref()?))))
        };
        parts.iter().filter_map(row)
    };
    let help = "Connections in the buckets that this node owns.";
    page.gauges(&Family("module_connections", None, help), spread(|s| s.connections))?;
    let help = "Connections in that bucket of this node that has most.";
    page.gauges(&Family("module_bucket_connections_max", None, help), spread(|s| s.fullest))
}

impl Raft {
    fn write(&self, page: &mut Page) -> Result<(), Error> {
        page.gauge(&Family("raft_term", None, "Highest term that this node has seen."), number(self.term))?;
        let help = "Index of the last entry of the log that this node has applied.";
        page.gauge(&Family("raft_applied_index", None, help), number(self.applied))?;
        let help = "Id of the leader as this node knows it; 0: none.";
        page.gauge(&Family("raft_leader_id", None, help), number(self.leader))?;
        page.gauge(&Family("raft_is_leader", None, "1 when this node leads."), truth(self.leads))?;
        page.gauge(&Family("raft_is_voter", None, "1 when this node votes."), truth(self.votes))
    }
}

type Row<const N: usize> = ([(&'static str, String); N], f64);

/// A row for each word, 1 at the one that is true.
fn one_of<T: PartialEq + Copy>(
    label: &'static str,
    words: &'static [(T, &'static str)],
    is: T,
    module: &str,
) -> impl Iterator<Item = Row<2>> + use<T> {
    let module = module.to_owned();
    words.iter().map(move |(value, word)| {
        ([("module", module.clone()), (label, (*word).to_owned())], truth(*value == is))
    })
}

fn resources(life: &v1::ModuleLife) -> impl Iterator<Item = Row<3>> + '_ {
    life.resources.iter().flat_map(|resource| {
        one_of("state", &STATES, resource.state(), &life.module)
            .map(|([module, state], value)| ([module, ("resource", resource.name.clone()), state], value))
    })
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Counts are far below 2^53, up to which a gauge is exact.
#[allow(clippy::cast_precision_loss)]
fn number(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    number(u64::try_from(n).unwrap_or(u64::MAX))
}
