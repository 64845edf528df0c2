//! What a member asks of a node, be it itself or another: of its parts of modules, and what happened there.

use farm_core::id::NodeId;
use farm_proto::v1;

use super::Member;
use crate::api::no_leader;
use crate::drill;
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

    /// Has the leader rehearse a failure.
    ///
    /// # Errors
    /// Its refusal; `no_leader`; that it does not answer.
    pub async fn drill(&self, request: v1::DrillRequest) -> Result<v1::DrillResponse, Problem> {
        match self.role().leader {
            Some(leader) if leader == self.me => drill::ask(&self.drills, request).await,
            Some(leader) => self.proposer.peers.drill(leader, request).await,
            None => Err(no_leader()),
        }
    }

    /// Has the daemon of `node` stand still.
    ///
    /// # Errors
    /// Its refusal, or that it does not answer.
    pub async fn pause(&self, node: NodeId, order: v1::PauseRequest) -> Result<(), Problem> {
        if node == self.me {
            return drill::stand_still(&self.journal, self.me, &self.config.name, &order);
        }
        self.proposer.peers.pause(node, order).await
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

    /// What keeps `node` from working well.
    ///
    /// # Errors
    /// That it does not answer.
    pub async fn examine(&self, node: NodeId) -> Result<v1::ExamineResponse, Problem> {
        if node == self.me {
            return Ok(self.doctor.examine().await);
        }
        self.proposer.peers.examine(node).await
    }

    /// A piece of what support needs to know of `node`, or the names of all.
    ///
    /// # Errors
    /// That it does not answer.
    pub async fn piece(&self, node: NodeId, name: &str) -> Result<v1::PieceResponse, Problem> {
        if node == self.me {
            return Ok(self.collector.answer(name).await);
        }
        self.proposer.peers.piece(node, name).await
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
