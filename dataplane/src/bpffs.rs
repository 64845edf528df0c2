//! The bpf file system that keeps pins alive beyond the daemon, and the lock that makes the daemon the only writer.
//!
//! It must be the *host's*: a mount namespace of one's own (a container, `PrivateMounts=`, `ip netns exec`) may show
//! a bpffs that dies with the process, and the filter then fails open. That cannot be told from inside in general;
//! the guard (see [`crate::guard`]) is what keeps such a node closed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

/// Where the host mounts its bpffs.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Why there is no directory for pins.
#[derive(Debug, Error)]
pub enum PinDirError {
    /// Nothing of type bpf is mounted there, and it could not be mounted.
    #[error("{} is not on a bpf file system ({error}); run: mount -t bpf bpf {MOUNT_POINT}", path.display())]
    NotBpf {
        /// The directory asked for.
        path: PathBuf,
        /// What mounting said.
        error: io::Error,
    },
    /// It could not be made or opened.
    #[error("cannot use {} for pins: {error}", path.display())]
    Unusable {
        /// The directory asked for.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another daemon writes the tables.
    #[error("another farmd holds {0}; stop it first (it is the one shown by: fuser {0})", path.display())]
    Locked {
        /// The directory asked for.
        path: PathBuf,
    },
}

/// Whether anything is pinned in `path`: a daemon was here and did not take its filter down.
///
/// # Errors
/// Where the directory cannot be read.
pub fn left_behind(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(found?.next().transpose()?.is_some()),
    }
}

/// The pin directory, locked against every other writer until it is dropped or the process ends.
///
/// The lock lies on the directory itself (bpffs allows `flock` on directories), so whoever sees the pins sees it.
#[derive(Debug)]
pub(crate) struct PinDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PinDir {
    /// Mounts the bpffs where that is missing, makes the directory (only root may enter it) and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, PinDirError> {
        let unusable = |error| PinDirError::Unusable { path: path.to_owned(), error };
        ensure_bpf(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let directory = File::open(path).map_err(unusable)?;
        let lock =
            Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                nix::errno::Errno::EWOULDBLOCK => PinDirError::Locked { path: path.to_owned() },
                other => unusable(other.into()),
            })?;
        if same_directory(&lock, path).map_err(unusable)? {
            Ok(Self { path: path.to_owned(), _lock: lock })
        } else {
            // It was removed by its former owner between opening and locking: that owner is just stopping.
            Err(PinDirError::Locked { path: path.to_owned() })
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The pin of that name.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Names of everything in the directory.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Removes a pin; one that is not there is removed already.
    pub(crate) fn unpin(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.pin(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the empty directory.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_dir(&self.path)
    }
}

fn same_directory(open: &File, path: &Path) -> io::Result<bool> {
    let (open, now) = (open.metadata()?, fs::metadata(path)?);
    Ok((open.dev(), open.ino()) == (now.dev(), now.ino()))
}

fn is_bpf(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// The nearest directory at or above `path` that exists is on a bpffs, if need be after mounting it.
fn ensure_bpf(path: &Path) -> Result<(), PinDirError> {
    let on_bpf = || path.ancestors().find(|ancestor| ancestor.exists()).is_some_and(is_bpf);
    if on_bpf() {
        return Ok(());
    }
    let mounted = if path.starts_with(MOUNT_POINT) && !is_bpf(Path::new(MOUNT_POINT)) {
        mount_bpf()
    } else {
        Err(io::Error::other("pins live below the host's bpf file system"))
    };
    mounted.map_err(|error| PinDirError::NotBpf { path: path.to_owned(), error })
}

fn mount_bpf() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), MOUNT_POINT, Some("bpf"), flags, Some("mode=0700"))?;
    tracing::info!("mounted a bpf file system at {MOUNT_POINT}");
    Ok(())
}
