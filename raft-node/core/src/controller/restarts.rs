//! Planned restarts that do not end by themselves, and what is left of those that did.

use super::view::View;
use crate::command::Body;

impl View<'_> {
    /// A node whose daemon did not come back within its lease: nobody expects it any more.
    pub(super) fn end_restart(&self) -> Option<Body> {
        let open = self.state.restarts.iter().filter(|(_, restart)| restart.over.is_none());
        let lost = open.into_iter().find(|(node, _)| self.is_silent(**node));
        lost.map(|(node, restart)| Body::RestartEnd { node: *node, begun: restart.entry })
    }

    /// A restart after which every node that may hold a lease has told that its own is an ordinary one.
    pub(super) fn forget_restart(&self) -> Option<Body> {
        let over = self.state.restarts.iter().filter_map(|(node, r)| Some((node, r.entry, r.over?)));
        let mut told = over.filter(|(_, _, over)| self.all_reported(*over));
        told.next().map(|(node, begun, _)| Body::RestartForget { node: *node, begun })
    }
}
