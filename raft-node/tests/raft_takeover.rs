//! Going on without the other of two voters: nothing that was acknowledged is lost, and nothing of the other's counts
//! any more.

mod raft_support;

use std::collections::BTreeSet;

use farm_core::command::Body;
use farm_core::id::{Epoch, Generation, NodeId};
use farm_core::model::Membership;
use farmd::raft::{Denied, Ineligible, TakeOver};
use raft_support::{Group, PATIENCE, weight, weight_in};

/// What `survivor` decides.
fn without(survivor: NodeId, gone: NodeId, number: u64) -> TakeOver {
    let generation = Generation { number, survivor, nonce: 7 };
    TakeOver { generation, overruled: BTreeSet::from([gone]) }
}

/// A pair that votes and grants leases.
async fn pair() -> (Group, NodeId, NodeId) {
    let group = Group::of(2).await;
    let leader = group.leader().await;
    let other = group.others(leader)[0];
    (group, leader, other)
}

/// Makes the other one of a pair an elector, in the three steps.
async fn both_grant(group: &Group, leader: NodeId) {
    let all: Vec<NodeId> = group.members.keys().copied().collect();
    let at = |base: Epoch, body: Body| farm_core::command::Command { base: Some(base), ..command(body) };
    let epoch = || group.at(leader).handle().state().borrow().state.epoch;
    let joint = at(epoch(), Body::ElectorsJoint(all.clone()));
    group.at(leader).handle().propose(joint).await.expect("in the log");
    let seal = at(epoch(), Body::ElectorsSeal { joint: epoch(), nodes: all.clone() });
    group.at(leader).handle().propose(seal).await.expect("in the log");
    let released = |node: &NodeId| farm_core::command::Evidence::Released { node: *node, epoch: epoch() };
    let last = at(epoch(), Body::ElectorsFinal(all.iter().map(released).collect()));
    let done = group.at(leader).handle().propose(last).await.expect("in the log");
    assert!(done.outcome.is_applied(), "{:?}", done.outcome.refusal());
    group.agree(done.entry).await;
}

fn command(body: Body) -> farm_core::command::Command {
    farm_core::command::Command::any(body)
}

async fn takes_over(group: &Group, survivor: NodeId, gone: NodeId) {
    let (handle, decision) = (group.at(survivor).handle(), without(survivor, gone, 2));
    handle.record(&decision).await.expect("durable");
    handle.act(decision).await.expect("it runs");
    leads_alone(group, survivor, gone).await;
}

