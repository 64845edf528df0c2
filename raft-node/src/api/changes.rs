//! Calls that change the cluster: parse, check what only this host can check, propose.

use std::net::IpAddr;
use std::time::Duration;

use farm_core::command::{Body, Command};
use farm_core::id::NodeId;
use farm_core::model::{Maintenance, Mode, ModuleName, Node, Profile, Service, VirtualIp, Weight};
use farm_core::restart::RESTART_LEASE;
use farm_core::time::{Span, UnixTime};
use farm_proto::v1;
use tonic::Status;

use super::refuse::{self, invalid, status};
use crate::daemon::{rehearse, set_aside};
use crate::journal::now_ms;
use crate::member::Member;
use crate::peer::{Proposed, Refused};
use crate::wire::{Wire, WireError};

/// How long an address probe waits for a holder's answer: a few round trips of a busy LAN (RFC 5227 §1.1 waits 1 s per probe).
const PROBE_WAIT: Duration = Duration::from_millis(500);

/// Tries of a change that was made for an epoch which is over, and the pause between them: some steps of a change.
const STALE_TRIES: u32 = 20;
const STALE_PAUSE: Duration = Duration::from_millis(50);

fn parsed<T>(result: Result<T, WireError>, cure: &str) -> Result<T, Status> {
    result.map_err(|e| invalid("bad_request", e.to_string(), cure))
}

/// Proposes `body` without a base epoch and answers with the epoch after it.
pub(super) async fn propose(member: &Member, body: Body) -> Result<v1::Done, Status> {
    done(ask(member, Command::any(body)).await?)
}

/// The same for a command of a feature level above the first.
#[cfg(feature = "next")]
pub(super) async fn propose_at(
    member: &Member,
    level: farm_core::id::FeatureLevel,
    body: Body,
) -> Result<v1::Done, Status> {
    done(ask(member, Command { level, base: None, body }).await?)
}

pub(super) async fn ask(member: &Member, command: Command) -> Result<Proposed, Status> {
    member.propose(command).await.map_err(|e| refuse::not_proposed(&e))
}

pub(super) fn done(proposed: Proposed) -> Result<v1::Done, Status> {
    match proposed.refused {
        Some(refusal) => Err(refuse::refused(&refusal)),
        None => Ok(v1::Done { epoch: proposed.epoch.0, index: proposed.index }),
    }
}

/// The member called `name`.
pub(super) fn named(member: &Member, name: &str) -> Result<NodeId, Status> {
    let snapshot = member.snapshot();
    let found = snapshot.state.nodes.values().find(|n| n.name == name).map(|n| n.id);
    found.ok_or_else(|| invalid("unknown_node", format!("no node is called {name}"), "farmctl node list"))
}

/// The member called `name`, or all where no name is given.
pub(super) fn named_or_all(member: &Member, name: &str) -> Result<Vec<NodeId>, Status> {
    if name.is_empty() {
        return Ok(member.snapshot().state.nodes.keys().copied().collect());
    }
    named(member, name).map(|node| vec![node])
}

/// The member called `name`, or this one where no name is given.
pub(super) fn named_or_own(member: &Member, name: &str) -> Result<NodeId, Status> {
    if name.is_empty() { Ok(member.me) } else { named(member, name) }
}

pub(super) async fn maintenance_on(
    member: &Member,
    request: v1::MaintenanceOnRequest,
) -> Result<v1::Done, Status> {
    let node = named_or_own(member, &request.node)?;
    let (since, until) = (UnixTime(now_ms()), request.until_ms.map(UnixTime));
    let maintenance = Maintenance { since, until, reason: request.reason };
    propose(member, Body::MaintenanceOn { node, maintenance }).await
}

pub(super) async fn maintenance_off(
    member: &Member,
    request: v1::MaintenanceOffRequest,
) -> Result<v1::Done, Status> {
    let node = named_or_own(member, &request.node)?;
    propose(member, Body::MaintenanceOff { node, due: None }).await
}

pub(super) async fn node_restart(
    member: &Member,
    request: v1::NodeRestartRequest,
) -> Result<v1::Done, Status> {
    let node = named_or_own(member, &request.node)?;
    // One that is not there could not come back in time, and who serves its clients would wait for it all the same.
    if member.look(node).await.is_none() {
        let fact = format!("the daemon of {} does not answer: there is nothing to restart", request.node);
        return Err(invalid("node_silent", fact, "farmctl node list"));
    }
    let grants = |elector| elector != node && member.absence(elector).is_none();
    let everybody = !member.snapshot().state.electors.majority(grants);
    let body = Body::RestartBegin { node, lease: RESTART_LEASE, everybody };
    // Whoever waits for another restart to end asks again and again: that is nothing for the log.
    rehearse(&member.snapshot().state, &Command::any(body.clone()))
        .map_err(|p| status(tonic::Code::FailedPrecondition, &p))?;
    propose(member, body).await
}

