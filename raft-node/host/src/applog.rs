//! The log of a module's application: what its scripts and whatever they left running write, line by line.
//!
//! It is written by a process of its own ([`pump`]), at the other end of a pipe: an application that goes on when the
//! daemon dies must have somebody who reads. Several may write into one directory; a line is one append.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{Flock, FlockArg};

/// The file that is written; older ones have a number behind it.
const FILE: &str = "log";
/// Stands where a line was cut.
const CUT: &str = " …";

/// How much of a log is read, in bytes: more than an operator reads, though its lines may be as long as they like.
const TAIL_BYTES: u64 = 8 << 20;

/// How much is read at once of what is new: what a person can still follow.
const NEWS_BYTES: u64 = 256 << 10;

/// How far somebody has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Which file, whatever its number is by now.
    pub file: u64,
    /// Bytes of it.
    pub offset: u64,
}

/// How much may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file; then the next one begins.
    pub file_bytes: u64,
    /// Files that are kept beside the one that is written.
    pub files: u32,
    /// Bytes of one line; the rest is cut off.
    pub line_bytes: usize,
    /// Lines per second; more are counted and thrown away.
    pub lines_per_second: u32,
}

/// Writes every line of `input` into the log in `directory`, as `TIME LABEL: LINE`, until its end.
///
/// Where the log cannot be written it reads on, and says how many lines are lost once it can: an application whose output
/// nobody reads is ended by SIGPIPE, or hangs.
///
/// # Errors
/// Of the input at once; of the file system at the end of the input, where that did not go away. What cannot be read as
/// UTF-8 is written as far as it can be.
pub fn pump(input: impl Read, directory: &Path, label: &str, limits: &Limits) -> io::Result<()> {
    let mut lines = BufReader::new(input);
    let mut quota = Quota::new(limits.lines_per_second);
    let mut log = Log { directory, label, limits, lost: 0, failed: None };
    while let Some(line) = next_line(&mut lines, limits.line_bytes)? {
        let (allowed, dropped) = quota.ask(Instant::now());
        if dropped > 0 && allowed {
            log.write(&too_fast(dropped));
        }
        if allowed {
            log.write(&line);
        }
    }
    if quota.dropped > 0 {
        log.write(&too_fast(quota.dropped));
    }
    log.failed.map_or(Ok(()), Err)
}

fn too_fast(lines: u64) -> String {
    format!("{lines} lines were written too fast and are lost")
}

/// A log that may fail for a while.
struct Log<'a> {
    directory: &'a Path,
    label: &'a str,
    limits: &'a Limits,
    /// Lines since the last that was written.
    lost: u64,
    failed: Option<io::Error>,
}

impl Log<'_> {
    fn write(&mut self, line: &str) {
        let written = self.tell_lost().and_then(|()| append(self.directory, self.label, line, self.limits));
        self.lost += u64::from(written.is_err());
        self.failed = written.err();
    }

    fn tell_lost(&mut self) -> io::Result<()> {
        if self.lost > 0 {
            let text = format!("{} lines could not be written and are lost", self.lost);
            append(self.directory, self.label, &text, self.limits)?;
            self.lost = 0;
        }
        Ok(())
    }
}

/// Writes one line, whatever `text` has in it.
///
/// # Errors
/// Of the file system.
pub fn append(directory: &Path, label: &str, text: &str, limits: &Limits) -> io::Result<()> {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    let line = format!("{now} {label}: {}\n", printable(text));
    let mut file = open(directory)?;
    if file.metadata()?.len() + line.len() as u64 > limits.file_bytes {
        rotate(directory, limits)?;
        file = open(directory)?;
    }
    file.write_all(line.as_bytes())
}

/// The last lines, oldest first, over as many files as that takes, but no more than 8 MiB, and where they end. A line that
/// begins before that is cut at its beginning.
///
/// # Errors
/// Of the file system; a log that was never written is empty.
pub fn tail(directory: &Path, lines: usize) -> io::Result<(Vec<String>, Cursor)> {
    let (mut found, mut cursor): (Vec<String>, Option<Cursor>) = (Vec::new(), None);
    // Otherwise a rotation could move a file from behind the reading to before it.
    let Some(_guard) = reading(directory)? else { return Ok((found, Cursor::default())) };
    let mut left = TAIL_BYTES;
    for number in numbers(directory)? {
        if found.len() >= lines || left == 0 {
            break;
        }
        let end = read_end(&file(directory, number), left)?;
        left -= end.text.len() as u64;
        cursor = cursor.or(Some(end.at));
        found.extend(end.lines().take(lines - found.len()));
    }
    found.reverse();
    Ok((found, cursor.unwrap_or_default()))
}

/// What was written since, oldest first, and where that ends: as many whole lines as are read at once.
///
/// # Errors
/// Of the file system; a log that was never written is empty.
pub fn since(directory: &Path, cursor: Cursor) -> io::Result<(Vec<String>, Cursor)> {
    let Some(_guard) = reading(directory)? else { return Ok((Vec::new(), cursor)) };
    let mut files = Vec::new();
    for number in numbers(directory)? {
        let path = file(directory, number);
        let metadata = fs::metadata(&path)?;
        let id = identity(&metadata);
        files.push((path, id));
        if id == cursor.file {
            break;
        }
    }
    let known = files.last().is_some_and(|(_, id)| *id == cursor.file);
    let mut found = Vec::new();
    if !known && cursor != Cursor::default() && !files.is_empty() {
        found.push(format!("{} what was written here is kept no more", CUT.trim_start()));
    }
    let (mut at, mut left) = (cursor, NEWS_BYTES);
    let newest = files.len().saturating_sub(1);
    for (position, (path, id)) in files.into_iter().rev().enumerate() {
        let from = if id == cursor.file { cursor.offset } else { 0 };
        let text = read_from(&path, from, left)?;
        // Nothing is added any more to a file that has a number: its end is the end of a line.
        let all = position < newest && (text.len() as u64) < left;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let used = if all { text.len() } else { whole };
        found.extend(split(&text[..used]).map(|line| String::from_utf8_lossy(line).into_owned()));
        at = Cursor { file: id, offset: from + used as u64 };
        left -= text.len() as u64;
        if left == 0 {
            break;
        }
    }
    Ok((found, at))
}