/// It leads, says so in the log, and lets the other one vote no more.
async fn leads_alone(group: &Group, survivor: NodeId, gone: NodeId) {
    let (handle, member) = (group.at(survivor).handle(), group.at(survivor));
    member.sees("itself leading", |r| r.leader == Some(survivor)).await;
    let said = handle.propose(handle.unsaid().expect("the log does not know it")).await.expect("in the log");
    assert!(said.outcome.is_applied(), "{:?}", said.outcome.refusal());
    assert_eq!(handle.unsaid(), None);
    let state = member.applied(said.entry).await;
    assert_eq!(state.state.generation, without(survivor, gone, 2).generation);
    assert_eq!(state.state.electors.current, BTreeSet::from([survivor]));
    assert_eq!(state.state.nodes[&gone].membership, Membership::Overruled);
    handle.set_voters(BTreeSet::from([survivor])).await.expect("it alone votes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_without_its_leader_and_keeps_what_was_acknowledged() {
    let (mut group, leader, survivor) = pair().await;
    let acknowledged = group.do_at(leader, weight(7)).await;
    group.at_mut(leader).stop().await;
    takes_over(&group, survivor, leader).await;
    assert_eq!(weight_in(&*group.at(survivor).applied(acknowledged.entry).await), 7);
    let more = group.do_at(survivor, weight(8)).await;
    // It goes on as it was.
    group.at_mut(survivor).stop().await;
    group.at_mut(survivor).start().await;
    assert_eq!(weight_in(&*group.at(survivor).applied(more.entry).await), 8);
    group.leader().await;
    group.do_at(survivor, weight(9)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_goes_on_without_its_follower_at_once() {
    let (mut group, survivor, gone) = pair().await;
    group.at_mut(gone).stop().await;
    takes_over(&group, survivor, gone).await;
    group.do_at(survivor, weight(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_between_the_record_and_the_first_step_goes_on_from_the_record() {
    let (mut group, leader, survivor) = pair().await;
    group.at_mut(leader).stop().await;
    group.at(survivor).handle().record(&without(survivor, leader, 2)).await.expect("durable");
    group.at_mut(survivor).stop().await;
    group.at_mut(survivor).start().await;
    assert_eq!(group.at(survivor).handle().gate().generation().number, 2);
    leads_alone(&group, survivor, leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_is_forgotten() {
    let (mut group, leader, survivor) = pair().await;
    let handle = group.at(survivor).handle();
    let before = handle.gate().generation();
    handle.record(&without(survivor, leader, 2)).await.expect("durable");
    handle.withdraw().await.expect("durable");
    group.at_mut(survivor).stop().await;
    group.at_mut(survivor).start().await;
    assert_eq!(group.at(survivor).handle().gate().generation(), before);
    // They are two as they were.
    let again = group.leader().await;
    let written = group.do_at(again, weight(9)).await;
    assert_eq!(weight_in(&*group.agree(written.entry).await), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_overruled_is_told_and_gets_nothing_into_the_log() {
    let (mut group, leader, survivor) = pair().await;
    group.at_mut(leader).stop().await;
    takes_over(&group, survivor, leader).await;
    group.at_mut(leader).start().await;
    let mut trouble = group.at(leader).handle().gate().trouble();
    let told = tokio::time::timeout(PATIENCE, trouble.wait_for(Option::is_some)).await;
    let told = told.expect("it is told").expect("it runs").clone();
    assert_eq!(told, Some(Denied::HigherGeneration { theirs: 2, ours: 1 }));
    let kept = group.do_at(survivor, weight(9)).await;
    let role = group.at(leader).handle().role().borrow().clone();
    assert_ne!(role.leader, Some(leader), "it cannot lead");
    assert_eq!(weight_in(&*group.at(survivor).applied(kept.entry).await), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_hushed_confirms_nothing() {
    let (group, leader, other) = pair().await;
    let before = group.do_at(leader, weight(7)).await;
    group.agree(before.entry).await;
    group.at(other).handle().gate().hush(true);
    let proposed = group.at(leader).handle().propose(command(weight(8)));
    let unconfirmed = tokio::time::timeout(std::time::Duration::from_secs(1), proposed).await;
    assert!(!matches!(unconfirmed, Ok(Ok(_))), "nobody else keeps it: {unconfirmed:?}");
    group.at(other).handle().gate().hush(false);
    let again = async {
        // Who leads may change once more meanwhile.
        while group.at(group.leader().await).handle().propose(command(weight(9))).await.is_err() {}
    };
    tokio::time::timeout(PATIENCE, again).await.expect("they go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_exactly_two_may() {
    let (mut group, leader, other) = pair().await;
    let eligible = async |group: &Group| group.at(other).handle().eligible(leader).await;
    assert_eq!(eligible(&group).await, Err(Ineligible::Electors), "the founder alone grants");
    both_grant(&group, leader).await;
    assert_eq!(eligible(&group).await, Ok(()));
    let third = group.join().await;
    assert_eq!(eligible(&group).await, Ok(()), "who only follows does not count");
    let all = BTreeSet::from([leader, other, third]);
    group.at(leader).handle().set_voters(all.clone()).await.expect("three vote");
    group.at(other).sees("three voting", |r| r.voters == all).await;
    assert_eq!(eligible(&group).await, Err(Ineligible::Voters));
}
