//! Nodes are freed of clients while their connections go on: one, two at once, and with somebody dying in the middle.

use std::net::{IpAddr, SocketAddr};
use std::process::Child;

use anyhow::{Context, Result, ensure};
use farm_lab::NodeStatus;
use farm_lab::witness::{BootTime, Verdict};
use farm_lab::{FIRST_VIP, FIRST_VIP6, Mode, Place, Status, WEB_MODULE, shell};
use farm_tests::farm::{Farm, LIMIT, Service, farmctl_problem};
use farm_tests::load::{Load, Seen};
use farm_tests::talk::{Servers, Talk, Talking};

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const THREE: Place = Place::Node(3);
/// Where the long-lived connections go.
const TALK: u16 = 8080;
/// So many that every node holds some.
const TALKS: u16 = 60;

fn service(farm: &Farm, vip: IpAddr) -> Result<Service> {
    let service = Service::tcp(vip, TALK);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    Ok(service)
}

fn node(status: &Status, place: Place) -> Option<&NodeStatus> {
    status.nodes.iter().find(|n| status.place(n.node.id) == Some(place))
}

/// Whether `place` owns nothing and has nothing to drain.
fn empty(status: &Status, place: Place) -> bool {
    node(status, place).is_some_and(|n| n.buckets == 0 && n.buckets_draining == 0)
}

/// Ends the connections that `place` holds, and gives the others back.
fn hang_up(talks: Vec<Talk>, place: Place) -> Vec<Talk> {
    talks.into_iter().filter(|talk| talk.node != place).collect()
}

fn upheld(seen: &Seen, service: SocketAddr) -> Result<()> {
    ensure!(seen.verdict() == Verdict::Upheld, "{:?}", seen.verdict());
    let reset = seen.resets(service);
    ensure!(reset.is_empty(), "connections were reset: {reset:?}");
    Ok(())
}

/// `farmctl node drain` as an operator runs it: it ends when the node has no clients left.
fn drain(farm: &Farm, place: Place) -> Result<Child> {
    let mut farmctl = farm.command(ONE, farm_lab::binaries::find("farmctl")?)?;
    farmctl.args(["node", "drain", place.to_string().as_str(), "--reason", "new disks"]);
    farmctl.spawn().context("farmctl node drain")
}

#[test]
fn a_node_is_drained_and_its_connections_end_when_they_like() -> Result<()> {
    drained("drain-d", Mode::Directed, FIRST_VIP)
}

#[test]
fn a_node_is_drained_in_flood_mode_and_its_connections_end_when_they_like() -> Result<()> {
    drained("drain-f", Mode::Flood, FIRST_VIP6)
}

fn drained(prefix: &str, mode: Mode, vip: IpAddr) -> Result<()> {
    let farm = Farm::on(prefix, mode, vip)?;
    let service = service(&farm, vip)?;
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    let talks = Talk::open_many(&farm, service.at, TALKS)?;
    let held = talks.iter().filter(|t| t.node == TWO).count() as u64;
    let mut load = Load::on(&farm, Place::Client, vip)?;
    let talking = Talking::start(talks);
    load.await_answers_of(&[ONE, TWO, THREE])?;

    let at = BootTime::now();
    let mut operator = drain(&farm, TWO)?;
    let handed_over =
        |s: &Status| node(s, TWO).is_some_and(|n| n.buckets == 0 && n.sockets_draining == Some(held));
    farm.await_status(THREE, "new clients go elsewhere, all connections are left", LIMIT, handed_over)?;
    talking.await_rounds(100)?;
    load.await_answers_of(&[ONE, THREE])?;
    ensure!(operator.try_wait()?.is_none(), "it waits for the connections");
    let left = hang_up(talking.stop()?, TWO);
    let ended = shell::await_value("farmctl node drain ends", LIMIT, || Ok(operator.try_wait()?))?;
    ensure!(ended.success(), "it ends well: {ended}");
    ensure!(empty(&farm.status(THREE)?, TWO), "nothing is left");

    let talking = Talking::start(left);
    load.expect_change(TWO, ONE, at);
    load.expect_change(TWO, THREE, at);
    let back = BootTime::now();
    farm.farmctl(THREE, &["node", "maintenance", "off", "node2"])?;
    farm.await_owned_by(&[ONE, TWO, THREE])?;
    load.await_answers_of(&[ONE, TWO, THREE])?;
    talking.await_rounds(100)?;
    load.expect_change(ONE, TWO, back);
    load.expect_change(THREE, TWO, back);
    talking.stop()?;
    upheld(&load.stop(ONE)?, service.at)
}

