//! Members come, go and move while clients are served.

use anyhow::{Context, Result, ensure};
use farm_lab::topology::mac_text;
use farm_lab::witness::{BootTime, Verdict};
use farm_lab::{FIRST_VIP, Mode, Network, Place, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::load::Load;

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];

/// Exit code of farmctl where the daemon belongs to no cluster.
const NOT_A_MEMBER: i32 = 5;

/// A member that does not lead, and another one.
fn two_followers(farm: &Farm) -> Result<(Place, Place)> {
    let leader = farm.leader()?;
    let followers: Vec<Place> = ALL.into_iter().filter(|node| *node != leader).collect();
    let [first, second] = followers[..] else { anyhow::bail!("{leader} leads, but is no node") };
    Ok((first, second))
}

fn upheld(load: Load<'_>, teller: Place) -> Result<()> {
    let seen = load.stop(teller)?;
    ensure!(seen.verdict() == Verdict::Upheld, "{:?}", seen.verdict());
    Ok(())
}

#[test]
fn a_node_leaves_and_joins_again_through_a_member_that_does_not_lead() -> Result<()> {
    let farm = Farm::up("leaves", Mode::Directed)?;
    let (asked, leaver) = two_followers(&farm)?;
    let stay = farm.others(leaver);
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    let former = farm.status(asked)?.nodes.len();

    let at = BootTime::now();
    farm.farmctl(leaver, &["node", "leave"])?;
    farm.await_status(asked, "the leaver is forgotten", LIMIT, |status| {
        status.nodes.len() == former - 1 && status.settled("web", &stay)
    })?;
    load.await_answers_of(&stay)?;
    load.await_everybody()?;
    stay.iter().for_each(|node| load.expect_change(leaver, *node, at));
    // It knows it too, and may join again: under a new id, because an id is never given twice.
    let old = farm.names(asked)?;
    shell::await_value("the leaver belongs to no cluster any more", LIMIT, || {
        let asked = farm.farmctl_output(leaver, &["cluster", "status"])?;
        Ok((asked.status.code() == Some(NOT_A_MEMBER)).then_some(()))
    })?;
    farm.join(leaver, asked)?;
    farm.await_shared_by(&[asked, leaver, farm.leader()?])?;
    let new = farm.names(asked)?;
    let id = new.iter().find(|(_, place)| **place == leaver).map(|(id, _)| *id).context("it is a member")?;
    ensure!(old.keys().all(|known| *known < id), "{id} is a new id: {old:?}");
    let back = BootTime::now();
    load.await_answers_of(&ALL)?;
    load.await_everybody()?;
    stay.iter().for_each(|node| load.expect_change(*node, leaver, back));
    upheld(load, asked)
}

#[test]
fn who_sends_to_a_leader_that_is_told_to_stop_learns_of_another_node() -> Result<()> {
    let farm = Farm::up("entry", Mode::Directed)?;
    let leader = farm.leader()?;
    let stay = farm.others(leader);
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    // As if the leader had answered the question for the address.
    let mac = mac_text(leader.mac(Network::Lan).context("nodes are on the link")?);
    let entry = format!("neigh replace {FIRST_VIP} dev eth0 lladdr {mac} nud reachable\n");
    farm.namespace(Place::Client).ip(&entry)?;
    let at = BootTime::now();
    farm.terminate_farmd(leader)?;
    load.await_answers_of(&stay)?;
    load.await_everybody()?;
    stay.iter().for_each(|node| load.expect_change(leader, *node, at));
    let next = farm.leader_among(&stay)?;
    ensure!(next != leader, "somebody else leads");
    upheld(load, stay[0])
}

#[test]
fn a_profile_and_addresses_change_while_clients_are_served() -> Result<()> {
    let farm = Farm::up("settings", Mode::Directed)?;
    let (asked, moved) = two_followers(&farm)?;
    let load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    for profile in ["standard", "fast"] {
        farm.farmctl(asked, &["cluster", "profile", profile])?;
        farm.await_applied()?;
        load.await_everybody()?;
    }
    // A mistyped address costs nothing that it takes to correct it.
    let name = moved.to_string();
    let right = format!("lan={}", moved.address());
    for address in ["lan=192.0.2.9", &right] {
        farm.farmctl(asked, &["node", "set", &name, "--address", address])?;
        load.await_everybody()?;
    }
    farm.await_shared_by(&ALL)?;
    load.await_answers_of(&ALL)?;
    upheld(load, asked)
}