pub(super) async fn leave(member: &Member, request: v1::LeaveRequest) -> Result<v1::Done, Status> {
    let node = named_or_own(member, &request.node)?;
    if member.snapshot().state.nodes.len() == 1 {
        let fact = "the last node cannot leave; to give the cluster up stop farmd, set its log aside and start farmd \
                    again";
        return Err(invalid("last_node", fact, set_aside(&member.config.store_dir())));
    }
    propose(member, Body::NodeLeave(node)).await
}

pub(super) async fn node_set(member: &Member, request: v1::NodeSetRequest) -> Result<v1::Done, Status> {
    let id = named(member, &request.node)?;
    let addresses = request.addresses.into_iter().map(parsed_address).collect::<Result<Vec<_>, _>>()?;
    let set = |node: &mut Node| {
        node.addresses.extend(addresses.iter().cloned());
        node.room = request.room.clone().unwrap_or_else(|| node.room.clone());
    };
    let mut proposed = ask(member, changed_node(member, id, set)?).await?;
    for _ in 0..STALE_TRIES {
        // The epoch went on between reading the node and writing it; this node may still have to learn of that.
        let Some(Refused { code, .. }) = &proposed.refused else { break };
        if code != "stale_epoch" {
            break;
        }
        tokio::time::sleep(STALE_PAUSE).await;
        proposed = ask(member, changed_node(member, id, set)?).await?;
    }
    done(proposed)
}

fn parsed_address(address: v1::Address) -> Result<(String, IpAddr), Status> {
    let ip = address.ip.parse().map_err(|_| {
        let fact = format!("{} is not an IP address", address.ip);
        invalid("bad_address", fact, "farmctl node set NODE --address NETWORK=IP")
    })?;
    Ok((address.network, ip))
}

/// The whole node is written: what somebody else changed meanwhile must not be undone.
fn changed_node(member: &Member, id: NodeId, change: impl Fn(&mut Node)) -> Result<Command, Status> {
    let snapshot = member.snapshot();
    let mut node = snapshot.state.nodes.get(&id).cloned().ok_or_else(refuse::not_member)?;
    change(&mut node);
    Ok(Command::at(snapshot.state.epoch, Body::NodeUpdate(node)))
}

pub(super) async fn service_add(member: &Member, request: v1::ServiceAddRequest) -> Result<v1::Done, Status> {
    let cure = "farmctl service add --help";
    let service = parsed(required_service(request.service), cure)?;
    let mode = parsed(Mode::from_wire(request.mode), cure)?;
    let vip = service.vip;
    let body = Body::ServiceAdd { module: ModuleName(request.module), service, mode };
    // What the cluster refuses needs no look at the network.
    rehearse(&member.snapshot().state, &Command::any(body.clone()))
        .map_err(|p| status(tonic::Code::FailedPrecondition, &p))?;
    refuse_foreign_holder(member, vip).await?;
    propose(member, body).await
}

pub(super) async fn service_remove(
    member: &Member,
    request: v1::ServiceRemoveRequest,
) -> Result<v1::Done, Status> {
    let service = parsed(required_service(request.service), "farmctl service remove --help")?;
    propose(member, Body::ServiceRemove { module: ModuleName(request.module), service }).await
}

pub(super) async fn module_weight(
    member: &Member,
    request: v1::ModuleWeightRequest,
) -> Result<v1::Done, Status> {
    let node = named(member, &request.node)?;
    let weight = u16::try_from(request.weight).map_err(|_| {
        let fact = format!("weight {} is more than {}", request.weight, u16::MAX);
        invalid("bad_weight", fact, "farmctl module weight MODULE NODE 100")
    })?;
    propose(member, Body::WeightSet { module: ModuleName(request.module), node, weight: Weight(weight) })
        .await
}

pub(super) async fn module_set(member: &Member, request: v1::ModuleSetRequest) -> Result<v1::Done, Status> {
    let limit = Span::millis(request.drain_ms.min(Span::MAX_MILLIS));
    propose(member, Body::DrainSet { module: ModuleName(request.module), limit }).await
}

pub(super) async fn profile_set(member: &Member, request: v1::ProfileSetRequest) -> Result<v1::Done, Status> {
    let profile = parsed(Profile::from_wire(request.profile), "farmctl cluster profile fast")?;
    propose(member, Body::ProfileSet(profile)).await
}

fn required_service(service: Option<v1::Service>) -> Result<Service, WireError> {
    Service::from_wire(service.ok_or(WireError::Missing { field: "service" })?)
}

/// A virtual IP that is new to the farm must not be anybody's address: the network is asked first.
pub(super) async fn refuse_foreign_holder(member: &Member, vip: VirtualIp) -> Result<(), Status> {
    let known = member.snapshot().state.modules.values().any(|m| m.vips.contains_key(&vip));
    if known {
        return Ok(());
    }
    let holder = member.host.holder_of(vip, PROBE_WAIT).await.map_err(|error| {
        let fact = format!("cannot ask the network whether {vip} is in use: {error}");
        invalid("probe_failed", fact, "ip -brief link")
    })?;
    match holder {
        None => Ok(()),
        Some(who) => Err(invalid(
            "vip_in_use",
            format!("{vip} is already in use: {who}"),
            "farmctl service add --help",
        )),
    }
}
