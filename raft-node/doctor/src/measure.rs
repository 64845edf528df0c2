//! How late a thread wakes, and how long a durable write takes.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use farm_dataplane::realtime::round_robin;

use crate::Sync;

/// Pause of the thread that looks for stalls.
const PAUSE: Duration = Duration::from_millis(1);
/// Writes end after this long, however few there were.
const WRITING: Duration = Duration::from_secs(2);

/// The longest time by which this thread woke late, in a time of `watch`.
#[must_use]
pub fn longest_stall(watch: Duration) -> Duration {
    let end = Instant::now() + watch;
    let mut longest = Duration::ZERO;
    while Instant::now() < end {
        let before = Instant::now();
        std::thread::sleep(PAUSE);
        longest = longest.max(before.elapsed().saturating_sub(PAUSE));
    }
    longest
}

/// The same of a thread with the priority of the lease thread.
///
/// # Errors
/// Where it may not have that, or the thread cannot be made.
pub fn longest_realtime_stall(watch: Duration, priority: u8) -> io::Result<Duration> {
    let thread = std::thread::Builder::new().name("farm-doctor".into()).spawn(move || {
        round_robin(priority)?;
        Ok(longest_stall(watch))
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
}

/// Up to `count` durable writes into a file of `directory` that has no name: nothing of it is left, however this ends.
///
/// # Errors
/// Where the file cannot be made or written.
pub fn durable_writes(directory: &Path, count: usize) -> io::Result<Sync> {
    let mut file = tempfile::tempfile_in(directory)?;
    let begin = Instant::now();
    let mut took = Vec::with_capacity(count);
    while took.len() < count && begin.elapsed() < WRITING {
        let before = Instant::now();
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        took.push(before.elapsed());
    }
    took.sort_unstable();
    let slowest = took.last().copied().ok_or(io::ErrorKind::TimedOut)?;
    Ok(Sync { median: took[took.len() / 2], slowest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_to_wait_is_seen_to_wake_late() {
        let idle = longest_stall(Duration::from_millis(50));
        assert!(idle < Duration::from_secs(5), "{idle:?}");
        let stall = longest_realtime_stall(Duration::from_millis(50), 200);
        assert!(stall.is_err(), "no such priority: {stall:?}");
    }

    #[test]
    fn writes_are_timed_and_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let sync = durable_writes(directory.path(), 5).unwrap();
        assert!(sync.median <= sync.slowest && sync.slowest > Duration::ZERO, "{sync:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(durable_writes(&directory.path().join("none"), 5).is_err());
    }
}
