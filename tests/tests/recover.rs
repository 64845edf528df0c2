//! No majority is left: people have one server go on alone, and the others join anew by themselves.

use anyhow::{Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{Mode, Place, Status};
use farm_tests::farm::{Farm, LIMIT, Service, farmctl_problem};
use farm_tests::load::Load;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const THREE: Place = Place::Node(3);

fn recover(farm: &Farm, node: Place, more: &[&str]) -> Result<std::process::Output> {
    let config = farm.directory(node)?.join("farmd.toml");
    let config = config.to_str().expect("a path of the lab's").to_owned();
    farm.farmctl_output(node, &[&["recover", "--config", &config], more].concat())
}

fn is_closed(status: &Status) -> bool {
    status.conditions.iter().any(|c| c.code == "no_lease")
}

#[test]
fn one_of_three_goes_on_alone_and_the_others_join_anew() -> Result<()> {
    let farm = Farm::up("recover", Mode::Directed)?;
    farm.farmctl(ONE, &["module", "weight", "web", "node2", "50"])?;
    let mut load = Load::start(&farm, Place::Client)?;
    let before = farm.names(ONE)?;
    farm.power_off(TWO)?;
    farm.power_off(THREE)?;
    farm.await_status(ONE, "it accepts nothing alone", LIMIT, is_closed)?;

    let runs = farmctl_problem(&recover(&farm, ONE, &["--yes"])?);
    ensure!(runs.is_err(), "farmd's own words come out, not those of farmctl");
    farm.terminate_farmd(ONE)?;
    let asked = recover(&farm, ONE, &[])?;
    let told = String::from_utf8_lossy(&asked.stdout).into_owned();
    ensure!(
        !asked.status.success() && told.contains("node2, node3"),
        "nobody is there to say yes: {asked:?}"
    );
    let done = recover(&farm, ONE, &["--yes"])?;
    ensure!(done.status.success(), "{done:?}");
    let at = BootTime::now();
    farm.start_farmd(ONE)?;
    farm.await_owned_by(&[ONE])?;
    for lost in [TWO, THREE] {
        load.expect_change(lost, ONE, at);
    }
    load.await_everybody()?;
    let kept = farm.events(ONE)?;
    ensure!(kept.iter().any(|e| e.kind == "recovered"), "it is on record who decided");
    ensure!(kept.iter().any(|e| e.kind == "taken_over"), "and in the log");
    let added = Service::tcp(farm_lab::FIRST_VIP, 8080);
    farm.service_at(ONE, "add", added, &["--criterion", "source-port"])?;

    farm.power_on(TWO)?;
    farm.power_on(THREE)?;
    let all = [ONE, TWO, THREE];
    farm.await_status(ONE, "all vote again", LIMIT, |status| {
        status.nodes.len() == 3 && status.electors.len() == 3 && status.at_rest()
    })?;
    for back in [TWO, THREE] {
        load.expect_change(ONE, back, at);
    }
    load.await_answers_of(&all)?;
    load.await_everybody()?;
    let after = farm.names(TWO)?;
    ensure!(after.iter().filter(|(id, place)| before.get(id) == Some(place)).count() == 1, "{after:?}");
    let shares = farm.status(THREE)?;
    let (half, whole) = (shares.buckets("web", TWO), shares.buckets("web", THREE));
    ensure!(half * 2 <= whole + 2 && whole <= half * 2 + 2, "node2 has its weight again: {half} and {whole}");
    load.upheld(ONE).map(drop)
}

#[test]
fn there_is_nothing_to_recover_without_a_cluster_or_alone() -> Result<()> {
    let farm = Farm::unborn("recover-none", Mode::Directed)?;
    farm.start_farmd(ONE)?;
    farm.terminate_farmd(ONE)?;
    let none = recover(&farm, ONE, &["--yes"])?;
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    ensure!(!none.status.success() && told.contains("nothing_to_recover"), "{told}");
    Ok(())
}
