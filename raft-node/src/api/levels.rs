//! Feature levels: members of different builds share the lowest, until somebody finalises the next.

use farm_core::command::Body;
use farm_core::id::FeatureLevel;
use farm_proto::v1;
use futures::future::join_all;
use tonic::Status;

use super::changes::propose;
use super::refuse::invalid;
use crate::member::Member;

/// Uses the highest level that the builds of all members know. There is no way back: a build that does not know it can
/// no longer take part.
pub(super) async fn finalize(member: &Member) -> Result<v1::Done, Status> {
    let snapshot = member.snapshot();
    let ask = |node: &farm_core::model::Node| {
        let (id, name) = (node.id, node.name.clone());
        async move { (name, member.look(id).await.map(|look| look.feature_level)) }
    };
    let mut lowest = u32::MAX;
    for (name, level) in join_all(snapshot.state.nodes.values().map(ask)).await {
        let level = level.ok_or_else(|| {
            let fact = format!("{name} does not say which feature level its build knows");
            invalid("level_unknown", fact, "farmctl node list")
        })?;
        lowest = lowest.min(level);
    }
    propose(member, Body::FinalizeLevel(FeatureLevel(lowest))).await
}

#[cfg(feature = "next")]
pub(super) async fn rename(member: &Member, request: v1::ClusterRenameRequest) -> Result<v1::Done, Status> {
    let body = Body::ClusterRename(request.name);
    super::changes::propose_at(member, FeatureLevel(2), body).await
}

#[cfg(not(feature = "next"))]
#[allow(clippy::unused_async, reason = "the next build asks the cluster")]
pub(super) async fn rename(_: &Member, request: v1::ClusterRenameRequest) -> Result<v1::Done, Status> {
    let fact = format!("to call the cluster {} needs feature level 2, this build knows 1", request.name);
    Err(invalid("old_version", fact, "farmd --version"))
}
