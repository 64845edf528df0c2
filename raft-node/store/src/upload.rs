//! A snapshot on its way into the database, slice by slice between the batches, so that votes and entries need not
//! wait for it.

use bytes::{Bytes, BytesMut};
use std::io;

use crate::engine::Engine;
use crate::head::SnapshotRef;
use crate::log_store::{Done, Snapshot};
use crate::record::{Key, MAX_BODY};

/// Records written between two batches: a quarter of a megabyte, about a millisecond.
const SLICE: usize = 64;

/// Writing (records left) → written and synced → published (a head names it) → done.
pub(crate) struct Upload {
    pub(crate) at: SnapshotRef,
    pub(crate) done: Done,
    /// A head that names it has been written.
    pub(crate) published: bool,
    /// The snapshot before it.
    pub(crate) replaces: Option<SnapshotRef>,
    bytes: Bytes,
    chunk: u32,
}

impl Upload {
    /// An upload that still needs its id.
    pub(crate) fn new(snapshot: &Snapshot, done: Done) -> Self {
        let mut all = BytesMut::with_capacity(snapshot.meta.len() + snapshot.data.len());
        all.extend_from_slice(&snapshot.meta);
        all.extend_from_slice(&snapshot.data);
        let (meta_len, data_len) = (snapshot.meta.len() as u64, snapshot.data.len() as u64);
        let at = SnapshotRef { id: 0, meta_len, data_len, crc: crc32c::crc32c(&all) };
        Upload { at, done, published: false, replaces: None, bytes: all.freeze(), chunk: 0 }
    }

    /// Gives it an id that no other snapshot in the database has.
    pub(crate) fn named(mut self, id: u64) -> Self {
        self.at.id = id;
        self
    }

    /// True if every record was written by an earlier batch, and so is durable.
    pub(crate) fn is_written(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes the next records.
    pub(crate) fn write_slice(&mut self, engine: &Engine) -> io::Result<()> {
        for _ in 0..SLICE {
            if self.bytes.is_empty() {
                break;
            }
            let body = self.bytes.split_to(self.bytes.len().min(MAX_BODY));
            engine.put(Key::Snapshot { id: self.at.id, chunk: self.chunk }, &body)?;
            self.chunk += 1;
        }
        Ok(())
    }
}
