//! Two servers and a router that decides between them.

use anyhow::{Context, Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{Mode, Place, Status, WEB_MODULE, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::fault::{CUT, FROZEN, KILLED, survive};
use farm_tests::load::Load;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const BOTH: [Place; 2] = [ONE, TWO];
const ROUTER: &str = "10.77.0.1";
/// Nobody has it.
const LOCK: &str = "10.77.0.99";

fn other(server: Place) -> Place {
    if server == ONE { TWO } else { ONE }
}

/// Two servers that a router decides between.
fn up(prefix: &str, mode: Mode) -> Result<Farm> {
    let farm = Farm::of(prefix, 2, |spec| spec.mode(mode))?;
    let set = farm.farmctl(ONE, &["cluster", "tie-break", "exclusive", "--address", LOCK, ROUTER])?;
    ensure!(set.contains("it decides"), "{set}");
    Ok(farm)
}

/// The one server that owns everything.
fn survivor(farm: &Farm) -> Result<Place> {
    shell::await_value("one server owns everything", LIMIT, || {
        for server in BOTH {
            let Ok(status) = farm.status(server) else { continue };
            if status.buckets(WEB_MODULE, server) == 4096 && status.leader() == Some(server) {
                return Ok(Some(server));
            }
        }
        Ok(None)
    })
}

/// Both vote again, and the router would decide again.
fn await_pair(farm: &Farm) -> Result<Status> {
    farm.await_status(ONE, "both vote, and the tie-break was tried", LIMIT, |status| {
        let idle = status.conditions.iter().any(|c| c.code == "tie_break_idle");
        status.electors.len() == 2 && status.at_rest() && !idle
    })
}

#[test]
fn either_dies_and_the_other_one_goes_on_alone() -> Result<()> {
    let farm = up("tie", Mode::Directed)?;
    let first = farm.leader()?;
    survive(&farm, first, Place::Client, &KILLED.overruled())?;
    await_pair(&farm)?;
    let next = other(farm.leader()?);
    survive(&farm, next, Place::Client, &CUT.overruled()).map(drop)
}

#[test]
fn a_server_that_stands_still_is_overruled_and_closed_by_its_kernel() -> Result<()> {
    let farm = up("tie-froz", Mode::Flood)?;
    let first = farm.leader()?;
    survive(&farm, first, Place::Client, &FROZEN.overruled()).map(drop)
}

#[test]
fn servers_that_reach_the_router_and_not_each_other_never_both_accept() -> Result<()> {
    let farm = up("tie-split", Mode::Flood)?;
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&BOTH)?;
    let at = BootTime::now();
    let between = [(ONE, TWO), (TWO, ONE)];
    farm.block(&between)?;
    let stays = survivor(&farm)?;
    load.expect_change(other(stays), stays, at);
    load.await_answers_of(&[stays])?;
    load.await_everybody()?;
    let contest = farm.farmctl(other(stays), &["cluster", "tie-break"])?;
    ensure!(contest.contains("lost") || contest.contains("together"), "it does not go on: {contest}");
    farm.unblock(&between)?;
    await_pair(&farm)?;
    farm.await_owned_by(&BOTH)?;
    load.expect_no_filter(other(stays), at);
    load.expect_change(stays, other(stays), at);
    load.await_answers_of(&BOTH)?;
    load.upheld(stays).map(drop)
}

#[test]
fn without_the_router_nobody_goes_on_and_both_are_back_when_they_meet() -> Result<()> {
    let farm = up("tie-none", Mode::Flood)?;
    let before = farm.names(ONE)?;
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&BOTH)?;
    let router = Place::Router;
    let lost = [(ONE, TWO), (TWO, ONE), (router, ONE), (router, TWO)];
    farm.block(&lost)?;
    let closed = |status: &Status| status.conditions.iter().any(|c| c.code == "no_lease");
    for server in BOTH {
        farm.await_status(server, "it accepts nothing", LIMIT, closed)?;
        load.expect_closed(server, BootTime::now())?;
    }
    farm.unblock(&lost)?;
    farm.await_owned_by(&BOTH)?;
    load.await_everybody()?;
    ensure!(farm.names(ONE)? == before, "nobody was overruled");
    load.upheld(ONE).map(drop)
}

#[test]
fn a_daemon_that_restarts_as_planned_is_not_overruled() -> Result<()> {
    let farm = up("tie-again", Mode::Directed)?;
    let before = farm.names(ONE)?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&BOTH)?;
    for server in BOTH {
        farm.farmctl(server, &["node", "restart"])?;
        await_pair(&farm)?;
    }
    // Another timing needs another rehearsal, which comes by itself.
    farm.farmctl(ONE, &["cluster", "profile", "standard"])?;
    await_pair(&farm)?;
    ensure!(farm.names(ONE)? == before, "they are who they were");
    let events = farm.events(ONE)?;
    ensure!(events.iter().all(|e| e.kind != "taken_over"), "nobody went on alone");
    load.await_everybody()?;
    load.upheld(ONE).map(drop)
}

#[test]
fn what_would_not_decide_is_refused_or_said() -> Result<()> {
    let farm = Farm::of("tie-no", 2, |spec| spec.mode(Mode::Directed))?;
    let refused = |words: &[&str]| -> Result<String> {
        let output = farm.farmctl_output(ONE, &[&["cluster", "tie-break"], words].concat())?;
        ensure!(!output.status.success(), "{words:?} is taken: {output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
    };
    let used = refused(&["exclusive", "--address", "10.77.0.50", ROUTER])?;
    ensure!(used.contains("must be free"), "{used}");
    let own = refused(&["exclusive", "--address", "10.77.0.12", ROUTER])?;
    ensure!(own.contains("must be free") || own.contains("an address of a node"), "{own}");
    let nobody = refused(&["plain", "10.77.0.77"])?;
    ensure!(nobody.contains("nobody on the link answers"), "{nobody}");
    let far = refused(&["plain", "198.51.100.1"])?;
    ensure!(far.contains("is in no network"), "{far}");
    farm.farmctl(ONE, &["cluster", "tie-break", "plain", ROUTER])?;
    let plain = |status: &Status| status.conditions.iter().any(|c| c.code == "tie_break_plain");
    farm.await_status(TWO, "it says what plain means", LIMIT, plain)?;
    let kept = farm.farmctl(TWO, &["cluster", "tie-break"])?;
    ensure!(kept.contains("tie-break plain") && kept.contains(ROUTER), "{kept}");
    farm.farmctl(ONE, &["cluster", "tie-break", "none"])?;
    let none = farm.farmctl(TWO, &["cluster", "tie-break"]).context("it is none")?;
    ensure!(none.contains("Nothing decides"), "{none}");
    Ok(())
}
