//! Who goes first when every core is busy: the lease thread, then what carries a failover (Raft, its store, driver
//! and follower), then everybody else. A node that burns its cores keeps its lease and its vote.

use std::sync::Once;

/// The lease thread: above everything else of Farm, below the kernel's own threads (migration, watchdog: 99).
pub(crate) const FIRST: u8 = 20;
/// The path of a failover. The kernel leaves 5 % of each core to others (`sched_rt_runtime_us`).
const PREFERRED: u8 = 5;

/// Puts the calling thread before everything else.
pub fn first() {
    become_realtime(FIRST);
}

/// Puts the calling thread before ordinary work.
pub fn prefer() {
    become_realtime(PREFERRED);
}

fn become_realtime(priority: u8) {
    static TOLD: Once = Once::new();
    let degraded = farm_dataplane::realtime::become_realtime(priority);
    if !degraded.is_empty() {
        // The same for every thread: said once.
        TOLD.call_once(|| degraded.iter().for_each(|d| tracing::warn!("{d}")));
    }
}
