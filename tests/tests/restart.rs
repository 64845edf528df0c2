//! Daemons are restarted while their filters go on: as planned nobody notices, and unplanned nobody is reset.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{FIRST_VIP, FIRST_VIP6, Mode, Place, Status, WEB_MODULE};
use farm_tests::farm::{Farm, LIMIT, Service, farmctl_problem};
use farm_tests::load::Load;
use farm_tests::talk::{Servers, Talk, Talking};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];
const TWO: Place = ALL[1];
const THREE: Place = ALL[2];
/// Where the long-lived connections go.
const TALK: u16 = 8080;
/// So many that every node holds some.
const TALKS: u16 = 60;

/// The runs of all daemons.
fn runs(farm: &Farm) -> Result<BTreeMap<Place, String>> {
    let known = |s: &Status| s.nodes.iter().all(|n| !n.run.is_empty());
    let status = farm.await_status(ONE, "every daemon answers", LIMIT, known)?;
    let run = |n: &farm_lab::NodeStatus| Some((status.place(n.node.id)?, n.run.clone()));
    Ok(status.nodes.iter().filter_map(run).collect())
}

#[test]
fn all_daemons_are_replaced_and_nobody_notices() -> Result<()> {
    replaced("restart-d", Mode::Directed, FIRST_VIP)
}

#[test]
fn all_daemons_are_replaced_in_flood_mode_and_nobody_notices() -> Result<()> {
    replaced("restart-f", Mode::Flood, FIRST_VIP6)
}

fn replaced(prefix: &str, mode: Mode, vip: IpAddr) -> Result<()> {
    let farm = Farm::on(prefix, mode, vip)?;
    let service = Service::tcp(vip, TALK);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    let talking = Talking::start(Talk::open_many(&farm, service.at, TALKS)?);
    let load = Load::on(&farm, Place::Client, vip)?;
    load.await_answers_of(&ALL)?;
    let (before, known) = (runs(&farm)?, farm.events(ONE)?.len());

    farm.farmctl(ONE, &["node", "restart", "--all"])?;
    let after = runs(&farm)?;
    ensure!(ALL.iter().all(|node| before[node] != after[node]), "{before:?} became {after:?}");
    talking.await_rounds(100)?;
    load.await_answers_of(&ALL)?;
    talking.stop()?;
    let moved = farm.events(ONE)?.into_iter().skip(known).find(|e| e.kind.starts_with("buckets_"));
    ensure!(moved.is_none(), "nothing changes hands: {moved:?}");
    let seen = load.upheld(ONE)?;
    ensure!(seen.unanswered().is_empty(), "nobody is left without an answer: {:?}", seen.unanswered());
    let reset = seen.resets(service.at);
    ensure!(reset.is_empty(), "connections were reset: {reset:?}");
    Ok(())
}

#[test]
fn one_of_two_daemons_is_replaced_and_the_other_serves_on() -> Result<()> {
    let farm = Farm::of("restart-2", 2, |spec| spec)?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&[ONE, TWO])?;
    farm.farmctl(ONE, &["node", "restart", "--all"])?;
    load.await_answers_of(&[ONE, TWO])?;
    let seen = load.upheld(ONE)?;
    ensure!(seen.unanswered().is_empty(), "nobody is left without an answer: {:?}", seen.unanswered());
    Ok(())
}

#[test]
fn a_program_that_would_not_start_replaces_nothing() -> Result<()> {
    let farm = Farm::up("restart-bad", Mode::Directed)?;
    let before = runs(&farm)?;
    let known = farm.events(TWO)?.len();
    let config = farm.directory(TWO)?.join("farmd.toml");
    let good = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{good}\nnonsense = 1\n"))?;
    let refused = farm.farmctl_output(TWO, &["node", "restart", "--json"])?;
    ensure!(farmctl_problem(&refused)?.code == "restart_failed", "{refused:?}");
    let told = farm.await_event(TWO, "restart_failed", known)?;
    ensure!(told.text.contains("nonsense"), "it says why: {}", told.text);
    ensure!(runs(&farm)? == before, "the daemon goes on");
    std::fs::write(&config, good)?;
    farm.farmctl(TWO, &["node", "restart"])?;
    ensure!(runs(&farm)?[&TWO] != before[&TWO], "mended, it is replaced");
    Ok(())
}

#[test]
fn a_daemon_that_dies_in_its_restart_is_no_danger() -> Result<()> {
    let farm = Farm::up("restart-die", Mode::Directed)?;
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    let farmctl = farm_lab::binaries::find("farmctl")?;
    let mut restart = farm.command(ONE, farmctl)?.args(["node", "restart", "node3"]).spawn()?;
    let restarting = |s: &Status| s.nodes.iter().any(|n| n.restarting);
    farm.await_status(ONE, "the daemon restarts", LIMIT, restarting)?;
    farm.kill_farmd(THREE)?;
    let at = BootTime::now();
    // Its filter goes on for as long as its lease; then the others take over.
    farm.await_shared_by(&[ONE, TWO])?;
    load.await_everybody()?;
    load.expect_change(THREE, ONE, at);
    load.expect_change(THREE, TWO, at);
    restart.kill()?;
    restart.wait()?;
    farm.start_farmd(THREE)?;
    farm.await_shared_by(&ALL)?;
    load.await_answers_of(&ALL)?;
    load.upheld(ONE).map(drop)
}

#[test]
fn the_connections_of_a_killed_daemon_go_on_when_it_is_back() -> Result<()> {
    let farm = Farm::up("hold", Mode::Directed)?;
    let service = Service::tcp(FIRST_VIP, TALK);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    let talks = Talk::open_many(&farm, service.at, TALKS)?;
    let victim = farm.others(farm.leader()?).pop().context("one of three")?;
    let mut load = Load::start(&farm, Place::Client)?;
    let talking = Talking::start(talks);
    talking.await_rounds(20)?;
    load.await_answers_of(&ALL)?;

    let survivors = farm.others(victim);
    let at = BootTime::now();
    farm.kill_farmd(victim)?;
    let taken_over = |s: &Status| s.buckets(WEB_MODULE, victim) == 0;
    farm.await_status(survivors[0], "its buckets are taken over", LIMIT, taken_over)?;
    farm.start_farmd(victim)?;
    farm.await_owned_by(&ALL)?;
    talking.await_rounds(100)?;
    load.await_answers_of(&ALL)?;
    survivors.iter().for_each(|survivor| load.expect_change(victim, *survivor, at));
    talking.stop()?;
    let seen = load.upheld(survivors[0])?;
    let reset = seen.resets(service.at);
    ensure!(reset.is_empty(), "connections were reset: {reset:?}");
    Ok(())
}
