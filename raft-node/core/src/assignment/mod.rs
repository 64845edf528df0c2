//! The change of one bucket, step by step (DESIGN §4, L4, L5).

mod batch;
mod group;

pub use batch::{Batch, BatchError, batch_losers};
pub use group::{Group, groups};

use crate::command::Evidence;
use crate::id::{EntryId, Epoch, NodeId};
use crate::model::{BucketState, Pending, Phase};

/// A step of a change. All buckets of one entry take the same step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// `to` learns that it will become the owner.
    Prepare {
        /// The coming owner.
        to: NodeId,
    },
    /// The owner loses the bucket to `to`.
    Move {
        /// The coming owner.
        to: NodeId,
    },
    /// The coming owner accepts new flows.
    Activate {
        /// Why nobody else does.
        evidence: &'a [Evidence],
    },
    /// The previous owner has no flows left.
    Settle,
    /// A Prepare is taken back.
    Cancel,
}

/// Why a bucket cannot take a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Misstep {
    /// The step does not follow from the phase.
    #[error("the step does not follow from phase {0:?}")]
    Phase(Phase),
    /// It would go to the node it comes from.
    #[error("the bucket already belongs to node {0}")]
    Same(NodeId),
    /// Nobody has it, so that nothing is to be prepared.
    #[error("the bucket has no owner")]
    Unowned,
    /// A node of the pending set may still accept.
    #[error("no evidence that node {node} lost the bucket by the Move at epoch {epoch}")]
    NotEvidenced {
        /// The node.
        node: NodeId,
        /// Target epoch of its Move.
        epoch: Epoch,
    },
}

/// Where and when a step applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// The epoch it makes.
    pub epoch: Epoch,
    /// Its entry.
    pub entry: EntryId,
}

impl BucketState {
    /// A bucket that nobody owns and nobody ever owned.
    pub const UNOWNED: Self =
        Self { current: None, previous: None, phase: Phase::Stable, changed: Epoch(0), pending: Vec::new() };

    /// Who loses the bucket by a Move: the one that accepts its new flows, or that might have begun to.
    #[must_use]
    pub fn loser(&self) -> Option<NodeId> {
        match self.phase {
            Phase::Prepare => self.previous,
            Phase::Stable | Phase::Move | Phase::MoveClosed | Phase::Activate => self.current,
        }
    }

    /// Everybody who may accept flows of the bucket, new or established, by this or an earlier epoch.
    pub fn parties(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.current.into_iter().chain(self.previous).chain(self.pending.iter().map(|p| p.node))
    }

    /// The state after `step`.
    ///
    /// ```text
    ///            Prepare(C)             Move(X)              Activate           Settle
    /// Stable{P} ───────────▶ Prepare{P,C} ─────▶ Move{P,X} ─────────▶ Activate{P,X} ─────▶ Stable{X}
    ///    ▲  │     Cancel        │                 ▲   │                 │       ▲
    ///    ├──│───────────────────┘                 │   │ Move(Y)         │ Move(Y)
    ///    │  └── Move(X) ──────────────────────────┘   ▼                 ▼       │
    ///    │                                          MoveClosed{P,Y} ◀───┘       │ Activate
    ///    │                                            │  ▲ │ Move(Z)            │
    ///    │                                            │  └─┘                    │
    ///    │                                            └─────────────────────────┘
    /// Stable{nobody} ── Move(C) ──▶ Stable{C}
    /// ```
    /// *Nobody* is only what a new module starts with: no table ever named an owner for the bucket, so nobody can
    /// hold it and there is nothing to wait for. (What an earlier module left behind is barred elsewhere: a removed
    /// service cannot come back before its nodes are evidenced, [`crate::state::Retired`].)
    ///
    /// *Pending set*: a Move adds whom it takes the bucket from, with its own entry, keeps the rest and drops the
    /// new owner. Activate needs evidence for all of it.
    ///
    /// *Closed*: a Move on an open change closes the bucket: nobody bounces and nobody accepts new flows until
    /// Activate, because the previous owner that is named is then not the one that may still accept.
    ///
    /// *Previous* after a closed Move stays the owner that has flows, never the one that did not come to own. Only
    /// when the bucket goes back to that very owner, the other one is named, which may have begun to take flows.
    ///
    /// # Errors
    /// [`Misstep`]; nothing is changed.
    pub fn step(&self, step: Step<'_>, at: At) -> Result<Self, Misstep> {
        match step {
            Step::Prepare { to } => self.prepare(to, at),
            Step::Move { to } => self.move_to(to, at),
            Step::Activate { evidence } => self.activate(evidence, at),
            Step::Settle => self.settle(at),
            Step::Cancel => self.cancel(at),
        }
    }

