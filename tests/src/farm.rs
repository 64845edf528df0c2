//! A farm of real daemons in a lab of its own, and what it says of itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use farm_lab::topology::mac_text;
use farm_lab::witness::{BootTime, Mac};
use farm_lab::{FIRST_VIP, Lab, LabName, Mode, Network, Place, Spec, Status, WEB_MODULE, WEB_PORT, shell};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Guard against a farm that never gets there: many times what it takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The web service of every lab.
pub const WEB: SocketAddr = SocketAddr::new(FIRST_VIP, WEB_PORT);

/// Labs are isolated from each other, but share the processors, and the shortest lease is 100 ms.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A farm, alone on this machine among the tests of this program.
#[derive(Debug)]
pub struct Farm {
    // Before the guard: the lab is down when the next one may begin.
    lab: Lab,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Farm {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

fn alone() -> MutexGuard<'static, ()> {
    // A test that failed leaves nothing behind that the next one could trip over.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Farm {
    /// Three nodes that serve [`WEB`].
    ///
    /// # Errors
    /// The lab does not come up.
    pub fn up(prefix: &str, mode: Mode) -> Result<Self> {
        Self::of(prefix, 3, |spec| spec.mode(mode))
    }

    /// Three nodes that serve the web service on `vip` too, by source port.
    ///
    /// # Errors
    /// The lab does not come up, or the cluster refuses the virtual IP.
    pub fn on(prefix: &str, mode: Mode, vip: IpAddr) -> Result<Self> {
        let farm = Self::up(prefix, mode)?;
        let web = Service::tcp(vip, WEB_PORT);
        if web.at != WEB {
            farm.add_service(web, "source-port")?;
            farm.await_applied()?;
        }
        Ok(farm)
    }

    /// As many nodes as `spec` says, which serve [`WEB`].
    ///
    /// # Errors
    /// The lab does not come up.
    pub fn of(prefix: &str, nodes: u8, spec: impl FnOnce(Spec) -> Spec) -> Result<Self> {
        let _alone = alone();
        let lab = Lab::up(spec(Spec::new(LabName::unique(prefix)?, nodes)))?;
        Ok(Self { lab, _alone })
    }

    /// Machines and cables only.
    ///
    /// # Errors
    /// The lab does not come up.
    pub fn bare(prefix: &str, nodes: u8) -> Result<Self> {
        let _alone = alone();
        let lab = Lab::build(Spec::new(LabName::unique(prefix)?, nodes))?;
        Ok(Self { lab, _alone })
    }

    /// Machines and cables of three nodes; [`Lab::run_farm`] makes them a farm that serves [`WEB`].
    ///
    /// # Errors
    /// The lab does not come up.
    pub fn unborn(prefix: &str, mode: Mode) -> Result<Self> {
        Self::unborn_of(prefix, |spec| spec.mode(mode))
    }

    /// The same of what `spec` says.
    ///
    /// # Errors
    /// As [`Farm::unborn`].
    pub fn unborn_of(prefix: &str, spec: impl FnOnce(Spec) -> Spec) -> Result<Self> {
        let _alone = alone();
        let lab = Lab::build(spec(Spec::new(LabName::unique(prefix)?, 3)))?;
        Ok(Self { lab, _alone })
    }

    /// Waits until `places` share the web service evenly and nothing is on the way, in the eyes of the first of them.
    ///
    /// # Errors
    /// They do not.
    pub fn await_shared_by(&self, places: &[Place]) -> Result<Status> {
        let first = *places.first().context("somebody serves")?;
        let what = format!("{places:?} share the web service");
        self.await_status(first, &what, LIMIT, |status| status.settled(WEB_MODULE, places))
    }

    /// Waits until `places` own the web service evenly; connections may still be with others.
    ///
    /// # Errors
    /// They do not.
    pub fn await_owned_by(&self, places: &[Place]) -> Result<Status> {
        let first = *places.first().context("somebody serves")?;
        let what = format!("{places:?} own the web service");
        self.await_status(first, &what, LIMIT, |status| status.shared(WEB_MODULE, places))
    }

    /// Waits until every filter works with the newest epoch.
    ///
    /// # Errors
    /// One does not.
    pub fn await_applied(&self) -> Result<Status> {
        let applied = |s: &Status| s.nodes.iter().all(|n| n.applied >= s.epoch);
        self.await_status(Place::Node(1), "every filter has the newest epoch", LIMIT, applied)
    }

    /// Who leads.
    ///
    /// # Errors
    /// Nobody does.
    pub fn leader(&self) -> Result<Place> {
        let known = |status: &Status| status.leader().is_some();
        let status = self.await_status(Place::Node(1), "a leader", LIMIT, known)?;
        status.leader().context("the status has a leader")
    }

    /// Who of `places` leads, in the eyes of the first of them.
    ///
    /// # Errors
    /// None of them does.
    pub fn leader_among(&self, places: &[Place]) -> Result<Place> {
        let first = *places.first().context("somebody is left")?;
        let led = |status: &Status| status.leader().is_some_and(|leader| places.contains(&leader));
        let status = self.await_status(first, &format!("one of {places:?} leads"), LIMIT, led)?;
        status.leader().context("the status has a leader")
    }

    /// The nodes but one.
    #[must_use]
    pub fn others(&self, than: Place) -> Vec<Place> {
        self.nodes().filter(|place| *place != than).collect()
    }

    /// What `node` says about a new flow of `client`.
    ///
    /// # Errors
    /// It says nothing, or its program and the pure function disagree.
    pub fn explain(&self, node: Place, client: SocketAddr, service: Service) -> Result<Explained> {
        let (client, service) = (client.to_string(), service.to_string());
        self.farmctl_json(node, &["explain", &client, &service])
    }

    /// The owner of the bucket of `client`, as `node` explains it.
    ///
    /// # Errors
    /// As [`Farm::explain`].
    pub fn owner(&self, node: Place, client: SocketAddr, service: Service) -> Result<Place> {
        let explained = self.explain(node, client, service)?;
        self.names(node)?.get(&explained.owner).copied().with_context(|| format!("{explained:?}"))
    }

    /// The members by Raft id.
    ///
    /// # Errors
    /// `node` does not answer.
    pub fn names(&self, node: Place) -> Result<BTreeMap<u64, Place>> {
        let status = self.status(node)?;
        status.nodes.iter().map(|n| Ok((n.node.id, n.node.name.parse()?))).collect()
    }

    /// Waits until `node` belongs to no cluster.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn await_alone(&self, node: Place) -> Result<()> {
        /// Exit code of farmctl.
        const NOT_A_MEMBER: i32 = 5;
        shell::await_value("it belongs to no cluster", LIMIT, || {
            let asked = self.farmctl_output(node, &["cluster", "status"])?;
            Ok((asked.status.code() == Some(NOT_A_MEMBER)).then_some(()))
        })
    }

