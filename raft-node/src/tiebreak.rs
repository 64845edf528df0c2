//! The tie-break outside of a contest: what is looked at before it is set, and the trials that show that it would decide.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use farm_core::arbiter::Kind;
use farm_core::command::{Body, Command};
use farm_core::id::NodeId;
use farm_core::model::{Node, Profile, Role};
use farm_core::state::ClusterState;
use farm_core::tiebreak::{Mac, Rehearsal, TieBreak};
use farm_core::time::UnixTime;
use farm_host::lock::{Heard, Port};
use farm_host::{Netlink, neighbour};
use farm_proto::v1;

use crate::journal::now_ms;
use crate::member::Member;
use crate::member::contest::{link_to, place};
use crate::problem::Problem;
use crate::wire::{Wire, WireError, required, text};

/// A router on the link answers at once, or is not there.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);
/// Echoes of a trial: all or none must be answered.
const PINGS: u64 = 4;
/// Between two of them.
const PING_EVERY: Duration = Duration::from_millis(20);
/// After the last one.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// How often a tie-break is tried: routers are replaced, and nobody tells.
const REHEARSE_EVERY: Duration = Duration::from_hours(24);
/// Between two looks at whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a trial that failed.
const AFTER_FAILURE: Duration = Duration::from_mins(1);

const CURE: &str = "farmctl cluster tie-break --help";

/// The link address of `router`, as this machine sees it.
async fn mac_of(router: IpAddr) -> Result<Mac, Problem> {
    let problem = |fact: String| Problem::new("router_unknown", fact, format!("ip neigh show {router}"));
    let (ifindex, _) = link_to(router).await.map_err(|e| problem(e.to_string()))?;
    let netlink = Netlink::open().map_err(|e| problem(e.to_string()))?;
    let found = neighbour::resolve(&netlink, ifindex, router, RESOLVE_WITHIN).await;
    let found = found.map_err(|e| problem(e.to_string()))?;
    found.map(|n| n.mac).ok_or_else(|| problem(format!("nobody on the link answers for {router}")))
}

/// What is asked for, with the link addresses that the routers have now.
///
/// # Errors
/// An address that is none, a router that does not answer, an address that somebody has.
pub async fn prepare(kind: Kind, routers: &[String], address: &str) -> Result<TieBreak, Problem> {
    let parse = |text: &str| {
        text.parse::<IpAddr>().map_err(|_| Problem::new("bad_request", format!("{text} is no address"), CURE))
    };
    let address = (!address.is_empty()).then(|| parse(address)).transpose()?;
    let mut known = std::collections::BTreeMap::new();
    for router in routers {
        let ip = parse(router)?;
        known.insert(ip, mac_of(ip).await?);
    }
    if let Some(address) = address {
        refuse_used(address).await?;
    }
    Ok(TieBreak { kind, routers: known, address, rehearsed: None })
}

/// The address is to be nobody's. One that is in no network of this machine cannot be asked for: then no trial succeeds.
async fn refuse_used(address: IpAddr) -> Result<(), Problem> {
    let Ok((ifindex, _)) = link_to(address).await else {
        let fact =
            format!("{address} is in no network of this machine: take a free one of the routers' network");
        return Err(Problem::new("tie_break", fact, CURE));
    };
    let failed = |e: &dyn std::fmt::Display| Problem::new("tie_break", e.to_string(), CURE);
    let netlink = Netlink::open().map_err(|e| failed(&e))?;
    match neighbour::resolve(&netlink, ifindex, address, RESOLVE_WITHIN).await.map_err(|e| failed(&e))? {
        None => Ok(()),
        Some(_) => {
            let fact = format!("somebody answers for {address}: the address to claim must be free");
            Err(Problem::new("tie_break", fact, format!("ip neigh show {address}")))
        }
    }
}

/// One turn of a trial: a node sends echoes to a router as the address, having claimed it or not.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What is tried, without an earlier trial.
    pub tie_break: TieBreak,
    /// The timing that goes with it.
    pub profile: Profile,
    /// The router.
    pub router: IpAddr,
    /// Whether the address is claimed first.
    pub claim: bool,
}

impl Trial {
    /// Parses what was sent.
    ///
    /// # Errors
    /// What is missing or unknown.
    pub fn from_wire(request: v1::EchoesRequest) -> Result<Self, WireError> {
        let router = request.router.ok_or(WireError::Missing { field: "EchoesRequest.router" })?;
        Ok(Self {
            tie_break: required("EchoesRequest.tie_break", request.tie_break)?,
            profile: Profile::from_wire(request.profile)?,
            router: text::ip("Router.ip", &router.ip)?,
            claim: request.claim,
        })
    }

    fn to_wire(&self) -> v1::EchoesRequest {
        v1::EchoesRequest {
            tie_break: Some(self.tie_break.to_wire()),
            profile: self.profile.to_wire(),
            router: Some(v1::Router { ip: self.router.to_string(), mac: Vec::new().into() }),
            claim: self.claim,
        }
    }

    /// How many echoes of this machine are answered. `state`: what this node knows, which must be what is tried: from then on it goes
    /// by nothing older.
    ///
    /// # Errors
    /// It knows something else, or nothing can be sent.
    pub async fn run(&self, state: &ClusterState) -> io::Result<u64> {
        let known = state.tie_break.clone().map(|t| TieBreak { rehearsed: None, ..t });
        if known.as_ref() != Some(&self.tie_break) || state.profile != self.profile {
            return Err(io::Error::other("it does not know yet what is tried"));
        }
        let (Some(address), Some(mac)) = (self.tie_break.address, self.tie_break.routers.get(&self.router))
        else {
            return Err(io::Error::other("there is nothing to claim"));
        };
        echoes(&Port::open(place(address, self.router, *mac).await?)?, self.claim).await
    }
}