/// A new file may have the inode of one that was removed, but not its time of birth.
fn identity(metadata: &fs::Metadata) -> u64 {
    let born = metadata.created().ok().and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
    let born =
        born.map_or(0, |since| since.as_secs().wrapping_mul(1_000_000_000) + u64::from(since.subsec_nanos()));
    metadata.ino() ^ born
}

/// Keeps files from being given other numbers; `None`: there is no log.
fn reading(directory: &Path) -> io::Result<Option<Flock<File>>> {
    match lock(directory, FlockArg::LockShared) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        locked => locked.map(Some),
    }
}

fn read_from(file: &Path, offset: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// Its lines; of nothing none.
fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n');
    lines.take(if text.is_empty() { 0 } else { usize::MAX })
}

/// The last bytes of a file.
struct End {
    text: Vec<u8>,
    /// Behind them.
    at: Cursor,
    /// Whether the first line has begun before.
    cut: bool,
}

impl End {
    /// Last line first.
    fn lines(&self) -> impl Iterator<Item = String> {
        let lines = self.text.strip_suffix(b"\n").unwrap_or(&self.text).split(|byte| *byte == b'\n');
        // Of an empty file that is one empty line.
        let mut first = lines.clone().count().min(self.text.len());
        lines.rev().take(first).map(move |line| {
            first -= 1;
            let line = String::from_utf8_lossy(line);
            if self.cut && first == 0 { format!("{}{line}", CUT.trim_start()) } else { line.into_owned() }
        })
    }
}

/// What grows meanwhile is not read. The byte before the end tells whether a line was cut.
fn read_end(file: &Path, most: u64) -> io::Result<End> {
    let mut file = File::open(file)?;
    let metadata = file.metadata()?;
    let skipped = metadata.len().saturating_sub(most);
    let mut before = [b'\n'];
    if let Some(at) = skipped.checked_sub(1) {
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut before)?;
    }
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    let at = Cursor { file: identity(&metadata), offset: skipped + text.len() as u64 };
    Ok(End { text, at, cut: before != *b"\n" })
}

fn file(directory: &Path, number: u32) -> PathBuf {
    if number == 0 { directory.join(FILE) } else { directory.join(format!("{FILE}.{number}")) }
}

/// Of the files that are there, newest first. One may be missing in between: a rotation ended in its midst.
fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        match name.to_str().and_then(|name| name.strip_prefix(FILE)) {
            Some("") => numbers.push(0),
            Some(rest) => numbers.extend(rest.strip_prefix('.').and_then(|n| n.parse::<u32>().ok())),
            None => {}
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn lock(directory: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(directory)?, how).map_err(|(_, error)| error.into())
}

fn open(directory: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(file(directory, 0))
}

/// Moves each file one number up. Whoever comes second finds a short file and leaves it.
fn rotate(directory: &Path, limits: &Limits) -> io::Result<()> {
    let _guard = lock(directory, FlockArg::LockExclusive)?;
    let full = fs::metadata(file(directory, 0)).is_ok_and(|m| m.len() * 2 > limits.file_bytes);
    if !full {
        return Ok(());
    }
    for number in (0..limits.files).rev() {
        match fs::rename(file(directory, number), file(directory, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    // Where nothing older is kept.
    if limits.files == 0 { fs::remove_file(file(directory, 0)) } else { Ok(()) }
}

/// The next line without its end, cut to `limit` bytes; `None` at the end of the input.
fn next_line(input: &mut impl BufRead, limit: usize) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut cut = false;
    loop {
        let chunk = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            filled => filled?,
        };
        if chunk.is_empty() {
            return Ok((!line.is_empty()).then(|| text(&line, cut)));
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = limit.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(&part[..room]);
        cut |= room < part.len();
        let used = end.map_or(chunk.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(Some(text(&line, cut)));
        }
    }
}

fn text(line: &[u8], cut: bool) -> String {
    let mut text = String::from_utf8_lossy(line).into_owned();
    if cut {
        text.push_str(CUT);
    }
    text
}

/// Without what would end the line or command a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A bucket that fills with one second's lines.
struct Quota {
    per_second: f64,
    left: f64,
    at: Option<Instant>,
    dropped: u64,
}

impl Quota {
    fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), left: f64::from(per_second), at: None, dropped: 0 }
    }

    /// Whether one more may be written, and how many were not since the last that was.
    fn ask(&mut self, now: Instant) -> (bool, u64) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.left = (self.left + passed.as_secs_f64() * self.per_second).min(self.per_second);
        // Having lost some, it waits until there is room for a few.
        let needed = if self.dropped > 0 { (self.per_second / 10.0).max(2.0) } else { 1.0 };
        if self.left < needed {
            self.dropped += 1;
            return (false, self.dropped);
        }
        self.left -= 1.0;
        (true, std::mem::take(&mut self.dropped))
    }
}
