//! Faults that tests put between the store and its disk.

use std::fs::File;
use std::io;

/// What can go wrong between the store and its disk. Every method defaults to "nothing".
pub trait Faults: Send + Sync {
    /// Makes the database file durable.
    ///
    /// # Errors
    /// Whatever the test wants the disk to say.
    fn sync(&self, db: &File) -> io::Result<()> {
        db.sync_data()
    }

    /// The planted bug: requests are acknowledged before they are durable.
    fn acknowledge_early(&self) -> bool {
        false
    }
}

/// The disk as it is.
pub struct NoFaults;

impl Faults for NoFaults {}
