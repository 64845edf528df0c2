//! The contract: what the daemon needs from a durable log, whichever engine keeps it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::mpsc;

use bytes::Bytes;

/// Called exactly once, from the store's writer thread (or at once, from the caller's, when the request is
/// refused), when the request is durable or has failed. It must not block: everything else waits behind it.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send + 'static>;

/// The end of the purged part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Last index that is gone.
    pub index: u64,
    /// What the caller wants to remember of that entry (its log id, encoded).
    pub marker: Bytes,
}

/// Which entries the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The purged part, if anything was ever purged.
    pub purged: Option<Purged>,
    /// First index present; `None` when the log is empty.
    pub first: Option<u64>,
    /// Last index present; `None` when the log is empty.
    pub last: Option<u64>,
}

/// A state machine snapshot: opaque to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The caller's description of the snapshot (last log id, membership), encoded.
    pub meta: Bytes,
    /// The state machine's bytes.
    pub data: Bytes,
}

/// Everything that a take-over changes in one durable step.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The vote from now on.
    pub vote: Bytes,
    /// Entries that follow the last one of the log without a gap.
    pub entries: Vec<(u64, Bytes)>,
    /// Small records (generation, identity), each put beside or over the present ones.
    pub meta: BTreeMap<String, Bytes>,
}

/// A durable Raft log with its vote, its purge marker, a few small records and the last snapshot.
///
/// * **Order.** Requests take effect, become readable and become durable in the order of the calls. The one
///   exception is [`put_snapshot`](Self::put_snapshot), which is published when its last chunk is durable.
/// * **Durability.** A request is durable when its `done` is called with `Ok`, never before.
/// * **Reads see writes at once**: from the moment `append`, `truncate_after`, `purge`, `save_vote` or `put_meta`
///   returns, and before it is durable. Raft needs that; nobody else may rely on it.
/// * **Failure.** After the first failed write or sync every later request fails, and the hook given when the
///   store was opened is called: the process must end, because the kernel may have dropped what it could not write.
pub trait LogStore: Send + Sync {
    /// Appends entries. Indexes must be contiguous and follow the last entry (or the purge marker); only a log that
    /// is empty and was never purged may start anywhere.
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Done);

    /// Replaces the vote (at most [`MAX_SMALL`](crate::MAX_SMALL) bytes).
    fn save_vote(&self, vote: Bytes, done: Done);

    /// Removes every entry behind `index`; `None` empties the log.
    fn truncate_after(&self, index: Option<u64>, done: Done);

    /// Forgets the entries up to `upto`, inclusive, which may lie beyond the last entry. The marker is durable
    /// before the first entry goes.
    fn purge(&self, upto: u64, marker: Bytes, done: Done);

    /// Puts a small record. All of them together hold at most [`MAX_META`](crate::MAX_META) bytes.
    fn put_meta(&self, key: &str, value: Bytes, done: Done);

    /// Replaces the snapshot. The old one stays until the new one is published. Other requests go on meanwhile.
    fn put_snapshot(&self, snapshot: Snapshot, done: Done);

    /// The take-over: vote, entries and small records become durable in one step, all or none, and from the call on
    /// no other handle can write. Blocks until it is done and returns the one handle that can.
    ///
    /// # Errors
    /// As any other write. Refused (gap, size, fenced) means that nothing has changed.
    fn rewrite(&self, rewrite: Rewrite) -> io::Result<Self>
    where
        Self: Sized;

    /// The entries of `range` that the log holds, in order and without a gap: it ends early where the log ends,
    /// or once `max_bytes` are reached (but never before the first entry).
    ///
    /// # Errors
    /// `InvalidData` when a record is damaged (the store is then poisoned), or the failure that poisoned it.
    fn read_limited(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<(u64, Bytes)>>;

    /// The entries of `range` that the log holds; see [`read_limited`](Self::read_limited).
    ///
    /// # Errors
    /// As `read_limited`.
    fn read(&self, range: Range<u64>) -> io::Result<Vec<(u64, Bytes)>> {
        self.read_limited(range, usize::MAX)
    }

    /// Which entries the log holds.
    fn bounds(&self) -> Bounds;

    /// The last vote given to `save_vote`.
    fn vote(&self) -> Option<Bytes>;

    /// The small record under `key`.
    fn meta(&self, key: &str) -> Option<Bytes>;

    /// All small records.
    fn metas(&self) -> BTreeMap<String, Bytes>;

    /// The last published snapshot.
    ///
    /// # Errors
    /// `InvalidData` when a record is damaged (the store is then poisoned).
    fn snapshot(&self) -> io::Result<Option<Snapshot>>;
}

/// Blocks until the request that `call` makes is durable: `wait(|done| store.save_vote(vote, done))`.
///
/// # Errors
/// The request's own error, or `BrokenPipe` if the store was closed over it.
pub fn wait(call: impl FnOnce(Done)) -> io::Result<()> {
    let (tx, rx) = mpsc::sync_channel(1);
    call(Box::new(move |result| {
        // The receiver lives until the answer is there, so this can only fail if `wait` itself panicked.
        let _ = tx.send(result);
    }));
    rx.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}
