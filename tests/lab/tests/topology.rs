//! Labs without daemons: machines, cables, faults; and that nothing is left of them.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use farm_lab::process::Process;
use farm_lab::{Family, Lab, LabName, Network, Place, Spec, guardian, shell};
use nix::sys::signal::Signal;

const CLIENT: Place = Place::Client;
const NODE1: Place = Place::Node(1);
const NODE2: Place = Place::Node(2);

/// Every lab that comes up removes what a crashed one left: who looks at that must be alone.
static CRASHES: RwLock<()> = RwLock::new(());

fn shared() -> RwLockReadGuard<'static, ()> {
    CRASHES.read().unwrap_or_else(PoisonError::into_inner)
}

fn spec(prefix: &str) -> Result<Spec> {
    Ok(Spec::new(LabName::unique(prefix)?, 2).second_network())
}

fn lab(prefix: &str) -> Result<Lab> {
    let _shared = shared();
    Lab::build(spec(prefix)?)
}

fn reaches(lab: &Lab, from: Place, to: impl Into<IpAddr>) -> Result<bool> {
    let to = to.into().to_string();
    Ok(lab.exec(from, "ping", &["-n", "-c", "1", "-W", "1", &to])?.status.success())
}

/// As [`reaches`], with the time that a failed neighbour entry needs: the kernel asks again once a second.
fn reaches_again(lab: &Lab, from: Place, to: impl Into<IpAddr>) -> Result<bool> {
    let (to, limit) = (to.into(), Duration::from_secs(8));
    let answered = shell::await_value("an answer", limit, || Ok(reaches(lab, from, to)?.then_some(())));
    Ok(answered.is_ok())
}

/// Everything that a lab of this name could have left.
fn traces(name: &LabName) -> Result<Vec<String>> {
    let namespaces = std::fs::read_dir("/run/netns").context("/run/netns")?;
    let prefix = format!("farm-{name}-");
    let names = namespaces.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let mut found: Vec<String> = names.filter(|n| n.starts_with(&prefix)).collect();
    if farm_lab::exists(name)? {
        found.push(format!("directory of {name}"));
    }
    Ok(found)
}

/// Whoever runs this in the background has a shell that makes its children ignore Ctrl-C.
fn farm_lab_program() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_farm-lab")]);
    command
}

#[test]
fn everybody_reaches_everybody() -> Result<()> {
    let lab = lab("reach")?;
    for from in [NODE1, CLIENT, Place::Router, Place::Remote] {
        for to in [NODE2, CLIENT, Place::Router, Place::Remote].into_iter().filter(|to| *to != from) {
            assert!(reaches(&lab, from, to.address())?, "{from} to {to}");
            assert!(reaches(&lab, from, to.address6())?, "{from} to {to} over IPv6");
        }
    }
    assert!(reaches(&lab, NODE1, Ipv4Addr::new(10, 78, 0, 12))?, "second network");
    assert!(reaches(&lab, NODE1, Network::Second.address6(12))?, "second network over IPv6");
    for family in [Family::V4, Family::V6] {
        let last_of_the_crowd = CLIENT.crowd(family).last().context("the client stands for many")?;
        assert!(reaches(&lab, NODE1, last_of_the_crowd)?, "{last_of_the_crowd}");
    }
    Ok(())
}

#[test]
fn nobody_speaks_for_the_crowd_by_itself() -> Result<()> {
    let lab = lab("source")?;
    for from in [CLIENT, Place::Remote] {
        for (own, to) in [
            (IpAddr::from(from.address()), NODE1.address().into()),
            (from.address6().into(), IpAddr::from(NODE1.address6())),
        ] {
            let route = lab.exec(from, "ip", &["route", "get", &to.to_string()])?.stdout;
            let route = String::from_utf8(route)?;
            assert!(route.contains(&format!(" src {own} ")), "{from} to {to}: {route}");
        }
    }
    Ok(())
}

