//! Planned restarts of a daemon: its filter goes on under a longer, bounded lease (DESIGN §4, L8).
//!
//! ```text
//!  RestartBegin ──▶ open ── RestartEnd ──▶ over ── RestartForget ──▶ (gone)
//! ```
//! While it is *open* electors grant the longer lease to the node, and to everybody where the others alone are no
//! majority of the electors. Once it is *over* they grant the ordinary one; whoever has applied that has cut its
//! deadline. The longer lease counts as possibly out until every node that may hold one reported that epoch.

use std::collections::BTreeMap;

use crate::command::{Body, Command};
use crate::id::{EntryId, Epoch, NodeId};
use crate::time::Span;

/// How long a filter may go on without its daemon: several times what a restart takes, and what clients of a node
/// that dies in the middle of its restart have to wait in the worst case.
pub const RESTART_LEASE: Span = Span::seconds(10);
/// The longest that may be asked for.
pub const RESTART_LEASE_MAX: Span = Span::seconds(30);

/// One planned restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Restart {
    /// The entry that began it; what ends it names it, so that what comes late ends no later one.
    pub entry: EntryId,
    /// Length of the leases.
    pub lease: Span,
    /// Whether all nodes get them.
    pub everybody: bool,
    /// When it is over: the epoch by which every holder has an ordinary lease again.
    pub over: Option<Epoch>,
}

/// The planned restarts, by the node that restarts.
pub type Restarts = BTreeMap<NodeId, Restart>;

/// Longest lease that electors grant `node` beside the profile's.
#[must_use]
pub fn allowed(restarts: &Restarts, node: NodeId) -> Option<Span> {
    let open = restarts.iter().filter(|(_, r)| r.over.is_none());
    open.filter(|(id, r)| r.everybody || **id == node).map(|(_, r)| r.lease).max()
}

/// Longest lease beside the profile's that may still be out for `node`.
#[must_use]
pub fn outstanding(restarts: &Restarts, node: NodeId) -> Option<Span> {
    restarts.iter().filter(|(id, r)| r.everybody || **id == node).map(|(_, r)| r.lease).max()
}

/// What a run of an elector begins with: the leases that the run before may have granted, and since which entry of
/// the own log that is settled. From the own state, and then the durable log behind it, entry by entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Inherited {
    /// Planned restarts that may have allowed longer leases.
    pub restarts: Restarts,
    /// Last entry that says anything about planned restarts. An elector whose state has not come to it does not know
    /// any more what it may grant, though it knew before: it may have told that a restart is over.
    pub settled: u64,
}

impl Inherited {
    /// What the own state says.
    #[must_use]
    pub fn new(restarts: Restarts) -> Self {
        Self { restarts, settled: 0 }
    }

    /// What `command`, durable in the own log as `entry`, adds. Told again of what the state has already, it adds
    /// nothing that a later entry of the same log does not take back.
    ///
    /// Whether a Begin was refused, because another one was open, only `apply` knows: what either of the two allows
    /// may be out, and the later one is the one after which the state tells.
    pub fn follow(&mut self, command: &Command, entry: EntryId) {
        match &command.body {
            Body::RestartBegin { node, lease, everybody } => {
                let (mut lease, mut everybody) = (*lease, *everybody);
                if let Some(before) = self.restarts.get(node).filter(|_| !planted!(RefusedRestart)) {
                    lease = lease.max(before.lease);
                    everybody |= before.everybody;
                }
                self.restarts.insert(*node, Restart { entry, lease, everybody, over: None });
            }
            Body::RestartForget { node, begun } => {
                if self.restarts.get(node).is_some_and(|r| r.entry == *begun) {
                    self.restarts.remove(node);
                }
            }
            Body::RestartEnd { .. } => {}
            _ => return,
        }
        self.settled = self.settled.max(entry.index);
    }
}
