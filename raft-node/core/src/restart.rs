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

/// What `command`, durable in an elector's log as `entry`, says about the leases that this elector may have granted
/// in its last run. Applied again to a state that has it already, it changes nothing that a later entry of the same
/// log does not change back.
pub fn follow(restarts: &mut Restarts, command: &Command, entry: EntryId) {
    match &command.body {
        Body::RestartBegin { node, lease, everybody } => {
            restarts.insert(*node, Restart { entry, lease: *lease, everybody: *everybody, over: None });
        }
        Body::RestartForget { node, begun } if restarts.get(node).is_some_and(|r| r.entry == *begun) => {
            restarts.remove(node);
        }
        _ => {}
    }
}
