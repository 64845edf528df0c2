//! What can go wrong, as a fact and a remedy.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a store could not be opened. Nothing was wiped; the text holds the observed fact and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the store open.
    #[error("store {dir} is in use by another process; stop that process first")]
    Locked {
        /// The store.
        dir: PathBuf,
    },
    /// The file system cannot keep the promises of the store.
    #[error(
        "store {dir} lies on {found}, where a synced write may be lost or moved; put it on a local ext4 or xfs file system"
    )]
    Filesystem {
        /// The store.
        dir: PathBuf,
        /// The file system's name, or its magic number.
        found: String,
    },
    /// There is no room to recover or to go on writing.
    #[error(
        "the disk of store {dir} is full: {available} bytes left, {needed} needed; free some space and start again"
    )]
    DiskFull {
        /// The store.
        dir: PathBuf,
        /// Bytes left, the ballast included.
        available: u64,
        /// Bytes needed to open.
        needed: u64,
    },
    /// The operating system refused.
    #[error("{what} failed: {source}; check the directory's owner, mount and disk, then start again")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The store was written by a later version.
    #[error(
        "store {dir} has format {found}, this version reads up to {known}; install the version that wrote it"
    )]
    NewerFormat {
        /// The store.
        dir: PathBuf,
        /// Format found.
        found: u8,
        /// Newest format known.
        known: u8,
    },
    /// Records are damaged, missing or contradict each other.
    #[error("store {dir} is damaged: {fact}; move it aside and let the node join again under a new id")]
    Damaged {
        /// The store.
        dir: PathBuf,
        /// What was found.
        fact: String,
    },
    /// The store is sound, but older than what it had acknowledged.
    #[error(
        "store {dir} has lost writes: it ends at batch {found}, but batch {acknowledged} was acknowledged; move it aside and let the node join again under a new id"
    )]
    LostWrites {
        /// The store.
        dir: PathBuf,
        /// Last batch found.
        found: u64,
        /// Last batch known to have been acknowledged.
        acknowledged: u64,
    },
    /// The engine did not come to an end.
    #[error(
        "store {dir} did not open within {after:?}; restart the process, move the store aside and let the node join again under a new id"
    )]
    Hung {
        /// The store.
        dir: PathBuf,
        /// How long it was given.
        after: Duration,
    },
}

impl OpenError {
    /// A stable name for scripts, tests and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::Locked { .. } => "store_locked",
            OpenError::Filesystem { .. } => "store_filesystem",
            OpenError::DiskFull { .. } => "store_disk_full",
            OpenError::Io { .. } => "store_io",
            OpenError::NewerFormat { .. } => "store_newer_format",
            OpenError::Damaged { .. } => "store_damaged",
            OpenError::LostWrites { .. } => "store_lost_writes",
            OpenError::Hung { .. } => "store_hung",
        }
    }

    /// True if the store itself is bad: [`quarantine`](crate::quarantine) it and join again under a new id.
    pub fn is_bad_store(&self) -> bool {
        match self {
            OpenError::Damaged { .. } | OpenError::LostWrites { .. } | OpenError::Hung { .. } => true,
            OpenError::Locked { .. }
            | OpenError::Filesystem { .. }
            | OpenError::DiskFull { .. }
            | OpenError::Io { .. }
            | OpenError::NewerFormat { .. } => false,
        }
    }
}

/// Why a request was refused or failed; found inside the [`io::Error`] given to `done`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A take-over has made this handle invalid.
    #[error("this handle of the store was fenced by a take-over; use the one that the take-over returned")]
    Fenced,
    /// An earlier write or sync failed; nothing is accepted any more.
    #[error(
        "the store has failed and accepts nothing any more: {reason}; end the process and start it again"
    )]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The entries do not follow the log.
    #[error("entry {found} does not follow the log, which goes on at {expected}")]
    Gap {
        /// The index that must come next.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// A value is larger than the store takes.
    #[error("{what} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Which value.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Fenced => io::ErrorKind::PermissionDenied,
            WriteError::Poisoned { .. } => io::ErrorKind::Other,
            WriteError::Gap { .. } | WriteError::TooLarge { .. } => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}
