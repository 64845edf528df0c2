//! The handle.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use crate::engine::{Engine, damage, guarded};
use crate::head::State;
use crate::log_store::{Bounds, Done, LogStore, Rewrite, Snapshot, wait};
use crate::options::FatalHook;
use crate::record::Damage;
use crate::shared::{Change, Request, Shared, View};
use crate::space::{DiskPressure, Gauge};
use crate::upload::Upload;
use crate::{MAX_ENTRY, MAX_SMALL, MAX_SNAPSHOT, WriteError};

/// A handle of the durable log. Clones are equal; the store closes when the last one is dropped, after everything
/// asked for is done.
///
/// A handle carries a fencing token: [`rewrite`](LogStore::rewrite) returns a handle with a newer one, and every
/// write through an older handle fails from then on with [`WriteError::Fenced`]. Reads go on.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    pub(crate) token: u64,
}

pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) gauge: Gauge,
    pub(crate) fatal: FatalHook,
    pub(crate) writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Who must stop writing to the disk of the store, so that the log can go on.
    ///
    /// # Errors
    /// The system's answer if the file system cannot be asked.
    pub fn pressure(&self) -> io::Result<DiskPressure> {
        self.inner.gauge.pressure()
    }

    /// What tells the pressure to those who shall not keep the store open.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        self.inner.gauge.clone()
    }

    /// Checks the handle, lets `prepare` check and apply the request to the promised state, and hands it on.
    fn change(&self, done: Done, prepare: impl FnOnce(&mut View) -> Result<Change, WriteError>) {
        let mut view = self.inner.shared.view();
        match self.admit(&view).and_then(|()| prepare(&mut view)) {
            Ok(change) => view.enqueue(|ticket| Request::Change { ticket, change, done }),
            Err(refusal) => {
                drop(view);
                done(Err(refusal.into()));
            }
        }
    }

    fn admit(&self, view: &View) -> Result<(), WriteError> {
        view.healthy()?;
        if self.token == view.token { Ok(()) } else { Err(WriteError::Fenced) }
    }

    /// A read that finds damage ends the store, as a failed write does.
    fn report<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let reason = format!("a read failed: {error}");
            if self.inner.shared.poison(&reason) {
                (self.inner.fatal)(&reason);
            }
        }
        result
    }

    fn read_pending(&self, range: Range<u64>) -> Result<(Range<u64>, BTreeMap<u64, Bytes>), WriteError> {
        let view = self.inner.shared.view();
        view.healthy()?;
        let start = range.start.max(view.promised.first);
        let end = range.end.min(view.promised.next).max(start);
        let pending = view.pending.range(start..end).map(|(index, (_, bytes))| (*index, bytes.clone()));
        Ok((start..end, pending.collect()))
    }

    /// An entry from the engine; `None` if it was removed meanwhile. What goes wrong while the writer replaces the
    /// entry is looked at again under the lock, where a promised entry is either pending or whole.
    fn stored(&self, index: u64) -> io::Result<Option<Bytes>> {
        if let Ok(Some(entry)) = guarded(|| self.inner.engine.entry(index)) {
            return Ok(Some(entry.bytes));
        }
        let view = self.inner.shared.view();
        if !view.promised.holds(index) {
            return Ok(None);
        }
        if let Some((_, bytes)) = view.pending.get(&index) {
            return Ok(Some(bytes.clone()));
        }
        let entry = guarded(|| self.inner.engine.entry(index))?;
        let missing = || damage(Damage(format!("log entry {index} is missing")));
        Ok(Some(entry.ok_or_else(missing)?.bytes))
    }

    fn published(&self) -> io::Result<Option<Snapshot>> {
        loop {
            let at = {
                let view = self.inner.shared.view();
                view.healthy()?;
                view.snapshot
            };
            let Some(at) = at else { return Ok(None) };
            let found = guarded(|| self.inner.engine.snapshot(&at));
            if let Ok(Some(snapshot)) = found {
                return Ok(Some(snapshot));
            }
            // A newer one may have been published, and this one removed, while it was read.
            if self.inner.shared.view().snapshot == Some(at) {
                let missing = || damage(Damage(format!("a piece of snapshot {} is missing", at.id)));
                return found?.ok_or_else(missing).map(Some);
            }
        }
    }

    fn collect(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let (range, mut pending) = self.read_pending(range)?;
        let mut entries = Vec::new();
        let mut left = max_bytes;
        for index in range {
            let bytes = match pending.remove(&index) {
                Some(bytes) => Some(bytes),
                None => self.stored(index)?,
            };
            let Some(bytes) = bytes else { break };
            if bytes.len() > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes.len());
            entries.push((index, bytes));
        }
        Ok(entries)
    }
}