async fn echoes(port: &Port, claim: bool) -> io::Result<u64> {
    if claim {
        port.claim()?;
    }
    for number in 0..PINGS {
        port.ping(number)?;
        // The pace of a contest, roughly.
        tokio::time::sleep(PING_EVERY).await;
    }
    tokio::time::sleep(ANSWER_WITHIN).await;
    let mut answered = BTreeSet::new();
    while let Some(heard) = port.receive()? {
        if let Heard::Pong(number) = heard {
            answered.insert(number);
        }
    }
    Ok(u64::try_from(answered.len()).unwrap_or(u64::MAX))
}

/// Tries what is set with every server in turn: each claims and is answered, and the one before it is not any more.
async fn rehearse(member: &Member, tried: &TieBreak, profile: Profile, servers: &[NodeId]) -> Rehearsal {
    let failure = match tried.address {
        None => String::new(),
        Some(address) => try_all(member, address, (tried, profile), servers).await.err().unwrap_or_default(),
    };
    Rehearsal { at: UnixTime(now_ms()), nodes: servers.iter().copied().collect(), profile, failure }
}

async fn try_all(
    member: &Member,
    address: IpAddr,
    (tried, profile): (&TieBreak, Profile),
    servers: &[NodeId],
) -> Result<(), String> {
    let snapshot = member.snapshot();
    let name = |id: NodeId| snapshot.state.name_of(id);
    for router in tried.routers.keys() {
        let asked = async |id: NodeId, claim: bool| {
            let trial = Trial { tie_break: tried.clone(), profile, router: *router, claim };
            member.try_lock(id, &trial).await.map_err(|why| format!("{}: {why}", name(id)))
        };
        let mut before: Option<NodeId> = None;
        // Once around, and the first one again.
        for node in servers.iter().chain(servers.first()) {
            let answered = asked(*node, true).await?;
            if answered < PINGS {
                return Err(format!(
                    "{router} answers {answered} of {PINGS} pings of {} from {address}: it does not take the claim, or limits pings",
                    name(*node)
                ));
            }
            if let Some(before) = before.filter(|before| before != node)
                && asked(before, false).await? > 0
            {
                return Err(format!(
                    "{router} still answers {} when {} has claimed {address}: it is no lock",
                    name(before),
                    name(*node)
                ));
            }
            before = Some(*node);
        }
    }
    Ok(())
}

impl Member {
    /// Sets what decides, once it was looked at, and tries it.
    ///
    /// # Errors
    /// Why it was not set.
    pub async fn set_tie_break(&self, to: Option<TieBreak>) -> Result<crate::peer::Proposed, Problem> {
        let command = Command::any(Body::TieBreakSet(to));
        self.propose(command)
            .await
            .map_err(|e| Problem::new("not_proposed", e.to_string(), "farmctl cluster status"))
    }

    /// Tries what is set, now, and has everybody know what came of it; `None` where nothing is set, or not all servers
    /// are there. Two trials at once would take the lock from each other: the leader alone makes them.
    async fn rehearse_tie_break(&self) -> Option<Rehearsal> {
        let snapshot = self.snapshot();
        let tie_break = snapshot.state.tie_break.clone()?;
        let servers = self.present_servers(&snapshot.state)?;
        let tried = TieBreak { rehearsed: None, ..tie_break };
        let rehearsal = rehearse(self, &tried, snapshot.state.profile, &servers).await;
        self.insist(Body::TieBreakRehearsed { tried, rehearsal: rehearsal.clone() }).await;
        Some(rehearsal)
    }

    /// All servers, if all are heard.
    fn present_servers(&self, state: &ClusterState) -> Option<Vec<NodeId>> {
        let servers = state.nodes.values().filter(|n| n.role == Role::Server && n.membership.stays());
        let servers: Vec<&Node> = servers.collect();
        let present = |n: &&Node| n.id == self.me || self.absence_in(state, n.id).is_none();
        let all = servers.len() > 1 && servers.iter().all(present);
        all.then(|| servers.iter().map(|n| n.id).collect())
    }

    /// While this node leads: tries the tie-break when it is new, when other servers have come, and every day.
    pub(crate) async fn keep_rehearsed(self: Arc<Self>) {
        let mut states = self.states();
        loop {
            // Nothing tells that a day has passed, or that all are heard again.
            if tokio::time::timeout(LOOK_EVERY, states.changed()).await.is_ok_and(|changed| changed.is_err())
            {
                return;
            }
            let due = is_due(&states.borrow_and_update().state);
            if due && self.role().leader == Some(self.me) {
                self.rehearse_tie_break().await;
            }
        }
    }

    /// A turn of a trial, on any node.
    async fn try_lock(&self, node: NodeId, trial: &Trial) -> Result<u64, String> {
        if node == self.me {
            return trial.run(&self.snapshot().state).await.map_err(|e| e.to_string());
        }
        self.peers().echoes(node, trial.to_wire()).await.map_err(|p| p.fact)
    }
}

/// Only the clock says when a day has passed, and it may be set: then a trial comes too often or too rarely.
fn is_due(state: &ClusterState) -> bool {
    let Some(tie_break) = state.tie_break.as_ref().filter(|t| t.kind == Kind::Exclusive) else {
        return false;
    };
    let Some(last) = &tie_break.rehearsed else { return true };
    let servers = state.nodes.values().filter(|n| n.role == Role::Server && n.membership.stays());
    let new = servers.map(|n| n.id).any(|id| !last.nodes.contains(&id));
    let new = new || last.profile != state.profile;
    let pause = if last.failure.is_empty() { REHEARSE_EVERY } else { AFTER_FAILURE };
    new || u128::from(now_ms().abs_diff(last.at.0)) > pause.as_millis()
}
