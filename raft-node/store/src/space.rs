//! Room on the disk: the ballast, and blocks reserved before they are written.
//!
//! sled cannot go on after a failed write. So it never gets to see a full disk: before a batch is written, blocks
//! behind the end of the database file are reserved with `fallocate`. If that fails, a step of the ballast is given
//! up and the reservation is tried once more. Only when the ballast is gone does the store fail.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

/// File name of the ballast.
pub(crate) const BALLAST: &str = "ballast";

/// Blocks always reserved behind the end of the database file: eight segments of sled, more than one batch (whose
/// size is limited) makes it write.
const HEADROOM: u64 = 4 << 20;

/// Free space that sled needs to recover: it rewrites one segment and its snapshot file.
pub(crate) const OPEN_ROOM: u64 = 4 << 20;

/// The ballast is given up in this many steps.
const STEPS: u64 = 8;

/// Who must stop writing so that the log can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskPressure {
    /// Nobody: the ballast and the low-water mark are there.
    Ok,
    /// Text logs and other optional files must stop; commands go on.
    LogsOnly,
    /// Half of the ballast is gone: commands are refused too; votes, membership and fences go on.
    CommandsRefused,
}

/// How full the disk is, for anyone who asks; it does not keep the store open.
#[derive(Clone, Debug)]
pub struct Gauge {
    dir: PathBuf,
    ballast: Arc<AtomicU64>,
    target: u64,
    low_water: u64,
}

impl Gauge {
    /// Ok, or who must stop.
    ///
    /// # Errors
    /// The system's answer if the file system cannot be asked.
    pub fn pressure(&self) -> io::Result<DiskPressure> {
        let spare = available(&self.dir)?.saturating_add(self.ballast.load(Ordering::Relaxed));
        Ok(match spare {
            spare if spare >= self.target.saturating_add(self.low_water) => DiskPressure::Ok,
            spare if spare >= self.target / 2 => DiskPressure::LogsOnly,
            _ => DiskPressure::CommandsRefused,
        })
    }
}

/// A file that does nothing but take up room.
#[derive(Debug)]
pub(crate) struct Ballast {
    file: File,
    len: Arc<AtomicU64>,
    target: u64,
    dir: PathBuf,
}

impl Ballast {
    /// Opens the ballast and makes it as large as fits, with `OPEN_ROOM` left over. Shrinks it if that is missing.
    pub(crate) fn open(dir: &Path, target: u64) -> io::Result<Self> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(BALLAST))?;
        let len = Arc::new(AtomicU64::new(file.metadata()?.len()));
        let ballast = Ballast { file, len, target, dir: dir.to_owned() };
        let spare = available(dir)?.saturating_add(ballast.len());
        ballast.resize(target.min(spare.saturating_sub(OPEN_ROOM)))?;
        Ok(ballast)
    }

    /// Bytes held.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// What tells the pressure.
    pub(crate) fn gauge(&self, low_water: u64) -> Gauge {
        Gauge { dir: self.dir.clone(), ballast: self.len.clone(), target: self.target, low_water }
    }

    /// Gives up `bytes` and a step, which also pays for rounding and metadata; false if there is nothing left.
    fn release(&self, bytes: u64) -> io::Result<bool> {
        let len = self.len();
        if len == 0 {
            return Ok(false);
        }
        self.resize(len.saturating_sub(bytes + self.target / STEPS))?;
        tracing::warn!(left = self.len(), "the disk is full: gave up part of the reserve; free some space");
        Ok(true)
    }

    /// Takes back what was given up, once there is room for all of it and the headroom.
    fn restore(&self) -> io::Result<()> {
        let missing = self.target.saturating_sub(self.len());
        if missing == 0 || available(&self.dir)? < missing + 2 * HEADROOM {
            return Ok(());
        }
        self.resize(self.target)?;
        tracing::info!(bytes = self.len(), "the reserve for a full disk is whole again");
        Ok(())
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        if len < self.len() {
            self.file.set_len(len)?;
        } else if len > self.len() {
            reserve(&self.file, FallocateFlags::empty(), len)?;
        }
        self.len.store(len, Ordering::Relaxed);
        // The file system may hand freed blocks out again only after it has committed.
        self.file.sync_all()
    }
}

/// The reservation in front of the database file.
#[derive(Debug)]
pub(crate) struct Room {
    db: File,
    ballast: Ballast,
}

impl Room {
    pub(crate) fn new(db: File, ballast: Ballast) -> Self {
        Room { db, ballast }
    }

    /// Makes sure that `bytes` and the headroom can be written without asking the disk for more.
    pub(crate) fn ensure(&self, bytes: u64) -> io::Result<()> {
        let meta = self.db.metadata()?;
        // sled rewrites a leaf every few changes: what is stored is written a few times over.
        let wanted = meta.len() + HEADROOM + 4 * bytes;
        if allocated(&meta) < wanted {
            self.extend(wanted)?;
        }
        if let Err(error) = self.ballast.restore() {
            tracing::warn!(%error, "the reserve for a full disk could not be restored yet");
        }
        Ok(())
    }

    fn extend(&self, wanted: u64) -> io::Result<()> {
        match self.reserve(wanted + HEADROOM) {
            Err(error) if is_full(&error) => {
                // Asked again: ext4 keeps what it got before it failed, tmpfs even gives back older reservations.
                let missing = wanted.saturating_sub(allocated(&self.db.metadata()?));
                if self.ballast.release(missing)? { self.reserve(wanted) } else { Err(error) }
            }
            other => other,
        }
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        reserve(&self.db, FallocateFlags::FALLOC_FL_KEEP_SIZE, len)
    }
}

fn allocated(meta: &Metadata) -> u64 {
    meta.blocks() * 512
}

fn reserve(file: &File, flags: FallocateFlags, len: u64) -> io::Result<()> {
    let len = i64::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok(fallocate(file, flags, 0, len)?)
}

/// True if the error says that the disk (or the quota) is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Bytes that an ordinary writer can still get on the file system of `dir`.
pub(crate) fn available(dir: &Path) -> io::Result<u64> {
    let stat = statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}
