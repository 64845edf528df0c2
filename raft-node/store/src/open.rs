//! Opening: refuse what cannot be trusted, recover under a watchdog, prove everything.
//!
//! ```text
//! Refused ◀── file system, lock, room ──▶ Opening ──▶ Checking ──▶ Cleaning ──▶ Open
//!                                            │  corrupt: drop sled's snapshot, once
//!                                            ▼
//!                             panic, error, damage, no end ──▶ Bad (quarantine, new id)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice, posix_fadvise};
use nix::sys::statfs::{self, FsType, statfs};

use crate::check::{Content, check};
use crate::engine::{Engine, guarded, to_io};
use crate::head::{FORMAT, Head};
use crate::quarantine::sync_dir;
use crate::shared::{Shared, View};
use crate::space::{Ballast, OPEN_ROOM, Room, available, is_full};
use crate::store::Inner;
use crate::watermark::Watermark;
use crate::writer::Writer;
use crate::{Bounds, OpenError, OpenOptions, Store};

/// File name of the lock.
const LOCK: &str = "lock";

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The store did not exist before.
    pub created: bool,
    /// The log.
    pub bounds: Bounds,
    /// Records removed that no acknowledged request had counted: the rests of what a crash interrupted.
    pub leftovers: usize,
    /// sled's own index did not fit its data and was rebuilt from them.
    pub index_rebuilt: bool,
    /// How long it took.
    pub took: Duration,
}

impl Store {
    /// Opens the store in `dir`, or creates it. On return everything in it is proven and durable.
    ///
    /// Nothing is ever wiped: what cannot be trusted is refused, and stays where it is.
    ///
    /// # Errors
    /// See [`OpenError`]; after [`OpenError::Hung`] a thread is left behind that still has the store open.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<(Store, Recovered), OpenError> {
        let started = Instant::now();
        let site = Site::prepare(dir, options)?;
        let ballast = site.ballast(options)?;
        let opened = site.watched(options)?;
        let recovered = Recovered {
            created: opened.created,
            bounds: opened.head.state.bounds(),
            leftovers: opened.leftovers,
            index_rebuilt: opened.index_rebuilt,
            took: started.elapsed(),
        };
        let store = start(opened, ballast, options).map_err(|source| site_error(dir, source))?;
        Ok((store, recovered))
    }
}

/// A directory that may hold a store, locked.
struct Site {
    dir: PathBuf,
    lock: Flock<File>,
}

/// A database that is proven.
struct Opened {
    engine: Engine,
    watermark: Watermark,
    head: Head,
    created: bool,
    leftovers: usize,
    index_rebuilt: bool,
}

impl Site {
    fn prepare(dir: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        fs::create_dir_all(dir).map_err(|source| site_error(dir, source))?;
        check_filesystem(dir, options.allow_volatile)?;
        // It holds the cluster's key, and others may pass through the directory above.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(|source| site_error(dir, source))?;
        let lock = lock(dir).map_err(|source| site_error(dir, source))?;
        let lock = lock.ok_or_else(|| OpenError::Locked { dir: dir.to_owned() })?;
        Ok(Site { dir: dir.to_owned(), lock })
    }

    fn ballast(&self, options: &OpenOptions) -> Result<Ballast, OpenError> {
        let ballast =
            Ballast::open(&self.dir, options.ballast).map_err(|source| site_error(&self.dir, source))?;
        let available = available(&self.dir).map_err(|source| site_error(&self.dir, source))?;
        if available < OPEN_ROOM {
            return Err(OpenError::DiskFull { dir: self.dir.clone(), available, needed: OPEN_ROOM });
        }
        Ok(ballast)
    }

    /// Recovers on a thread of its own: sled may panic or loop for ever over damaged files.
    fn watched(self, options: &OpenOptions) -> Result<Opened, OpenError> {
        let (dir, after) = (self.dir.clone(), options.watchdog);
        let (tx, rx) = mpsc::sync_channel(1);
        let recovery = {
            let options = options.clone();
            move || {
                // Nobody listens any more once the watchdog has spoken.
                let _ = tx.send(self.recover(&options));
            }
        };
        let thread = thread::Builder::new().name("store-open".into()).spawn(recovery);
        thread.map_err(|source| site_error(&dir, source))?;
        match rx.recv_timeout(after) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(OpenError::Hung { dir, after }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(OpenError::Damaged { dir, fact: "the recovery thread panicked".into() })
            }
        }
    }

    fn recover(self, options: &OpenOptions) -> Result<Opened, OpenError> {
        let dir = self.dir.clone();
        let bad = |source| site_error(&dir, source);
        let watermark = Watermark::open(&dir).map_err(bad)?;
        let (engine, index_rebuilt) = open_engine(self, options).map_err(bad)?;
        let content = guarded(|| check(&engine)).map_err(bad)?;
        let (created, head, leftovers) = match content {
            Content::Nothing => (true, Head::default(), Vec::new()),
            Content::Sound { head, leftovers } => (false, head, leftovers),
            Content::Newer(found) => return Err(OpenError::NewerFormat { dir, found, known: FORMAT }),
        };
        if head.seq < watermark.last() {
            return Err(OpenError::LostWrites { dir, found: head.seq, acknowledged: watermark.last() });
        }
        let count = leftovers.len();
        let mut opened = Opened { engine, watermark, head, created, leftovers: count, index_rebuilt };
        guarded(|| {
            leftovers.into_iter().try_for_each(|key| opened.engine.remove_key(key))?;
            opened.make_durable(&dir)
        })
        .map_err(bad)?;
        Ok(opened)
    }
}

