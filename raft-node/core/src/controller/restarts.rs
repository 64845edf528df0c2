//! Planned restarts that do not end by themselves, and what is left of those that did.

use super::view::View;
use super::{Controller, Observed};
use crate::command::Body;
use crate::id::NodeId;
use crate::lease::timing;
use crate::restart::Restart;
use crate::state::ClusterState;
use crate::time::BootTime;

impl View<'_> {
    /// A node whose daemon did not come back within its lease: nobody expects it any more.
    pub(super) fn end_restart(&self) -> Option<Body> {
        let open = self.state.restarts.iter().filter(|(_, restart)| restart.over.is_none());
        let lost = open.into_iter().find(|(node, _)| self.is_silent(**node));
        lost.map(|(node, restart)| Body::RestartEnd { node: *node, begun: restart.entry })
    }

    /// A restart whose longer leases are surely over: every node has told that it works with the epoch by which it
    /// has an ordinary one; or a majority of the electors has, and the longest lease has run out since. No majority
    /// without one of those has granted a longer one later. That a node lags, or is not heard, says nothing.
    pub(super) fn forget_restart(&self) -> Option<Body> {
        let over = self.state.restarts.iter().filter_map(|(node, r)| Some((node, r, r.over?)));
        let mut told = over.filter(|(_, restart, over)| {
            let all = self.state.nodes.keys().all(|id| self.reported(*id, *over));
            all || self.has_run_out(restart) || (planted!(ForgottenByLaggard) && self.all_reported(*over))
        });
        told.next().map(|(node, restart, _)| Body::RestartForget { node: *node, begun: restart.entry })
    }

    fn has_run_out(&self, restart: &Restart) -> bool {
        let since = self.controller.ordinary_since.get(&restart.entry);
        since.is_some_and(|since| self.now.since(*since) > timing::wait(restart.lease))
    }
}

impl Controller {
    /// Notes since when a majority of the electors has told that it grants ordinary leases again.
    pub(super) fn follow_restarts(&mut self, now: BootTime, state: &ClusterState, observed: &Observed) {
        let over = state.restarts.values().filter_map(|r| Some((r.entry, r.over?)));
        let told = |elector: NodeId, epoch| observed.heard.get(&elector).is_some_and(|h| h.applied >= epoch);
        let ordinary = over.filter(|(_, epoch)| state.electors.majority(|elector| told(elector, *epoch)));
        let before = core::mem::take(&mut self.ordinary_since);
        let since = |entry| before.get(&entry).copied().unwrap_or(now);
        self.ordinary_since = ordinary.map(|(entry, _)| (entry, since(entry))).collect();
    }
}
