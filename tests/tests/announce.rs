//! Whoever has asked for a virtual IP learns by itself, and from the right one, that another node answers it now: as long
//! as its frames are sent on it has no reason to ask again.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use farm_lab::topology::mac_text;
use farm_lab::witness::{
    BootTime, Case, Content, Heading, Mac, Neighbour, Side, Sighting, Speech, Testimony, Verdict, Window,
    Witness, judge,
};
use farm_lab::{FIRST_VIP, FIRST_VIP6, Family, Mode, Network, Place, Status, WEB_MODULE, shell};
use farm_tests::farm::{Farm, LIMIT, Service};
use farm_tests::talk::{Servers, Talk, Talking};

/// A service whose buckets are those of addresses, as those of who asks are.
const BY_ADDRESS: u16 = 7001;
/// A service whose buckets are those of ports.
const TALKED: u16 = 7003;
/// So many that every node holds some.
const TALKS: u16 = 40;
/// Others than those of the connections before.
const FIRST_NEW_PORT: u16 = 22_000;
/// How often the new one tells it.
const TIMES: usize = 3;
/// Echo requests after the change, none of which is sent on.
const PINGS: &str = "20";

#[test]
fn a_planned_change_is_told_to_who_has_asked() -> Result<()> {
    told("told", FIRST_VIP, Farm::leader, drained)
}

#[test]
fn a_planned_change_is_told_to_who_has_asked_by_ipv6() -> Result<()> {
    told("told-6", FIRST_VIP6, Farm::leader, drained)
}

#[test]
fn the_death_of_the_leader_is_told_to_who_has_asked() -> Result<()> {
    told("told-dead", FIRST_VIP, Farm::leader, dead)
}

#[test]
fn the_death_of_the_leader_is_told_to_who_has_asked_by_ipv6() -> Result<()> {
    told("told-dead-6", FIRST_VIP6, Farm::leader, dead)
}

fn drained(farm: &Farm, node: Place) -> Result<()> {
    farm.farmctl(node, &["module", "weight", WEB_MODULE, &node.to_string(), "0"]).map(drop)
}

fn dead(farm: &Farm, node: Place) -> Result<()> {
    farm.power_off(node)
}

/// A client whose bucket is that of a node (`loser`) has asked; then `change` takes the buckets from that node.
fn told(
    prefix: &str,
    vip: IpAddr,
    loser: fn(&Farm) -> Result<Place>,
    change: fn(&Farm, Place) -> Result<()>,
) -> Result<()> {
    let farm = Farm::on(prefix, Mode::Directed, vip)?;
    let service = Service::udp(vip, BY_ADDRESS);
    farm.add_service(service, "source-address")?;
    farm.await_applied()?;
    let loser = loser(&farm)?;
    let others = farm.others(loser);
    let asker = asker_of(&farm, loser, service)?;
    let witness = Witness::start(&farm, &[vip])?;
    forget(&farm, vip)?;
    ping(&farm, asker, vip, "1")?;
    ensure!(knows(&farm, vip, loser)?, "void: the client has not learnt of {loser}");

    let at = BootTime::now();
    change(&farm, loser)?;
    farm.await_shared_by(&others)?;
    let epoch = farm.status(others[0])?.epoch;
    farm.await_status(others[0], "the survivors have applied it", LIMIT, |s| applied(s, &others, epoch))?;
    let owner = farm.owner(others[0], SocketAddr::new(asker, 0), service)?;
    await_told(&witness, at, owner, vip)?;
    shell::await_value(&format!("the client knows {owner}"), LIMIT, || {
        Ok(knows(&farm, vip, owner)?.then_some(()))
    })?;
    let before = sent_on(&farm, &others)?;
    let learnt = BootTime::now();
    ping(&farm, asker, vip, PINGS)?;
    let after = sent_on(&farm, &others)?;
    ensure!(after == before, "{} frames were sent on although the client was told", after - before);
    let testimony = witness.stop()?;
    let asked = testimony.sightings.iter().filter(|s| s.at > at && s.at < learnt && asks(s, vip));
    ensure!(asked.count() == 0, "void: the client asked by itself");
    upheld(&testimony, vip, at, loser, owner)
}

fn applied(status: &Status, nodes: &[Place], epoch: u64) -> bool {
    let names: Vec<String> = nodes.iter().map(Place::to_string).collect();
    let there = status.nodes.iter().filter(|n| names.contains(&n.node.name));
    there.filter(|n| n.applied >= epoch).count() == nodes.len()
}

fn upheld(testimony: &Testimony, vip: IpAddr, at: BootTime, loser: Place, owner: Place) -> Result<()> {
    let before = Window { until: at, ..Window::always(loser) };
    let after = Window { from: at, ..Window::always(owner) };
    let answerers = BTreeMap::from([(mac(Place::Client)?, vec![before, after])]);
    let verdict = judge(testimony, &Case { vips: vec![vip], answerers, ..Case::default() });
    ensure!(verdict == Verdict::Upheld, "{verdict:?}");
    Ok(())
}

/// An address of the client whose bucket is that of `owner`.
fn asker_of(farm: &Farm, owner: Place, service: Service) -> Result<IpAddr> {
    for ip in Place::Client.crowd(Family::of(service.at.ip())).take(60) {
        if farm.owner(owner, SocketAddr::new(ip, 0), service)? == owner {
            return Ok(ip);
        }
    }
    anyhow::bail!("void: {owner} owns no address of the client")
}

fn await_told(witness: &Witness, at: BootTime, owner: Place, vip: IpAddr) -> Result<()> {
    let told = || witness.so_far().iter().filter(|s| s.at > at && tells_client(s, owner, vip)).count();
    shell::await_value(&format!("{owner} tells the client {TIMES} times"), LIMIT, || {
        Ok((told() >= TIMES).then_some(()))
    })
}

