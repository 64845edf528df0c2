//! Fences are in force before an entry counts as durable.

use farm_core::command::Command;
use farm_core::id::EntryId;
use farm_core::lease::AppliedFences;
use tokio::sync::watch;

use crate::lease::{LeaseHandle, Order};
use crate::raft::{LogWatch, Snapshot};

/// Told by Raft of every change of the durable log, before it counts.
pub(super) struct Fencing {
    pub lease: LeaseHandle,
    pub appended: watch::Sender<u64>,
}

impl LogWatch for Fencing {
    fn appended(&self, entry: EntryId, command: &Command) {
        let (fences, leases) = (command.fences(), command.changes_leases().then(|| command.clone()));
        if !fences.is_empty() || leases.is_some() {
            self.lease.fence(entry, fences, leases);
        }
        self.appended.send_replace(entry.index);
    }

    fn truncated(&self, after: Option<u64>) {
        self.lease.give(Order::Truncated(after.unwrap_or(0)));
    }

    fn installed(&self, snapshot: &Snapshot) {
        let fences: AppliedFences = snapshot.state.applied_fences(snapshot.last_applied.index);
        self.lease.install(fences);
    }
}
