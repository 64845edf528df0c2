//! The writer thread: the only one that changes the database.
//!
//! ```text
//!            requests                 more requests, uploads or garbage
//!   Idle ───────────────▶ Round ◀───────────────────────────────┐
//!    ▲                      │ apply all, write head, sync, acknowledge, sweep
//!    │   nothing left       ▼
//!    └──────────────────  Synced ───────────────────────────────┘
//!                           │ any error or panic
//!                           ▼
//!                        Poisoned  (final: the hook is called, everything waiting and later fails)
//! ```

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::Bytes;

use crate::WriteError;
use crate::engine::{Engine, damage, guarded};
use crate::head::Head;
use crate::log_store::{Done, Rewrite};
use crate::options::FatalHook;
use crate::record::{Damage, Key, chain};
use crate::shared::{Change, Request, Shared};
use crate::space::Room;
use crate::upload::Upload;
use crate::watermark::Watermark;

/// Bytes and requests of one batch: a bound on how long the first waits for the last.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_REQUESTS: usize = 1024;
/// Records removed between two batches: well below a millisecond.
const SWEEP: usize = 64;

/// Everything the thread owns.
pub(crate) struct Writer {
    pub(crate) engine: Arc<Engine>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Receiver<Request>,
    pub(crate) head: Head,
    pub(crate) room: Room,
    pub(crate) watermark: Watermark,
    pub(crate) fatal: FatalHook,
    pub(crate) uploads: VecDeque<Upload>,
    /// Records to be removed when there is time.
    pub(crate) garbage: VecDeque<Range<Key>>,
    pub(crate) dirty: bool,
}

impl Writer {
    /// Runs until every handle is gone and everything asked for is done.
    pub(crate) fn run(mut self) {
        while let Some(batch) = self.collect() {
            let batch = self.sort(batch);
            if let Err((error, waiters)) = self.round(batch) {
                return self.poison(&error, waiters);
            }
        }
        // Best effort: an older watermark only means that less damage can be told from a torn tail.
        if let Err(error) = self.watermark.sync() {
            tracing::warn!(%error, "the watermark could not be synced at close");
        }
    }

