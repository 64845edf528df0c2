//! A data directory that is older than what its node has agreed to since: a restored backup, a reverted machine.

use std::path::Path;

use anyhow::{Result, ensure};
use farm_lab::witness::{BootTime, Verdict};
use farm_lab::{Mode, Place, Status, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::load::Load;

/// Exit code of farmctl where the daemon belongs to no cluster.
const NOT_A_MEMBER: i32 = 5;

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = std::process::Command::new("cp");
    shell::run(cp.args(["--archive", "--no-target-directory"]).arg(from).arg(to)).map(drop)
}

/// Closed, and why; what to do is in the code's entry.
fn is_told(status: &Status) -> bool {
    let told = |c: &farm_lab::Condition| c.code == "peers_at_odds" && c.cause.contains("another copy");
    status.conditions.iter().any(told)
}

#[test]
fn a_node_with_a_store_from_a_backup_closes_says_why_and_joins_anew() -> Result<()> {
    let farm = Farm::up("copies", Mode::Directed)?;
    let leader = farm.leader()?;
    let stay = if leader == Place::Node(3) { Place::Node(2) } else { leader };
    let old = farm.others(stay)[1];
    let others = farm.others(old);
    let mut load = Load::start(&farm, Place::Client)?;
    let data = farm.directory(old)?.join("data");
    let backup = data.with_extension("backup");

    let at = BootTime::now();
    farm.terminate_farmd(old)?;
    copy(&data, &backup)?;
    farm.start_farmd(old)?;
    farm.await_owned_by(&farm.nodes().collect::<Vec<_>>())?;
    farm.kill_farmd(old)?;
    std::fs::remove_dir_all(&data)?;
    copy(&backup, &data)?;
    farm.start_farmd(old)?;
    farm.await_status(old, "it knows that it is a copy", LIMIT, is_told)?;
    farm.await_owned_by(&others)?;
    load.await_everybody()?;

    // What the entry of the code says.
    farm.farmctl(stay, &["node", "leave", &old.to_string()])?;
    farm.terminate_farmd(old)?;
    std::fs::rename(data.join("log"), data.join("log.old"))?;
    farm.start_farmd(old)?;
    let asked = farm.farmctl_output(old, &["cluster", "status"])?;
    ensure!(asked.status.code() == Some(NOT_A_MEMBER), "{asked:?}");
    farm.await_status(stay, "the old one is forgotten", LIMIT, |status| status.nodes.len() == 2)?;
    farm.join(old, stay)?;
    farm.await_owned_by(&farm.nodes().collect::<Vec<_>>())?;
    load.await_everybody()?;
    load.expect_no_filter(old, at);
    for node in &others {
        load.expect_change(old, *node, at);
        load.expect_change(*node, old, at);
    }
    let verdict = load.stop(stay)?.verdict();
    ensure!(verdict == Verdict::Upheld, "{verdict:?}");
    Ok(())
}
