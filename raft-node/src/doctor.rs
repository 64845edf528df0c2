//! Examines this node for `farmctl doctor` and `farmd doctor`: what farm-doctor finds on the machine, and whether the
//! other nodes are reached from here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farm_core::id::NodeId;
use farm_core::lease::Timing;
use farm_core::model::{Mode, Node, Role};
use farm_core::state::ClusterState;
use farm_doctor::{Finding, Level, Pair, Peer, Plan, Ports};
use farm_proto::v1;
use futures::future::join_all;
use tokio::sync::watch;

use crate::config::{self, Config, XdpMode};
use crate::journal::now_ms;
use crate::lease::call;
use crate::lease::datagram::Sealer;
use crate::member::Setup;
use crate::node::HostView;
use crate::raft::Snapshot;
use crate::realtime;

/// Verdicts about frames that carry a virtual IP and came to this node as they came to all others.
const FLOODED: [&str; 4] = ["accept_owner", "accept_socket", "not_owner", "no_owner"];

/// What it needs of a member.
pub struct Doctor {
    me: NodeId,
    config: Config,
    sealer: Sealer,
    state: watch::Receiver<Arc<Snapshot>>,
    host: Arc<HostView>,
    /// One at a time: they would measure each other.
    one: tokio::sync::Mutex<()>,
}

impl Doctor {
    /// For the member that is set up.
    #[must_use]
    pub fn new(setup: &Setup, state: watch::Receiver<Arc<Snapshot>>, host: Arc<HostView>) -> Self {
        let belonging = setup.belonging;
        let sealer = Sealer::new(belonging.cluster, setup.secret.lease_key());
        Self {
            me: belonging.node,
            config: setup.config.clone(),
            sealer,
            state,
            host,
            one: tokio::sync::Mutex::default(),
        }
    }

    /// Takes a few seconds, and disturbs nothing.
    pub async fn examine(&self) -> v1::ExamineResponse {
        let _one = self.one.lock().await;
        let state = self.state.borrow().state.clone();
        let before = self.flooded(&state);
        let lease = Duration::from_nanos(Timing::of(state.profile).lease.0);
        let plan = Plan { lease: Some(lease), ..plan(&self.config) };
        let mut facts = farm_doctor::look(&plan, Vec::new()).await;
        // Not at the same time: a stall that the probes make is none of the machine's.
        let peers = peers(&state, self.me);
        facts.pairs = join_all(peers.iter().map(|peer| self.pair(peer, &facts))).await;
        let findings = farm_doctor::judge(&facts);
        let after = self.flooded(&state);
        let known = |(network, mtu): (String, Result<u16, String>)| Some((network, mtu.ok()?.into()));
        v1::ExamineResponse {
            findings: findings.into_iter().map(|finding| wire(finding, &self.config.name)).collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            now_ms: now_ms(),
            mtus: facts.mtus.into_iter().filter_map(known).collect(),
            flooded: before.zip(after).map(|(before, after)| after.saturating_sub(before)),
        }
    }

    async fn pair(&self, peer: &Peer, facts: &farm_doctor::Facts) -> Pair {
        let lease = SocketAddr::new(peer.ip, peer.ports.lease);
        let mtu = async {
            let own = facts.mtus.get(&peer.network).cloned();
            let own = own.unwrap_or_else(|| Err(format!("this node is not on {}", peer.network)))?;
            Ok((own, farm_doctor::carried(peer.ip, own).await?))
        };
        let (peer_port, lease_port, mtu) = tokio::join!(
            farm_doctor::port_open(peer.ip, peer.ports.peer),
            call::answers(peer.own, lease, &self.sealer),
            mtu
        );
        let Peer { name, network, ip, ports, .. } = peer.clone();
        Pair { peer: name, network, ip, ports, peer_port, lease_port, mtu }
    }

    /// Frames for virtual IPs so far, where all of these are in flood mode and a filter is attached.
    fn flooded(&self, state: &ClusterState) -> Option<u64> {
        let mut modes = state.modules.values().flat_map(|module| module.vips.values()).peekable();
        modes.peek()?;
        if !modes.all(|mode| *mode == Mode::Flood) {
            return None;
        }
        let counters = self.host.counters().ok()??;
        Some(FLOODED.iter().filter_map(|reason| counters.get(reason)).sum())
    }
}

/// What is to be looked at on the machine of `config`.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    let config::Ports { peer, lease, api, http } = config.ports;
    Plan {
        data_dir: config.data_dir.clone(),
        pin_dir: config.pin_dir.clone(),
        addresses: config.addresses.clone(),
        ports: Ports { peer, lease, api, http },
        serves: config.role == Role::Server,
        links: config.links.iter().map(|link| (link.device.clone(), link.filter.clone())).collect(),
        mode: match config.xdp_mode {
            XdpMode::Auto => farm_doctor::Mode::Auto,
            XdpMode::Generic => farm_doctor::Mode::Generic,
            XdpMode::Native => farm_doctor::Mode::Native,
        },
        priority: realtime::FIRST,
        lease: None,
    }
}

/// Every other node, on every network that this one has too.
fn peers(state: &ClusterState, me: NodeId) -> Vec<Peer> {
    let Some(own) = state.nodes.get(&me) else { return Vec::new() };
    let on = |node: &Node| {
        let ports = Ports { peer: node.peer_port, lease: node.lease_port, api: node.api_port, http: 0 };
        let shared = node.addresses.iter().filter_map(|(network, ip)| {
            let own = *own.addresses.get(network)?;
            Some(Peer { name: node.name.clone(), network: network.clone(), own, ip: *ip, ports })
        });
        shared.collect::<Vec<_>>()
    };
    state.nodes.values().filter(|node| node.id != me).flat_map(on).collect()
}

/// A finding of `node`; of all nodes where that is empty.
#[must_use]
pub fn wire(finding: Finding, node: &str) -> v1::DoctorFinding {
    let level = match finding.level {
        Level::Ok => v1::DoctorLevel::Ok,
        Level::Advice => v1::DoctorLevel::Advice,
        Level::Warning => v1::DoctorLevel::Warning,
        Level::Fault => v1::DoctorLevel::Fault,
    };
    v1::DoctorFinding {
        check: finding.check.into(),
        level: level.into(),
        node: node.into(),
        resource: finding.resource,
        fact: finding.fact,
        remedy: finding.remedy,
    }
}
