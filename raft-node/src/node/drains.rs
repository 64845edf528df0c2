//! Which sockets of moved buckets are left on this node; told to the leader while a change is open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use farm_core::controller::DrainState;
use farm_core::id::{Epoch, NodeId};
use farm_core::model::{BUCKETS, BucketSet, BucketState, Criterion, Module, ModuleName, Phase, Protocol};
use farm_core::state::ClusterState;
use farm_core::table::bucket_of;
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use farm_host::sockets::{SockDiag, Socket, State};

type Services = BTreeMap<(IpAddr, u16), BTreeSet<Criterion>>;

/// The services of `module` over this transport, as local socket addresses. A socket does not say which VLAN it is of:
/// with the same address in two of them it counts by the criteria of both.
fn services(module: &Module, transport: Protocol) -> Services {
    let mut services = Services::new();
    for ((vip, protocol, port), criterion) in &module.services {
        if *protocol == transport {
            services.entry((vip.ip, *port)).or_default().insert(*criterion);
        }
    }
    services
}

/// Modules in which `me` is the previous owner of an open change.
#[must_use]
pub fn draining(state: &ClusterState, me: NodeId) -> Vec<&ModuleName> {
    let drains = |m: &Module| m.assignment.iter().any(|bucket| leaves(bucket, me));
    state.modules.iter().filter(|(_, m)| drains(m)).map(|(name, _)| name).collect()
}

/// Whether `me` still holds connections of a bucket that is another's.
#[must_use]
pub fn leaves(bucket: &BucketState, me: NodeId) -> bool {
    let moved = matches!(bucket.phase, Phase::Move | Phase::MoveClosed | Phase::Activate);
    moved && bucket.previous == Some(me)
}

/// Counts the sockets of `me` in the buckets of `name` that leave it, as of `epoch` being in force in its filter.
///
/// # Errors
/// When the kernel cannot list its sockets.
pub async fn survey(
    diag: &mut SockDiag,
    me: NodeId,
    state: &ClusterState,
    name: &ModuleName,
    epoch: Epoch,
) -> Result<DrainState, farm_host::Error> {
    let at = BootTime(boot_now());
    let none = BucketSet::empty(BUCKETS);
    let mut left = DrainState {
        epoch,
        requests: none.clone(),
        datagrams: none.clone(),
        established: none,
        sockets: 0,
        at,
    };
    let Some(module) = state.modules.get(name) else { return Ok(left) };
    for (socket, bucket) in tcp(diag, me, state, module).await? {
        left.sockets += 1;
        match socket.state {
            State::SynReceived => left.requests.insert(bucket),
            State::SynSent
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::LastAck
            | State::Closing => left.established.insert(bucket),
        }
    }
    for bucket in udp(diag, me, state, module).await? {
        left.sockets += 1;
        left.datagrams.insert(bucket);
    }
    Ok(left)
}

async fn tcp(
    diag: &mut SockDiag,
    me: NodeId,
    state: &ClusterState,
    module: &Module,
) -> Result<Vec<(Socket, usize)>, farm_host::Error> {
    let services = services(module, Protocol::Tcp);
    let sockets = diag.tcp(&services.keys().copied().collect()).await?;
    let in_buckets = in_buckets(state, &services, sockets);
    Ok(in_buckets.filter(|(_, bucket)| leaves(&module.assignment[*bucket], me)).collect())
}

/// Buckets of the connected sockets that still get their datagrams: up to Activate.
async fn udp(
    diag: &mut SockDiag,
    me: NodeId,
    state: &ClusterState,
    module: &Module,
) -> Result<Vec<usize>, farm_host::Error> {
    let services = services(module, Protocol::Udp);
    let sockets = diag.udp(&services.keys().copied().collect()).await?;
    let reached = |b: &usize| {
        let bucket = &module.assignment[*b];
        leaves(bucket, me) && matches!(bucket.phase, Phase::Move | Phase::MoveClosed)
    };
    Ok(in_buckets(state, &services, sockets).map(|(_, bucket)| bucket).filter(reached).collect())
}

fn in_buckets(
    state: &ClusterState,
    services: &Services,
    sockets: Vec<Socket>,
) -> impl Iterator<Item = (Socket, usize)> {
    sockets.into_iter().flat_map(move |socket| {
        let criteria = services.get(&(socket.local.ip(), socket.local.port())).into_iter().flatten();
        criteria.map(move |by| (socket, bucket_of(state, socket.remote, *by).index()))
    })
}
