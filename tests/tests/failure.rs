//! The third walk of ARCHITECTURE.md: one failure. Whatever happens to a node, no two nodes accept one flow, and the
//! others take over.

use anyhow::{Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{FIRST_VIP6, Mode, Place};
use farm_tests::farm::Farm;
use farm_tests::fault::{CUT, FROZEN, KILLED, STOPPED, survive, survive_on};
use farm_tests::load::Load;

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];

/// A node that does not lead.
fn follower(farm: &Farm) -> Result<Place> {
    let leader = farm.leader()?;
    Ok(if leader == ALL[2] { ALL[1] } else { ALL[2] })
}

#[test]
fn a_followers_node_is_cut_off_and_returns() -> Result<()> {
    let farm = Farm::up("cut", Mode::Directed)?;
    survive(&farm, follower(&farm)?, Place::Client, &CUT).map(drop)
}

#[test]
fn the_leaders_node_is_cut_off_and_returns() -> Result<()> {
    let farm = Farm::up("leader", Mode::Directed)?;
    let leader = farm.leader()?;
    survive(&farm, leader, Place::Remote, &CUT).map(drop)
}

#[test]
fn nodes_that_serve_ipv6_are_cut_off_and_return() -> Result<()> {
    let farm = Farm::on("cut-6", Mode::Directed, FIRST_VIP6)?;
    survive_on(&farm, FIRST_VIP6, follower(&farm)?, Place::Client, &CUT)?;
    let leader = farm.leader()?;
    survive_on(&farm, FIRST_VIP6, leader, Place::Remote, &CUT).map(drop)
}

#[test]
fn a_daemon_that_serves_ipv6_is_frozen_past_its_lease_and_thawed() -> Result<()> {
    let farm = Farm::on("frozen-6", Mode::Flood, FIRST_VIP6)?;
    survive_on(&farm, FIRST_VIP6, follower(&farm)?, Place::Client, &FROZEN)?;
    let leader = farm.leader()?;
    survive_on(&farm, FIRST_VIP6, leader, Place::Remote, &FROZEN).map(drop)
}

#[test]
fn a_daemon_is_frozen_past_its_lease_and_thawed() -> Result<()> {
    let farm = Farm::up("frozen", Mode::Flood)?;
    survive(&farm, follower(&farm)?, Place::Client, &FROZEN)?;
    let leader = farm.leader()?;
    survive(&farm, leader, Place::Client, &FROZEN).map(drop)
}

#[test]
fn a_daemon_is_killed_and_started_again() -> Result<()> {
    let farm = Farm::up("killed", Mode::Flood)?;
    let leader = farm.leader()?;
    survive(&farm, leader, Place::Remote, &KILLED).map(drop)
}

#[test]
fn a_daemon_that_is_told_to_stop_hands_over_first() -> Result<()> {
    for mode in [Mode::Directed, Mode::Flood] {
        let farm = Farm::up("stopped", mode)?;
        let victim = follower(&farm)?;
        let teller = farm.others(victim)[0];
        let known = farm.events(teller)?.len();
        survive(&farm, victim, Place::Client, &STOPPED)?;
        let events = farm.events(teller)?.split_off(known);
        let away = events.iter().position(|e| e.kind == "node_away" && e.resource == victim.to_string());
        let silent = events.iter().position(|e| e.kind == "node_silent" && e.resource == victim.to_string());
        ensure!(away.is_some(), "it said that it goes: {events:?}");
        ensure!(silent.is_none_or(|at| Some(at) > away), "it was not missed before it said so: {events:?}");
    }
    Ok(())
}

#[test]
fn a_farm_is_born_under_load() -> Result<()> {
    for mode in [Mode::Flood, Mode::Directed] {
        let farm = Farm::unborn("born", mode)?;
        let mut load = Load::start(&farm, Place::Client)?;
        farm.run_farm()?;
        // Until it had a service, no node had a filter.
        ALL.iter().for_each(|node| load.expect_no_filter(*node, BootTime::default()));
        load.await_answers_of(&ALL)?;
        load.await_everybody()?;
        load.upheld(ALL[0])?;
    }
    Ok(())
}
