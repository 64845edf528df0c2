//! Rules, MTUs, and the way to another node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use farm_host::check::{Check, Finding, Host, Target};
use farm_host::{Netlink, links};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::firewall::{manager, ruling};
use crate::{Firewall, Looked, Packet, Plan, Ports, Protocol};

/// nft has listed its rules by then.
const NFT: Duration = Duration::from_secs(5);
/// A node in the same network answers a ping long before.
const PING: Duration = Duration::from_millis(300);
/// A ping may be lost.
const TRIES: usize = 2;
/// A connection is made by then, also where one attempt is lost (a second).
const CONNECT: Duration = Duration::from_millis(1500);
/// What every link carries: the least MTU of IPv6 (RFC 8200 §5). IPv4 is asked for no less.
const LEAST: u16 = 1280;

/// Another node on a network that both have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The network.
    pub network: String,
    /// This node's address there.
    pub own: IpAddr,
    /// Its address there.
    pub ip: IpAddr,
    /// Its ports.
    pub ports: Ports,
}

/// Whether a connection to a TCP port can be opened; else why not.
pub async fn port_open(ip: IpAddr, port: u16) -> Looked<Result<(), String>> {
    let to = Target { host: Host::Address(ip), port };
    match (Check::Tcp { to }).run(CONNECT).await {
        Finding::Good => Ok(Ok(())),
        Finding::Bad(why) => Ok(Err(why)),
        Finding::Unknown(why) => Err(why),
    }
}

/// The longest packet, up to `mtu`, that comes to `ip` and back in one piece; 0: none does.
///
/// # Errors
/// Why it cannot be tried.
pub async fn carried(ip: IpAddr, mtu: u16) -> Looked<u16> {
    if comes(ip, mtu).await? {
        return Ok(mtu);
    }
    let least = LEAST.min(mtu);
    if !comes(ip, least).await? {
        return Ok(0);
    }
    let (mut comes_still, mut too_long) = (least, mtu);
    while too_long - comes_still > 1 {
        let middle = comes_still.midpoint(too_long);
        if comes(ip, middle).await? { comes_still = middle } else { too_long = middle }
    }
    Ok(comes_still)
}

async fn comes(to: IpAddr, size: u16) -> Looked<bool> {
    for _ in 0..TRIES {
        match (Check::Carries { to, size }).run(PING).await {
            Finding::Good => return Ok(true),
            Finding::Bad(_) => {}
            Finding::Unknown(why) => return Err(why),
        }
    }
    Ok(false)
}

/// The MTU of the interface with this node's address, by network.
pub(super) async fn mtus(plan: &Plan) -> BTreeMap<String, Looked<u16>> {
    let found = interfaces().await;
    let mtu = |(network, ip): (&String, &IpAddr)| {
        let of = |links: &Vec<links::LinkInfo>| {
            let link = links.iter().find(|link| link.addresses.iter().any(|net| net.addr() == *ip));
            let link = link.ok_or_else(|| format!("no interface has {ip}"))?;
            Ok(u16::try_from(link.mtu).unwrap_or(u16::MAX))
        };
        (network.clone(), found.as_ref().map_err(Clone::clone).and_then(of))
    };
    plan.addresses.iter().map(mtu).collect()
}

async fn interfaces() -> Looked<Vec<links::LinkInfo>> {
    let netlink = Netlink::open().map_err(|error| error.to_string())?;
    links::list(&netlink).await.map_err(|error| error.to_string())
}

pub(super) async fn firewall(plan: &Plan) -> Looked<Firewall> {
    let ruleset = ruleset().await?;
    let rulings = packets(plan).map(|packet| {
        let ruling = ruling(&ruleset, &packet);
        (packet, ruling)
    });
    // Names of tables of the old iptables; without its module there is no such file.
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let legacy =
        legacy.iter().any(|path| std::fs::read_to_string(path).is_ok_and(|names| names.contains("filter")));
    Ok(Firewall { manager: manager(&ruleset), legacy, rulings: rulings.collect() })
}

async fn ruleset() -> Looked<Value> {
    let mut nft = Command::new("nft");
    nft.args(["-j", "list", "ruleset"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(NFT, nft.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("nft: {error}")),
        Err(_) => return Err(format!("nft did not end within {} s", NFT.as_secs())),
    };
    if !output.status.success() {
        return Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("nft: {error}"))
}

/// The first packets of what comes to this node's ports.
fn packets(plan: &Plan) -> impl Iterator<Item = Packet> {
    let Ports { peer, lease, api, http } = plan.ports;
    let ports = [
        ("peers", Protocol::Tcp, peer),
        ("leases", Protocol::Udp, lease),
        ("farmctl --server", Protocol::Tcp, api),
        ("load balancers and Prometheus", Protocol::Tcp, http),
    ];
    let packet = move |to: IpAddr| {
        let used = ports.into_iter().filter(|(_, _, port)| *port != 0);
        used.map(move |(what, protocol, port)| Packet { what, protocol, to, port })
    };
    plan.addresses.values().copied().flat_map(packet)
}
