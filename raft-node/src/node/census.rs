//! The connections of a module's services on this host, with the buckets of their clients: sockets, and flows that the
//! filter remembers in place of sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use farm_common::flow::protocol;
use farm_common::memory::Stage;
use farm_core::model::{Criterion, Module, Protocol};
use farm_core::state::ClusterState;
use farm_core::table::bucket_of;
use farm_dataplane::memory::{Remembered, Service};
use farm_host::sockets::{SockDiag, Socket};

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

/// Every TCP socket of `module`'s services that has a peer, with its bucket.
///
/// # Errors
/// When the kernel cannot list its sockets.
pub(super) async fn tcp(
    diag: &mut SockDiag,
    state: &ClusterState,
    module: &Module,
) -> Result<Vec<(Socket, usize)>, farm_host::Error> {
    let services = services(module, Protocol::Tcp);
    let sockets = diag.tcp(&services.keys().copied().collect()).await?;
    Ok(in_buckets(state, &services, sockets).collect())
}

/// The same of UDP.
///
/// # Errors
/// As [`tcp`].
pub(super) async fn udp(
    diag: &mut SockDiag,
    state: &ClusterState,
    module: &Module,
) -> Result<Vec<(Socket, usize)>, farm_host::Error> {
    let services = services(module, Protocol::Udp);
    let sockets = diag.udp(&services.keys().copied().collect()).await?;
    Ok(in_buckets(state, &services, sockets).collect())
}

/// Of the remembered flows those to `module`: whether it is one of datagrams, how far it is, its bucket.
pub(super) fn remembered(
    flows: &BTreeSet<Remembered>,
    state: &ClusterState,
    module: &Module,
) -> Vec<(bool, Stage, usize)> {
    let all = [(false, services(module, Protocol::Tcp)), (true, services(module, Protocol::Udp))];
    let of = |flow: &Remembered| {
        let Service { at, protocol: number } = flow.service;
        let udp = number == protocol::UDP;
        let (_, services) = &all[usize::from(udp)];
        let criteria = services.get(&(at.ip(), at.port())).into_iter().flatten();
        let buckets = criteria.map(|by| bucket_of(state, flow.client, *by).index());
        buckets.map(|bucket| (udp, flow.stage, bucket)).collect::<Vec<_>>()
    };
    flows.iter().flat_map(of).collect()
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
