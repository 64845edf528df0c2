//! A store belongs to one member of one cluster.

mod raft_support;

use std::sync::Arc;

use farm_core::id::{ClusterId, Generation, NodeId};
use farm_store::LogStore;
use farmd::raft::{Handle, Options, StartError, owner};
use raft_support::{CLUSTER, Group, LEVEL, Notes, PROOF};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_not_taken_up_as_somebody_else() {
    let mut group = Group::found().await;
    let me = NodeId(1);
    group.at_mut(me).stop().await;
    let store = Arc::new(group.at(me).open());
    assert_eq!(owner(&*store), Some((me, CLUSTER)));
    let start = async |me: NodeId, cluster: ClusterId| {
        let options = Options {
            me,
            cluster,
            level: LEVEL,
            proof: PROOF.into(),
            generation: Generation::default(),
            timing: None,
            store: store.clone() as Arc<dyn LogStore>,
            watch: Arc::new(Notes::default()),
            fatal: Arc::new(|reason| panic!("it ended: {reason}")),
        };
        Handle::start(options).await.map(|handle| handle.timing())
    };
    let other_node = start(NodeId(2), CLUSTER).await;
    assert!(
        matches!(other_node, Err(StartError::OtherNode { recorded, .. }) if recorded == me),
        "{other_node:?}"
    );
    let other_cluster = start(me, ClusterId([1; 16])).await;
    assert!(matches!(other_cluster, Err(StartError::OtherCluster)), "{other_cluster:?}");
    // Without times of its own it takes those of the profile in the log.
    let timing = start(me, CLUSTER).await.expect("its own");
    assert_eq!(timing, farmd::raft::Timing::of(farm_core::model::Profile::Fast));
}
