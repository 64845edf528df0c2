//! Members come, go and move while clients are served.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use farm_lab::witness::BootTime;
use farm_lab::{Mode, Place, Status, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::load::Load;

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];

/// A member that does not lead, and another one.
fn two_followers(farm: &Farm) -> Result<(Place, Place)> {
    let leader = farm.leader()?;
    let followers: Vec<Place> = ALL.into_iter().filter(|node| *node != leader).collect();
    let [first, second] = followers[..] else { anyhow::bail!("{leader} leads, but is no node") };
    Ok((first, second))
}

/// Waits until all three grant leases, which a young farm comes to a little after all three serve.
fn await_electors(farm: &Farm) -> Result<()> {
    shell::await_value("all three are electors", LIMIT, || {
        let all = |text: &str| ALL.iter().all(|node| text.contains(&node.to_string()));
        let events = farm.events(ALL[0])?;
        Ok(events.iter().any(|e| e.kind == "electors_changed" && all(&e.text)).then_some(()))
    })
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
    farm.await_alone(leaver)?;
    farm.join(leaver, asked)?;
    farm.await_shared_by(&ALL)?;
    let new = farm.names(asked)?;
    let id = new.iter().find(|(_, place)| **place == leaver).map(|(id, _)| *id).context("it is a member")?;
    ensure!(old.keys().all(|known| *known < id), "{id} is a new id: {old:?}");
    let back = BootTime::now();
    load.await_answers_of(&ALL)?;
    load.await_everybody()?;
    stay.iter().for_each(|node| load.expect_change(*node, leaver, back));
    load.upheld(asked).map(drop)
}

#[test]
fn who_sends_to_a_leader_that_is_told_to_stop_learns_of_another_node() -> Result<()> {
    let farm = Farm::up("entry", Mode::Directed)?;
    let leader = farm.leader()?;
    let stay = farm.others(leader);
    let mut load = Load::start(&farm, Place::Client)?;
    load.await_answers_of(&ALL)?;
    farm.point_at(Place::Client, leader)?;
    let at = BootTime::now();
    farm.terminate_farmd(leader)?;
    load.await_answers_of(&stay)?;
    load.await_everybody()?;
    load.expect_filter_gone(leader, at);
    stay.iter().for_each(|node| load.expect_change(leader, *node, at));
    let next = farm.leader_among(&stay)?;
    ensure!(next != leader, "somebody else leads");
    load.upheld(stay[0]).map(drop)
}

#[test]
fn a_node_that_stops_in_good_order_costs_nobody_a_syn() -> Result<()> {
    for mode in [Mode::Directed, Mode::Flood] {
        let farm = Farm::up("lossless", mode)?;
        await_electors(&farm)?;
        let (leaver, teller) = two_followers(&farm)?;
        let mut load = Load::start(&farm, Place::Client)?;
        if mode == Mode::Directed {
            // The dearest case: everything enters at the node that goes.
            farm.point_at(Place::Client, leaver)?;
        }
        load.await_everybody()?;
        let at = BootTime::now();
        farm.terminate_farmd(leaver)?;
        load.await_everybody()?;
        load.expect_filter_gone(leaver, at);
        let seen = load.upheld(teller)?;
        let lost: Vec<_> = seen.unanswered().into_iter().filter(|syn| syn.at >= at).collect();
        ensure!(
            lost.is_empty(),
            "{} SYNs of {} got no answer in {mode:?}, from {:?} to {:?} after the signal: {:?}",
            lost.len(),
            seen.sent.len(),
            lost.first().map(|syn| syn.at.since(at)),
            lost.last().map(|syn| syn.at.since(at)),
            lost.iter().map(|syn| syn.source.to_string()).collect::<Vec<_>>()
        );
    }
    Ok(())
}

#[test]
fn five_vote_and_the_sixth_takes_the_place_of_one_that_is_gone() -> Result<()> {
    let farm = Farm::of("six", 6, |spec| spec)?;
    let all: Vec<Place> = farm.nodes().collect();
    let voters = |status: &Status| -> BTreeSet<Place> {
        status.nodes.iter().filter(|n| n.voter).filter_map(|n| status.place(n.node.id)).collect()
    };
    let status = farm.await_status(all[0], "five vote", LIMIT, |status| voters(status).len() == 5)?;
    let vote = voters(&status);
    let learner = *all.iter().find(|node| !vote.contains(node)).context("six are more than five")?;
    let leader = farm.leader()?;
    let victim = *vote.iter().find(|node| **node != leader && **node != all[0]).context("others vote")?;
    farm.cut(victim)?;
    let wanted: BTreeSet<Place> = all.iter().copied().filter(|node| *node != victim).collect();
    let living: Vec<Place> = wanted.iter().copied().collect();
    farm.await_status(all[0], "the sixth votes in its place", LIMIT, |status| {
        voters(status) == wanted && status.settled("web", &living)
    })?;
    ensure!(wanted.contains(&learner), "{learner} followed before it voted");
    Ok(())
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
    load.upheld(asked).map(drop)
}