#[test]
fn a_cut_node_has_no_carrier_and_comes_back() -> Result<()> {
    let lab = lab("cut")?;
    lab.cut(NODE1)?;
    assert!(!reaches(&lab, CLIENT, NODE1.address())?);
    assert!(!reaches(&lab, NODE2, Ipv4Addr::new(10, 78, 0, 11))?, "both cables are cut");
    let link = |lab: &Lab| {
        Ok::<_, anyhow::Error>(String::from_utf8(lab.exec(NODE1, "ip", &["link", "show", "eth0"])?.stdout)?)
    };
    assert!(link(&lab)?.contains("NO-CARRIER"), "{}", link(&lab)?);
    lab.heal(NODE1)?;
    assert!(reaches_again(&lab, CLIENT, NODE1.address())?);
    Ok(())
}

#[test]
fn a_silenced_node_keeps_its_carrier() -> Result<()> {
    let lab = lab("silence")?;
    lab.silence(NODE1)?;
    assert!(!reaches(&lab, CLIENT, NODE1.address())?);
    assert!(!reaches(&lab, NODE2, Ipv4Addr::new(10, 78, 0, 11))?, "silent on both networks");
    let link = String::from_utf8(lab.exec(NODE1, "ip", &["link", "show", "eth0"])?.stdout)?;
    assert!(link.contains("LOWER_UP"), "{link}");
    lab.heal(NODE1)?;
    assert!(reaches_again(&lab, CLIENT, NODE1.address())?);
    Ok(())
}

#[test]
fn one_direction_of_one_pair_can_be_blocked() -> Result<()> {
    let lab = lab("oneway")?;
    // Both know each other's hardware address, so that only the echo has to pass.
    assert!(reaches(&lab, NODE1, NODE2.address())?);
    lab.block(&[(NODE1, NODE2)])?;
    assert!(!reaches(&lab, NODE1, NODE2.address())?);
    assert!(reaches(&lab, NODE1, CLIENT.address())?);
    lab.unblock(&[(NODE1, NODE2)])?;
    assert!(reaches(&lab, NODE1, NODE2.address())?);
    Ok(())
}

#[test]
fn labs_do_not_collide() -> Result<()> {
    let (one, other) = (lab("one")?, lab("other")?);
    one.cut(NODE1)?;
    assert!(reaches(&other, CLIENT, NODE1.address())?);
    one.down()?;
    assert!(reaches(&other, CLIENT, NODE1.address())?);
    other.down()
}

#[test]
fn web_servers_answer_with_their_name() -> Result<()> {
    let lab = lab("web")?;
    for node in lab.nodes() {
        lab.start_nginx(node)?;
        for host in [node.address().to_string(), format!("[{}]", node.address6())] {
            let answer = lab.exec(CLIENT, "curl", &["-s", &format!("http://{host}/")])?.stdout;
            assert_eq!(answer, format!("{node}\n").into_bytes(), "{host}");
        }
    }
    lab.kill_nginx(NODE1)?;
    assert!(!lab.exec(CLIENT, "curl", &["-s", "http://10.77.0.11/"])?.status.success());
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing_not_even_foreign_processes_inside() -> Result<()> {
    let lab = lab("dropped")?;
    let name = lab.spec().name.clone();
    lab.start_nginx(NODE1)?;
    let mut inside = lab.command(NODE1, "sleep")?.arg("600").spawn()?;
    assert!(!traces(&name)?.is_empty());
    drop(lab);
    assert_eq!(traces(&name)?, Vec::<String>::new());
    assert!(!inside.wait()?.success(), "it was killed");
    Ok(())
}

#[test]
fn a_second_lab_of_the_same_name_is_refused_and_the_first_stays() -> Result<()> {
    let lab = lab("twice")?;
    let _shared = shared();
    let refused = Lab::build(lab.spec().clone()).expect_err("the name is taken").to_string();
    assert!(refused.contains("farm-lab down --name"), "{refused}");
    assert!(reaches(&lab, CLIENT, NODE1.address())?);
    Ok(())
}

/// What `farm-lab status --json` says of a lab.
fn shown(name: &LabName) -> Result<Option<serde_json::Value>> {
    let shown = farm_lab_program().args(["status", "--json"]).output()?;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
    assert_eq!(shown["schema"], 1);
    let labs = shown["labs"].as_array().context("labs")?;
    Ok(labs.iter().find(|lab| lab["name"] == name.as_str()).cloned())
}

#[test]
fn a_lab_that_is_up_is_shown_with_what_runs_in_it() -> Result<()> {
    let lab = lab("shown")?;
    let nginx = lab.start_nginx(NODE2)?.pid;
    let expected = serde_json::json!({
        "name": lab.spec().name, "mode": "directed", "owner": std::process::id(),
        "nodes": [
            { "name": "node1", "address": "10.77.0.11", "farmd": null, "nginx": null },
            { "name": "node2", "address": "10.77.0.12", "farmd": null, "nginx": nginx },
        ],
    });
    assert_eq!(shown(&lab.spec().name)?, Some(expected));
    let name = lab.spec().name.clone();
    lab.down()?;
    assert_eq!(shown(&name)?, None);
    Ok(())
}

#[test]
fn a_kept_lab_stays_until_down() -> Result<()> {
    let _shared = shared();
    let name = LabName::unique("kept")?;
    let up = farm_lab_program().args(["up", "--bare", "--nodes", "1", "--name", name.as_str()]).output()?;
    assert!(up.status.success(), "{up:?}");
    let exec = farm_lab_program()
        .args(["exec", "--name", name.as_str(), "node1", "--", "sh", "-c", "exit 7"])
        .status()?;
    assert_eq!(exec.code(), Some(7), "the exit code is the command's");
    farm_lab::down(&name)?;
    farm_lab::down(&name)?;
    assert_eq!(traces(&name)?, Vec::<String>::new());
    Ok(())
}

/// A process that owns a lab and waits to be ended, and what it prints: it must be able to.
fn owner(name: &LabName) -> Result<(std::process::Child, Process, BufReader<ChildStdout>)> {
    let up = ["up", "--bare", "--foreground", "--nodes", "1", "--name", name.as_str()];
    let mut child = farm_lab_program().args(up).stdout(Stdio::piped()).spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("stdout is piped")?);
    let is_up = |line: &std::io::Result<String>| line.as_ref().is_ok_and(|l| l.contains("is up"));
    out.by_ref().lines().find(is_up).context("the owner ended early")??;
    let process = Process::of(i32::try_from(child.id())?)?;
    Ok((child, process, out))
}

