//! `farmctl cluster tie-break`: what decides when two voters have lost each other.

use std::time::Duration;

use farm_core::arbiter::{Kind, Phase};
use farm_proto::v1;
use tonic::{Code, Status};

use super::{refused, status};
use crate::member::Member;
use crate::problem::Problem;
use crate::tiebreak::prepare;
use crate::wire::Wire;

/// Longer than the leader takes to see that it is time, and to try two routers with three servers.
const TRIED_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn set(
    member: &Member,
    request: v1::TieBreakRequest,
) -> Result<v1::TieBreakResponse, Status> {
    let problem = |p: Problem| status(Code::FailedPrecondition, &p);
    let to = match request.kind() {
        v1::TieBreakKind::Unspecified => None,
        v1::TieBreakKind::Plain => Some(Kind::Plain),
        v1::TieBreakKind::Exclusive => Some(Kind::Exclusive),
    };
    let to = match to {
        None => None,
        Some(kind) => Some(prepare(kind, &request.routers, &request.address).await.map_err(problem)?),
    };
    let proposed = member.set_tie_break(to).await.map_err(problem)?;
    if let Some(why) = proposed.refused {
        return Err(refused(&why));
    }
    Ok(tried(member).await)
}

/// What is set is set again, and so forgets when it was tried.
pub(super) async fn rehearse(member: &Member) -> Result<v1::TieBreakResponse, Status> {
    let problem = |p: Problem| status(Code::FailedPrecondition, &p);
    let to = member.snapshot().state.tie_break.clone();
    let proposed = member.set_tie_break(to).await.map_err(problem)?;
    proposed.refused.map_or(Ok(()), |why| Err(refused(&why)))?;
    Ok(tried(member).await)
}

/// What is set, once the leader has tried it, or does not for so long: not all servers are there.
async fn tried(member: &Member) -> v1::TieBreakResponse {
    let mut states = member.states();
    let tried = states.wait_for(|s| {
        let exclusive = s.state.tie_break.as_ref().filter(|t| t.kind == Kind::Exclusive);
        exclusive.is_none_or(|t| t.rehearsed.is_some())
    });
    // What came of it is in the answer.
    let _ = tokio::time::timeout(TRIED_WITHIN, tried).await;
    let tie_break = member.snapshot().state.tie_break.as_ref().map(Wire::to_wire);
    v1::TieBreakResponse { tie_break }
}

/// In one word, and why.
pub(super) fn standing(phase: Phase) -> String {
    match phase {
        Phase::Together => "together".into(),
        Phase::Contest { .. } | Phase::Recording { .. } => "contest".into(),
        Phase::Alone => "alone".into(),
        Phase::Spent { loss, .. } => format!("lost: {}", loss.text()),
    }
}