#[test]
fn two_nodes_drain_at_once_and_the_last_one_stays() -> Result<()> {
    let farm = Farm::on("drain-2", Mode::Directed, FIRST_VIP)?;
    let service = service(&farm, FIRST_VIP)?;
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    let talking = Talking::start(Talk::open_many(&farm, service.at, TALKS)?);
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&[ONE, TWO, THREE])?;

    for name in ["node1", "node2"] {
        farm.farmctl(THREE, &["node", "maintenance", "on", name])?;
    }
    let refused = farm.farmctl_output(THREE, &["node", "maintenance", "on", "node3", "--json"])?;
    ensure!(farmctl_problem(&refused)?.code == "last_server", "somebody must serve");
    // What the first gave the second moves on when the first has no connections there any more.
    talking.await_rounds(100)?;
    load.await_everybody()?;
    let left = hang_up(hang_up(talking.stop()?, ONE), TWO);
    let done = |s: &Status| empty(s, ONE) && empty(s, TWO);
    farm.await_status(THREE, "both have no clients left", LIMIT, done)?;
    farm.leader_among(&[THREE])?;
    let talking = Talking::start(left);
    for name in ["node1", "node2"] {
        farm.farmctl(THREE, &["node", "maintenance", "off", name])?;
    }
    farm.await_owned_by(&[ONE, TWO, THREE])?;
    talking.await_rounds(100)?;
    talking.stop()?;
    upheld(&load.stop(THREE)?, service.at)
}

#[test]
fn a_drain_that_takes_too_long_is_cut_off() -> Result<()> {
    let farm = Farm::up("drain-t", Mode::Directed)?;
    let service = service(&farm, FIRST_VIP)?;
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    let talks = Talk::open_many(&farm, service.at, TALKS)?;
    farm.farmctl(ONE, &["module", "set", WEB_MODULE, "--drain", "1s"])?;
    farm.farmctl(ONE, &["node", "drain", "node2"])?;
    let (cut, mut kept): (Vec<Talk>, Vec<Talk>) = talks.into_iter().partition(|talk| talk.node == TWO);
    for mut talk in cut {
        ensure!(talk.round().is_err(), "{} is no longer served by node2", talk.client);
    }
    kept.iter_mut().try_for_each(Talk::round)
}

/// Drains the second node, lets `strike` happen in the middle, and judges: who is not struck loses nothing.
fn struck(prefix: &str, victim: Place, strike: fn(&Farm, Place) -> Result<()>) -> Result<()> {
    let farm = Farm::up(prefix, Mode::Directed)?;
    let service = service(&farm, FIRST_VIP)?;
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    let talks = Talk::open_many(&farm, service.at, TALKS)?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&[ONE, TWO, THREE])?;
    let survivors = farm.others(victim);
    let teller = *survivors.iter().find(|node| **node != TWO).context("one of three")?;

    farm.farmctl(teller, &["node", "maintenance", "on", "node2"])?;
    let handed_over = |s: &Status| node(s, TWO).is_some_and(|n| n.buckets == 0 && n.buckets_draining > 0);
    farm.await_status(teller, "node2 drains", LIMIT, handed_over)?;
    strike(&farm, victim)?;
    farm.leader_among(&survivors)?;
    let served = |s: &Status| {
        survivors.iter().map(|node| s.buckets(WEB_MODULE, *node)).sum::<u32>() == farm_lab::BUCKETS
    };
    farm.await_status(teller, "the others serve all new clients", LIMIT, served)?;
    load.await_everybody()?;
    let talking = Talking::start(hang_up(talks, victim));
    talking.await_rounds(100)?;
    // What it drained is over, or goes on.
    let left = hang_up(talking.stop()?, TWO);
    farm.await_status(teller, "nothing is left to drain", LIMIT, |s| empty(s, TWO))?;
    let talking = Talking::start(left);
    talking.await_rounds(100)?;
    talking.stop()?;
    load.upheld(teller).map(drop)
}

#[test]
fn a_drain_whose_node_dies_is_over() -> Result<()> {
    struck("drain-from", TWO, |farm, node| farm.power_off(node))
}

#[test]
fn a_drain_whose_new_owner_dies_goes_on() -> Result<()> {
    struck("drain-to", THREE, |farm, node| farm.cut(node))
}

#[test]
fn a_drain_whose_leader_dies_goes_on() -> Result<()> {
    struck("drain-lead", ONE, |farm, node| farm.kill_farmd(node))
}
