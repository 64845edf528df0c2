//! Waits for events of descriptors.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A type that owns its descriptor and keeps it open until it is dropped.
pub(crate) trait Owner: AsRawFd {}

impl Owner for std::fs::File {}
impl Owner for std::os::fd::OwnedFd {}
impl Owner for socket2::Socket {}

/// Registers `owner` with the runtime of the calling task.
#[allow(unsafe_code, reason = "tokio cannot know that a type keeps its descriptor")]
pub(crate) fn of<T: Owner>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: an `Owner` keeps its descriptor open as long as it lives, and nobody in this crate takes one out of the
    // `AsyncFd` or closes it behind its back.
    let registered = unsafe { AsyncFd::register_with_interest(owner, interest) };
    registered.map_err(|error| error.into_parts().1)
}
