//! The third walk of ARCHITECTURE.md: one failure. Whatever happens to a node, no two nodes accept one flow, and the
//! others take over.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use farm_lab::witness::{BootTime, Verdict};
use farm_lab::{FIRST_VIP, FIRST_VIP6, Mode, Place};
use farm_tests::farm::Farm;
use farm_tests::load::{Load, Seen};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];

/// Something that happens to a node, and its end.
struct Fault {
    /// Happens; returns when the node can no longer renew its lease.
    strike: fn(&Farm, Place) -> Result<BootTime>,
    /// Do clients' frames still reach the node?
    hears_clients: bool,
    /// Does the node keep its filter?
    keeps_filter: bool,
    mend: fn(&Farm, Place) -> Result<()>,
}

const CUT: Fault = Fault {
    strike: |farm, victim| farm.cut(victim).map(|()| BootTime::now()),
    hears_clients: false,
    keeps_filter: true,
    mend: |farm, victim| farm.heal(victim),
};
const FROZEN: Fault = Fault {
    strike: |farm, victim| farm.freeze(victim).map(|()| BootTime::now()),
    hears_clients: true,
    keeps_filter: true,
    mend: |farm, victim| farm.thaw(victim),
};
const KILLED: Fault = Fault {
    strike: |farm, victim| farm.kill_farmd(victim).map(|()| BootTime::now()),
    hears_clients: true,
    keeps_filter: true,
    mend: |farm, victim| farm.start_farmd(victim).map(drop),
};
const STOPPED: Fault = Fault {
    strike: |farm, victim| farm.terminate_farmd(victim).map(|()| BootTime::now()),
    hears_clients: true,
    keeps_filter: false,
    mend: KILLED.mend,
};

/// A node that does not lead.
fn follower(farm: &Farm) -> Result<Place> {
    let leader = farm.leader()?;
    Ok(if leader == ALL[2] { ALL[1] } else { ALL[2] })
}

/// Lets the fault happen under load from `from` and end again; the judgement must hold.
fn survive(farm: &Farm, victim: Place, from: Place, fault: &Fault) -> Result<Seen> {
    survive_on(farm, FIRST_VIP, victim, from, fault)
}

/// The same under load on `vip`.
fn survive_on(farm: &Farm, vip: IpAddr, victim: Place, from: Place, fault: &Fault) -> Result<Seen> {
    let survivors = farm.others(victim);
    let mut load = Load::on(farm, from, vip)?;
    load.await_answers_of(&ALL)?;
    let at = BootTime::now();
    let silent = (fault.strike)(farm, victim)?;
    farm.await_shared_by(&survivors)?;
    farm.leader_among(&survivors)?;
    load.await_answers_of(&survivors)?;
    load.await_everybody()?;
    survivors.iter().for_each(|survivor| load.expect_change(victim, *survivor, at));
    // In directed mode nobody sends a dead node anything.
    if fault.hears_clients && farm.spec().mode == Mode::Flood {
        load.expect_closed(victim, Load::closed_since(silent))?;
    }
    (fault.mend)(farm, victim)?;
    farm.await_shared_by(&ALL)?;
    if !fault.keeps_filter {
        load.expect_no_filter(victim, at);
    }
    let back = BootTime::now();
    load.await_answers_of(&ALL)?;
    load.await_everybody()?;
    survivors.iter().for_each(|survivor| load.expect_change(*survivor, victim, back));
    let seen = load.stop(survivors[0])?;
    let verdict = seen.verdict();
    ensure!(verdict == Verdict::Upheld, "{verdict:?}");
    Ok(seen)
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
        let verdict = load.stop(ALL[0])?.verdict();
        ensure!(verdict == Verdict::Upheld, "{verdict:?}");
    }
    Ok(())
}
