//! openraft's log storage over the durable store. Everything durable is told to the [`LogWatch`] before openraft.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Instant;

use farm_store::Done;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use prost::bytes::Bytes;

use super::codec::bytes;
use super::hooks::LogWatch;
use super::types::{Entry, LogId, Payload, Proposal, Types, Vote, entry_id};
use crate::wire::{Wire, decode};

/// Record of the last entry known to be committed. Written along with the log, never waited for: after a crash it may
/// be behind, then the state catches up from the log as soon as a leader is heard.
const COMMITTED: &str = "committed";
/// Entries sent at once hold at most this much, so that a message stays well below its limit.
const READ_MAX: usize = 2 << 20;

/// The log of this node.
#[derive(Clone)]
pub(crate) struct Log {
    disk: Arc<dyn farm_store::LogStore>,
    watch: Arc<dyn LogWatch>,
}

impl Log {
    pub(crate) fn new(disk: Arc<dyn farm_store::LogStore>, watch: Arc<dyn LogWatch>) -> Self {
        Self { disk, watch }
    }

    /// All entries, parsed.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        Self::read_from(&*self.disk, 0..u64::MAX)
    }

    /// The entries of `range` that `disk` holds, parsed.
    pub(crate) fn read_from(disk: &dyn farm_store::LogStore, range: Range<u64>) -> io::Result<Vec<Entry>> {
        disk.read(range)?.iter().map(|(_, bytes)| parse(bytes)).collect()
    }

    fn read(&self, range: Range<u64>, max: usize) -> io::Result<Vec<Entry>> {
        self.disk.read_limited(range, max)?.iter().map(|(_, bytes)| parse(bytes)).collect()
    }
}

/// Tells `watch` of the commands among `entries`.
pub(crate) fn tell(watch: &dyn LogWatch, entries: &[Entry]) {
    for entry in entries {
        match &entry.payload {
            Payload::Normal(Proposal(command)) => watch.appended(entry_id(&entry.log_id), command),
            Payload::Blank | Payload::Membership(_) => {}
        }
    }
}

/// The last entry that `disk` says is committed.
pub(crate) fn committed(disk: &dyn farm_store::LogStore) -> io::Result<Option<LogId>> {
    let record = disk.meta(COMMITTED).filter(|record| !record.is_empty());
    record.map(|r| parse(&r)).transpose()
}

/// Waits until a request to the store is durable.
pub(crate) async fn durable(request: impl FnOnce(Done)) -> io::Result<()> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    request(Box::new(move |result| {
        // Nobody waits any more only when the runtime ends.
        let _ = tx.send(result);
    }));
    rx.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

/// For requests whose failure the store's own hook reports.
fn unwatched() -> Done {
    Box::new(|_| {})
}

fn parse<T>(bytes: &[u8]) -> io::Result<T>
where
    T: Wire,
    T::Proto: prost::Message + Default,
{
    decode(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.read(half_open(&range), usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.disk.vote().map(|b| parse(&b)).transpose()
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let bounds = self.disk.bounds();
        let purged: Option<LogId> = bounds.purged.map(|p| parse(&p.marker)).transpose()?;
        let last = match bounds.last {
            Some(last) => self.read(last..last.saturating_add(1), usize::MAX)?.first().map(|e| e.log_id),
            None => None,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        durable(|done| self.disk.save_vote(bytes(vote).into(), done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let record = committed.as_ref().map(bytes).unwrap_or_default();
        self.disk.put_meta(COMMITTED, record.into(), unwatched());
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        committed(&*self.disk)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let records: Vec<(u64, Bytes)> = entries.iter().map(|e| (e.log_id.index, bytes(e).into())).collect();
        let (watch, begun) = (self.watch.clone(), Instant::now());
        let done = move |result: io::Result<()>| {
            if result.is_ok() {
                watch.flushed(begun.elapsed());
                // The fences of these entries hold before anybody counts them.
                tell(&*watch, &entries);
            }
            flushed.io_completed(result);
        };
        self.disk.append(records, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let after = last.map(|id| id.index);
        durable(|done| self.disk.truncate_after(after, done)).await?;
        self.watch.truncated(after);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        // Nothing depends on when the entries are gone; until then they are read as gone.
        self.disk.purge(upto.index, bytes(&upto).into(), unwatched());
        Ok(())
    }
}
