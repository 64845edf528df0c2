//! What the tests of the store share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod disk;
pub mod model;
pub mod rng;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farm_store::OpenOptions;

/// Options for a scratch directory on any file system, and a counter of the calls of the hook.
pub fn options() -> (OpenOptions, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let fatal = move |_: &str| {
        seen.fetch_add(1, Ordering::SeqCst);
    };
    let mut options = OpenOptions::new(Arc::new(fatal));
    options.allow_volatile = true;
    options.ballast = 1 << 20;
    options.low_water = 1 << 20;
    options.cache = 8 << 20;
    (options, calls)
}

/// The store's own error inside an I/O error.
pub fn cause(error: &io::Error) -> Option<&farm_store::WriteError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}
