//! One archive for support: of all nodes that answer, whole or not at all, and without secrets.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use farm_lab::app::App;
use farm_lab::{Mode, Place};
use farm_tests::farm::{Farm, LIMIT, farmctl_problem};
use flate2::read::GzDecoder;
use serde_json::Value;

const ONE: Place = Place::Node(1);
const THREE: Place = Place::Node(3);

/// The files of an archive.
fn unpacked(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(path)?));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.strip_prefix("farm-snapshot")?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).with_context(|| name.clone())?;
        files.insert(name, text);
    }
    Ok(files)
}

#[test]
fn support_gets_what_it_needs_and_no_password() -> Result<()> {
    let farm = Farm::up("snapshot", Mode::Directed)?;
    let app = App::nginx("shop", ([10, 77, 0, 101]).into(), 8080)?;
    app.edit("bin/start_both", |text| {
        text.replace("set -eu", "set -eu\nDB_PASSWORD=hunter2hunter2\necho \"token: $DB_PASSWORD\"")
    })?;
    app.run(&farm)?;
    farm.kill_farmd(THREE)?;
    let silent = |status: &farm_lab::Status| status.conditions.iter().any(|c| c.code == "node_silent");
    farm.await_status(ONE, "node3 is missed", LIMIT, silent)?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("farm.tar.gz");
    let shown = path.display().to_string();
    let told: Value = serde_json::from_str(&farm.farmctl(ONE, &["--json", "snapshot", &shown])?)?;
    ensure!(told["missing"]["node3"].as_str().is_some_and(|why| !why.is_empty()), "{told}");
    ensure!(std::fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600);

    let files = unpacked(&path)?;
    let manifest: Value = serde_json::from_str(files.get("MANIFEST.json").context("a manifest")?)?;
    ensure!(manifest["schema"] == 1 && manifest["files"] == told["files"], "{manifest}");
    for node in ["node1", "node2"] {
        let of = |name: &str| {
            files.get(&format!("{node}/{name}")).with_context(|| format!("{node}/{name}: {manifest}"))
        };
        ensure!(of("events.jsonl")?.lines().any(|line| line.contains("\"kind\":\"module_opened\"")));
        ensure!(of("farmd.toml")?.contains(&format!("name = \"{node}\"")));
        ensure!(of("buckets.txt")?.contains("module shop\n") && of("raft.txt")?.contains("leader"));
        ensure!(of("counters.json")?.contains("accept_owner") && of("doctor.json")?.contains("findings"));
        ensure!(of("modules/shop/files/bin/start_both")?.contains("DB_PASSWORD=[removed]"));
        ensure!(of("modules/shop/log.txt")?.contains("token: [removed]"));
        ensure!(of("machine/uname.txt")?.starts_with("Linux") && of("machine/ruleset.txt")?.contains("farm"));
    }
    ensure!(files.get("status.json").is_some_and(|status| status.contains("\"node_silent\"")));
    let home = farm.socket(ONE)?;
    let secret = home.ancestors().nth(2).context("the lab's directory")?.join("secret");
    let secret = std::fs::read(secret)?;
    for (name, text) in &files {
        ensure!(
            !text.contains("hunter2") && !text.as_bytes().windows(secret.len()).any(|part| part == secret),
            "{name}"
        );
    }

    // What is there is not written over.
    let again =
        farmctl_problem(&farm.command(ONE, "farmctl")?.args(["--json", "snapshot", &shown]).output()?)?;
    ensure!(again.code == "exists", "{again:?}");
    ensure!(std::fs::read_dir(&directory)?.count() == 1, "nothing half is left");
    Ok(())
}
