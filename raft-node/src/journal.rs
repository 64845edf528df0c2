//! The event journal: what happened, when by this node's clock, and what caused it. Kept in memory for
//! `events`, appended to `events.jsonl`, which is bounded by rotation, and told to the system's journal. A thread of its
//! own writes, so that nobody who notes an event waits for a disk.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use farm_proto::v1;
use farm_store::{DiskPressure, Gauge};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::journald::Journald;

/// Events kept in memory: an incident with all its causes is some dozens.
pub const KEPT: usize = 2000;
/// Bytes after which the file is rotated; one older file is kept.
const FILE_MAX: u64 = 8 << 20;
/// Events that may wait for the disk: one that stalls for seconds in the worst incident. Later ones stay in memory only.
const WAITING_MAX: usize = 1024;
/// Events a slow follower may lag behind before it is told that it missed some.
const FOLLOW_LAG: usize = 512;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unique in the cluster: node and counter, or the log entry.
    pub id: String,
    /// Wall clock of this node, for people; nothing is decided by it.
    pub time_unix_ms: u64,
    /// The node that says so.
    pub node: u64,
    /// Stable code.
    pub kind: String,
    /// The node, module or service it is about.
    pub resource: String,
    /// One sentence.
    pub text: String,
    /// Id of the event that caused it, or empty.
    pub cause: String,
    /// Raft index, 0 for local events.
    pub index: u64,
    /// Epoch at the time.
    pub epoch: u64,
}

impl From<Record> for v1::Event {
    fn from(r: Record) -> Self {
        Self {
            id: r.id,
            time_unix_ms: r.time_unix_ms,
            node: r.node,
            kind: r.kind,
            text: r.text,
            cause: r.cause,
            index: r.index,
            epoch: r.epoch,
            resource: r.resource,
            clock_ahead_ms: 0,
        }
    }
}

/// The journal of this node.
pub struct Journal {
    inner: Mutex<Inner>,
    follow: broadcast::Sender<Record>,
    // Declared before the thread: it ends when nobody can send any more.
    disk: Option<SyncSender<ToDisk>>,
    writer: Option<JoinHandle<()>>,
    /// The system's journal is told: the standard error need not say it there again.
    told: bool,
}

struct Inner {
    records: VecDeque<Record>,
    counter: u64,
    run: u64,
}

/// What the thread is told.
enum ToDisk {
    Write(Record),
    /// From now on leave the disk alone when this says so.
    Heed(Gauge),
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.disk.take());
        if let Some(writer) = self.writer.take() {
            // A panic there has been reported by it.
            let _ = writer.join();
        }
    }
}

