//! What others must know of the log before Raft does.

use std::time::Duration;

use farm_core::command::Command;
use farm_core::id::EntryId;

use super::machine::Snapshot;

/// Told of every change of the durable log **before** Raft counts it: the elector's fences (a Move or Seal in the own
/// durable log, committed or not) hold before the append is acknowledged to the leader.
///
/// Order of the calls: `installed` with the recovered snapshot and `appended` for every recovered entry before Raft
/// starts; then, from the store's writer thread, each change after it is durable and before it is acknowledged. After
/// a purge the fences of the applied state stand in for those of the entries that are gone.
///
/// Calls may block for as long as the hand-over to the lease thread takes, no longer: everything Raft writes waits.
pub trait LogWatch: Send + Sync + 'static {
    /// `entry` is durable in this node's log.
    fn appended(&self, entry: EntryId, command: &Command);

    /// That took so long, from the request on. For those who measure.
    fn flushed(&self, _took: Duration) {}

    /// The entries behind index `after` (`None`: all entries) are durably gone.
    fn truncated(&self, after: Option<u64>);

    /// The state was replaced by a durable snapshot, which stands for the log up to `snapshot.last_applied`.
    fn installed(&self, snapshot: &Snapshot);
}
