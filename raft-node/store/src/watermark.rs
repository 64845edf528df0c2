//! The watermark: the last batch known to have been acknowledged, kept outside the database.
//!
//! A damaged byte near the end of sled's log looks like a torn tail to it: it cuts the log there and opens happily.
//! The watermark turns that loss into a refusal. It is written after each sync and not synced itself, so it is never
//! ahead of the database, and behind it only after a power cut.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::record::array;

/// File name of the watermark.
pub(crate) const WATERMARK: &str = "watermark";
/// Two slots, each in a sector of its own, written in turn: a torn write leaves the other one.
const SLOT: u64 = 512;
const LEN: usize = 12;

/// The open file.
#[derive(Debug)]
pub(crate) struct Watermark {
    file: File,
    last: u64,
    /// The slot that holds `last`, or 0.
    slot: u64,
}

impl Watermark {
    /// Opens it, or creates it without a mark.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(WATERMARK);
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let (zero, one) = (read_slot(&file, 0)?, read_slot(&file, 1)?);
        Ok(Watermark { file, last: zero.max(one), slot: u64::from(one > zero) })
    }

    /// Last batch known to be acknowledged; 0 if none is.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Notes that everything up to `seq` is durable.
    pub(crate) fn note(&mut self, seq: u64) -> io::Result<()> {
        if seq <= self.last {
            return Ok(());
        }
        let bytes = seq.to_le_bytes();
        let mut slot = [0; LEN];
        slot[..8].copy_from_slice(&bytes);
        slot[8..].copy_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        self.slot = 1 - self.slot;
        self.file.write_all_at(&slot, self.slot * SLOT)?;
        self.last = seq;
        Ok(())
    }

    /// Makes the mark durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn read_slot(file: &File, slot: u64) -> io::Result<u64> {
    let mut bytes = [0; LEN];
    match file.read_exact_at(&mut bytes, slot * SLOT) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        Err(error) => return Err(error),
    }
    let valid = crc32c::crc32c(&bytes[..8]) == u32::from_le_bytes(array(&bytes[8..]));
    Ok(if valid { u64::from_le_bytes(array(&bytes)) } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_mark_before() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut mark = Watermark::open(dir.path()).expect("new");
        assert_eq!(mark.last(), 0);
        for seq in [3, 5, 6] {
            mark.note(seq).expect("note");
        }
        let slots = [read_slot(&mark.file, 0).expect("slot"), read_slot(&mark.file, 1).expect("slot")];
        assert_eq!(slots.iter().max(), Some(&6));
        assert_eq!(slots.iter().min(), Some(&5));
        let newest = slots.iter().position(|seq| *seq == 6).expect("present") as u64;
        mark.file.write_all_at(&[0xff; 4], newest * SLOT).expect("tear");
        assert_eq!(Watermark::open(dir.path()).expect("again").last(), 5);
    }
}
