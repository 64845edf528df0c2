//! A data directory that is older than what its node has agreed to since: a restored backup, a reverted machine.

use std::path::Path;

use anyhow::{Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{Mode, Place, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::load::Load;

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = std::process::Command::new("cp");
    shell::run(cp.args(["--archive", "--no-target-directory"]).arg(from).arg(to)).map(drop)
}

#[test]
fn a_node_with_a_store_from_a_backup_says_so_and_joins_anew_by_itself() -> Result<()> {
    let farm = Farm::up("copies", Mode::Flood)?;
    let leader = farm.leader()?;
    let stay = if leader == Place::Node(3) { Place::Node(2) } else { leader };
    let old = farm.others(stay)[1];
    let others = farm.others(old);
    let mut load = Load::start(&farm, Place::Client)?;
    let data = farm.directory(old)?.join("data");
    let backup = data.with_extension("backup");

    let before = farm.names(stay)?;
    let at = BootTime::now();
    farm.terminate_farmd(old)?;
    copy(&data, &backup)?;
    farm.start_farmd(old)?;
    farm.await_owned_by(&farm.nodes().collect::<Vec<_>>())?;
    farm.kill_farmd(old)?;
    std::fs::remove_dir_all(&data)?;
    copy(&backup, &data)?;
    farm.start_farmd(old)?;
    farm.await_alone(old)?;
    let told = farm.farmctl_output(old, &["status"])?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.contains("rejoining") && told.contains("another copy"), "it says why: {told}");
    farm.await_owned_by(&others)?;
    load.await_everybody()?;

    // By itself, when its former self has been let go.
    farm.await_status(stay, "it is back under another id", LIMIT, |status| {
        let id = status.nodes.iter().find(|n| n.node.name == old.to_string()).map(|n| n.node.id);
        id.is_some_and(|id| !before.contains_key(&id)) && status.at_rest()
    })?;
    farm.await_owned_by(&farm.nodes().collect::<Vec<_>>())?;
    load.await_everybody()?;
    load.expect_no_filter(old, at);
    for node in &others {
        load.expect_change(old, *node, at);
        load.expect_change(*node, old, at);
    }
    load.upheld(stay).map(drop)
}
