//! Whole farms, as a person brings them up: `farm-lab up`, commands inside, several at once, `down`.
//! Needs farmd and farmctl: `make test` builds them first.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use farm_lab::{FIRST_VIP, LabName};

/// A lab that is taken down also when a check in between fails.
struct Kept(LabName);

impl Kept {
    fn up(prefix: &str, more: &[&str]) -> Result<Self> {
        let kept = Self(LabName::unique(prefix)?);
        let output = kept.farm_lab(&["up"], more)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(kept)
    }

    fn farm_lab(&self, words: &[&str], more: &[&str]) -> Result<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farm-lab"));
        command.args(words).args(["--name", self.0.as_str()]).args(more);
        command.output().context("farm-lab")
    }

    /// What a command prints on a machine of the lab.
    fn exec(&self, place: &str, command: &[&str]) -> Result<String> {
        let output = self.farm_lab(&["exec"], &[&[place, "--"], command].concat())?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Who answers `count` requests, each over a connection of its own.
    fn answers(&self, from: &str, count: usize) -> Result<BTreeSet<String>> {
        let url = format!("http://{FIRST_VIP}/[1-{count}]");
        let each = ["curl", "-s", "--no-keepalive", "-H", "Connection: close", "-m", "5", &url];
        let printed = self.exec(from, &each)?;
        let names: Vec<String> = printed.lines().map(String::from).collect();
        ensure!(names.len() == count, "{} of {count} requests were answered", names.len());
        Ok(names.into_iter().collect())
    }

    fn traces(&self) -> Result<Vec<String>> {
        let places = ["/run/netns", "/sys/fs/bpf", "/run/farm-lab"];
        let entries = places.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.contains(self.0.as_str())).collect())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Err(e) = farm_lab::down(&self.0) {
            eprintln!("{} is not wholly down: {e:#}", self.0);
        }
    }
}

fn everybody() -> BTreeSet<String> {
    ["node1", "node2", "node3"].map(String::from).into()
}

#[test]
fn two_farms_serve_side_by_side_and_leave_nothing() -> Result<()> {
    let directed = Kept::up("directed", &["--mode", "directed", "--second-network"])?;
    let flood = Kept::up("flood", &["--mode", "flood"])?;
    for (farm, from) in [(&directed, "client"), (&flood, "client"), (&directed, "remote"), (&flood, "remote")]
    {
        assert_eq!(farm.answers(from, 90)?, everybody(), "{} from {from}", farm.0);
    }
    for farm in [directed, flood] {
        let down = farm.farm_lab(&["down"], &[])?;
        ensure!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
        assert_eq!(farm.traces()?, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn farmctl_inside_a_node_speaks_to_its_daemon_and_cables_can_be_pulled() -> Result<()> {
    let farm = Kept::up("inside", &[])?;
    let status: serde_json::Value =
        serde_json::from_str(&farm.exec("node2", &["farmctl", "cluster", "status", "--json"])?)?;
    let own = status["answered_by"].as_u64().context("who answered")?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    let answered = nodes.iter().find(|n| n["node"]["id"] == own).context("the answering node is a member")?;
    assert_eq!(answered["node"]["name"], "node2");
    for verb in ["cut", "heal"] {
        let output = farm.farm_lab(&[verb], &["node3"])?;
        ensure!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        let carrier = farm.exec("node3", &["ip", "link", "show", "eth0"])?.contains("LOWER_UP");
        assert_eq!(carrier, verb == "heal");
    }
    assert!(!farm.farm_lab(&["cut"], &["node9"])?.status.success(), "there is no node9");
    Ok(())
}