impl Journal {
    /// Opens the journal in `dir`; a file that cannot be read or written only costs history.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        Self::open_to(dir, Journald::of_system())
    }

    /// The same, also to `journald`.
    #[must_use]
    pub(crate) fn open_to(dir: &Path, journald: Option<Journald>) -> Self {
        let told = journald.is_some();
        let path = dir.join("events.jsonl");
        let inner = Inner { records: read_back(&path), counter: 0, run: now_ms() };
        let (disk, orders) = sync_channel(WAITING_MAX);
        let file = JournalFile { file: append_to(&path), path, gauge: None, journald };
        let writer = std::thread::Builder::new().name("farm-journal".into()).spawn(move || file.run(&orders));
        let writer = writer.map_err(|error| tracing::warn!(%error, "events are kept in memory only")).ok();
        let follow = broadcast::channel(FOLLOW_LAG).0;
        Self { inner: Mutex::new(inner), follow, disk: Some(disk), writer, told }
    }

    /// Stops writing the file while `gauge` says that the disk is needed for the log.
    pub fn heed(&self, gauge: Gauge) {
        self.tell(ToDisk::Heed(gauge));
    }

    fn tell(&self, order: ToDisk) {
        // Full or ended: the journal in memory goes on.
        let _ = self.disk.as_ref().is_some_and(|disk| disk.try_send(order).is_ok());
    }

    /// Notes a local event and returns its id, to be given as cause of what follows from it.
    pub fn note(
        &self,
        node: u64,
        kind: &str,
        resource: &str,
        text: impl Into<String>,
        cause: &str,
    ) -> String {
        let id = {
            let mut inner = self.lock();
            inner.counter += 1;
            format!("n{node}-{:x}-{}", inner.run, inner.counter)
        };
        self.put(Record {
            id: id.clone(),
            time_unix_ms: now_ms(),
            node,
            kind: kind.into(),
            resource: resource.into(),
            text: text.into(),
            cause: cause.into(),
            index: 0,
            epoch: 0,
        });
        id
    }

    /// Adds a record.
    pub fn put(&self, record: Record) {
        if !self.told {
            let Record { kind, resource, cause, text, .. } = &record;
            tracing::info!(%kind, %resource, %cause, "{text}");
        }
        self.tell(ToDisk::Write(record.clone()));
        let mut inner = self.lock();
        if inner.records.len() == KEPT {
            inner.records.pop_front();
        }
        inner.records.push_back(record.clone());
        // No follower is listening: nothing to do.
        let _ = self.follow.send(record);
    }

    /// The last `n` records, oldest first, and what follows them.
    pub fn tail(&self, n: usize) -> (Vec<Record>, broadcast::Receiver<Record>) {
        let inner = self.lock();
        let skip = inner.records.len().saturating_sub(n);
        (inner.records.iter().skip(skip).cloned().collect(), self.follow.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while noting an event must not silence the journal.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file and the system's journal, owned by the thread.
struct JournalFile {
    journald: Option<Journald>,
    path: PathBuf,
    file: Option<File>,
    gauge: Option<Gauge>,
}

impl JournalFile {
    fn run(mut self, orders: &Receiver<ToDisk>) {
        while let Ok(order) = orders.recv() {
            match order {
                ToDisk::Write(record) => {
                    if let Some(journald) = &mut self.journald {
                        journald.send(&record);
                    }
                    if self.has_room() {
                        self.write(&record);
                    }
                }
                ToDisk::Heed(gauge) => self.gauge = Some(gauge),
            }
        }
    }

    fn has_room(&self) -> bool {
        // A file system that cannot be asked will refuse the write itself.
        self.gauge.as_ref().is_none_or(|g| g.pressure().is_ok_and(|p| p == DiskPressure::Ok))
    }

    fn write(&mut self, record: &Record) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        let written = self.file.as_mut().map(|f| f.write_all(&line).and_then(|()| f.metadata()));
        match written {
            Some(Ok(meta)) if meta.len() > FILE_MAX => self.rotate(),
            Some(Ok(_)) | None => {}
            // The journal in memory goes on.
            Some(Err(_)) => self.file = None,
        }
    }

    fn rotate(&mut self) {
        // If the rename fails the file only grows on.
        if std::fs::rename(&self.path, self.path.with_extension("1.jsonl")).is_ok() {
            self.file = append_to(&self.path);
        }
    }
}

/// The file, at the start of a line: the last run may have died within one.
fn append_to(path: &Path) -> Option<File> {
    let mut file = OpenOptions::new().create(true).append(true).open(path).ok()?;
    let torn = file.metadata().is_ok_and(|m| m.len() > 0);
    if torn { file.write_all(b"\n").ok().map(|()| file) } else { Some(file) }
}

fn read_back(path: &Path) -> VecDeque<Record> {
    let Ok(file) = File::open(path) else { return VecDeque::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let mut records: VecDeque<Record> = lines.filter_map(|l| serde_json::from_str(&l).ok()).collect();
    let extra = records.len().saturating_sub(KEPT);
    records.drain(..extra);
    records
}

/// Wall clock in milliseconds since 1970, for people.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_a_restart_and_keep_their_cause() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cause = {
            let journal = Journal::open(dir.path());
            let cause = journal.note(1, "node_silent", "node2", "node2 is silent", "");
            journal.note(1, "buckets_moved", "web", "its buckets move", &cause);
            cause
        };
        let (records, _) = Journal::open(dir.path()).tail(10);
        assert_eq!(records.len(), 2);
        assert_eq!(records[1].cause, cause);
        assert_ne!(records[0].id, records[1].id);
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().expect("tempdir");
        Journal::open(dir.path()).note(1, "a", "b", "c", "");
        let path = dir.path().join("events.jsonl");
        let mut bytes = std::fs::read(&path).expect("written");
        bytes.extend_from_slice(b"{\"id\":\"half");
        std::fs::write(&path, bytes).expect("torn");
        Journal::open(dir.path()).note(1, "d", "b", "c", "");
        let kinds: Vec<String> = Journal::open(dir.path()).tail(10).0.into_iter().map(|r| r.kind).collect();
        assert_eq!(kinds, ["a", "d"]);
    }
}