    fn prepare(&self, to: NodeId, at: At) -> Result<Self, Misstep> {
        match (self.phase, self.current) {
            (Phase::Stable, None) => Err(Misstep::Unowned),
            (Phase::Stable, Some(owner)) if owner == to => Err(Misstep::Same(to)),
            (Phase::Stable, Some(owner)) => Ok(Self::open(Phase::Prepare, Some(owner), to, Vec::new(), at)),
            (Phase::Prepare | Phase::Move | Phase::MoveClosed | Phase::Activate, _) => {
                Err(Misstep::Phase(self.phase))
            }
        }
    }

    fn move_to(&self, to: NodeId, at: At) -> Result<Self, Misstep> {
        let Some(loser) = self.loser() else {
            return Ok(Self { current: Some(to), changed: at.epoch, ..Self::UNOWNED });
        };
        if loser == to {
            return Err(Misstep::Same(to));
        }
        let pending = self.pending_after(loser, to, at);
        let (phase, previous) = match self.phase {
            Phase::Stable | Phase::Prepare => (Phase::Move, Some(loser)),
            Phase::Move | Phase::MoveClosed | Phase::Activate if self.previous == Some(to) => {
                (Phase::MoveClosed, Some(loser))
            }
            Phase::Move | Phase::MoveClosed | Phase::Activate => (Phase::MoveClosed, self.previous),
        };
        Ok(Self::open(phase, previous, to, pending, at))
    }

    fn activate(&self, evidence: &[Evidence], at: At) -> Result<Self, Misstep> {
        match self.phase {
            Phase::Move | Phase::MoveClosed => {}
            Phase::Stable | Phase::Prepare | Phase::Activate => return Err(Misstep::Phase(self.phase)),
        }
        if let Some(p) = self.pending.iter().find(|p| !p.is_evidenced(evidence)) {
            return Err(Misstep::NotEvidenced { node: p.node, epoch: p.epoch });
        }
        Ok(Self { phase: Phase::Activate, changed: at.epoch, pending: Vec::new(), ..*self })
    }

    fn settle(&self, at: At) -> Result<Self, Misstep> {
        match self.phase {
            Phase::Activate => Ok(Self { current: self.current, changed: at.epoch, ..Self::UNOWNED }),
            Phase::Stable | Phase::Prepare | Phase::Move | Phase::MoveClosed => {
                Err(Misstep::Phase(self.phase))
            }
        }
    }

    fn cancel(&self, at: At) -> Result<Self, Misstep> {
        match self.phase {
            Phase::Prepare => Ok(Self { current: self.previous, changed: at.epoch, ..Self::UNOWNED }),
            Phase::Stable | Phase::Move | Phase::MoveClosed | Phase::Activate => {
                Err(Misstep::Phase(self.phase))
            }
        }
    }

    fn open(phase: Phase, previous: Option<NodeId>, to: NodeId, pending: Vec<Pending>, at: At) -> Self {
        Self { current: Some(to), previous, phase, changed: at.epoch, pending }
    }

    fn pending_after(&self, loser: NodeId, to: NodeId, at: At) -> Vec<Pending> {
        let mut pending: Vec<Pending> = self.pending.iter().filter(|p| p.node != to).copied().collect();
        pending.push(Pending { node: loser, epoch: at.epoch, entry: at.entry });
        pending.sort_unstable();
        pending
    }
}

impl Pending {
    /// Whether `evidence` shows that the node lost what this Move took from it.
    #[must_use]
    pub fn is_evidenced(&self, evidence: &[Evidence]) -> bool {
        evidence.iter().any(|e| match *e {
            Evidence::Released { node, epoch } => node == self.node && epoch >= self.epoch,
            Evidence::Expired { node, entry } => node == self.node && entry == self.entry,
        })
    }
}
