//! What keeps a farm from working well is named, with what mends it: before the daemon runs, and on all nodes at once.

use std::os::fd::OwnedFd;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use farm_dataplane::bpf;
use farm_lab::{Mode, Network, Place, Spec, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::load::Load;
use serde::Deserialize;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const FAULTS: i32 = 8;

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Report {
    schema: u32,
    findings: Vec<Finding>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Finding {
    check: String,
    level: String,
    /// Only of a farm.
    #[serde(default)]
    node: String,
    resource: String,
    fact: String,
    remedy: String,
}

impl Report {
    fn read(output: &Output) -> Result<Self> {
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Self = serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        ensure!(report.schema == 1);
        let badness = |f: &Finding| ["fault", "warning", "advice", "ok"].iter().position(|l| *l == f.level);
        ensure!(report.findings.is_sorted_by_key(badness), "the worst first: {report:#?}");
        let page = include_str!("../../docs/operate/doctor.md");
        for finding in &report.findings {
            ensure!(page.contains(&format!("| `{}` |", finding.check)), "not in doctor.md: {finding:?}");
            ensure!(badness(finding).is_some(), "{finding:?}");
            ensure!((finding.level == "ok") == finding.remedy.is_empty(), "{finding:?}");
            ensure!(!finding.resource.is_empty() && !finding.fact.is_empty(), "{finding:?}");
        }
        let faults = report.faults().next().is_some();
        ensure!(faults != output.status.success(), "{:?} of {report:#?}", output.status);
        Ok(report)
    }

    fn faults(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.level == "fault")
    }

    fn ensure_healthy(&self) -> Result<()> {
        let faults: Vec<&Finding> = self.faults().collect();
        ensure!(faults.is_empty(), "{faults:#?}");
        Ok(())
    }

    /// The finding of `check` by `node` about `resource`, which is as bad as said.
    fn find(&self, check: &str, node: &str, resource: &str, level: &str) -> Result<&Finding> {
        let is = |f: &&Finding| f.check == check && f.node == node && f.resource == resource;
        let found =
            self.findings.iter().find(is).with_context(|| format!("no {check} {resource}: {self:#?}"))?;
        ensure!(found.level == level, "{found:?}");
        Ok(found)
    }
}

fn examine(farm: &Farm, node: Place) -> Result<Report> {
    Report::read(&farm.farmctl_output(node, &["doctor", "--json"])?)
}

fn farmd_doctor(farm: &Farm, node: Place) -> Result<Report> {
    let config = farm.directory(node)?.join("farmd.toml");
    let config = config.to_str().context("UTF-8")?;
    Report::read(&farm.exec(node, "farmd", &["doctor", "--config", config, "--json"])?)
}

#[test]
fn a_healthy_farm_has_no_fault_and_is_not_disturbed() -> Result<()> {
    let farm = Farm::up("doctor-well", Mode::Directed)?;
    let epoch = farm.await_applied()?.epoch;
    let report = examine(&farm, ONE)?;
    report.ensure_healthy()?;
    for node in ["node1", "node2", "node3"] {
        let own = report.find("foreign_program", node, "eth0", "ok")?;
        ensure!(own.fact.contains("no XDP program of anybody else"), "{own:?}");
        let mode = report.find("xdp_mode", node, "eth0", "ok")?;
        ensure!(mode.fact.contains("runs in the stack (generic); driver veth"), "{mode:?}");
        report.find("arp", node, "eth0", "ok")?;
        for peer in ["node1", "node2", "node3"].into_iter().filter(|peer| *peer != node) {
            for check in ["peer_port", "lease_port", "mtu"] {
                report.find(check, node, &format!("{peer} on lan"), "ok")?;
            }
        }
    }
    ensure!(farm.status(ONE)?.epoch == epoch, "nobody has lost a bucket meanwhile");
    let only = Report::read(&farm.farmctl_output(ONE, &["doctor", "--node", "node3", "--json"])?)?;
    ensure!(only.findings.iter().all(|finding| ["", "node3"].contains(&finding.node.as_str())));
    let text = farm.farmctl(ONE, &["doctor"])?;
    let last = text.lines().last().context("a summary")?;
    ensure!(last.starts_with("0 faults, ") && last.ends_with(" are ok"), "{text}");
    Ok(())
}

/// Rules on `node` that drop what comes to a port of its own.
fn close(farm: &Farm, node: Place, port: &str) -> Result<()> {
    let rules = format!(
        "table inet closed {{ chain input {{ type filter hook input priority 0; policy accept; {port} drop\n}}\n}}\n"
    );
    shell::feed(farm.command(node, "nft")?.args(["-f", "-"]), &rules).map(drop)
}

#[test]
fn a_firewall_is_named_with_the_port_that_it_closes() -> Result<()> {
    let farm = Farm::up("doctor-wall", Mode::Directed)?;
    close(&farm, TWO, "udp dport 7601")?;
    let report = examine(&farm, ONE)?;
    let own = report.find("firewall", "node2", "7601/udp", "fault")?;
    ensure!(own.remedy.contains("udp dport 7601 accept"), "{own:?}");
    for node in ["node1", "node3"] {
        let seen = report.find("lease_port", node, "node2 on lan", "fault")?;
        ensure!(seen.fact.contains(":7601/udp does not answer"), "{seen:?}");
        report.find("peer_port", node, "node2 on lan", "ok")?;
    }
    report.find("lease_port", "node2", "node1 on lan", "ok")?;
    shell::run(farm.command(TWO, "nft")?.args(["delete", "table", "inet", "closed"]))?;
    close(&farm, TWO, "tcp dport 7601")?;
    let report = examine(&farm, ONE)?;
    let seen = report.find("peer_port", "node1", "node2 on lan", "fault")?;
    ensure!(seen.fact.contains(":7601/tcp does not answer"), "{seen:?}");
    report.find("lease_port", "node1", "node2 on lan", "ok")?;
    ensure!(farm.farmctl_output(ONE, &["doctor"])?.status.code() == Some(FAULTS));
    Ok(())
}

#[test]
fn a_cable_that_carries_less_is_named() -> Result<()> {
    let farm = Farm::up("doctor-mtu", Mode::Directed)?;
    shell::run(farm.command(TWO, "ip")?.args(["link", "set", "dev", "eth0", "mtu", "1400"]))?;
    let report = examine(&farm, ONE)?;
    let seen = report.find("mtu", "node1", "node2 on lan", "fault")?;
    // A veth takes a VLAN's tag more than its MTU says.
    let carried = ["up to 1400 come", "up to 1404 come"];
    ensure!(seen.fact.contains("1500 bytes") && carried.iter().any(|c| seen.fact.contains(c)), "{seen:?}");
    report.find("mtu", "node1", "node3 on lan", "ok")?;
    let differ = report.find("mtu_differs", "", "lan", "warning")?;
    ensure!(differ.fact.contains("node1 1500, node2 1400, node3 1500"), "{differ:?}");
    Ok(())
}

#[test]
fn every_network_is_tried_for_itself() -> Result<()> {
    let farm = Farm::of("doctor-second", 3, Spec::second_network)?;
    farm.cut_from(TWO, Network::Second)?;
    let report = examine(&farm, ONE)?;
    let second = report.faults().find(|f| f.check == "lease_port" && f.node == "node1").context("one")?;
    ensure!(second.resource.starts_with("node2 on ") && second.fact.starts_with("10.78."), "{second:?}");
    let network = &second.resource;
    report.find("peer_port", "node1", network, "fault")?;
    report.find("mtu", "node1", network, "advice")?;
    for check in ["peer_port", "lease_port", "mtu"] {
        report.find(check, "node1", "node2 on lan", "ok")?;
        report.find(check, "node1", &network.replace("node2", "node3"), "ok")?;
    }
    Ok(())
}

#[test]
fn a_node_to_which_the_switch_floods_nothing_is_named() -> Result<()> {
    let farm = Farm::up("doctor-flood", Mode::Flood)?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_everybody()?;
    let deaf = |report: &Report| report.findings.iter().filter(|f| f.check == "flooding").count();
    let report = examine(&farm, ONE)?;
    report.ensure_healthy()?;
    ensure!(deaf(&report) == 0, "{report:#?}");
    farm.block(&[(Place::Client, TWO)])?;
    let report = examine(&farm, ONE)?;
    report.find("flooding", "", "node2", "warning")?;
    ensure!(deaf(&report) == 1, "{report:#?}");
    Ok(())
}

#[test]
fn native_mode_in_a_container_is_warned_of() -> Result<()> {
    let farm = Farm::unborn_of("doctor-veth", Spec::native)?;
    farm.configure(ONE)?;
    let report = farmd_doctor(&farm, ONE)?;
    let found = report.find("veth", "", "eth0", "warning")?;
    ensure!(found.remedy.contains("xdp_mode = \"auto\""), "{found:?}");
    Ok(())
}

#[test]
fn a_node_that_does_not_run_is_named() -> Result<()> {
    let farm = Farm::up("doctor-silent", Mode::Directed)?;
    farm.kill_farmd(TWO)?;
    let report = examine(&farm, ONE)?;
    report.find("silent", "", "node2", "fault")?;
    report.find("peer_port", "node3", "node2 on lan", "fault")?;
    report.find("lease_port", "node3", "node2 on lan", "fault")?;
    report.find("mtu", "node3", "node2 on lan", "ok")?;
    farm.start_farmd(TWO)?;
    shell::await_value("the farm is well again", LIMIT, || {
        Ok(examine(&farm, ONE)?.ensure_healthy().is_ok().then_some(()))
    })
}

/// A program of somebody else on the service interface of `node`, as long as the descriptor lives, and its id.
fn foreign(farm: &Farm, node: Place) -> Result<(OwnedFd, u64)> {
    const XDP_PASS: i32 = 2;
    let shown = || -> Result<serde_json::Value> {
        let text = shell::run(farm.command(node, "ip")?.args(["-json", "link", "show", "dev", "eth0"]))?;
        Ok(serde_json::from_str(&text)?)
    };
    let ifindex = u32::try_from(shown()?[0]["ifindex"].as_u64().context("an index")?)?;
    let program = bpf::load_xdp(&[bpf::insn(0xb7, 0, 0, 0, XDP_PASS), bpf::insn(0x95, 0, 0, 0, 0)])?;
    let link = farm.namespace(node).run(|| Ok(bpf::attach_native(&program, ifindex)?))?;
    let shown = shown()?;
    let id = shown[0]["xdp"]["prog"]["id"].as_u64().with_context(|| shown.to_string())?;
    Ok((link, id))
}

#[test]
fn a_machine_is_examined_before_the_daemon_runs_there() -> Result<()> {
    let farm = Farm::bare("doctor-before", 2)?;
    farm.configure(ONE)?;
    let report = farmd_doctor(&farm, ONE)?;
    report.ensure_healthy()?;
    let mode = report.find("xdp_mode", "", "eth0", "ok")?;
    ensure!(mode.fact.contains("will run in the stack (generic)"), "{mode:?}");
    let (other, program) = foreign(&farm, ONE)?;
    let report = farmd_doctor(&farm, ONE)?;
    let found = report.find("foreign_program", "", "eth0", "fault")?;
    ensure!(found.fact.contains(&format!("id {program})")), "{found:?}");
    ensure!(found.remedy.contains("ip link set dev eth0 xdp off"), "{found:?}");
    drop(other);
    farmd_doctor(&farm, ONE)?.ensure_healthy()?;
    let shifted = farm.exec(
        ONE,
        "unshare",
        &[
            "--time",
            "--boottime",
            "1000",
            "--fork",
            "--",
            "farmd",
            "doctor",
            "--config",
            farm.directory(ONE)?.join("farmd.toml").to_str().context("UTF-8")?,
            "--json",
        ],
    )?;
    let shifted = Report::read(&shifted)?;
    let clock = shifted.find("time_namespace", "", "clock", "fault")?;
    ensure!(clock.fact.contains("1000 s"), "{clock:?}");
    Ok(())
}
