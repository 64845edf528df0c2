//! `module applog`: what scripts and applications write, on any node.

use std::sync::Arc;
use std::time::Duration;

use farm_core::id::NodeId;
use farm_core::model::ModuleName;
use farm_proto::v1;
use futures::stream::{once, unfold};
use futures::{StreamExt, future};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::Streamed;
use super::changes::named_or_own;
use super::modules::module;
use super::refuse::status;
use crate::member::Member;

/// Lines to begin with where no number was named.
const LINES: u64 = 100;
/// Pace at which a node is asked for what is new: what a person can follow.
const AGAIN: Duration = Duration::from_millis(500);

/// The stream a client asked for.
pub(super) async fn stream(
    member: Arc<Member>,
    request: v1::ModuleApplogRequest,
) -> Result<Streamed<v1::ModuleLogLines>, Status> {
    let name = ModuleName(request.module.clone());
    module(&member.snapshot().state, &name)?;
    let node = named_or_own(&member, &request.node)?;
    let last = if request.last == 0 { LINES } else { request.last };
    let asked = v1::LogRequest { module: request.module, last, ..v1::LogRequest::default() };
    let first = member.applog(node, asked.clone()).await.map_err(|p| status(Code::Unavailable, &p))?;
    let follower = Follower { at: (first.file, first.offset), member, node, asked, answers: true };
    let begin = once(future::ready(Ok(first)));
    if !request.follow {
        return Ok(Box::pin(begin));
    }
    let live = unfold(follower, |mut follower| async move {
        let lines = follower.next().await;
        Some((Ok(lines), follower))
    });
    Ok(Box::pin(begin.chain(live)))
}

/// Reads on where it was.
struct Follower {
    member: Arc<Member>,
    node: NodeId,
    asked: v1::LogRequest,
    /// File and offset.
    at: (u64, u64),
    answers: bool,
}

impl Follower {
    /// Waits for more, over a restart of the node too, and says that it does.
    async fn next(&mut self) -> v1::ModuleLogLines {
        loop {
            sleep(AGAIN).await;
            // Nothing was there yet: from the beginning.
            let (file, offset) = self.at;
            let request = v1::LogRequest { last: 0, file, offset, ..self.asked.clone() };
            let answer = self.member.applog(self.node, request).await;
            let answered = std::mem::replace(&mut self.answers, answer.is_ok());
            let told = match answer {
                Ok(mut more) => {
                    self.at = (more.file, more.offset);
                    if !answered {
                        more.lines.insert(0, "… it answers again".into());
                    }
                    more
                }
                Err(_) if !answered => continue,
                Err(problem) => {
                    let line = format!("… {}; asking again", problem.fact);
                    v1::ModuleLogLines { lines: vec![line], ..v1::ModuleLogLines::default() }
                }
            };
            if !told.lines.is_empty() {
                return told;
            }
        }
    }
}
