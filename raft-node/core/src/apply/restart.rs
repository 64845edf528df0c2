//! Planned restarts of a daemon.

use super::{Done, Refusal, ensure, happened};
use crate::event::Kind;
use crate::id::{EntryId, NodeId};
use crate::restart::{RESTART_LEASE_MAX, Restart};
use crate::state::ClusterState;
use crate::time::Span;

impl ClusterState {
    pub(super) fn restart_begin(&mut self, id: NodeId, lease: Span, everybody: bool, entry: EntryId) -> Done {
        let name = self.member(id)?.name.clone();
        let cure = || format!("farmctl node restart {name}");
        ensure(lease <= RESTART_LEASE_MAX, || {
            let fact = format!("a lease of {lease} is longer than {RESTART_LEASE_MAX}, the longest");
            Refusal::new("lease_too_long", fact, cure())
        })?;
        ensure(everybody || !self.needs_everybody(id), || {
            let fact = format!("without {name} nobody could renew a lease: all must get a longer one");
            Refusal::new("lease_for_all", fact, cure())
        })?;
        // One that is over but not forgotten does not stand in the way of the next: the longer leases are the same.
        if let Some(other) = self.restarts.iter().find(|(_, r)| r.over.is_none()).map(|(id, _)| *id) {
            let fact = format!("the daemon of {} is being restarted", self.name_of(other));
            return Err(Refusal::new("restart_open", fact, "farmctl watch"));
        }
        ensure(!self.restarts.contains_key(&id), || {
            let fact = format!("the leases of the last restart of {name} may still be out");
            Refusal::new("restart_open", fact, "farmctl watch")
        })?;
        self.restarts.insert(id, Restart { entry, lease, everybody, over: None });
        happened(Kind::RestartBegun { name })
    }

    pub(super) fn restart_end(&mut self, id: NodeId, begun: EntryId) -> Done {
        let (name, over) = (self.name_of(id), self.epoch.next());
        let restart = self.restarts.get_mut(&id).filter(|r| r.entry == begun && r.over.is_none());
        let restart = restart.ok_or_else(|| no_restart(&name))?;
        restart.over = Some(over);
        happened(Kind::RestartEnded { name })
    }

    pub(super) fn restart_forget(&mut self, id: NodeId, begun: EntryId) -> Done {
        let name = self.name_of(id);
        let is_over = self.restarts.get(&id).is_some_and(|r| r.entry == begun && r.over.is_some());
        ensure(is_over, || no_restart(&name))?;
        self.restarts.remove(&id);
        Ok((Vec::new(), None))
    }

    /// Whether the electors other than `id` are too few to grant anybody a lease.
    #[must_use]
    pub fn needs_everybody(&self, id: NodeId) -> bool {
        !self.electors.majority(|elector| elector != id)
    }
}

fn no_restart(name: &str) -> Refusal {
    Refusal::new("no_restart", format!("no such restart of {name} is open"), "farmctl cluster status")
}
