//! Leases: the daemon's real-time half.
//!
//! A dedicated SCHED_RR thread with plain UDP sockets owns the two lease machines of the core (this node's
//! holder and its elector) and the only writable view of the filter's table. Nothing it does waits for disk,
//! Raft or an allocation-heavy task, so that a busy machine does not cost its node the lease.

pub mod call;
pub mod contest;
pub mod datagram;
pub mod orders;
pub mod socket;
mod thread;

use std::io;

pub use orders::{Identity, LeaseHandle, LeaseReadings, LeaseState, Observation, Order, Routes};
use tokio::sync::mpsc;

use datagram::Sealer;
use socket::LeaseSockets;
use thread::LeaseThread;

/// Starts the thread. It grants and renews only after [`Order::Begin`].
///
/// # Errors
/// When the thread or its eventfd cannot be made.
pub fn spawn(
    identity: Identity,
    key: [u8; 32],
    sockets: LeaseSockets,
) -> io::Result<(LeaseHandle, mpsc::Receiver<Observation>)> {
    let (handle, end, observations) = orders::queues()?;
    let sealer = Sealer::new(identity.cluster, key);
    std::thread::Builder::new().name("farm-lease".into()).spawn(move || {
        crate::realtime::first();
        // A panic here must not leave a daemon that looks alive and no longer renews.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            LeaseThread::new(identity, sealer, sockets, end).run();
        }));
        if outcome.is_err() {
            std::process::abort();
        }
    })?;
    Ok((handle, observations))
}
