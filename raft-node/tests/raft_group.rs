//! A group over loopback: elections, failovers, restarts, snapshots, membership, and who is let in.

mod raft_support;

use std::collections::BTreeSet;
use std::sync::Arc;

use farm_core::command::Command;
use farm_core::id::{ClusterId, Generation, Leadership, NodeId};
use farm_proto::v1;
use farmd::raft::{CallError, Denied, Endpoint, Gate, Handle, Link, MembersError, ProposeError, Runs};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use raft_support::{CLUSTER, Group, LEVEL, Notes, PATIENCE, PROOF, Told, weight, weight_in};

#[tokio::test(flavor = "multi_thread")]
async fn three_members_elect_apply_and_agree() {
    let group = Group::of(3).await;
    let leader = group.leader().await;
    let mut events = group.at(group.others(leader)[0]).handle().events();
    let applied = group.do_at(leader, weight(7)).await;
    let snapshot = group.agree(applied.entry).await;
    assert_eq!(weight_in(&snapshot), 7);
    assert_eq!(snapshot.state.nodes.len(), 3);
    assert_eq!(applied.entry.by.leader, leader);
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time").expect("an event");
    assert_eq!(event.entry, applied.entry);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_takes_commands_and_only_in_the_leadership_asked_for() {
    let group = Group::of(3).await;
    let leader = group.leader().await;
    let follower = group.others(leader)[0];
    let command = || Command { level: LEVEL, base: None, body: weight(1) };
    match group.at(follower).handle().propose(command()).await {
        Err(ProposeError::NotLeader { leader: Some(told) }) => assert_eq!(told, leader),
        other => panic!("a follower said {other:?}"),
    }
    let handle = group.at(leader).handle();
    let now = handle.role().borrow().leadership.expect("it leads");
    assert_eq!(now.leader, leader);
    let past = Leadership { term: now.term - 1, ..now };
    let refused = handle.propose_as(past, command()).await;
    assert!(
        matches!(refused, Err(ProposeError::NotLeader { .. })),
        "an old leadership was let through: {refused:?}"
    );
    handle.propose_as(now, command()).await.expect("the present one is let through");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_dies_another_leads_and_nothing_is_lost() {
    let mut group = Group::of(3).await;
    let first = group.leader().await;
    let before = group.do_at(first, weight(1)).await;
    group.at_mut(first).stop().await;

    let second = group.leader().await;
    let survivor = group
        .at(second)
        .sees("its own leadership", |r| r.leadership.is_some_and(|l| l.leader == second))
        .await;
    assert!(survivor.term > before.entry.by.term, "a new leadership needs a new term");
    let after = group.do_at(second, weight(2)).await;
    assert_eq!(weight_in(&*group.agree(after.entry).await), 2);

    group.at_mut(first).start().await;
    let snapshot = group.agree(after.entry).await;
    assert_eq!(weight_in(&snapshot), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_makes_another_voter_lead() {
    let group = Group::of(3).await;
    let first = group.leader().await;
    let heir = group.others(first)[1];
    group.at(first).handle().transfer(heir).await.expect("handed over");
    group.at(heir).sees("itself leading", |r| r.leadership.is_some_and(|l| l.leader == heir)).await;
    let applied = group.do_at(heir, weight(9)).await;
    assert_eq!(weight_in(&*group.agree(applied.entry).await), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_from_disk() {
    let mut group = Group::of(3).await;
    let leader = group.leader().await;
    group.do_at(leader, weight(1)).await;
    group.at(leader).handle().trigger_snapshot().await.expect("a snapshot");
    let last = group.do_at(leader, weight(2)).await;
    let before = group.agree(last.entry).await;
    let generation = group.at(leader).handle().gate().generation();
    for member in group.members.values_mut() {
        member.stop().await;
    }
    for member in group.members.values_mut() {
        member.start().await;
    }
    // Known before anybody leads: the state, from snapshot and committed log, and the generation.
    for member in group.members.values() {
        assert_eq!(member.handle().state().borrow().state, before.state);
        assert_eq!(member.handle().gate().generation(), generation);
    }
    let leader = group.leader().await;
    let next = group.do_at(leader, weight(3)).await;
    assert_eq!(weight_in(&*group.agree(next.entry).await), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_tells_the_watch_what_is_in_the_log_before_anything_else() {
    let mut group = Group::found().await;
    let me = NodeId(1);
    let applied = group.do_at(me, weight(5)).await;
    group.at_mut(me).stop().await;
    group.at_mut(me).start().await;
    // Not awaited: it was told before the start returned.
    assert!(group.at(me).notes.now().contains(&Told::Appended(applied.entry)));
}

/// More commands than are kept behind a snapshot: who comes now must be given the snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_learner_gets_a_snapshot() {
    let mut group = Group::found().await;
    let leader = NodeId(1);
    let many = futures::stream::iter(0..2_200u16).map(|i| group.do_at(leader, weight(i)));
    let entries: Vec<_> = many.buffer_unordered(64).map(|applied| applied.entry).collect().await;
    assert_eq!(entries.len(), 2_200);

    let late = group.join().await;
    let last = group.do_at(leader, weight(1)).await;
    assert_eq!(weight_in(&*group.agree(last.entry).await), 1);
    let told = group.at(late).notes.now();
    let Some(Told::Installed(at)) = told.first() else {
        panic!("the log came instead of a snapshot: {:?}", told.first())
    };
    let appended = |t: &Told| if let Told::Appended(e) = t { Some(e.index) } else { None };
    assert!(
        told.iter().filter_map(appended).all(|index| index > *at),
        "entries that the snapshot holds were sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_come_and_go_one_at_a_time() {
    let mut group = Group::of(3).await;
    let leader = group.leader().await;
    let [gone, stays] = group.others(leader)[..] else { panic!("three members") };
    let handle = group.at(leader).handle().clone();

    handle.remove(gone).await.expect("removed");
    let two = BTreeSet::from([leader, stays]);
    group.at(stays).sees("two voters and no learner", |r| r.voters == two && r.learners.is_empty()).await;
    group.at_mut(gone).stop().await;
    group.do_at(leader, weight(4)).await;

    let newcomer = group.join().await;
    assert!(newcomer > gone, "an id was given twice");
    group.at(stays).sees("a learner", |r| r.learners == BTreeSet::from([newcomer])).await;
    let three = BTreeSet::from([leader, stays, newcomer]);
    handle.set_voters(three.clone()).await.expect("promoted");
    group.at(newcomer).sees("three voters", |r| r.voters == three).await;
    // With the newcomer's vote, and without that of a dead one, commands go on.
    group.at_mut(stays).stop().await;
    let leader = group.leader().await;
    let applied = group.do_at(leader, weight(6)).await;
    group.at(newcomer).applied(applied.entry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_changes_of_the_group_are_refused() {
    let mut group = Group::of(3).await;
    let leader = group.leader().await;
    let follower = group.others(leader)[0];
    let handle = group.at(leader).handle().clone();
    let elsewhere: Endpoint = "127.0.0.1:1".parse().expect("an endpoint");

    let taken = handle.add_learner(follower, elsewhere.clone()).await;
    assert!(matches!(taken, Err(MembersError::IdTaken { .. })), "{taken:?}");
    let unknown = handle.set_voters(BTreeSet::from([leader, NodeId(9_999)])).await;
    assert!(matches!(unknown, Err(MembersError::Unknown { .. })), "{unknown:?}");
    let nobody = handle.set_voters(BTreeSet::new()).await;
    assert!(matches!(nobody, Err(MembersError::NoVoters)), "{nobody:?}");
    let not_here = group.at(follower).handle().remove(leader).await;
    assert!(matches!(not_here, Err(MembersError::NotLeader { .. })), "{not_here:?}");

    // A learner that nobody can reach never catches up, and may not vote.
    let silent = NodeId(5_000);
    handle.add_learner(silent, elsewhere).await.expect("a learner");
    let voters: BTreeSet<NodeId> = handle.role().borrow().voters.clone();
    let early = handle.set_voters(voters.into_iter().chain([silent]).collect()).await;
    assert!(matches!(early, Err(MembersError::NotCaughtUp { .. })), "{early:?}");
    group.at_mut(follower).stop().await;
}

/// Proposes without waiting for results, until the leader refuses because nobody answers it any more. What it appended
/// last, an election timeout after the others fell silent, is nowhere else.
async fn propose_until_refused(handle: Handle, notes: Arc<Notes>) {
    let mut results = FuturesUnordered::new();
    let mut told = notes.follow();
    loop {
        let before = told.borrow_and_update().len();
        results.push(handle.propose(Command { level: LEVEL, base: None, body: weight(66) }));
        tokio::select! {
            Some(result) = results.next() => if result.is_err() { return },
            more = told.wait_for(|told| told.len() > before) => drop(more.expect("the notes are there")),
        }
    }
}

/// An entry that only a dead leader has is told to its watch, and taken back when the others have decided otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_reaches_the_watch() {
    let mut group = Group::of(3).await;
    let old = group.leader().await;
    let last = group.do_at(old, weight(1)).await;
    group.agree(last.entry).await;
    let (handle, notes) = (group.at(old).handle().clone(), group.at(old).notes.clone());
    let lonely = tokio::spawn(propose_until_refused(handle, notes));
    for id in group.others(old) {
        group.at_mut(id).stop().await;
    }
    lonely.await.expect("no panic");
    let Some(Told::Appended(orphan)) = group.at(old).notes.now().pop() else {
        panic!("nothing was appended")
    };
    group.at_mut(old).stop().await;

    for id in group.others(old) {
        group.at_mut(id).start().await;
    }
    let new = group.leader().await;
    let decided = group.do_at(new, weight(2)).await;

    group.at_mut(old).start().await;
    assert!(group.at(old).notes.now().contains(&Told::Appended(orphan)), "the recovered entry was not told");
    let told = group.at(old).notes.until(|told| told.iter().any(|t| matches!(t, Told::Truncated(_)))).await;
    let cut = told.iter().find_map(|t| if let Told::Truncated(after) = t { Some(*after) } else { None });
    assert!(
        cut.flatten().is_some_and(|after| after < orphan.index && after >= last.entry.index),
        "cut at {cut:?}"
    );
    assert_eq!(weight_in(&*group.agree(decided.entry).await), 2);
}

async fn call(gate: Gate, endpoint: Endpoint) -> Result<v1::JoinResponse, CallError> {
    Link::new(gate, None, endpoint)
        .call(PATIENCE, |mut c| async move { c.join(v1::JoinRequest::default()).await })
        .await
}

fn gate(cluster: ClusterId, proof: &str, generation: Generation) -> Gate {
    Gate::new(NodeId(9), cluster, LEVEL, proof.into(), generation, Runs::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_with_a_reason() {
    let group = Group::found().await;
    let founder = group.at(NodeId(1));
    let ours = founder.handle().gate().generation();
    let refused = async |gate: Gate| match call(gate, founder.endpoint()).await {
        Err(CallError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(refused(gate(CLUSTER, "another proof", ours)).await, "wrong_proof");
    assert_eq!(refused(gate(ClusterId([1; 16]), PROOF, ours)).await, "wrong_cluster");
    let lower = Generation { number: ours.number - 1, ..ours };
    let behind = gate(CLUSTER, PROOF, lower);
    assert_eq!(refused(behind.clone()).await, "generation_lower");
    assert_eq!(behind.trouble().borrow().as_ref().map(Denied::code), Some("generation_higher"));
    assert!(founder.handle().gate().trouble().borrow().is_none());
    let other = Generation { nonce: ours.nonce + 1, ..ours };
    assert_eq!(refused(gate(CLUSTER, PROOF, other)).await, "generation_conflict");
    let higher = Generation { number: ours.number + 1, ..ours };
    assert_eq!(refused(gate(CLUSTER, PROOF, higher)).await, "generation_higher");
    let trouble = founder.handle().gate().trouble().borrow().clone();
    assert_eq!(trouble.expect("it now knows").code(), "generation_higher");

    call(gate(CLUSTER, PROOF, ours), founder.endpoint()).await.expect("a member is let in");
}

/// A node that leaves and joins again is another one at the same address: what was meant for the former one would tell
/// the leader that its log has gone back in time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_for_another_node_is_refused() {
    let group = Group::found().await;
    let founder = group.at(NodeId(1));
    let gate = || gate(CLUSTER, PROOF, founder.handle().gate().generation());
    let ask = async |to| {
        let mut link = Link::new(gate(), Some(to), founder.endpoint());
        link.call(PATIENCE, |mut c| async move { c.join(v1::JoinRequest::default()).await }).await
    };
    match ask(NodeId(7)).await {
        Err(CallError::Refused { code, .. }) => assert_eq!(code, "wrong_node"),
        other => panic!("it answered in the place of another one: {other:?}"),
    }
    ask(NodeId(1)).await.expect("it is meant");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_may_join_and_nothing_else() {
    let group = Group::found().await;
    let endpoint = group.at(NodeId(1)).endpoint();
    let outsider = Gate::outsider(LEVEL, PROOF.into());
    let welcome = call(outsider.clone(), endpoint.clone()).await.expect("it may ask");
    assert_eq!(welcome.cluster_name, "welcome");
    let vote = v1::VoteRequest::default();
    let voted =
        Link::new(outsider, None, endpoint).call(PATIENCE, |mut c| async move { c.vote(vote).await }).await;
    match voted {
        Err(CallError::Status { status, .. }) => assert_eq!(status.code(), tonic::Code::PermissionDenied),
        other => panic!("an outsider voted: {other:?}"),
    }
}

/// The second address is used when nothing listens on the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_is_passed_over() {
    let group = Group::found().await;
    let founder = group.at(NodeId(1));
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let endpoint: Endpoint = [free, founder.address].into_iter().collect();
    let mut link = Link::new(founder.handle().gate().clone(), None, endpoint);
    let mut ask =
        async || link.call(PATIENCE, |mut c| async move { c.join(v1::JoinRequest::default()).await }).await;
    match ask().await {
        Err(CallError::Unreachable { address, .. }) => assert_eq!(address, free),
        other => panic!("somebody answered on a free port: {other:?}"),
    }
    ask().await.expect("the other address answers");
}
