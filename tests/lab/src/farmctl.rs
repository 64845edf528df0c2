//! The command line of Farm, called as an operator calls it, and what it answers.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::lab::Lab;
use crate::names::{FIRST_VIP, Network, Place};
use crate::node::{WEB_PORT, successful, tail};
use crate::shell;

/// Buckets of a module.
pub const BUCKETS: u32 = 4096;
/// Most nodes that vote and grant leases.
const ELECTORS_MAX: usize = 5;
/// Module of the lab's web service.
pub const WEB_MODULE: &str = "web";
/// Peer port of the daemons.
const PEER_PORT: u16 = 7601;

/// `farmctl cluster status --json`, as far as the lab looks at it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Name of the cluster.
    pub name: String,
    /// Current epoch.
    pub epoch: u64,
    /// Raft term.
    pub term: u64,
    /// Raft id of the leader, 0 if none is known.
    pub leader: u64,
    /// Raft id of the node that answered.
    pub answered_by: u64,
    /// Members.
    pub nodes: Vec<NodeStatus>,
    /// Raft ids of those who grant leases.
    pub electors: Vec<u64>,
    /// Modules.
    pub modules: Vec<ModuleStatus>,
    /// Everything that is not green.
    pub conditions: Vec<Condition>,
}

/// A member as the answering node sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Who it is.
    pub node: Node,
    /// Was it heard from lately?
    pub heard: bool,
    /// Epoch that its filter works with.
    pub applied: u64,
    /// Does it vote?
    pub voter: bool,
    /// Is `lease_left_ms` known?
    pub lease_known: bool,
    /// What is left of its lease, in ms.
    pub lease_left_ms: u64,
    /// Is its filter in place? `None`: not seen from the answering node.
    pub filter_ok: Option<bool>,
    /// Time since it was last heard, in ms.
    pub silent_ms: u64,
    /// Buckets that it owns, of all modules.
    pub buckets: u32,
    /// Buckets that have not left it yet.
    pub buckets_draining: u32,
    /// Sockets of those.
    pub sockets_draining: Option<u64>,
    /// Highest feature level that its build knows.
    pub feature_level: u32,
    /// This run of its daemon.
    pub run: String,
    /// Is its daemon being restarted as planned?
    pub restarting: bool,
}

/// Identity of a member.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Raft id.
    pub id: u64,
    /// Name.
    pub name: String,
    /// `member`, `leaving` or `away`.
    pub phase: String,
}

/// A module and who serves it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ModuleStatus {
    /// Which.
    pub module: Module,
    /// Buckets per node.
    pub shares: Vec<Share>,
    /// Buckets on the way.
    pub open_changes: u32,
    /// Its application, per node that told.
    pub lives: Vec<Life>,
}

/// The application of a module on a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Life {
    /// Which node.
    pub node: u64,
    /// `stop`, `wait`, `up`.
    pub place: String,
    /// `not-ready`, `transient`, `ready`.
    pub status: String,
    /// Why.
    pub cause: String,
    /// What it depends on.
    pub resources: Vec<Resource>,
}

/// Something that a module depends on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Name.
    pub name: String,
    /// `init`, `up`, `down`, `unknown`.
    pub state: String,
    /// What it says counts for nothing.
    pub off: bool,
}

/// Identity of a module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Module {
    /// Name.
    pub name: String,
}

/// What a node holds of a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Raft id.
    pub node: u64,
    /// Buckets that it owns.
    pub buckets: u32,
    /// Its weight.
    pub weight: u32,
}

/// Something that is not green.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Stable code.
    pub code: String,
    /// What it is about.
    pub resource: String,
    /// Why.
    pub cause: String,
    /// What to do.
    pub next: String,
}

impl Status {
    /// The place of the leader, if one is known.
    #[must_use]
    pub fn leader(&self) -> Option<Place> {
        self.place(self.leader)
    }

    /// The place of the member with this Raft id.
    #[must_use]
    pub fn place(&self, id: u64) -> Option<Place> {
        self.nodes.iter().find(|n| n.node.id == id && id != 0)?.node.name.parse().ok()
    }

    /// The module `name`.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<&ModuleStatus> {
        self.modules.iter().find(|m| m.module.name == name)
    }

    /// Buckets of module `name` that `place` owns.
    #[must_use]
    pub fn buckets(&self, name: &str, place: Place) -> u32 {
        let shares = self.module(name).map(|m| m.shares.as_slice()).unwrap_or_default();
        shares.iter().filter(|s| self.place(s.node) == Some(place)).map(|s| s.buckets).sum()
    }

    /// Do as many grant leases as may, and does every filter work with the newest epoch? Then nothing is on the way.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        let applied = self.nodes.iter().all(|n| n.applied >= self.epoch);
        applied && self.electors.len() == self.nodes.len().min(ELECTORS_MAX) && self.conditions.is_empty()
    }

    /// Is every bucket of module `name` with one of `places`, evenly, and none on the way?
    #[must_use]
    pub fn settled(&self, name: &str, places: &[Place]) -> bool {
        self.shared(name, places) && self.module(name).is_some_and(|m| m.open_changes == 0)
    }

    /// Does every bucket of module `name` belong to one of `places`, evenly? Connections may still be with others.
    #[must_use]
    pub fn shared(&self, name: &str, places: &[Place]) -> bool {
        let (count, fair) = (places.len() as u32, BUCKETS / places.len().max(1) as u32);
        let owned: Vec<u32> = places.iter().map(|p| self.buckets(name, *p)).collect();
        let even = owned.iter().all(|b| b.abs_diff(fair) <= 1);
        count > 0 && even && owned.iter().sum::<u32>() == BUCKETS
    }
}

