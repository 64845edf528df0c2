//! What a member asks of a node, be it itself or another: of its parts of modules, and what happened there.

use farm_core::id::NodeId;
use farm_proto::v1;

use super::Member;
use crate::modules;
use crate::problem::Problem;

impl Member {
    /// Starts or stops `node`'s part of a module, or switches one of its checks.
    ///
    /// # Errors
    /// Its refusal, or that it does not answer.
    pub async fn control(&self, node: NodeId, request: v1::ControlRequest) -> Result<(), Problem> {
        if node == self.me {
            return self.modules.control(&request).await;
        }
        self.proposer.peers.control(node, request).await
    }

    /// The last events of `node`, the oldest first.
    ///
    /// # Errors
    /// That it does not answer.
    pub async fn events_of(&self, node: NodeId, last: u64) -> Result<Vec<v1::Event>, Problem> {
        if node == self.me {
            let last = usize::try_from(last).unwrap_or(usize::MAX);
            return Ok(self.journal.tail(last).0.into_iter().map(Into::into).collect());
        }
        self.proposer.peers.tail(node, last).await
    }

    /// The last lines of a module's application log on `node`, or what follows.
    ///
    /// # Errors
    /// That it cannot be read, or does not answer.
    pub async fn applog(&self, node: NodeId, request: v1::LogRequest) -> Result<v1::ModuleLogLines, Problem> {
        if node == self.me {
            return modules::log(&self.config.data_dir, request).await;
        }
        self.proposer.peers.log(node, request).await
    }
}
