//! The durable log of a node: vote, log entries, purge marker, small records and the last snapshot.
//!
//! The engine is sled 0.34.7. Used as documented it loses acknowledged writes and whole databases in a power cut:
//! its `flush` does not reach the disk. This crate is the set of rules under which it keeps its promises, behind the
//! trait [`LogStore`] so that another engine can take its place; [`export`] and [`import`] carry a log over.
//!
//! # What is written
//! Log entries and snapshots are cut into records of at most 4 KiB, each with a checksum over key and body. One more
//! record, the head, holds vote, purge marker, small records, the bounds of the log and where the snapshot lies. It is
//! written last in every batch, and only what it counts exists. Each entry carries a checksum over itself and all
//! entries before it, which must end in the value that the head names.
//!
//! # What happens when
//! | fault | behaviour |
//! |---|---|
//! | power cut, torn or reordered writes | everything acknowledged is there; a batch that was not acknowledged is there up to some request, or not at all |
//! | `kill -9` | the same |
//! | failed write or sync | the store fails for good: waiting and later requests get the error, the hook is called and the daemon ends. No second attempt: the kernel may have dropped the data and report success next time |
//! | full disk | sled never sees it: blocks are reserved before a batch is written, from the ballast if need be; see [`DiskPressure`]. With the ballast gone the store fails as above, and does not open until there is room |
//! | flipped bit | the store refuses to open, or a read fails and the store with it; if the damage looks like a torn tail, the watermark beside the database tells that acknowledged batches are missing |
//! | opening panics or never ends | the store is bad: [`OpenError::is_bad_store`] |
//! | second process | refused by a lock |
//!
//! A bad store is never wiped and never used again under the same Raft id: [`quarantine`] moves it aside, and the node
//! joins anew. Out of reach: a disk that lies about a sync, and damage to the tail of the log that comes together with
//! a power cut which also took the watermark back.
#![forbid(unsafe_code)]

mod check;
mod engine;
mod error;
mod head;
mod log_store;
mod open;
mod options;
#[cfg(feature = "planted")]
pub mod planted;
mod quarantine;
mod record;
mod shared;
mod space;
mod store;
mod transfer;
mod upload;
mod watermark;
mod writer;

pub use error::{OpenError, WriteError};
pub use log_store::{Bounds, Done, LogStore, Purged, Rewrite, Snapshot, wait};
pub use open::Recovered;
pub use options::{FatalHook, OpenOptions};
pub use quarantine::quarantine;
pub use space::{DiskPressure, Gauge};
pub use store::Store;
pub use transfer::{Item, export, import};

/// Largest log entry, in bytes: one gRPC message.
pub const MAX_ENTRY: usize = 4 << 20;
/// Largest vote and largest purge marker, in bytes. Both live in the head, which is one record.
pub const MAX_SMALL: usize = 512;
/// All small records together, with their keys and framing, in bytes. They live in the head too.
pub const MAX_META: usize = 2048;
/// Largest key of a small record, in bytes.
pub const MAX_KEY: usize = 64;
/// Largest snapshot, in bytes. It is held in memory while it is written.
pub const MAX_SNAPSHOT: usize = 1 << 30;
