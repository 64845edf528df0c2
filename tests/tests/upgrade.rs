//! Builds of two feature levels in one cluster: members are upgraded one after the other under load, nobody notices, and
//! what only the newer build knows is used when all have it.

use anyhow::{Result, ensure};
use farm_lab::witness::Verdict;
use farm_lab::{Mode, Place, Status, binaries};
use farm_tests::farm::{Farm, LIMIT, farmctl_problem};
use farm_tests::load::{Load, Seen};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];

/// `node` refuses the command, with this code.
fn refuses(farm: &Farm, node: Place, args: &[&str], code: &str) -> Result<()> {
    let with_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let problem = farmctl_problem(&farm.farmctl_output(node, &with_json)?)?;
    ensure!(problem.code == code, "{node} refuses {args:?} with {problem:?}, not {code}");
    Ok(())
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
    let farm = Farm::unborn("upgrade", Mode::Directed)?;
    for node in ALL {
        // A program of its own, that can be replaced while the daemon runs.
        farm.install_farmd(node, &binaries::find("farmd")?)?;
    }
    farm.run_farm()?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    // Level 1 cannot rename, and there is nothing to finish.
    refuses(&farm, ONE, &["cluster", "rename", "airport"], "old_version")?;
    refuses(&farm, ONE, &["cluster", "finalize"], "bad_level")?;

    upgrade(&farm, ALL[1], "farmd-next")?;
    farm.await_status(ONE, "the second is newer", LIMIT, |s| levels(s) == [1, 2, 1])?;
    // Not all know it.
    refuses(&farm, ALL[1], &["cluster", "rename", "airport"], "level_not_final")?;
    refuses(&farm, ALL[1], &["cluster", "finalize"], "bad_level")?;
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
    // There is no way back any more.
    refuses(&farm, ALL[2], &["node", "restart"], "restart_failed")?;
    load.await_answers_of(&ALL)?;
    unnoticed(&load.stop(ONE)?)
}
