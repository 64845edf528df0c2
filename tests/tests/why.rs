//! What went wrong is told from the events of all nodes, on whichever node one asks.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use farm_lab::app::App;
use farm_lab::{Mode, Place, shell};
use farm_tests::farm::{Farm, LIMIT};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));

/// The lines of `farmctl why`, once the last but one says this.
fn await_story(farm: &Farm, node: Place, about: &str, now: &str) -> Result<Vec<String>> {
    shell::await_value(&format!("the story of {about:?} says {now:?}"), LIMIT, || {
        let told = farm.farmctl(node, &["why", about])?;
        let lines: Vec<String> = told.lines().map(str::to_owned).collect();
        Ok(lines.iter().any(|line| line.starts_with(now)).then_some(lines))
    })
}

fn ensure_line(lines: &[String], begin: &str, contains: &str) -> Result<()> {
    let found = lines.iter().any(|line| line.starts_with(begin) && line.contains(contains));
    ensure!(found, "no line {begin:?} with {contains:?}: {lines:#?}");
    Ok(())
}

#[test]
fn the_death_of_an_application_is_told_on_another_node() -> Result<()> {
    let farm = Farm::up("why-app", Mode::Directed)?;
    let app = App::nginx("shop", VIP, 8080)?;
    app.run(&farm)?;
    let known = farm.events(ALL[1])?.len();
    app.die(&farm, ALL[1])?;
    farm.await_event(ALL[1], "module_opened", known)?;
    app.await_served_by(&farm, &ALL)?;
    let lines = await_story(&farm, ALL[0], "shop", "Now: all of it is green again")?;
    ensure!(lines[0].starts_with("Cause: ") && lines[0].contains("(on node2)"), "{lines:#?}");
    ensure_line(&lines, "  +", "shop serves nobody on node2")?;
    ensure_line(&lines, "  +", "new owners accept")?;
    ensure_line(&lines, "Clients: ", "waited up to 0.")?;
    ensure_line(&lines, "Next: ", "farmctl module applog shop --node node2")?;
    ensure!(lines.len() <= 12, "about ten lines: {lines:#?}");
    let all = farm.farmctl(ALL[0], &["events", "--all", "--last", "500"])?;
    ensure!(all.contains("node2 process_down"), "what only that node has seen is in the events of all");
    let one = farm.farmctl(ALL[0], &["events", "--node", "node2", "--last", "500"])?;
    let of_two = |line: &str| line.split(' ').nth(1) == Some("node2");
    ensure!(one.contains("node2 process_down") && one.lines().all(of_two), "{one}");
    Ok(())
}

#[test]
fn the_death_of_a_node_is_told_as_long_as_it_lasts_and_afterwards() -> Result<()> {
    let farm = Farm::up("why-node", Mode::Directed)?;
    let leader = farm.leader()?;
    let [dead, asked] = farm.others(leader)[..] else { anyhow::bail!("three nodes") };
    farm.power_off(dead)?;
    farm.await_owned_by(&[leader, asked])?;
    let lines = await_story(&farm, asked, "", &format!("Now: {dead} does not renew its lease"))?;
    ensure!(lines[0].starts_with(&format!("Cause: {dead} does not renew its lease")), "{lines:#?}");
    ensure_line(&lines, "  +", &format!("{dead} lost"))?;
    ensure_line(&lines, "(without what", &dead.to_string())?;
    farm.power_on(dead)?;
    farm.await_owned_by(&ALL)?;
    await_story(&farm, asked, &dead.to_string(), "Now: all of it is green again")?;
    let nothing = farm.farmctl(asked, &["why", "mail"])?;
    ensure!(nothing.starts_with("nothing of mail has gone wrong"), "{nothing}");
    Ok(())
}
