//! Entries of the replicated log.

use std::collections::BTreeSet;
use std::rc::Rc;

use farm_core::command::Command;
use farm_core::id::{EntryId, Epoch, NodeId};
use farm_core::time::Span;

/// Who replicates the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Members {
    /// They vote.
    pub voters: BTreeSet<NodeId>,
    /// They only follow.
    pub learners: BTreeSet<NodeId>,
}

impl Members {
    /// All but `me`.
    #[must_use]
    pub fn others(&self, me: NodeId) -> BTreeSet<NodeId> {
        self.voters.iter().chain(&self.learners).copied().filter(|n| *n != me).collect()
    }
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Nothing: a new leader commits what it found.
    Blank,
    /// A command of the cluster.
    Command(Command),
    /// Who replicates from here on, committed or not.
    Members(Members),
}

/// An entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which.
    pub id: EntryId,
    /// What.
    pub payload: Payload,
}

impl Entry {
    /// Whom an elector must not grant below which epoch once it holds this.
    #[must_use]
    pub fn fences(&self) -> Vec<(NodeId, Epoch)> {
        match &self.payload {
            Payload::Command(command) => command.fences(),
            Payload::Blank | Payload::Members(_) => Vec::new(),
        }
    }

    /// The command, if it changes what leases may be granted.
    #[must_use]
    pub fn restart(&self) -> Option<Command> {
        match &self.payload {
            Payload::Command(command) => command.changes_leases().then(|| command.clone()),
            Payload::Blank | Payload::Members(_) => None,
        }
    }

    /// The lease that it allows, if it says anything about that.
    #[must_use]
    pub fn lease(&self) -> Option<Span> {
        match &self.payload {
            Payload::Command(command) => command.lease(),
            Payload::Blank | Payload::Members(_) => None,
        }
    }
}

/// What survives the daemon.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Newest term.
    pub term: u64,
    /// Whom it voted for in it.
    pub vote: Option<NodeId>,
    /// The log; entry `i` has index `i + 1`.
    pub log: Vec<Rc<Entry>>,
    /// Some index that is known to be committed; lags behind.
    pub committed: u64,
}
