//! A store that is a copy, or has gone back in time: it is recognised before it votes, and no leader falls over it.

mod raft_support;

use std::path::Path;

use farm_core::id::NodeId;
use farm_proto::v1;
use farm_store::LogStore;
use farmd::raft::{Denied, Link};
use prost::Message;
use raft_support::{Group, PATIENCE, weight, weight_in};

/// A copy of a directory of files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { drop(std::fs::copy(entry.path(), to)) }
    }
}

/// Stops a follower, keeps its store, and lets the group go on with it; the follower is stopped again.
async fn with_an_old_copy(group: &mut Group) -> (NodeId, tempfile::TempDir) {
    let leader = group.leader().await;
    let follower = group.others(leader)[0];
    group.at_mut(follower).stop().await;
    let kept = tempfile::tempdir().expect("a scratch directory");
    copy(group.at(follower).dir(), kept.path());
    group.at_mut(follower).start().await;
    // Who has never heard of the original cannot tell a copy from it.
    for other in group.others(follower) {
        let gate = group.at(follower).handle().gate().clone();
        let mut link = Link::new(gate, Some(other), group.at(other).endpoint());
        let asked =
            link.call(PATIENCE, |mut c| async move { c.join(v1::JoinRequest::default()).await }).await;
        asked.expect("it answers");
    }
    let decided = group.do_at(leader, weight(7)).await;
    assert_eq!(weight_in(&*group.agree(decided.entry).await), 7);
    group.at_mut(follower).stop().await;
    (follower, kept)
}

fn put_back(group: &Group, node: NodeId, kept: &Path) {
    let dir = group.at(node).dir();
    std::fs::remove_dir_all(dir).expect("it goes");
    copy(kept, dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_from_a_backup_is_refused_and_says_so() {
    let mut group = Group::of(3).await;
    let (node, kept) = with_an_old_copy(&mut group).await;
    put_back(&group, node, kept.path());
    group.at_mut(node).start().await;
    let mut trouble = group.at(node).handle().gate().trouble();
    let told = tokio::time::timeout(PATIENCE, trouble.wait_for(Option::is_some)).await;
    let told = told.expect("it is told").expect("it runs").clone();
    assert_eq!(told, Some(Denied::Copied { node }));
    // The others go on.
    let leader = group.leader().await;
    assert_ne!(leader, node);
    group.do_at(leader, weight(8)).await;
    group.at_mut(node).stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_is_told_from_its_copy_after_a_restart_of_the_others() {
    let mut group = Group::of(3).await;
    let (node, kept) = with_an_old_copy(&mut group).await;
    for other in group.others(node) {
        group.at_mut(other).stop().await;
        group.at_mut(other).start().await;
    }
    put_back(&group, node, kept.path());
    group.at_mut(node).start().await;
    let mut trouble = group.at(node).handle().gate().trouble();
    tokio::time::timeout(PATIENCE, trouble.wait_for(Option::is_some)).await.expect("told").expect("it runs");
    group.leader().await;
    group.at_mut(node).stop().await;
}

/// As when a virtual machine is reverted while it runs: the run is the same, the log is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_is_sent_nothing_and_ends_no_leader() {
    let mut group = Group::of(3).await;
    let (node, kept) = with_an_old_copy(&mut group).await;
    put_back(&group, node, kept.path());
    let store = group.at(node).open();
    let (done, written) = std::sync::mpsc::channel();
    let later = v1::StoreRun { number: 1_000, ..v1::StoreRun::default() };
    store.put_meta("run", later.encode_to_vec().into(), Box::new(move |result| drop(done.send(result))));
    written.recv().expect("an answer").expect("written");
    drop(store);
    let leader = group.leader().await;
    group.at_mut(node).start().await;
    let seen = async {
        while !group.at(leader).handle().gate().reverted().contains(&node) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the leader sees it");
    // A leader that fell over it would end the test: see `fatal` of the group.
    let decided = group.do_at(leader, weight(9)).await;
    assert_eq!(weight_in(&*group.at(leader).applied(decided.entry).await), 9);
    group.at_mut(node).stop().await;
}