impl Lab {
    /// Runs farmctl against the daemon of `node`; a failure is in the result.
    ///
    /// # Errors
    /// farmctl cannot be started.
    pub fn farmctl_output(&self, node: Place, args: &[&str]) -> Result<Output> {
        let farmctl = crate::binaries::find("farmctl")?;
        self.exec(node, &farmctl.display().to_string(), args)
    }

    /// Runs farmctl against the daemon of `node` and returns what it printed.
    ///
    /// # Errors
    /// farmctl failed; the error has its message.
    pub fn farmctl(&self, node: Place, args: &[&str]) -> Result<String> {
        let output = self.farmctl_output(node, args)?;
        successful(&format!("farmctl {} on {node}", args.join(" ")), &output)
    }

    /// Runs farmctl with `--json` and reads the answer.
    ///
    /// # Errors
    /// As [`Lab::farmctl`], or the answer is not a `T`.
    pub fn farmctl_json<T: DeserializeOwned>(&self, node: Place, args: &[&str]) -> Result<T> {
        let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let text = self.farmctl(node, &with_json)?;
        serde_json::from_str(&text)
            .with_context(|| format!("farmctl {} answered {text}", with_json.join(" ")))
    }

    /// The cluster as `node` sees it.
    ///
    /// # Errors
    /// As [`Lab::farmctl_json`].
    pub fn status(&self, node: Place) -> Result<Status> {
        /// A daemon answers from memory.
        const LIMIT: Duration = Duration::from_secs(2);
        self.status_within(node, LIMIT)
    }

    /// As [`Lab::status`], with an answer within `limit`.
    ///
    /// # Errors
    /// As [`Lab::farmctl_json`]; a frozen daemon does not answer.
    pub fn status_within(&self, node: Place, limit: Duration) -> Result<Status> {
        let limit = format!("{}ms", limit.as_millis());
        self.farmctl_json(node, &["cluster", "status", "--timeout", &limit])
    }

    /// Waits until `wanted` holds in the eyes of `node` and returns that status.
    ///
    /// # Errors
    /// It does not hold within `limit`: then with the last status or complaint; or the daemon has ended.
    pub fn await_status(
        &self,
        node: Place,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let mut last = String::new();
        let reached = shell::await_value(what, limit, || {
            let answer = self.status(node);
            last = answer.as_ref().map_or_else(|e| format!("{e:#}"), |status| format!("{status:?}"));
            if answer.is_err() && self.farmd(node)?.is_none() {
                bail!("farmd on {node} ended: {}", tail(&self.log(node)?));
            }
            Ok(answer.ok().filter(&wanted))
        });
        reached.with_context(|| format!("{node} says: {last}"))
    }

    /// Starts daemons and web servers, founds the cluster, joins every node and adds the web service.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn run_farm(&self) -> Result<()> {
        self.run_cluster()?;
        self.servers().try_for_each(|node| self.start_nginx(node).map(drop))?;
        self.add_web_service()
    }

    /// Starts the daemons, founds the cluster on `node1` and joins the others.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn run_cluster(&self) -> Result<()> {
        for node in self.nodes() {
            self.spawn_farmd(node)?;
        }
        self.nodes().try_for_each(|node| self.await_farmd(node))?;
        let first = Place::Node(1);
        self.farmctl(first, &["cluster", "init", "--name", self.spec.name.as_str(), "--profile", "fast"])?;
        self.nodes().skip(1).try_for_each(|node| self.join(node, first))
    }

    /// Makes the daemon of `node` a member of the cluster of `member`.
    ///
    /// # Errors
    /// The cluster refused.
    pub fn join(&self, node: Place, member: Place) -> Result<()> {
        let host = member.host().with_context(|| format!("{member} is no node"))?;
        let peer = format!("{}:{PEER_PORT}", Network::Lan.address(host));
        self.farmctl(node, &["node", "join", &peer]).map(drop)
    }

    /// Adds the service of the web servers: the first virtual IP, TCP port 80, by source port; waits until every
    /// node serves its share, and all that a young farm still has to do is done.
    ///
    /// # Errors
    /// The cluster refused, or the shares do not settle.
    pub fn add_web_service(&self) -> Result<()> {
        self.add_web_service_by("source-port")
    }

    /// The same by `criterion`, as farmctl spells it.
    ///
    /// # Errors
    /// As [`Lab::add_web_service`].
    pub fn add_web_service_by(&self, criterion: &str) -> Result<()> {
        /// A dozen log entries and the grace periods between them.
        const LIMIT: Duration = Duration::from_secs(20);
        self.add_service_by(WEB_PORT, criterion)?;
        let all: Vec<Place> = self.servers().collect();
        let what = "every server serves its share of the web service";
        let settled = |s: &Status| s.settled(WEB_MODULE, &all) && s.at_rest();
        self.await_status(Place::Node(1), what, LIMIT, settled).map(drop)
    }

    /// Adds TCP port `port` of the first virtual IP, by source port, to the module of the web service.
    ///
    /// # Errors
    /// The cluster refused.
    pub(crate) fn add_service(&self, port: u16) -> Result<()> {
        self.add_service_by(port, "source-port")
    }

    fn add_service_by(&self, port: u16, criterion: &str) -> Result<()> {
        let (vip, port) = (FIRST_VIP.to_string(), port.to_string());
        let service = ["--module", WEB_MODULE, "--vip", &vip, "--protocol", "tcp", "--port", &port];
        let how = ["--criterion", criterion, "--mode", self.spec.mode.name()];
        let args: Vec<&str> = ["service", "add"].into_iter().chain(service).chain(how).collect();
        self.farmctl(Place::Node(1), &args).map(drop)
    }
}
