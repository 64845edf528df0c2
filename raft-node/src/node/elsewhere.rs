//! Services that this node serves although no socket of its network namespace does: published by a container, forwarded
//! to a virtual machine, or not running. The filter remembers their flows, which no socket shows.
//!
//! Noticed by asking the kernel who listens (sock_diag), and who still has connections: an application that ends takes no
//! new ones, but those it has are here. A listener of the same port here, such as a container runtime's user-space proxy,
//! hides what address translation takes away before it; so do connections left from before the translation began, until
//! the last of them has ended.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farm_common::flow::protocol;
use farm_common::layout::MAP_IDENTITY;
use farm_core::id::NodeId;
use farm_core::model::{Protocol, VirtualIp};
use farm_core::state::ClusterState;
use farm_dataplane::memory::{Memory, Remembered, Service};
use farm_host::sockets::SockDiag;
use tokio::sync::watch;

use super::desired::carried;
use crate::journal::Journal;
use crate::lease::LeaseHandle;
use crate::raft::Snapshot;

/// Pause between two looks: applications start and end at any time, and a flow is known from its next frame on.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why nothing is known of such services.
#[derive(Debug, thiserror::Error)]
pub enum ElsewhereError {
    /// The sockets cannot be listed.
    #[error(transparent)]
    Sockets(#[from] farm_host::Error),
    /// The filter's memory cannot be used.
    #[error("the filter's memory of flows cannot be used: {0}")]
    Memory(#[from] std::io::Error),
}

/// What was seen last, for others.
#[derive(Debug)]
pub struct Elsewhere {
    pins: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    services: BTreeSet<Service>,
    trouble: Option<String>,
}

impl Elsewhere {
    /// Nothing was seen yet; what the filter with these pins remembers goes on.
    #[must_use]
    pub fn new(pins: PathBuf) -> Self {
        Self { pins, seen: Mutex::default() }
    }

    /// Whether no socket of this node serves it.
    #[must_use]
    pub fn has(&self, service: &Service) -> bool {
        self.seen().services.contains(service)
    }

    /// Whether there is a filter, which is made when the first virtual IP comes.
    fn has_filter(&self) -> bool {
        self.pins.join(MAP_IDENTITY).exists()
    }

    /// Why such services are not known, so that their flows end when their bucket moves.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.seen().trouble.clone()
    }

    /// The flows that the filter remembers for them.
    ///
    /// # Errors
    /// Where the kernel refuses to read its maps.
    pub fn flows(&self) -> std::io::Result<BTreeSet<Remembered>> {
        if self.seen().services.is_empty() {
            return Ok(BTreeSet::new());
        }
        Memory::open(&self.pins)?.flows()
    }

    /// Looks which of `served` have no socket here, and lets the filter remember the flows of those. What changed: those
    /// that have none any more, and those that have one again.
    async fn look(&self, served: &BTreeSet<Service>) -> Result<[BTreeSet<Service>; 2], ElsewhereError> {
        let now = without_socket(served).await?;
        Memory::open(&self.pins)?.remember(&now)?;
        let before = std::mem::replace(&mut self.seen().services, now.clone());
        Ok([&now - &before, &(&before - &now) & served])
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each change is one assignment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again, while this node has a filter that follows the state.
pub async fn watch_sockets(
    me: NodeId,
    lease: LeaseHandle,
    mut state: watch::Receiver<Arc<Snapshot>>,
    elsewhere: Arc<Elsewhere>,
    journal: Arc<Journal>,
) {
    loop {
        let snapshot = state.borrow_and_update().clone();
        let (state_now, applied) = (&snapshot.state, lease.applied());
        let served = served(state_now, me);
        // A state from before the table in force knows less than the filter does.
        let known = applied.0 > 0 && state_now.epoch >= applied;
        if known && !served.is_empty() && elsewhere.has_filter() {
            let looked = elsewhere.look(&served).await;
            tell(me, &journal, &elsewhere, looked);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

fn tell(
    me: NodeId,
    journal: &Journal,
    elsewhere: &Elsewhere,
    looked: Result<[BTreeSet<Service>; 2], ElsewhereError>,
) {
    let trouble = looked.as_ref().err().map(ToString::to_string);
    let former = std::mem::replace(&mut elsewhere.seen().trouble, trouble.clone());
    if let Some(text) = trouble.filter(|text| former.as_ref() != Some(text)) {
        journal.note(me.0, "sockets_unknown", "filter", text, "");
    }
    let [gone, here] = looked.unwrap_or_default();
    let note = |kind, services: BTreeSet<Service>, text: &str| {
        services.iter().for_each(|service| drop(journal.note(me.0, kind, &service.to_string(), text, "")));
    };
    note("sockets_elsewhere", gone, "no socket of this node serves it: the filter remembers its flows");
    note("sockets_here", here, "sockets of this node serve it: they show its flows");
}

async fn without_socket(served: &BTreeSet<Service>) -> Result<BTreeSet<Service>, farm_host::Error> {
    let mut diag = SockDiag::open()?;
    let ports = |number: u8| served.iter().filter(|s| s.protocol == number).map(|s| s.at.port()).collect();
    let listeners = diag.listeners(&ports(protocol::TCP)).await?;
    let receivers = diag.receivers(&ports(protocol::UDP)).await?;
    let has_socket = |service: &Service| {
        let bound = if service.protocol == protocol::UDP { &receivers } else { &listeners };
        bound.iter().any(|at| covers(*at, service.at))
    };
    let idle = served.iter().filter(|service| !has_socket(service)).copied().collect();
    without_connection(&mut diag, idle).await
}

/// Those of `idle`, where nobody listens, that have no connection here either. The kernel walks all its sockets for it.
async fn without_connection(
    diag: &mut SockDiag,
    mut idle: BTreeSet<Service>,
) -> Result<BTreeSet<Service>, farm_host::Error> {
    let of_tcp = idle.iter().filter(|service| service.protocol == protocol::TCP);
    let sockets = diag.tcp(&of_tcp.map(|service| (service.at.ip(), service.at.port())).collect()).await?;
    for socket in sockets {
        idle.remove(&Service { at: socket.local, protocol: protocol::TCP });
    }
    Ok(idle)
}

/// A socket that is bound to no address serves all of its family; one of IPv6 those of IPv4 too, unless it was told not
/// to, which the kernel does not show here.
fn covers(bound: SocketAddr, service: SocketAddr) -> bool {
    let any = bound.ip().is_unspecified() && (bound.is_ipv6() || service.is_ipv4());
    bound.port() == service.port() && (any || bound.ip() == service.ip())
}

/// The services on virtual IPs that this node has on `lo`.
fn served(state: &ClusterState, me: NodeId) -> BTreeSet<Service> {
    let local: BTreeSet<VirtualIp> =
        carried(state, me).into_iter().filter(|(_, c)| c.local).map(|(vip, _)| vip).collect();
    let services = state.modules.values().flat_map(|module| module.services.keys());
    let here = services.filter(|(vip, ..)| local.contains(vip));
    here.map(|(vip, transport, port)| service(SocketAddr::new(vip.ip, *port), *transport)).collect()
}

/// As the filter names it.
#[must_use]
pub fn service(at: SocketAddr, transport: Protocol) -> Service {
    let protocol = match transport {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    };
    Service { at, protocol }
}

#[cfg(test)]
mod tests {
    fn covers(bound: &str, service: &str) -> bool {
        super::covers(bound.parse().unwrap(), service.parse().unwrap())
    }

    #[test]
    fn a_listener_covers_what_it_gets() {
        assert!(covers("10.0.0.1:80", "10.0.0.1:80"));
        assert!(covers("0.0.0.0:80", "10.0.0.1:80"));
        assert!(covers("[::]:80", "10.0.0.1:80"));
        assert!(covers("[::]:80", "[fd00::1]:80"));
        assert!(!covers("0.0.0.0:80", "[fd00::1]:80"));
        assert!(!covers("10.0.0.2:80", "10.0.0.1:80"));
        assert!(!covers("0.0.0.0:81", "10.0.0.1:80"));
    }
}
