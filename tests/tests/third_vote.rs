//! Two servers and a witness: a third machine that votes, grants leases and serves nothing.

use anyhow::{Context, Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{FIRST_VIP, Mode, Place, Status, WEB_MODULE, shell};
use farm_tests::farm::{Farm, LIMIT, Service, farmctl_problem};
use farm_tests::fault::{CUT, FROZEN, KILLED, survive};
use farm_tests::load::Load;

const SERVERS: [Place; 2] = [Place::Node(1), Place::Node(2)];
const ONE: Place = SERVERS[0];
const TWO: Place = SERVERS[1];
const THIRD: Place = Place::Node(3);

fn up(prefix: &str, mode: Mode) -> Result<Farm> {
    Farm::of(prefix, 3, |spec| spec.mode(mode).witness())
}

/// The server that leads: a witness gives the lead away.
fn leader(farm: &Farm) -> Result<Place> {
    farm.leader_among(&SERVERS)
}

fn other(server: Place) -> Place {
    if server == ONE { TWO } else { ONE }
}

/// All that a process may do beyond an ordinary one.
fn privileges(farm: &Farm, node: Place) -> Result<String> {
    let process = farm.farmd(node)?.context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    Ok(format!("{} {}", line("CapEff:").context("capabilities")?, line("NoNewPrivs:").context("privileges")?))
}

#[test]
fn either_server_dies_and_the_other_one_serves_everybody() -> Result<()> {
    let farm = up("third", Mode::Directed)?;
    ensure!(privileges(&farm, THIRD)? == "0000000000000000 1", "a witness needs no privileges");
    let first = leader(&farm)?;
    survive(&farm, first, Place::Client, &CUT)?;
    survive(&farm, other(leader(&farm)?), Place::Client, &KILLED).map(drop)
}

#[test]
fn a_server_whose_daemon_stands_still_is_closed_by_its_kernel() -> Result<()> {
    let farm = up("third-froz", Mode::Flood)?;
    let first = leader(&farm)?;
    survive(&farm, first, Place::Client, &FROZEN).map(drop)
}

#[test]
fn servers_that_reach_the_witness_and_not_each_other_never_both_accept() -> Result<()> {
    let farm = up("third-split", Mode::Flood)?;
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&SERVERS)?;
    let at = BootTime::now();
    let between = [(ONE, TWO), (TWO, ONE)];
    farm.block(&between)?;
    // Whoever leads keeps the cluster: the witness hears both.
    let stays = shell::await_value("one server owns everything", LIMIT, || {
        for server in SERVERS {
            let status = farm.status(server)?;
            if status.leader() == Some(server) && status.buckets(WEB_MODULE, server) == 4096 {
                return Ok(Some(server));
            }
        }
        Ok(None)
    })?;
    load.expect_change(other(stays), stays, at);
    load.await_answers_of(&[stays])?;
    load.await_everybody()?;
    farm.unblock(&between)?;
    farm.await_owned_by(&SERVERS)?;
    load.expect_change(stays, other(stays), at);
    load.await_answers_of(&SERVERS)?;
    load.upheld(stays).map(drop)
}

#[test]
fn a_witness_that_alone_has_the_log_leads_until_a_server_has_it() -> Result<()> {
    let farm = up("third-log", Mode::Directed)?;
    let dies = leader(&farm)?;
    let sleeps = other(dies);
    farm.freeze(sleeps)?;
    farm.await_owned_by(&[dies])?;
    // Acknowledged by the one that dies and by the witness.
    let added = Service::tcp(FIRST_VIP, 8080);
    farm.service_at(dies, "add", added, &["--criterion", "source-port"])?;
    farm.power_off(dies)?;
    farm.thaw(sleeps)?;
    let what = "the server that had slept leads and serves everybody";
    farm.await_status(sleeps, what, LIMIT, |status| {
        status.leader() == Some(sleeps) && status.buckets(WEB_MODULE, sleeps) == 4096
    })?;
    let known = farm.farmctl(sleeps, &["service", "list"])?;
    ensure!(known.contains(&added.at.to_string()), "it knows what was acknowledged: {known}");
    farm.power_on(dies)?;
    farm.await_owned_by(&SERVERS)?;
    leader(&farm).map(drop)
}

#[test]
fn a_witness_comes_goes_and_dies_and_no_client_notices() -> Result<()> {
    let farm = up("third-goes", Mode::Directed)?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&SERVERS)?;
    let two = |status: &Status| status.nodes.len() == 2 && status.at_rest();
    let three = |status: &Status| status.nodes.len() == 3 && status.at_rest();
    farm.kill_farmd(THIRD)?;
    let missed = |status: &Status| status.conditions.iter().any(|c| c.resource == THIRD.to_string());
    farm.await_status(ONE, "it is missed", LIMIT, missed)?;
    farm.start_farmd(THIRD)?;
    farm.await_status(ONE, "it is back", LIMIT, three)?;
    farm.farmctl(THIRD, &["node", "leave"])?;
    farm.await_status(ONE, "it is forgotten", LIMIT, two)?;
    farm.await_alone(THIRD)?;
    farm.join(THIRD, TWO)?;
    farm.await_status(ONE, "it votes again", LIMIT, three)?;
    load.await_everybody()?;
    load.upheld(ONE)?;
    // Again as good as before.
    let dies = leader(&farm)?;
    farm.power_off(dies)?;
    farm.await_owned_by(&[other(dies)]).map(drop)
}

#[test]
fn a_witness_founds_nothing_and_serves_nothing() -> Result<()> {
    let farm = Farm::unborn_of("third-alone", |spec| spec.witness())?;
    farm.start_farmd(THIRD)?;
    let refused = farmctl_problem(&farm.farmctl_output(THIRD, &["cluster", "init", "--json"])?)?;
    ensure!(refused.code == "witness", "{refused:?}");
    farm.start_farmd(ONE)?;
    farm.start_farmd(TWO)?;
    farm.farmctl(ONE, &["cluster", "init", "--profile", "fast"])?;
    farm.join(TWO, ONE)?;
    farm.join(THIRD, ONE)?;
    for server in SERVERS {
        farm.start_nginx(server)?;
    }
    farm.add_web_service()?;
    let weight = ["module", "weight", WEB_MODULE, &THIRD.to_string(), "100", "--json"];
    let refused = farmctl_problem(&farm.farmctl_output(ONE, &weight)?)?;
    ensure!(refused.code == "witness", "{refused:?}");
    let status = farm.farmctl(ONE, &["node", "list"])?;
    ensure!(status.contains("witness"), "{status}");
    Ok(())
}
