//! sled, reduced to what is known to be sound: small values, one writer, `flush` and then `fdatasync`.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
#[cfg(feature = "planted")]
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use nix::fcntl::Flock;

use crate::OpenOptions;
use crate::head::{Head, SnapshotRef};
use crate::log_store::Snapshot;
use crate::record::{self, Damage, EntryStart, Key};

/// The open database. Only the writer thread changes it.
pub(crate) struct Engine {
    db: sled::Db,
    file: File,
    /// Given back after the database is closed.
    lock: Option<Flock<File>>,
    #[cfg(feature = "planted")]
    faults: Arc<dyn crate::planted::Faults>,
}

/// One log entry as stored.
pub(crate) struct StoredEntry {
    pub(crate) chain: u32,
    pub(crate) bytes: Bytes,
}

impl Engine {
    /// Opens or creates the database files in `dir`. May panic or never return on damaged files.
    pub(crate) fn open(dir: &Path, options: &OpenOptions) -> Result<Self, sled::Error> {
        // The background flush is of no use: `sync` is what makes a write durable.
        let config = sled::Config::new().path(dir).cache_capacity(options.cache).flush_every_ms(None);
        let db = config.open()?;
        let file = fs::OpenOptions::new().read(true).write(true).open(dir.join("db"))?;
        #[cfg(feature = "planted")]
        let faults = options.faults.clone();
        Ok(Engine {
            db,
            file,
            lock: None,
            #[cfg(feature = "planted")]
            faults,
        })
    }

    /// Keeps the store's lock for as long as the database is open.
    pub(crate) fn locked(mut self, lock: Flock<File>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// A second handle of the database file, for its size and its blocks.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Writes one record.
    pub(crate) fn put(&self, key: Key, body: &[u8]) -> io::Result<()> {
        let key = key.encode();
        let value = record::seal(&key, body);
        self.db.insert(key, value).map_err(to_io)?;
        Ok(())
    }

    /// Writes an entry with its chain value.
    pub(crate) fn put_entry(&self, index: u64, chain: u32, bytes: &[u8]) -> io::Result<()> {
        for (chunk, body) in (0..).zip(record::entry_bodies(chain, bytes)) {
            self.put(Key::Entry { index, chunk }, &body)?;
        }
        Ok(())
    }

    /// Writes the head.
    pub(crate) fn put_head(&self, head: &Head) -> io::Result<()> {
        self.put(Key::Head, &head.encode())
    }

    /// The body of one record.
    pub(crate) fn get(&self, key: Key) -> io::Result<Option<Vec<u8>>> {
        let key = key.encode();
        let value = self.db.get(&key).map_err(to_io)?;
        value.map(|value| record::unseal(&key, &value).map(<[u8]>::to_vec).map_err(damage)).transpose()
    }

    /// One log entry; `None` if it is not there, an error if a part of it is missing.
    pub(crate) fn entry(&self, index: u64) -> io::Result<Option<StoredEntry>> {
        let Some(body) = self.get(Key::Entry { index, chunk: 0 })? else { return Ok(None) };
        let start = EntryStart::decode(&body).map_err(damage)?;
        let mut bytes = BytesMut::with_capacity(start.len.min(crate::MAX_ENTRY));
        bytes.extend_from_slice(start.bytes);
        let mut chunk = 1;
        while bytes.len() < start.len {
            let key = Key::Entry { index, chunk };
            let Some(piece) = self.get(key)? else {
                return Err(damage(Damage(format!("piece {chunk} of log entry {index} is missing"))));
            };
            bytes.extend_from_slice(&piece);
            chunk += 1;
        }
        if bytes.len() != start.len || crc32c::crc32c(&bytes) != start.crc {
            return Err(damage(Damage(format!("log entry {index} has a wrong length or checksum"))));
        }
        Ok(Some(StoredEntry { chain: start.chain, bytes: bytes.freeze() }))
    }

    /// A snapshot; `None` if one of its pieces is not there.
    pub(crate) fn snapshot(&self, at: &SnapshotRef) -> io::Result<Option<Snapshot>> {
        let mut all = BytesMut::new();
        for chunk in 0..at.chunks() {
            let Some(piece) = self.get(Key::Snapshot { id: at.id, chunk })? else { return Ok(None) };
            all.extend_from_slice(&piece);
        }
        if all.len() as u64 != at.meta_len + at.data_len || crc32c::crc32c(&all) != at.crc {
            return Err(damage(Damage(format!("snapshot {} has a wrong length or checksum", at.id))));
        }
        let data = all.split_off(usize::try_from(at.meta_len).expect("shorter than `all`"));
        Ok(Some(Snapshot { meta: all.freeze(), data: data.freeze() }))
    }

    /// Removes every record in `keys`.
    pub(crate) fn remove(&self, keys: Range<Key>) -> io::Result<()> {
        self.remove_some(keys, usize::MAX).map(|_| ())
    }

    /// Removes at most `limit` records in `keys`, the first ones first; true if there were no more.
    pub(crate) fn remove_some(&self, keys: Range<Key>, limit: usize) -> io::Result<bool> {
        let mut found = self.db.range(keys.start.encode()..keys.end.encode()).keys();
        for key in found.by_ref().take(limit) {
            self.db.remove(key.map_err(to_io)?).map_err(to_io)?;
        }
        Ok(found.next().is_none())
    }

    /// Removes one record.
    pub(crate) fn remove_key(&self, key: Key) -> io::Result<()> {
        self.db.remove(key.encode()).map(|_| ()).map_err(to_io)
    }

    /// Every key, in order, its record's checksum proven.
    pub(crate) fn scan(&self) -> impl Iterator<Item = io::Result<Key>> + '_ {
        self.db.iter().map(|record| {
            let (key, value) = record.map_err(to_io)?;
            record::unseal(&key, &value).map_err(damage)?;
            Key::decode(&key).map_err(damage)
        })
    }

    /// Makes everything written so far durable. sled's own `flush` hands the data to the kernel only.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.db.flush().map_err(to_io)?;
        self.sync_file()
    }

    #[cfg(feature = "planted")]
    fn sync_file(&self) -> io::Result<()> {
        self.faults.sync(&self.file)
    }

    #[cfg(not(feature = "planted"))]
    fn sync_file(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// True if the planted bug is on.
    #[cfg(feature = "planted")]
    pub(crate) fn acknowledges_early(&self) -> bool {
        self.faults.acknowledge_early()
    }

    /// True if the planted bug is on.
    #[cfg(not(feature = "planted"))]
    pub(crate) fn acknowledges_early(&self) -> bool {
        false
    }
}

/// Runs code that calls into sled, which panics where it should return an error.
pub(crate) fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(io::Error::other(panic_text(&*panic))))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a text"))
}

/// A damaged record as an I/O error.
pub(crate) fn damage(damage: Damage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, damage.0)
}

/// sled's error as an I/O error of the right kind.
pub(crate) fn to_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, other)
        }
        other @ (sled::Error::CollectionNotFound(_) | sled::Error::Unsupported(_)) => io::Error::other(other),
    }
}
