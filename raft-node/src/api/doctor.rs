//! `doctor`: what keeps the nodes from working well, gathered from all of them.

use farm_core::id::NodeId;
use farm_doctor::{Answered, Node, across};
use farm_proto::v1;
use futures::future::join_all;
use tonic::Status;

use super::changes::named_or_all;
use crate::doctor::wire;
use crate::journal::now_ms;
use crate::member::Member;

/// Examines one node or all, at the same time; who does not answer is a finding.
pub(super) async fn doctor(
    member: &Member,
    request: v1::DoctorRequest,
) -> Result<v1::DoctorResponse, Status> {
    let snapshot = member.snapshot();
    let nodes = named_or_all(member, &request.node)?;
    let ask = |id: NodeId| {
        let name = snapshot.state.name_of(id);
        async move {
            let answer = member.examine(id).await.map_err(|problem| problem.fact);
            // At once: by how much its clock is ahead.
            (name, answer, now_ms())
        }
    };
    let (mut findings, mut compared) = (Vec::new(), Vec::new());
    for (name, answer, at_ms) in join_all(nodes.into_iter().map(ask)).await {
        let answered = answer.map(|answer| {
            findings.extend(answer.findings.iter().cloned());
            answered(answer, at_ms)
        });
        compared.push(Node { name, answered });
    }
    findings.extend(across(&compared).into_iter().map(|finding| wire(finding, "")));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    Ok(v1::DoctorResponse { findings })
}

fn answered(answer: v1::ExamineResponse, at_ms: u64) -> Answered {
    let mtus = answer.mtus.into_iter();
    Answered {
        version: answer.version,
        ahead_ms: answer.now_ms.cast_signed().saturating_sub(at_ms.cast_signed()),
        mtus: mtus.map(|(network, mtu)| (network, u16::try_from(mtu).unwrap_or(u16::MAX))).collect(),
        flooded: answer.flooded,
    }
}
