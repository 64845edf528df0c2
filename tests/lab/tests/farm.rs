//! Whole farms, as a person brings them up: `farm-lab up`, commands inside, several at once, `down`.
//! Needs farmd and farmctl: `make test` builds them first.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farm_lab::process::Process;
use farm_lab::{FIRST_VIP, Lab, LabName, guardian};
use nix::sys::signal::Signal;

/// Every lab that comes up removes what a crashed one left: who looks at that must be alone.
static CRASHES: RwLock<()> = RwLock::new(());

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
    let _shared = CRASHES.read().unwrap_or_else(PoisonError::into_inner);
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
    let _shared = CRASHES.read().unwrap_or_else(PoisonError::into_inner);
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

/// A process that owns a farm, and all that runs for it.
struct Owner {
    child: Child,
    itself: Process,
    /// It must be able to print.
    _out: BufReader<ChildStdout>,
    guardian: Process,
    /// Daemons, web servers and their workers.
    inhabitants: Vec<Process>,
}

impl Owner {
    /// `farm-lab up --foreground`, served and looked at.
    fn up(farm: &Kept) -> Result<Self> {
        // Whoever runs this in the background has a shell that makes its children ignore Ctrl-C.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_farm-lab")]);
        command.args(["up", "--foreground", "--name", farm.0.as_str()]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let is_up = |line: &std::io::Result<String>| line.as_ref().is_ok_and(|l| l.contains("is up"));
        out.by_ref().lines().find(is_up).context("the owner ended early")??;
        let itself = Process::of(i32::try_from(child.id())?)?;
        assert_eq!(farm.answers("client", 90)?, everybody());
        let (guardian, inhabitants) = (guardian_of(&farm.0)?, inhabitants(&farm.0)?);
        let owner = Self { child, itself, _out: out, guardian, inhabitants };
        owner.holds_everything(farm)?;
        Ok(owner)
    }

    /// Whatever must be gone later is there now.
    fn holds_everything(&self, farm: &Kept) -> Result<()> {
        // A daemon, a web server and its worker on each of three nodes.
        ensure!(self.inhabitants.len() >= 9, "only {} processes", self.inhabitants.len());
        let rules = farm.exec("node1", &["nft", "list", "table", "inet", "farm"])?;
        ensure!(rules.contains(&FIRST_VIP.to_string()), "no guard: {rules}");
        let traces = farm.traces()?;
        for trace in ["farm-NAME-node1", "farm-NAME-switch", "NAME"] {
            let trace = trace.replace("NAME", farm.0.as_str());
            ensure!(traces.contains(&trace), "no {trace} among {traces:?}");
        }
        let pins = std::fs::read_dir(Lab::attach(&farm.0)?.spec().pin_dir("node1".parse()?))?;
        ensure!(pins.count() > 0, "nothing is pinned");
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        self.itself.signal(signal)?;
        self.child.wait().map(drop).context("the owner")
    }

    /// Waits until whoever cleans up has ended; nothing that was there is left.
    fn left_nothing(&self, farm: &Kept) -> Result<()> {
        /// After the lab is gone only the guardian's exit is left.
        const LIMIT: Duration = Duration::from_secs(20);
        guardian::await_gone(&farm.0)?;
        self.guardian.await_end(LIMIT)?;
        let alive: Vec<&Process> = self.inhabitants.iter().filter(|process| process.alive()).collect();
        ensure!(alive.is_empty(), "they still run: {alive:?}");
        assert_eq!(farm.traces()?, Vec::<String>::new());
        Ok(())
    }
}

/// Everything that runs in the namespaces of a lab.
fn inhabitants(name: &LabName) -> Result<Vec<Process>> {
    let lab = Lab::attach(name)?;
    let pids = lab.nodes().map(|node| lab.namespace(node).processes()).collect::<Result<Vec<_>>>()?;
    pids.concat().into_iter().map(Process::of).collect()
}

fn guardian_of(name: &LabName) -> Result<Process> {
    let wanted = format!("\0--name\0{name}\0");
    let pids = std::fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let guards = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| c.contains("\0guard\0") && c.ends_with(&wanted))
    };
    Process::of(pids.into_iter().find(guards).context("the lab has a guardian")?)
}

#[test]
fn a_farm_whose_owner_is_interrupted_or_killed_leaves_nothing() -> Result<()> {
    let _shared = CRASHES.read().unwrap_or_else(PoisonError::into_inner);
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let farm = Kept(LabName::unique(&format!("whole-{}", signal as i32))?);
        let mut owner = Owner::up(&farm)?;
        owner.end(signal)?;
        owner.left_nothing(&farm)?;
    }
    Ok(())
}

#[test]
fn a_farm_that_crashed_gives_way_to_a_second_one_of_its_name() -> Result<()> {
    let _alone = CRASHES.write().unwrap_or_else(PoisonError::into_inner);
    let farm = Kept(LabName::unique("again")?);
    let mut crashed = Owner::up(&farm)?;
    crashed.guardian.kill()?;
    crashed.end(Signal::SIGKILL)?;
    ensure!(crashed.inhabitants.iter().all(|process| process.alive()), "void: somebody cleaned up");
    let mut second = Owner::up(&farm)?;
    let alive: Vec<&Process> = crashed.inhabitants.iter().filter(|process| process.alive()).collect();
    ensure!(alive.is_empty(), "of the crashed farm still run: {alive:?}");
    second.end(Signal::SIGINT)?;
    second.left_nothing(&farm)
}
