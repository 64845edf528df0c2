//! Fences are in force before an entry counts as durable.

use std::sync::Arc;
use std::time::Duration;

use farm_core::command::Command;
use farm_core::id::EntryId;
use farm_core::lease::AppliedFences;
use tokio::sync::watch;

use crate::lease::{LeaseHandle, Order};
use crate::raft::{LogWatch, Snapshot};
use crate::tally::SharedTally;

/// Bounds in seconds: what a good disk takes, up to where a leader loses its lead.
const FLUSHES: [f64; 12] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0];

/// How long the store takes.
pub type Flushes = SharedTally<{ FLUSHES.len() }>;

/// Told by Raft of every change of the durable log, before it counts.
pub(super) struct Fencing {
    pub lease: LeaseHandle,
    pub appended: watch::Sender<u64>,
    pub flushes: Arc<Flushes>,
}

impl Fencing {
    pub fn new(lease: LeaseHandle, appended: watch::Sender<u64>) -> Self {
        Self { lease, appended, flushes: Arc::new(SharedTally::new(&FLUSHES)) }
    }
}

impl LogWatch for Fencing {
    fn appended(&self, entry: EntryId, command: &Command) {
        let (fences, leases) = (command.fences(), command.changes_leases().then(|| command.clone()));
        if !fences.is_empty() || leases.is_some() {
            self.lease.fence(entry, fences, leases);
        }
        self.appended.send_replace(entry.index);
    }

    fn flushed(&self, took: Duration) {
        self.flushes.add(took);
    }

    fn truncated(&self, after: Option<u64>) {
        self.lease.give(Order::Truncated(after.unwrap_or(0)));
    }

    fn installed(&self, snapshot: &Snapshot) {
        let fences: AppliedFences = snapshot.state.applied_fences(snapshot.last_applied.index);
        self.lease.install(fences);
    }
}