    /// What happened, as `node` tells it, oldest first.
    ///
    /// # Errors
    /// It does not answer, or a line is no event.
    pub fn events(&self, node: Place) -> Result<Vec<Event>> {
        json_lines(&self.farmctl(node, &["events", "--last", "2000", "--json"])?)
    }

    /// How many frames the filter of `node` has treated for this reason.
    ///
    /// # Errors
    /// It does not answer, or knows no such reason.
    pub fn counter(&self, node: Place, reason: &str) -> Result<u64> {
        #[derive(Deserialize)]
        struct Answer {
            counters: Vec<Counter>,
        }
        #[derive(Deserialize)]
        struct Counter {
            reason: String,
            packets: u64,
        }
        let answer: Answer = self.farmctl_json(node, &["node", "counters"])?;
        let counter = answer.counters.into_iter().find(|counter| counter.reason == reason);
        counter.map(|counter| counter.packets).with_context(|| format!("no reason {reason}"))
    }

    /// Waits until `node` has an event of `kind` that happened after `known` others.
    ///
    /// # Errors
    /// It never has.
    pub fn await_event(&self, node: Place, kind: &str, known: usize) -> Result<Event> {
        let found = || Ok(self.events(node)?.into_iter().skip(known).find(|e| e.kind == kind));
        shell::await_value(&format!("{node} reports {kind}"), LIMIT, found)
    }

    /// When each step of a change of owners was first noted, by `node` or any other one that answers. Who is no part of
    /// the majority that commits it may note it only after the new owner has acted by it.
    ///
    /// # Errors
    /// `node` does not answer.
    pub fn epochs(&self, node: Place) -> Result<Vec<BootTime>> {
        let real = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let now = BootTime::now();
        let mut events = self.events(node)?;
        // The dead do not answer.
        self.others(node)
            .into_iter()
            .filter_map(|other| self.events(other).ok())
            .for_each(|e| events.extend(e));
        let mut first: BTreeMap<u64, u64> = BTreeMap::new();
        for event in events.iter().filter(|e| e.kind.starts_with("buckets_")) {
            let at = first.entry(event.epoch).or_insert(event.time_unix_ms);
            *at = event.time_unix_ms.min(*at);
        }
        Ok(first.values().map(|at| now - real.saturating_sub(Duration::from_millis(*at))).collect())
    }

    /// The MAC that `vip` has in flood mode, as those on the link have learnt it.
    ///
    /// # Errors
    /// Nobody has.
    pub fn learnt_mac(&self, vip: IpAddr) -> Result<Mac> {
        let vip = vip.to_string();
        let show = ["neigh", "show", &vip, "dev", "eth0"];
        for asker in [Place::Client, Place::Router] {
            let shown = shell::run(self.command(asker, "ip")?.args(show))?;
            if let Some((_, mac)) = shown.split_once("lladdr ") {
                return parse_mac(mac.split_whitespace().next().unwrap_or_default());
            }
        }
        bail!("nobody on the link knows the hardware address of {vip}")
    }