    /// The next requests, at least one unless there is other work to go on with; `None` when all is done.
    fn collect(&self) -> Option<Vec<Request>> {
        let mut batch = Vec::new();
        if self.uploads.is_empty() && self.garbage.is_empty() {
            batch.push(self.queue.recv().ok()?);
        }
        let mut bytes = batch.iter().map(Request::bytes).sum::<usize>();
        while bytes < BATCH_BYTES && batch.len() < BATCH_REQUESTS {
            match self.queue.try_recv() {
                Ok(request) => {
                    bytes += request.bytes();
                    batch.push(request);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Some(batch)
    }

    /// Uploads go to their own queue, where no error can lose them.
    fn sort(&mut self, requests: Vec<Request>) -> Batch {
        let bytes = requests.iter().map(Request::bytes).sum();
        let mut batch = Batch { bytes, ..Batch::default() };
        for request in requests {
            match request {
                Request::Change { ticket, change, done } => {
                    batch.changes.push((ticket, change));
                    batch.waiters.push(done);
                }
                Request::Upload(upload) => self.uploads.push_back(upload),
            }
        }
        batch
    }

    /// One batch: apply, write the head, sync, and only then acknowledge.
    fn round(&mut self, mut batch: Batch) -> Result<(), (io::Error, Waiters)> {
        let last = batch.changes.last().map_or(0, |(ticket, _)| *ticket);
        if batch.changes.is_empty() && self.uploads.is_empty() {
            return guarded(|| self.sweep()).map_err(|error| (error, Vec::new()));
        }
        if let Err(error) = guarded(|| self.stage(batch.changes, batch.bytes)) {
            return Err((error, batch.waiters));
        }
        if self.engine.acknowledges_early() {
            acknowledge(std::mem::take(&mut batch.waiters));
        }
        if let Err(error) = guarded(|| self.make_durable()) {
            return Err((error, batch.waiters));
        }
        self.shared.view().settle(last);
        guarded(|| {
            acknowledge(batch.waiters);
            self.finish_upload()?;
            self.sweep()
        })
        .map_err(|error| (error, Vec::new()))
    }

    fn stage(&mut self, changes: Vec<(u64, Change)>, bytes: usize) -> io::Result<()> {
        self.room.ensure(bytes as u64)?;
        for (ticket, change) in changes {
            self.apply(ticket, change)?;
        }
        self.advance_upload()?;
        if self.dirty { self.write_head() } else { Ok(()) }
    }

    fn make_durable(&mut self) -> io::Result<()> {
        self.engine.sync()?;
        self.watermark.note(self.head.seq)
    }

    fn write_head(&mut self) -> io::Result<()> {
        self.head.seq += 1;
        self.dirty = false;
        self.engine.put_head(&self.head)
    }

    fn apply(&mut self, ticket: u64, change: Change) -> io::Result<()> {
        self.dirty = true;
        match change {
            Change::Append(entries) => self.append(&entries),
            Change::Vote(vote) => {
                self.head.state.vote = Some(vote);
                Ok(())
            }
            Change::Truncate { next } => self.truncate(next),
            Change::Purge { upto, marker } => self.purge(upto, marker),
            Change::Meta { key, value } => {
                self.head.state.meta.insert(key, value);
                Ok(())
            }
            Change::Rewrite(rewrite) => self.rewrite(ticket, rewrite),
        }
    }

    fn append(&mut self, entries: &[(u64, Bytes)]) -> io::Result<()> {
        let Some((start, _)) = entries.first() else { return Ok(()) };
        for (index, bytes) in entries {
            self.head.tip = chain(self.head.tip, *index, bytes);
            self.engine.put_entry(*index, self.head.tip, bytes)?;
        }
        self.head.state.append(*start, entries.len() as u64);
        Ok(())
    }

    /// The head goes first: from then on the entries do not count, however many of them are still there.
    fn truncate(&mut self, next: u64) -> io::Result<()> {
        let end = self.head.state.next;
        if next >= end {
            return Ok(());
        }
        let emptied = next <= self.head.state.first;
        self.head.tip = if emptied { self.head.base } else { self.chain_at(next - 1)? };
        let start = next.max(self.head.state.first);
        self.head.state.truncate(next);
        self.write_head()?;
        self.engine.remove(entry_key(start)..entry_key(end))
    }

    fn purge(&mut self, upto: u64, marker: Bytes) -> io::Result<()> {
        let (first, next) = (self.head.state.first, self.head.state.next);
        if !self.head.state.purges(upto) {
            return Ok(());
        }
        if upto >= next {
            (self.head.base, self.head.tip) = (0, 0);
        } else if upto >= first {
            self.head.base = self.chain_at(upto)?;
        }
        self.head.state.purge(upto, marker);
        self.write_head()?;
        self.garbage.push_back(entry_key(first)..entry_key(next.min(upto + 1)));
        Ok(())
    }

    fn chain_at(&self, index: u64) -> io::Result<u32> {
        let missing = || damage(Damage(format!("log entry {index} is missing")));
        Ok(self.engine.entry(index)?.ok_or_else(missing)?.chain)
    }

    /// Vote, entries and small records count from one head on. Uploads of the old handles end here.
    fn rewrite(&mut self, ticket: u64, rewrite: Rewrite) -> io::Result<()> {
        while let Some(upload) = self.uploads.pop_front_if(|upload| upload.at.id < ticket) {
            self.garbage.push_back(upload.at.keys());
            (upload.done)(Err(WriteError::Fenced.into()));
        }
        self.append(&rewrite.entries)?;
        self.head.state.vote = Some(rewrite.vote);
        self.head.state.meta.extend(rewrite.meta);
        Ok(())
    }

    /// Writes the next slice of the oldest upload, or publishes it when all of it is durable.
    fn advance_upload(&mut self) -> io::Result<()> {
        let Some(upload) = self.uploads.front_mut() else { return Ok(()) };
        if upload.is_written() {
            upload.replaces = self.head.snapshot.replace(upload.at);
            upload.published = true;
            self.dirty = true;
            return Ok(());
        }
        upload.write_slice(&self.engine)
    }

    /// Ends an upload whose head is durable: the old snapshot goes.
    fn finish_upload(&mut self) -> io::Result<()> {
        let Some(upload) = self.uploads.pop_front_if(|upload| upload.published) else { return Ok(()) };
        self.shared.view().snapshot = Some(upload.at);
        (upload.done)(Ok(()));
        self.garbage.extend(upload.replaces.map(|old| old.keys()));
        Ok(())
    }

    /// Removes a few records that no durable head counts and whose keys are never used again. What a crash leaves of
    /// them is removed at the next opening.
    fn sweep(&mut self) -> io::Result<()> {
        let Some(keys) = self.garbage.front() else { return Ok(()) };
        self.room.ensure(0)?;
        if self.engine.remove_some(keys.clone(), SWEEP)? {
            self.garbage.pop_front();
        }
        Ok(())
    }

    /// The end: nothing that follows a failed write can be trusted, not even a second attempt.
    fn poison(self, error: &io::Error, waiters: Waiters) {
        let reason = error.to_string();
        if self.shared.poison(&reason) {
            (self.fatal)(&reason);
        }
        let failure = || io::Error::new(error.kind(), WriteError::Poisoned { reason: reason.clone() });
        for done in waiters.into_iter().chain(self.uploads.into_iter().map(|upload| upload.done)) {
            done(Err(failure()));
        }
        while let Ok(request) = self.queue.recv() {
            request.fail(failure());
        }
    }
}

type Waiters = Vec<Done>;

/// Requests sorted for one round; `changes` and `waiters` go in pairs.
#[derive(Default)]
struct Batch {
    bytes: usize,
    changes: Vec<(u64, Change)>,
    waiters: Waiters,
}

fn acknowledge(waiters: Waiters) {
    for done in waiters {
        done(Ok(()));
    }
}

fn entry_key(index: u64) -> Key {
    Key::Entry { index, chunk: 0 }
}
