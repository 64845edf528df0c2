//! The voter set follows the living, and `cluster check` says what the next loss would do.

use anyhow::{Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{Mode, Place, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::load::Load;
use serde::Deserialize;

/// What `cluster check` prints for programs.
#[derive(Debug, Deserialize)]
struct Check {
    losses: Vec<Loss>,
    notes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Loss {
    node: String,
    room: String,
    gone: bool,
    reasons: Vec<String>,
}

impl Check {
    /// Asks `node`; the exit code must say the same.
    fn ask(farm: &Farm, node: Place) -> Result<Self> {
        let output = farm.farmctl_output(node, &["cluster", "check", "--json"])?;
        let check: Self = serde_json::from_slice(&output.stdout)?;
        let code = if check.fatal().is_empty() { 0 } else { 8 };
        ensure!(output.status.code() == Some(code), "{output:?}");
        Ok(check)
    }

    /// Nodes and rooms whose loss would end the service.
    fn fatal(&self) -> Vec<String> {
        let fatal = self.losses.iter().filter(|loss| !loss.reasons.is_empty());
        fatal.map(|l| if l.room.is_empty() { l.node.clone() } else { format!("room {}", l.room) }).collect()
    }

    /// Nothing is on the way that would change it.
    fn is_settled(&self) -> bool {
        self.notes.is_empty()
    }
}

/// Waits until nothing is on the way in the eyes of `node`.
fn settled(farm: &Farm, node: Place) -> Result<Check> {
    shell::await_value("the voters have followed the living", LIMIT, || {
        Ok(Some(Check::ask(farm, node)?).filter(Check::is_settled))
    })
}

#[test]
fn five_die_one_after_the_other_as_far_as_the_check_foretells_and_return() -> Result<()> {
    let farm = Farm::of("survivors", 5, |spec| spec.mode(Mode::Flood))?;
    let all: Vec<Place> = farm.nodes().collect();
    let (mut alive, mut dead) = (all.clone(), Vec::new());
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&all)?;
    while alive.len() > 2 {
        let check = settled(&farm, alive[0])?;
        ensure!(check.fatal().is_empty(), "{alive:?} live: {check:?}");
        ensure!(check.losses.iter().filter(|loss| loss.gone).count() == dead.len(), "{check:?}");
        let at = BootTime::now();
        let victim = farm.leader_among(&alive)?;
        farm.kill_farmd(victim)?;
        alive.retain(|place| *place != victim);
        dead.push(victim);
        farm.await_owned_by(&alive)?;
        load.await_answers_of(&alive)?;
        load.await_everybody()?;
        alive.iter().for_each(|survivor| load.expect_change(victim, *survivor, at));
    }
    // Two of two: either loss is one too many, and the check says so.
    let [stays, goes] = alive[..] else { anyhow::bail!("two live: {alive:?}") };
    let check = settled(&farm, stays)?;
    let named = |place: &Place| check.fatal().contains(&place.to_string());
    ensure!(alive.iter().all(named), "{check:?}");
    farm.kill_farmd(goes)?;
    load.expect_closed(stays, Load::closed_since(BootTime::now()))?;
    dead.push(goes);
    // Who was let go cannot help; who voted last can.
    let at = BootTime::now();
    for back in [dead[0], goes, dead[2], dead[1]] {
        farm.start_farmd(back)?;
    }
    farm.await_owned_by(&all)?;
    load.await_answers_of(&all)?;
    for old in &all {
        all.iter().filter(|new| *new != old).for_each(|new| load.expect_change(*old, *new, at));
    }
    let check = settled(&farm, stays)?;
    ensure!(check.fatal().is_empty(), "{check:?}");
    load.upheld(stays).map(drop)
}

#[test]
fn a_room_is_judged_as_a_whole() -> Result<()> {
    let farm = Farm::of("rooms", 3, |spec| spec.witness())?;
    let [one, two, third] = [1, 2, 3].map(Place::Node);
    ensure!(settled(&farm, one)?.fatal().is_empty());
    for (node, room) in [(one, "east"), (two, "west"), (third, "east")] {
        farm.farmctl(one, &["node", "set", &node.to_string(), "--room", room])?;
    }
    ensure!(settled(&farm, two)?.fatal() == ["room east"]);
    // What a daemon says of itself when it starts does not take its room away.
    farm.terminate_farmd(third)?;
    farm.start_farmd(third)?;
    shell::await_value("it is back", LIMIT, || {
        Ok((settled(&farm, two)?.fatal() == ["room east"]).then_some(()))
    })?;
    farm.farmctl(one, &["node", "set", &third.to_string(), "--room", "north"])?;
    ensure!(settled(&farm, two)?.fatal().is_empty());
    farm.farmctl(one, &["node", "set", &third.to_string(), "--no-room"])?;
    ensure!(farm.farmctl(one, &["node", "list"])?.contains("west"));
    farm.kill_farmd(third)?;
    shell::await_value("either server is precious", LIMIT, || {
        let fatal = Check::ask(&farm, one)?.fatal();
        Ok([one, two].iter().all(|node| fatal.contains(&node.to_string())).then_some(()))
    })
}
