//! Which sockets of moved buckets are left on this node; told to the leader while a change is open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use farm_core::controller::DrainState;
use farm_core::id::{Epoch, NodeId};
use farm_core::model::{BUCKETS, BucketSet, Criterion, Module, ModuleName, Phase, Protocol};
use farm_core::state::ClusterState;
use farm_core::table::bucket_of;
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use farm_host::sockets::{SockDiag, State};

/// The TCP services of `module`, as local socket addresses.
fn services(module: &Module) -> BTreeMap<(IpAddr, u16), Criterion> {
    let tcp = module.services.iter().filter(|((_, protocol, _), _)| *protocol == Protocol::Tcp);
    tcp.map(|((vip, _, port), criterion)| ((*vip, *port), *criterion)).collect()
}

/// Modules in which `me` is the previous owner of an open change.
#[must_use]
pub fn draining(state: &ClusterState, me: NodeId) -> Vec<&ModuleName> {
    let leaves = |m: &Module| {
        m.assignment.iter().any(|b| {
            b.previous == Some(me) && matches!(b.phase, Phase::Move | Phase::MoveClosed | Phase::Activate)
        })
    };
    state.modules.iter().filter(|(_, m)| leaves(m)).map(|(name, _)| name).collect()
}

/// Counts this node's sockets per bucket of `name`, as of `epoch` being in force in its filter.
///
/// # Errors
/// When the kernel cannot list its sockets.
pub async fn survey(
    diag: &mut SockDiag,
    state: &ClusterState,
    name: &ModuleName,
    epoch: Epoch,
) -> Result<DrainState, farm_host::Error> {
    let at = BootTime(boot_now());
    let mut requests = BucketSet::empty(BUCKETS);
    let mut established = BucketSet::empty(BUCKETS);
    let mut count = 0;
    if let Some(module) = state.modules.get(name) {
        let services = services(module);
        let wanted: BTreeSet<(IpAddr, u16)> = services.keys().copied().collect();
        for socket in diag.tcp(&wanted).await? {
            let Some(criterion) = services.get(&(socket.local.ip(), socket.local.port())) else { continue };
            let bucket = bucket_of(state, socket.remote, *criterion).index();
            match socket.state {
                State::SynReceived => requests.insert(bucket),
                State::SynSent
                | State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::LastAck
                | State::Closing => established.insert(bucket),
            }
            count += 1;
        }
    }
    Ok(DrainState { epoch, requests, established, sockets: count, at })
}
