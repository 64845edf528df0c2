//! Moving a bad store aside.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::open::lock;
use crate::space::BALLAST;

/// Moves the store in `dir` aside, to a name beside it that is returned, for the operator to look at or delete. The
/// data stay as they are; only the ballast is given back to the disk. `dir` is free for a new store afterwards, which
/// must join under a new Raft id.
///
/// # Errors
/// `WouldBlock` if a process still has the store open (an opening that hung counts: restart the process first), or
/// whatever the file system answers.
pub fn quarantine(dir: &Path) -> io::Result<PathBuf> {
    let _lock = lock(dir)?.ok_or(io::ErrorKind::WouldBlock)?;
    match fs::remove_file(dir.join(BALLAST)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let aside = free_name(dir)?;
    fs::rename(dir, &aside)?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    tracing::warn!(from = %dir.display(), to = %aside.display(), "a bad store was moved aside");
    Ok(aside)
}

fn free_name(dir: &Path) -> io::Result<PathBuf> {
    let name = dir.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    // The wall clock only makes the name readable; the number makes it free.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut candidates = (0u32..).map(|n| dir.with_file_name(format!("{name}.bad-{now}-{n}")));
    Ok(candidates.find(|path| !path.exists()).expect("names do not run out"))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}
