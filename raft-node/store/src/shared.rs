//! What readers and the writer thread share: the promised state and the entries on their way to the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use crate::head::{SnapshotRef, State, meta_size};
use crate::log_store::{Done, Rewrite};
use crate::upload::Upload;
use crate::{MAX_KEY, MAX_META, WriteError};

/// A change, as the writer thread carries it out.
pub(crate) enum Change {
    Append(Vec<(u64, Bytes)>),
    Vote(Bytes),
    Truncate { next: u64 },
    Purge { upto: u64, marker: Bytes },
    Meta { key: String, value: Bytes },
    Rewrite(Rewrite),
}

/// What is asked of the writer thread. Tickets count the requests in the order of the calls.
pub(crate) enum Request {
    Change { ticket: u64, change: Change, done: Done },
    Upload(Upload),
}

impl Request {
    /// Bytes that it adds to a batch; an upload is written slice by slice.
    pub(crate) fn bytes(&self) -> usize {
        let entries = match self {
            Request::Change { change: Change::Append(entries), .. } => entries,
            Request::Change { change: Change::Rewrite(rewrite), .. } => &rewrite.entries,
            Request::Change { .. } => return crate::MAX_SMALL,
            Request::Upload(_) => return 0,
        };
        entries.iter().map(|(_, bytes)| bytes.len() + RECORD_OVERHEAD).sum()
    }

    /// Tells the caller that it failed.
    pub(crate) fn fail(self, error: io::Error) {
        match self {
            Request::Change { done, .. } => done(Err(error)),
            Request::Upload(upload) => (upload.done)(Err(error)),
        }
    }
}

/// Key, checksum and sled's own framing of one record, roughly.
const RECORD_OVERHEAD: usize = 64;

/// The state as the callers may already see it.
pub(crate) struct View {
    /// The only token whose handles may write.
    pub(crate) token: u64,
    pub(crate) promised: State,
    /// The published snapshot.
    pub(crate) snapshot: Option<SnapshotRef>,
    /// Entries that the engine does not have yet, with the ticket that brings them.
    pub(crate) pending: BTreeMap<u64, (u64, Bytes)>,
    /// The first failure.
    pub(crate) poison: Option<String>,
    pub(crate) queue: Option<Sender<Request>>,
    pub(crate) ticket: u64,
}

impl View {
    /// The failure that stopped the store, if any.
    pub(crate) fn healthy(&self) -> Result<(), WriteError> {
        match &self.poison {
            Some(reason) => Err(WriteError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Hands a request to the writer thread. Called under the lock that changed the promised state, so the order of
    /// the queue is the order of the states.
    pub(crate) fn enqueue(&mut self, request: impl FnOnce(u64) -> Request) {
        self.ticket += 1;
        let queue = self.queue.as_ref().expect("open as long as a handle lives");
        if let Err(refused) = queue.send(request(self.ticket)) {
            refused.0.fail(io::ErrorKind::BrokenPipe.into());
        }
    }

    /// Takes up entries that must follow the promised log.
    pub(crate) fn append(&mut self, entries: &[(u64, Bytes)]) {
        let Some((start, _)) = entries.first() else { return };
        self.promised.append(*start, entries.len() as u64);
        let ticket = self.ticket + 1;
        self.pending.extend(entries.iter().map(|(index, bytes)| (*index, (ticket, bytes.clone()))));
    }

    /// Drops everything from `next` on.
    pub(crate) fn truncate(&mut self, next: u64) {
        self.promised.truncate(next);
        self.pending.split_off(&next);
    }

    /// Forgets everything up to `upto`.
    pub(crate) fn purge(&mut self, upto: u64, marker: Bytes) {
        self.promised.purge(upto, marker);
        self.pending = self.pending.split_off(&upto.saturating_add(1));
    }

    /// Puts small records, all or none.
    pub(crate) fn put_meta(&mut self, records: &BTreeMap<String, Bytes>) -> Result<(), WriteError> {
        let too_large = |what, size, limit| WriteError::TooLarge { what, size, limit };
        if let Some(key) = records.keys().find(|key| key.len() > MAX_KEY) {
            return Err(too_large("the key of a small record", key.len(), MAX_KEY));
        }
        let mut meta = self.promised.meta.clone();
        meta.extend(records.iter().map(|(key, value)| (key.clone(), value.clone())));
        let size = meta.iter().map(|(key, value)| meta_size(key, value)).sum();
        if size > MAX_META {
            return Err(too_large("the set of small records", size, MAX_META));
        }
        self.promised.meta = meta;
        Ok(())
    }

    /// Forgets the pending entries that the engine has by now.
    pub(crate) fn settle(&mut self, ticket: u64) {
        self.pending.retain(|_, (brought_by, _)| *brought_by > ticket);
    }
}

/// The view behind its lock.
pub(crate) struct Shared(Mutex<View>);

impl Shared {
    pub(crate) fn new(view: View) -> Self {
        Shared(Mutex::new(view))
    }

    /// Nothing panics while it holds this lock, except on a broken invariant: then the process must end.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.0.lock().expect("no panic under the view's lock")
    }

    /// Ends the store; true for the first one who says so.
    pub(crate) fn poison(&self, reason: &str) -> bool {
        let mut view = self.view();
        let first = view.poison.is_none();
        if first {
            tracing::error!(reason, "the store has failed");
            view.poison = Some(reason.to_owned());
        }
        first
    }
}
