//! Where tables are published to: the pinned maps ([`crate::table::TableWriter`]) or memory ([`crate::fake`]).

use farm_common::layout::Slot;
use thiserror::Error;

/// Which table this is. A table is replaced only by a greater one, also across restarts of the daemon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Version {
    /// Number of the cluster's generation.
    pub generation: u64,
    /// Epoch within it.
    pub epoch: u64,
}

impl Version {
    /// The version that an image carries.
    #[must_use]
    pub fn of(slot: &Slot) -> Self {
        Self { generation: slot.head.generation, epoch: slot.head.epoch }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "generation {} epoch {}", self.generation, self.epoch)
    }
}

/// Why a table was not published. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PublishRefused {
    /// The table in force is as new or newer.
    #[error("{offered} is not newer than {pinned}, which is in force")]
    NotNewer {
        /// What is in force.
        pinned: Version,
        /// What was offered.
        offered: Version,
    },
    /// A program run may still read the slot that would be overwritten.
    #[error("no grace period has ended since the last flip or the take-up: call grace() first")]
    GraceMissing,
}

/// Why no grace period could be completed. The epoch does not count as applied, and nothing may be published.
#[derive(Debug, Error)]
pub enum GraceError {
    /// The CPU tour failed and so did its fallback.
    #[error(
        "no grace period: the tour over the CPUs failed ({tour}) and so did membarrier GLOBAL ({barrier})"
    )]
    NoBarrier {
        /// Why the tour was not enough.
        tour: String,
        /// Why the fallback failed.
        barrier: std::io::Error,
    },
}

/// A place that holds the table in force and its deadline.
///
/// ```text
///            grace()                publish(newer)
/// [dirty] ------------> [clean] -----------------> [dirty]
///    ^ created or taken up
/// ```
/// *Dirty*: a program run that is in flight may still read the slot which is not in force, so it must not be
/// written. A table counts as applied only once `grace` returned `Ok` after its `publish`.
pub trait TableSink: Send {
    /// The table in force.
    fn pinned(&self) -> Version;

    /// Puts `image` in force, under the deadline that is in force now (`image.head.deadline` is ignored).
    ///
    /// # Errors
    /// [`PublishRefused`]; nothing was written.
    fn publish(&mut self, image: &Slot) -> Result<(), PublishRefused>;

    /// Returns when no program run can still see anything older than the table in force.
    ///
    /// # Errors
    /// [`GraceError`]: repeat it before anything else is published.
    fn grace(&mut self) -> Result<(), GraceError>;

    /// Sets the deadline of the table in force, in nanoseconds of the boot clock; 0 closes.
    fn set_deadline(&self, boot_ns: u64);

    /// The deadline of the table in force, in nanoseconds of the boot clock.
    fn deadline(&self) -> u64;

    /// Closes: deadline 0, in both slots.
    fn close(&self);
}
