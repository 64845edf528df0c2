//! `explain`: who serves a client, and why; asked of the pure function and of the loaded program.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use farm_common::decide::Given;
use farm_common::judge::{Ingress, judge};
use farm_common::layout;
use farm_common::parse::Ethernet;
use farm_common::verdict::{BootTime, Reason, Socket};
use farm_core::id::NodeId;
use farm_core::model::{BucketState, Criterion, Phase, Protocol, VirtualIp, Vlan};
use farm_core::state::ClusterState;
use farm_core::table::bucket_of;
use farm_dataplane::attach::Port;
use farm_dataplane::clock::boot_now;
use farm_dataplane::explain::{Payload, SYN, synthetic_frame, tagged};
use farm_proto::v1;
use tonic::Status;

use super::refuse::invalid;
use crate::member::Member;
use crate::wire::Wire;

/// Source of the synthetic frame: any unicast MAC that is no node's.
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A filter follows within milliseconds; this is for one that does not.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile: the lease thread tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Answers for one client and one service; where pure function and program differ, once the filter works with the state
/// that was asked, or after a while.
pub(super) async fn explain(
    member: &Member,
    request: v1::ExplainRequest,
) -> Result<v1::ExplainResponse, Status> {
    let begin = Instant::now();
    loop {
        let snapshot = member.snapshot();
        let answer = answer(member, &snapshot.state, &request)?;
        let same = member.lease.applied() == snapshot.state.epoch
            && member.snapshot().state.epoch == snapshot.state.epoch;
        if answer.agree != Some(false) || same || begin.elapsed() >= FOLLOWS_WITHIN {
            return Ok(answer);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn answer(
    member: &Member,
    state: &ClusterState,
    request: &v1::ExplainRequest,
) -> Result<v1::ExplainResponse, Status> {
    let client: IpAddr = parse("client", &request.client)?;
    let vip = VirtualIp { ip: parse("service", &request.vip)?, vlan: parse_vlan(&request.vlan)? };
    let protocol = Protocol::from_wire(request.protocol).map_err(|e| {
        invalid("bad_request", e.to_string(), "farmctl explain 192.0.2.7:40000 192.0.2.100:80/tcp")
    })?;
    let port = u16::try_from(request.port).unwrap_or(0);
    let client = SocketAddr::new(client, u16::try_from(request.client_port).unwrap_or(0));
    let found = find(state, vip, protocol, port)?;
    let bucket = bucket_of(state, client, found.criterion).index();
    let Some(assigned) = state.modules.get(&found.module).and_then(|m| m.assignment.get(bucket)) else {
        return Err(invalid(
            "no_assignment",
            format!("module {} has no buckets yet", found.module),
            "farmctl cluster status",
        ));
    };
    let verdicts = verdicts(member, state, client, (vip, port), protocol)?;
    Ok(v1::ExplainResponse {
        module: found.module.0.clone(),
        bucket: u32::try_from(bucket).unwrap_or(u32::MAX),
        owner: assigned.current.map_or(0, |n| n.0),
        previous: assigned.previous.map_or(0, |n| n.0),
        phase: assigned.phase.to_wire(),
        epoch: state.epoch.0,
        agree: verdicts.map(|v| v.decided == v.program),
        decided: verdicts.map(|v| v.decided.name().into()),
        program: verdicts.map(|v| v.program.name().into()),
        why: why(state, assigned) + preserved(member, SocketAddr::new(vip.ip, port), protocol),
        answered_by: member.me.0,
    })
}

struct Found {
    module: farm_core::model::ModuleName,
    criterion: Criterion,
}

fn find(state: &ClusterState, vip: VirtualIp, protocol: Protocol, port: u16) -> Result<Found, Status> {
    for (name, module) in &state.modules {
        if let Some(criterion) = module.services.get(&(vip, protocol, port)) {
            return Ok(Found { module: name.clone(), criterion: *criterion });
        }
    }
    let fact = format!("no service at {}", vip.at(port));
    Err(invalid("unknown_service", fact, "farmctl service list"))
}

#[derive(Clone, Copy)]
struct Verdicts {
    /// Of the pure function.
    decided: Reason,
    /// Of the loaded program.
    program: Reason,
}

/// What both say about a new flow of this client that reaches this node; `None` where no filter can be asked.
fn verdicts(
    member: &Member,
    state: &ClusterState,
    client: SocketAddr,
    (vip, port): (VirtualIp, u16),
    protocol: Protocol,
) -> Result<Option<Verdicts>, Status> {
    let failed = |e: &dyn std::fmt::Display| {
        invalid("explain_failed", format!("the filter could not be asked: {e}"), "farmctl events")
    };
    let service = SocketAddr::new(vip.ip, port);
    let Some(Port { config, proof }) = member.host.port_for(vip) else { return Ok(None) };
    let payload = match protocol {
        Protocol::Tcp => Payload::Tcp { flags: SYN },
        Protocol::Udp => Payload::Udp,
    };
    let frame = synthetic_frame(CLIENT_MAC, config.mac, client, service, payload).map_err(|e| failed(&e))?;
    let frame = tagged(frame, config.vlan);
    let mut image = farm_core::table::render(state, member.me).map_err(|e| failed(&e))?;
    image.head.deadline = member.lease.deadline();
    let (mac, ifindex, vlan) = (config.mac, config.ifindex, config.vlan.number());
    let port = layout::Port { mac, proof, ifindex, vlan, ..Default::default() };
    let ingress = Ingress { link: config.link, port: &port };
    let env = Given { socket: Socket::None, now: BootTime(boot_now()) };
    let frame = frame.as_slice();
    let ethernet = Ethernet::parse(frame).ok_or_else(|| failed(&"the frame has no header"))?;
    let decided = judge(&image, &ingress, &ethernet, frame, &env).reason();
    let program = member.host.explain(config.link, frame).map_err(|e| failed(&e))?;
    Ok(program.map(|p| Verdicts { decided, program: p.reason }))
}

/// How an established connection is told from a new one, where no socket of this node tells.
fn preserved(member: &Member, service: SocketAddr, protocol: Protocol) -> &'static str {
    let elsewhere = &member.host.elsewhere;
    if elsewhere.trouble().is_some() {
        "; a connection that no socket of this node has is not preserved in a change (farmctl cluster status)"
    } else if elsewhere.has(&crate::node::service(service, protocol)) {
        "; no socket of this node serves it: its connections are known by what the filter accepted"
    } else {
        ""
    }
}

fn why(state: &ClusterState, bucket: &BucketState) -> String {
    let name = |id: Option<NodeId>| {
        id.and_then(|i| state.nodes.get(&i)).map_or_else(|| "nobody".to_string(), |n| n.name.clone())
    };
    let (to, from) = (name(bucket.current), name(bucket.previous));
    match bucket.phase {
        Phase::Stable => format!("{to} owns the bucket since epoch {}", bucket.changed),
        Phase::Prepare => format!("{from} serves it; {to} is being told that it will"),
        Phase::Move => format!("{from} sends new flows on to {to}, and keeps its established ones"),
        Phase::MoveClosed => {
            format!("nobody accepts new flows until the loss by {from} is evidenced; then {to} does")
        }
        Phase::Activate => {
            format!("{to} accepts new flows; {from} keeps its established ones until they end")
        }
    }
}

/// Empty for none.
fn parse_vlan(text: &str) -> Result<Vlan, Status> {
    let vlan = if text.is_empty() { Ok(Vlan::NONE) } else { text.parse() };
    vlan.map_err(|error| {
        let fact = format!("vlan {text:?}: {error}");
        invalid("bad_request", fact, "farmctl explain --vlan 30 192.0.2.7:40000 192.0.2.100:80/tcp")
    })
}

fn parse(what: &str, text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| {
        let fact = format!("{what}: {text} is not an IP address");
        invalid("bad_address", fact, "farmctl explain 192.0.2.7:40000 192.0.2.100:80/tcp")
    })
}