    /// The virtual hardware address of `vip`: in flood mode [`Farm::learnt_mac`], else there is none.
    ///
    /// # Errors
    /// Nobody has learnt it.
    pub fn virtual_mac(&self, vip: IpAddr) -> Result<Option<Mac>> {
        (self.spec().mode == Mode::Flood).then(|| self.learnt_mac(vip)).transpose()
    }

    /// Everything from `from` for [`WEB`] enters at `node` from now on, as if that had answered the question for the
    /// address; until somebody announces itself.
    ///
    /// # Errors
    /// The client's entry cannot be set.
    pub fn point_at(&self, from: Place, node: Place) -> Result<()> {
        let mac = mac_text(node.mac(Network::Lan).context("nodes are on the link")?);
        let entry = format!("neigh replace {FIRST_VIP} dev eth0 lladdr {mac} nud reachable\n");
        self.namespace(from).ip(&entry)
    }

    /// Adds a service to the web module.
    ///
    /// # Errors
    /// The cluster refuses it.
    pub fn add_service(&self, service: Service, criterion: &str) -> Result<()> {
        let mode = self.spec().mode.name();
        self.service("add", service, &["--criterion", criterion, "--mode", mode]).map(drop)
    }

    /// Runs `farmctl service VERB` for a service of the web module on the first node.
    ///
    /// # Errors
    /// The cluster refuses it.
    pub fn service(&self, verb: &str, service: Service, more: &[&str]) -> Result<String> {
        self.service_at(Place::Node(1), verb, service, more)
    }

    /// The same on `node`.
    ///
    /// # Errors
    /// As [`Farm::service`].
    pub fn service_at(&self, node: Place, verb: &str, service: Service, more: &[&str]) -> Result<String> {
        let (vip, port) = (service.at.ip().to_string(), service.at.port().to_string());
        let which = ["--module", WEB_MODULE, "--vip", &vip, "--protocol", service.protocol, "--port", &port];
        let args: Vec<&str> = ["service", verb].iter().chain(&which).chain(more).copied().collect();
        self.farmctl(node, &args)
    }
}

fn parse_mac(text: &str) -> Result<Mac> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<u8>, _>>();
    let bytes = bytes.with_context(|| text.to_owned())?;
    Ok(Mac(bytes.try_into().map_err(|_| anyhow!("{text} is no hardware address"))?))
}

/// A service as `explain` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Virtual IP and port.
    pub at: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
}

impl Service {
    /// A TCP service.
    #[must_use]
    pub fn tcp(vip: IpAddr, port: u16) -> Self {
        Self { at: SocketAddr::new(vip, port), protocol: "tcp" }
    }

    /// A UDP service.
    #[must_use]
    pub fn udp(vip: IpAddr, port: u16) -> Self {
        Self { at: SocketAddr::new(vip, port), protocol: "udp" }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.at, self.protocol)
    }
}

/// `farmctl explain --json`, as far as the tests look at it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Explained {
    /// The bucket.
    pub bucket: u32,
    /// Raft id of its owner.
    pub owner: u64,
    /// Epoch of the answer.
    pub epoch: u64,
    /// What the pure function says.
    pub decided: String,
    /// What the loaded program says.
    pub program: String,
    /// Whether they say the same.
    pub agree: bool,
}

/// A line of `farmctl events --json`, as far as the tests look at it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Stable code.
    pub kind: String,
    /// What it is about.
    pub resource: String,
    /// The sentence.
    pub text: String,
    /// Id of the event that caused it.
    pub cause: String,
    /// Epoch after it.
    pub epoch: u64,
    /// When, by the clock of the node.
    pub time_unix_ms: u64,
}

/// What an operator is told about a problem.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// Stable code.
    pub code: String,
    /// The observed fact.
    pub fact: String,
    /// The command that cures it.
    pub cure: String,
}

/// The problem that `farmctl --json` printed.
///
/// # Errors
/// It succeeded, or printed something else.
pub fn farmctl_problem(output: &Output) -> Result<Told> {
    #[derive(Deserialize)]
    struct Answer {
        error: Told,
    }
    ensure!(!output.status.success(), "it succeeded: {output:?}");
    let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let parsed = texts.iter().find_map(|text| serde_json::from_str::<Answer>(text.trim()).ok());
    parsed.map(|answer| answer.error).with_context(|| format!("no problem in JSON: {texts:?}"))
}

/// Lines of JSON.
///
/// # Errors
/// One of them is no `T`.
pub fn json_lines<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}