#[test]
fn an_owner_that_is_interrupted_or_killed_leaves_nothing() -> Result<()> {
    let _shared = shared();
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let name = LabName::unique(&format!("owned-{}", signal as i32))?;
        let (mut child, process, _out) = owner(&name)?;
        assert!(!traces(&name)?.is_empty());
        process.signal(signal)?;
        child.wait()?;
        guardian::await_gone(&name)?;
        assert_eq!(traces(&name)?, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn what_a_crash_left_is_removed_by_the_next_lab() -> Result<()> {
    let _alone = CRASHES.write().unwrap_or_else(PoisonError::into_inner);
    let name = LabName::unique("crashed")?;
    let (mut child, process, _out) = owner(&name)?;
    // The machine was so broken that the guardian died as well.
    let guardians = guardians_of(&name)?;
    assert_eq!(guardians.len(), 1);
    guardians.into_iter().try_for_each(Process::kill)?;
    process.kill()?;
    child.wait()?;
    assert!(!traces(&name)?.is_empty(), "nobody was left to clean up");
    drop(Lab::build(spec("next")?)?);
    assert_eq!(traces(&name)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_late_guardian_leaves_another_lab_of_the_same_name_alone() -> Result<()> {
    let lab = lab("late")?;
    let name = lab.spec().name.clone();
    let guard = |owner: Process| -> Result<bool> {
        let mut command = farm_lab_program();
        command.args(["guard", "--owner", &owner.to_string(), "--name", name.as_str()]);
        Ok(command.stdin(Stdio::null()).status()?.success())
    };
    let own = Process::current()?;
    assert!(guard(Process { start: own.start - 1, ..own })?, "that owner has no lab of this name any more");
    assert!(reaches(&lab, CLIENT, NODE1.address())?);
    assert!(guard(own)?);
    assert_eq!(traces(&name)?, Vec::<String>::new());
    Ok(())
}

fn guardians_of(name: &LabName) -> Result<Vec<Process>> {
    let wanted = format!("\0--name\0{name}\0");
    let pids = std::fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let guards = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| c.contains("\0guard\0") && c.ends_with(&wanted))
    };
    pids.filter(guards).map(Process::of).collect()
}
