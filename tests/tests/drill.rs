//! Failures on purpose: measured by a client, over by themselves, and refused where they would do harm.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result, ensure};
use farm_lab::app::App;
use farm_lab::{Mode, Place, shell};
use farm_tests::farm::{Farm, LIMIT, farmctl_problem};
use serde_json::Value;
use tempfile::TempDir;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const THREE: Place = Place::Node(3);
const ALL: [Place; 3] = [ONE, TWO, THREE];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));

/// `farmctl` on the client's machine; it reaches the daemon of node1 as over a forwarded socket.
fn command(
    farm: &Farm,
    from: Place,
    directory: &TempDir,
    arguments: &[&str],
) -> Result<std::process::Command> {
    let mut command = farm.command(from, "farmctl")?;
    command.env("FARM_SOCKET", farm.socket(ONE)?).current_dir(directory).arg("--json").args(arguments);
    Ok(command)
}

fn drill(farm: &Farm, from: Place, directory: &TempDir, arguments: &[&str]) -> Result<Output> {
    Ok(command(farm, from, directory, &[&["drill"], arguments].concat())?.output()?)
}

/// What a rehearsal that passed says in JSON, and its report.
fn passed(output: &Output, directory: &TempDir) -> Result<(Value, String)> {
    ensure!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(told["passed"] == true && told["done"] == true, "{told}");
    let report = std::fs::read_dir(directory)?.next().context("a report")??.path();
    Ok((told, std::fs::read_to_string(report)?))
}

fn events(farm: &Farm, node: Place, kind: &str) -> Result<usize> {
    Ok(farm.events(node)?.iter().filter(|event| event.kind == kind).count())
}

#[test]
fn a_node_stands_still_and_a_client_says_what_it_felt() -> Result<()> {
    let farm = Farm::up("drill-node", Mode::Directed)?;
    let directory = tempfile::tempdir()?;
    let output = drill(&farm, Place::Client, &directory, &["node2", "--yes", "--for", "2s"])?;
    let (told, report) = passed(&output, &directory)?;
    let felt = &told["clients"][0];
    ensure!(felt["service"] == "10.77.0.100:80" && felt["failed"] == 0, "{told}");
    ensure!(felt["connections"].as_u64() > Some(50), "{told}");
    // Each port has a bucket of its own: a third of the open connections was node2's.
    ensure!(felt["kept"] == 16 && felt["ended"].as_u64().is_some_and(|n| n > 0 && n < 16), "{told}");
    ensure!(report.contains("Result: PASSED\n") && report.contains("Cause: a rehearsal: node2"), "{report}");
    ensure!(events(&farm, TWO, "drill_over")? == 1 && events(&farm, ONE, "node_silent")? > 0);
    farm.await_owned_by(&ALL)?;
    Ok(())
}

#[test]
fn whoever_leads_stands_still_and_another_one_leads() -> Result<()> {
    let farm = Farm::up("drill-leader", Mode::Directed)?;
    let led = farm.leader()?;
    let directory = tempfile::tempdir()?;
    let output = drill(&farm, Place::Client, &directory, &["leader", "--yes", "--for", "3s"])?;
    let (told, _) = passed(&output, &directory)?;
    ensure!(told["node"] == led.to_string(), "{told}");
    ensure!(farm.leader()? != led, "who comes back does not lead again");
    farm.await_owned_by(&ALL)?;
    Ok(())
}

#[test]
fn an_application_is_killed_and_started_again() -> Result<()> {
    let farm = Farm::up("drill-app", Mode::Directed)?;
    let app = App::nginx("shop", VIP, 8080)?;
    app.run(&farm)?;
    let directory = tempfile::tempdir()?;
    let output = drill(&farm, Place::Client, &directory, &["app", "shop", "--node", "node2", "--yes"])?;
    let (told, report) = passed(&output, &directory)?;
    ensure!(
        told["clients"][0]["service"] == "10.77.0.101:8080"
            && told["clients"].as_array().is_some_and(|c| c.len() == 1)
    );
    ensure!(report.contains("the application of shop on node2 was killed"), "{report}");
    ensure!(events(&farm, TWO, "process_down")? == 1);
    app.await_served_by(&farm, &ALL)
}

#[test]
fn nothing_fails_on_purpose_where_it_would_do_harm() -> Result<()> {
    let farm = Farm::up("drill-unsafe", Mode::Directed)?;
    let directory = tempfile::tempdir()?;
    // Without --yes it is only a question.
    let asked = drill(&farm, ONE, &directory, &["node2"])?;
    let told: Value = serde_json::from_slice(&asked.stdout)?;
    ensure!(asked.status.success() && told["done"] == false, "{told}");
    let unknown = farmctl_problem(&drill(&farm, ONE, &directory, &["node9", "--yes"])?)?;
    ensure!(unknown.code == "unknown_node", "{unknown:?}");
    let long = farmctl_problem(&drill(&farm, ONE, &directory, &["node2", "--yes", "--for", "1h"])?)?;
    ensure!(long.code == "bad_request", "{long:?}");

    farm.kill_farmd(THREE)?;
    let silent = |status: &farm_lab::Status| status.conditions.iter().any(|c| c.code == "node_silent");
    farm.await_status(ONE, "node3 is missed", LIMIT, silent)?;
    let refused = farmctl_problem(&drill(&farm, ONE, &directory, &["node2", "--yes"])?)?;
    ensure!(refused.code == "drill_unsafe", "{refused:?}");
    ensure!(
        refused.fact.contains("node3: node_silent") && refused.fact.contains("1 of 3 voters"),
        "{refused:?}"
    );
    ensure!(events(&farm, TWO, "drill_began")? == 0);
    ensure!(std::fs::read_dir(&directory)?.next().is_none(), "what was refused leaves no report");
    Ok(())
}

/// Ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_at_a_time_and_over_without_whoever_asked_for_it() -> Result<()> {
    let farm = Farm::up("drill-alone", Mode::Directed)?;
    let (directory, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let two: Vec<Place> = farm.others(farm.leader()?);
    let first = two[0].to_string();
    let mut asked = command(&farm, Place::Client, &directory, &["drill", &first, "--yes", "--for", "3s"])?;
    let asked = Running(asked.stdout(Stdio::null()).spawn()?);
    let second = two[1].to_string();
    let refused = shell::await_value("another one is refused", LIMIT, || {
        Ok(farmctl_problem(&drill(&farm, ONE, &other, &[&second])?).ok())
    })?;
    ensure!(["drill_open", "drill_unsafe"].contains(&refused.code.as_str()), "{refused:?}");
    // Who asked goes away; the node comes back all the same.
    drop(asked);
    shell::await_value("the node goes on by itself", LIMIT, || {
        Ok((events(&farm, two[0], "drill_over").unwrap_or(0) == 1).then_some(()))
    })?;
    farm.await_owned_by(&ALL)?;
    Ok(())
}
