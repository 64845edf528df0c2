//! A virtual IP behind VLAN tags: found, shared and announced there, and nobody's business elsewhere. The filter sits on
//! the interface below; the VLAN's interface is one in user space.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use farm_lab::topology::mac_text;
use farm_lab::{Lab, Mode, Network, Place, WEB_MODULE, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::talk::{Servers, Talk};
use farm_tests::vlan::VlanInterface;

const VLAN: u16 = 30;
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 30, 0, 100)), 8030);
/// By source port: that none of three nodes gets any of them is one chance in millions.
const TALKS: u16 = 48;

fn client(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 30, 0, 200).into(), port)
}

/// Gives a node its VLAN, and its daemon a link there.
fn equip(lab: &Lab, node: Place) -> Result<VlanInterface> {
    let Place::Node(number) = node else { bail!("{node} is no node") };
    let interface = VlanInterface::make(lab, node, VLAN, &format!("10.30.0.{number}/24"))?;
    // A veth hands tags over beside the data, where no XDP program sees them, unless its other end puts them in.
    let port = Network::Lan.port(node);
    shell::run(lab.namespace(Place::Switch).command("ethtool")?.args(["-K", &port, "txvlan", "off"]))?;
    let config = lab.configure(node)?;
    let mut file = std::fs::OpenOptions::new().append(true).open(config)?;
    writeln!(file, "[[link]]\ndevice = \"eth0.{VLAN}\"\nvlan = {VLAN}\nfilter = \"eth0\"")?;
    Ok(interface)
}

/// What farmd says when it does not start.
fn refusal(lab: &Lab, node: Place) -> Result<String> {
    lab.start_farmd(node).err().context("it started").map(|error| format!("{error:#}"))
}

fn open(farm: &Farm, from: u16) -> Result<Vec<Talk>> {
    (from..from + TALKS).map(|port| Talk::open(farm, Place::Client, client(port), SERVICE)).collect()
}

#[test]
fn a_virtual_ip_in_a_vlan_is_served_there_and_only_there() -> Result<()> {
    let farm = Farm::unborn("vlan", Mode::Directed)?;
    let mut interfaces = vec![VlanInterface::make(&farm, Place::Client, VLAN, "10.30.0.200/24")?];
    for node in farm.nodes() {
        interfaces.push(equip(&farm, node)?);
    }
    let said = refusal(&farm, Place::Node(1))?;
    ensure!(
        said.contains("eth0 takes VLAN tags off") && said.contains("ethtool -K eth0 rxvlan off"),
        "{said}"
    );
    for node in farm.nodes() {
        shell::run(farm.namespace(node).command("ethtool")?.args(["-K", "eth0", "rxvlan", "off"]))?;
    }
    farm.run_cluster()?;
    let _servers = Servers::echo_tcp(&farm, SERVICE)?;
    let (ip, port) = (SERVICE.ip().to_string(), SERVICE.port().to_string());
    let which = ["service", "add", "--module", WEB_MODULE, "--vip", &ip, "--port", &port];
    let with = |more: &[&'static str]| which.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let elsewhere = farm.farmctl_output(Place::Node(1), &with(&["--vlan", "31"]))?;
    ensure!(String::from_utf8_lossy(&elsewhere.stderr).contains("10.30.0.100 vlan 31 lies in no subnet"));
    farm.farmctl(Place::Node(1), &with(&["--vlan", "30", "--criterion", "source-port"]))?;
    let all: Vec<Place> = farm.nodes().collect();
    farm.await_shared_by(&all)?;
    let mut talks = open(&farm, 40_000)?;
    let holders: BTreeSet<Place> = talks.iter().map(|talk| talk.node).collect();
    ensure!(
        holders.len() == all.len(),
        "only {holders:?} hold connections: nothing was sent on with its tag"
    );
    talks.iter_mut().try_for_each(Talk::round)?;
    untagged_is_not_answered(&farm)?;
    explained_alike(&farm)?;
    outlives(&farm, &all)
}

/// On the same cable, without the tag, nobody has the address.
fn untagged_is_not_answered(farm: &Farm) -> Result<()> {
    let router = farm.namespace(Place::Router);
    router.ip(&format!("route add {} dev eth0\n", SERVICE.ip()))?;
    let ping = shell::run(router.command("ping")?.args(["-c", "2", "-i", "0.2", "-W", "1", "10.30.0.100"]));
    ensure!(ping.is_err(), "somebody answers without the tag");
    Ok(())
}

/// The program and the function say the same of a frame with the tag.
fn explained_alike(farm: &Farm) -> Result<()> {
    for node in farm.nodes() {
        let (client, service) = (client(40_000).to_string(), SERVICE.to_string());
        let explained = farm.farmctl(node, &["explain", "--vlan", "30", &client, &service])?;
        ensure!(explained.contains("they agree") && explained.contains("vlan 30"), "{explained}");
        ensure!(explained.contains("accept_owner") || explained.contains("forward_owner"), "{explained}");
    }
    Ok(())
}

/// The node that the client takes for the virtual IP dies: another one announces itself, with the tag.
fn outlives(farm: &Farm, all: &[Place]) -> Result<()> {
    let neighbours =
        shell::run(farm.namespace(Place::Client).command("ip")?.args(["neigh", "show", "10.30.0.100"]))?;
    let mac = |node: &Place| node.mac(Network::Lan).map(mac_text);
    let dead = all.iter().find(|node| mac(node).is_some_and(|mac| neighbours.contains(&mac)));
    let dead = *dead.with_context(|| format!("{neighbours} is no node"))?;
    farm.power_off(dead)?;
    let rest: Vec<Place> = all.iter().copied().filter(|node| *node != dead).collect();
    farm.await_status(rest[0], "the others share the service", LIMIT, |s| s.settled(WEB_MODULE, &rest))?;
    let talks = open(farm, 50_000)?;
    let holders: BTreeSet<Place> = talks.iter().map(|talk| talk.node).collect();
    ensure!(holders.into_iter().collect::<Vec<_>>() == rest, "the survivors hold the connections");
    Ok(())
}
