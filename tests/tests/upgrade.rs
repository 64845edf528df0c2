//! Builds of two feature levels in one cluster: members are upgraded one after the other under load, nobody notices, and
//! what only the newer build knows is used when all have it.

use anyhow::{Result, ensure};
use farm_lab::witness::Verdict;
use farm_lab::{Mode, Place, Status, binaries};
use farm_tests::farm::{Farm, LIMIT, farmctl_problem};
use farm_tests::load::{Load, Seen};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];

fn refused(farm: &Farm, node: Place, args: &[&str]) -> Result<String> {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    Ok(farmctl_problem(&farm.farmctl_output(node, &args)?)?.code)
}

/// Installs another build on `node` and lets its daemon become it.
fn upgrade(farm: &Farm, node: Place, build: &str) -> Result<()> {
    farm.install_farmd(node, &binaries::find(build)?)?;
    farm.farmctl(node, &["node", "restart"]).map(drop)
}

fn levels(status: &Status) -> Vec<u32> {
    status.nodes.iter().map(|n| n.feature_level).collect()
}

fn unnoticed(seen: &Seen) -> Result<()> {
    ensure!(seen.verdict() == Verdict::Upheld, "{:?}", seen.verdict());
    ensure!(seen.unanswered().is_empty(), "nobody is left without an answer: {:?}", seen.unanswered());
    Ok(())
}

#[test]
fn members_are_upgraded_one_after_the_other_and_back_until_it_is_final() -> Result<()> {
    let farm = Farm::up("upgrade", Mode::Directed)?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    ensure!(
        refused(&farm, ONE, &["cluster", "rename", "airport"])? == "old_version",
        "level 1 cannot rename"
    );
    ensure!(refused(&farm, ONE, &["cluster", "finalize"])? == "bad_level", "there is nothing to finish");

    upgrade(&farm, ALL[1], "farmd-next")?;
    farm.await_status(ONE, "the second is newer", LIMIT, |s| levels(s) == [1, 2, 1])?;
    ensure!(
        refused(&farm, ALL[1], &["cluster", "rename", "airport"])? == "level_not_final",
        "not all know it"
    );
    ensure!(refused(&farm, ALL[1], &["cluster", "finalize"])? == "bad_level", "not all know it");
    // Old and new understand each other, whoever leads.
    farm.farmctl(ALL[1], &["module", "set", "web", "--drain", "20s"])?;
    farm.farmctl(ALL[2], &["module", "set", "web", "--drain", "30s"])?;
    upgrade(&farm, ALL[1], "farmd")?;
    farm.await_status(ONE, "and back", LIMIT, |s| levels(s) == [1, 1, 1])?;

    for node in ALL {
        upgrade(&farm, node, "farmd-next")?;
    }
    farm.await_status(ONE, "all are newer", LIMIT, |s| levels(s) == [2, 2, 2])?;
    farm.farmctl(ONE, &["cluster", "finalize"])?;
    farm.farmctl(ALL[2], &["cluster", "rename", "airport"])?;
    farm.await_status(ALL[1], "all know the new name", LIMIT, |s| s.name == "airport")?;

    farm.install_farmd(ALL[2], &binaries::find("farmd")?)?;
    ensure!(refused(&farm, ALL[2], &["node", "restart"])? == "restart_failed", "it cannot go back any more");
    load.await_answers_of(&ALL)?;
    unnoticed(&load.stop(ONE)?)
}