impl LogStore for Store {
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) {
        self.change(done, |view| {
            check_entries(&view.promised, &entries)?;
            view.append(&entries);
            Ok(Change::Append(entries))
        });
    }

    fn save_vote(&self, vote: Bytes, done: Done) {
        self.change(done, |view| {
            check_size("the vote", vote.len(), MAX_SMALL)?;
            view.promised.vote = Some(vote.clone());
            Ok(Change::Vote(vote))
        });
    }

    fn truncate_after(&self, index: Option<u64>, done: Done) {
        let next = index.map_or(0, |index| index.saturating_add(1));
        self.change(done, |view| {
            view.truncate(next);
            Ok(Change::Truncate { next })
        });
    }

    fn purge(&self, upto: u64, marker: Bytes, done: Done) {
        self.change(done, |view| {
            check_size("the purge marker", marker.len(), MAX_SMALL)?;
            view.purge(upto, marker.clone());
            Ok(Change::Purge { upto, marker })
        });
    }

    fn put_meta(&self, key: &str, value: Bytes, done: Done) {
        let put = BTreeMap::from([(key.to_owned(), value.clone())]);
        self.change(done, |view| {
            view.put_meta(&put)?;
            Ok(Change::Meta { key: key.to_owned(), value })
        });
    }

    fn put_snapshot(&self, snapshot: Snapshot, done: Done) {
        let size = check_size("the snapshot", snapshot.meta.len() + snapshot.data.len(), MAX_SNAPSHOT);
        // Copied and summed up before anybody has to wait for the lock.
        let upload = Upload::new(&snapshot, done);
        let mut view = self.inner.shared.view();
        match self.admit(&view).and(size) {
            Ok(()) => view.enqueue(|ticket| Request::Upload(upload.named(ticket))),
            Err(refusal) => {
                drop(view);
                (upload.done)(Err(refusal.into()));
            }
        }
    }

    fn rewrite(&self, rewrite: Rewrite) -> io::Result<Self> {
        let mut token = self.token;
        wait(|done| {
            self.change(done, |view| {
                check_size("the vote", rewrite.vote.len(), MAX_SMALL)?;
                check_entries(&view.promised, &rewrite.entries)?;
                view.put_meta(&rewrite.meta)?;
                view.promised.vote = Some(rewrite.vote.clone());
                view.append(&rewrite.entries);
                view.token += 1;
                token = view.token;
                Ok(Change::Rewrite(rewrite))
            });
        })?;
        Ok(Store { inner: self.inner.clone(), token })
    }

    fn read_limited(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<(u64, Bytes)>> {
        self.report(self.collect(range, max_bytes))
    }

    fn bounds(&self) -> Bounds {
        self.inner.shared.view().promised.bounds()
    }

    fn vote(&self) -> Option<Bytes> {
        self.inner.shared.view().promised.vote.clone()
    }

    fn meta(&self, key: &str) -> Option<Bytes> {
        self.inner.shared.view().promised.meta.get(key).cloned()
    }

    fn metas(&self) -> BTreeMap<String, Bytes> {
        self.inner.shared.view().promised.meta.clone()
    }

    fn snapshot(&self) -> io::Result<Option<Snapshot>> {
        self.report(self.published())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.view().queue = None;
        let Some(writer) = self.writer.take() else { return };
        // A `done` may have held the last handle; the writer thread cannot wait for itself.
        if writer.thread().id() != thread::current().id() && writer.join().is_err() {
            tracing::error!("the writer thread of the store panicked");
        }
    }
}

fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), WriteError> {
    if size > limit { Err(WriteError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn check_entries(state: &State, entries: &[(u64, Bytes)]) -> Result<(), WriteError> {
    let mut expected = state.expected();
    for (index, bytes) in entries {
        let next = expected.unwrap_or(*index);
        if *index != next {
            return Err(WriteError::Gap { expected: next, found: *index });
        }
        check_size("a log entry", bytes.len(), MAX_ENTRY)?;
        expected = Some(next + 1);
    }
    Ok(())
}