impl Opened {
    /// What was recovered may be in the page cache only; nobody may see it before it is on the disk.
    fn make_durable(&mut self, dir: &Path) -> io::Result<()> {
        if self.created {
            self.head.seq = 1;
            self.engine.put_head(&self.head)?;
        }
        self.engine.sync()?;
        if self.created {
            sync_new(dir)?;
        }
        self.watermark.note(self.head.seq)?;
        self.watermark.sync()?;
        sync_dir(dir)
    }
}

/// Makes a new database's files and names durable; sled does not.
fn sync_new(dir: &Path) -> io::Result<()> {
    for name in ["db", "conf", LOCK] {
        File::open(dir.join(name))?.sync_all()?;
    }
    sync_dir(&dir.join("blobs"))?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Reads from now on come from the disk. After a sync that failed the kernel keeps the pages that it could not write,
/// and calls them clean: a store that was opened from them would vouch for batches that a power cut takes away.
fn forget_cached(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "db" || name.starts_with("snap.") {
            let file = File::open(entry.path())?;
            // Dirty pages cannot be forgotten, and those of a daemon that was only killed are whole.
            file.sync_all()?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
    }
    Ok(())
}

fn open_engine(site: Site, options: &OpenOptions) -> io::Result<(Engine, bool)> {
    let Site { dir, lock } = site;
    // A crash while sled opened leaves these, and it takes them for whole ones.
    remove_files(&dir, |name| name.starts_with("snap.") && name.ends_with(".generating"))?;
    wait_for_release(&dir.join("db"))?;
    forget_cached(&dir)?;
    let open = || guarded(|| Engine::open(&dir, options).map_err(to_io));
    let (engine, rebuilt) = match open() {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%error, dir = %dir.display(), "sled's index is damaged; rebuilding it from the data");
            remove_files(&dir, |name| name.starts_with("snap."))?;
            (open()?, true)
        }
        other => (other?, false),
    };
    if fs::read_dir(dir.join("blobs"))?.next().is_some() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "sled keeps records outside its database"));
    }
    Ok((engine.locked(lock), rebuilt))
}

/// An earlier store of this process may still be closing: sled cuts its file on a thread of its own. No other process
/// can have it open, or it would have our lock.
fn wait_for_release(db: &Path) -> io::Result<()> {
    let file = match File::open(db) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    Flock::lock(file, FlockArg::LockExclusive).map(drop).map_err(|(_, errno)| errno.into())
}

fn remove_files(dir: &Path, unwanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let file = file?;
        if unwanted(&file.file_name().to_string_lossy()) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// The lock that keeps a second process out; `None` if another one has it.
pub(crate) fn lock(dir: &Path) -> io::Result<Option<Flock<File>>> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn check_filesystem(dir: &Path, allow_volatile: bool) -> Result<(), OpenError> {
    let found = statfs(dir).map_err(|errno| site_error(dir, errno.into()))?.filesystem_type();
    let durable = [statfs::EXT4_SUPER_MAGIC, statfs::XFS_SUPER_MAGIC];
    let volatile = [statfs::TMPFS_MAGIC, statfs::OVERLAYFS_SUPER_MAGIC];
    if durable.contains(&found) || (allow_volatile && volatile.contains(&found)) {
        return Ok(());
    }
    Err(OpenError::Filesystem { dir: dir.to_owned(), found: filesystem_name(found) })
}

fn filesystem_name(found: FsType) -> String {
    let names = [
        (statfs::BTRFS_SUPER_MAGIC, "btrfs"),
        (statfs::FUSE_SUPER_MAGIC, "fuse"),
        (statfs::NFS_SUPER_MAGIC, "nfs"),
        (statfs::OVERLAYFS_SUPER_MAGIC, "overlayfs"),
        (statfs::SMB_SUPER_MAGIC, "smb"),
        (statfs::TMPFS_MAGIC, "tmpfs"),
    ];
    let name = names.iter().find(|(magic, _)| *magic == found).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("an unknown file system ({:#x})", found.0))
}

/// An error while opening. What the system itself refused says nothing about the data; everything else does.
fn site_error(dir: &Path, source: io::Error) -> OpenError {
    let dir = dir.to_owned();
    if is_full(&source) {
        return OpenError::DiskFull { available: available(&dir).unwrap_or(0), dir, needed: OPEN_ROOM };
    }
    if source.raw_os_error().is_some() {
        return OpenError::Io { what: format!("opening store {}", dir.display()), source };
    }
    OpenError::Damaged { dir, fact: source.to_string() }
}

/// Starts the writer thread.
fn start(opened: Opened, ballast: Ballast, options: &OpenOptions) -> io::Result<Store> {
    let (queue, requests) = mpsc::channel();
    let gauge = ballast.gauge(options.low_water);
    let room = Room::new(opened.engine.file()?, ballast);
    let engine = Arc::new(opened.engine);
    let shared = Arc::new(Shared::new(View {
        token: 1,
        promised: opened.head.state.clone(),
        snapshot: opened.head.snapshot,
        pending: BTreeMap::new(),
        poison: None,
        queue: Some(queue),
        // Tickets name snapshots, and the published one has had its name from an earlier run.
        ticket: opened.head.snapshot.map_or(0, |at| at.id),
    }));
    let writer = Writer {
        engine: engine.clone(),
        shared: shared.clone(),
        queue: requests,
        head: opened.head,
        room,
        watermark: opened.watermark,
        fatal: options.fatal.clone(),
        uploads: VecDeque::new(),
        garbage: VecDeque::new(),
        dirty: false,
    };
    let started = options.writer_started.clone();
    let writing = move || {
        started();
        writer.run();
    };
    let writer = thread::Builder::new().name("store-writer".into()).spawn(writing)?;
    let inner = Inner { engine, shared, gauge, fatal: options.fatal.clone(), writer: Some(writer) };
    Ok(Store { inner: Arc::new(inner), token: 1 })
}
