//! What the caller decides when it opens a store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "planted")]
use crate::planted::Faults;

/// Called once, with the reason, when the store can no longer be trusted. The daemon ends its process here.
pub type FatalHook = Arc<dyn Fn(&str) + Send + Sync>;

/// How a store is opened. [`OpenOptions::new`] has the values for production.
#[derive(Clone)]
pub struct OpenOptions {
    /// Opening and checking may take this long; after it the store is declared bad. 30 s: a store of 100 MB takes
    /// well under a second, and sled is known to loop for ever over some damaged files.
    pub watchdog: Duration,
    /// Bytes of disk kept back for the log when everybody else has filled it. 64 MiB.
    pub ballast: u64,
    /// Free disk below which the least important writers should stop, on top of the ballast. 64 MiB.
    pub low_water: u64,
    /// Bytes of memory for sled's page cache. 32 MiB: the log is read near its end only.
    pub cache: u64,
    /// Also accept file systems that lose everything with the power (tmpfs, overlay). For tests and labs.
    pub allow_volatile: bool,
    /// Called once when a write or sync has failed.
    pub fatal: FatalHook,
    /// Called first on the writer's thread: the daemon raises its priority there.
    pub writer_started: Arc<dyn Fn() + Send + Sync>,
    /// Faults between the store and its disk.
    #[cfg(feature = "planted")]
    pub faults: Arc<dyn Faults>,
}

impl OpenOptions {
    /// The values for production, with the given hook.
    pub fn new(fatal: FatalHook) -> Self {
        OpenOptions {
            watchdog: Duration::from_secs(30),
            ballast: 64 << 20,
            low_water: 64 << 20,
            cache: 32 << 20,
            allow_volatile: false,
            fatal,
            writer_started: Arc::new(|| {}),
            #[cfg(feature = "planted")]
            faults: Arc::new(crate::planted::NoFaults),
        }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("watchdog", &self.watchdog)
            .field("ballast", &self.ballast)
            .field("low_water", &self.low_water)
            .field("cache", &self.cache)
            .field("allow_volatile", &self.allow_volatile)
            .finish_non_exhaustive()
    }
}