fn neighbour(sighting: &Sighting, from: Place) -> Option<Neighbour> {
    let leaves =
        sighting.place == from && sighting.side == Side::Cable && sighting.heading == Heading::Leaving;
    match sighting.frame.content {
        Content::Neighbour(said) if leaves => Some(said),
        _ => None,
    }
}

/// Does `node` tell the client alone that it has `vip`?
fn tells_client(sighting: &Sighting, node: Place, vip: IpAddr) -> bool {
    let to_client = Place::Client.mac(Network::Lan).map(Mac) == Some(sighting.frame.destination);
    let announces = |said: Neighbour| said.speech == Speech::Announcement && said.about == vip;
    to_client && neighbour(sighting, node).is_some_and(announces)
}

fn asks(sighting: &Sighting, vip: IpAddr) -> bool {
    let asks = |said: Neighbour| said.speech == Speech::Question && said.about == vip;
    neighbour(sighting, Place::Client).is_some_and(asks)
}

fn mac(place: Place) -> Result<Mac> {
    place.mac(Network::Lan).map(Mac).context("on the link")
}

/// Has the client's kernel the address of `node` for `vip`?
fn knows(farm: &Farm, vip: IpAddr, node: Place) -> Result<bool> {
    let vip = vip.to_string();
    let shown = shell::run(farm.command(Place::Client, "ip")?.args(["neigh", "show", &vip, "dev", "eth0"]))?;
    Ok(shown.contains(&mac_text(mac(node)?.0)))
}

fn forget(farm: &Farm, vip: IpAddr) -> Result<()> {
    let vip = vip.to_string();
    shell::run(farm.command(Place::Client, "ip")?.args(["neigh", "flush", "to", &vip])).map(drop)
}

fn ping(farm: &Farm, source: IpAddr, vip: IpAddr, count: &str) -> Result<()> {
    let (source, vip) = (source.to_string(), vip.to_string());
    let args = ["-n", "-c", count, "-i", "0.01", "-W", "10", "-I", &source, &vip];
    shell::run(farm.command(Place::Client, "ping")?.args(args)).map(drop)
}

/// Frames that `nodes` have sent on to the owner of their bucket.
fn sent_on(farm: &Farm, nodes: &[Place]) -> Result<u64> {
    let counts = nodes.iter().map(|node| farm.counter(*node, "forward_owner"));
    counts.sum::<Result<u64>>()
}

#[test]
fn a_node_whose_mac_changes_stays_reachable() -> Result<()> {
    readdressed("mac", FIRST_VIP)
}

#[test]
fn a_node_whose_mac_changes_stays_reachable_by_ipv6() -> Result<()> {
    readdressed("mac-6", FIRST_VIP6)
}

/// Locally administered, and nobody's in a lab.
const OTHER_MAC: [u8; 6] = [2, 0xee, 0, 0, 0, 2];

/// As when a bond fails over: the others send on to the new MAC, and whoever had the old one for the virtual IP is told.
fn readdressed(prefix: &str, vip: IpAddr) -> Result<()> {
    let two = Place::Node(2);
    let farm = Farm::on(prefix, Mode::Directed, vip)?;
    let by_port = Service::tcp(vip, TALKED);
    let by_address = Service::udp(vip, BY_ADDRESS);
    farm.add_service(by_port, "source-port")?;
    farm.add_service(by_address, "source-address")?;
    farm.await_applied()?;
    let asker = asker_of(&farm, two, by_address)?;
    forget(&farm, vip)?;
    ping(&farm, asker, vip, "1")?;
    ensure!(knows(&farm, vip, two)?, "void: the client has not learnt of {two}");
    let _servers = Servers::echo_tcp(&farm, by_port.at)?;
    let talks = Talk::open_many(&farm, by_port.at, TALKS)?;
    let talking = Talking::start(talks);
    talking.await_rounds(20)?;
    let witness = Witness::start(&farm, &[vip])?;
    let known = farm.events(two)?.len();

    farm.namespace(two).ip(&format!("link set dev eth0 address {}\n", mac_text(OTHER_MAC)))?;
    let told = farm.await_event(two, "link_changed", known)?;
    ensure!(told.text.contains(&mac_text(OTHER_MAC)), "{told:?}");
    farm.await_event(Place::Node(1), "node_updated", 0)?;
    shell::await_value("the client knows the new MAC, or another node", LIMIT, || {
        Ok((!knows(&farm, vip, two)?).then_some(()))
    })?;
    talking.await_rounds(100)?;
    drop(talking.stop()?);
    // New ones by way of another node, which sends on to the new MAC.
    farm.await_applied()?;
    farm.await_shared_by(&[Place::Node(1), two, Place::Node(3)])?;
    let at = BootTime::now();
    let crowd: Vec<IpAddr> = Place::Client.crowd(Family::of(vip)).take(usize::from(TALKS)).collect();
    let clients = crowd.iter().zip(FIRST_NEW_PORT..).map(|(ip, port)| SocketAddr::new(*ip, port));
    let open = |client| Ok(Talk::open(&farm, Place::Client, client, by_port.at)?.node);
    let met: Vec<Place> = clients.map(open).collect::<Result<_>>()?;
    ensure!(met.contains(&two), "void: {two} got no new connection");
    let testimony = witness.stop()?;
    let late = testimony.sightings.iter().filter(|s| s.at > at);
    let (old, new) = (mac(two)?, Mac(OTHER_MAC));
    let lost = late.clone().filter(|s| s.frame.destination == old).count();
    ensure!(lost == 0, "{lost} frames to the MAC that nobody has");
    ensure!(late.clone().any(|s| s.frame.destination == new), "void: nothing was for {two}");
    Ok(())
}
