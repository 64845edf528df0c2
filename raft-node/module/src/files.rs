//! The files of a module, and the one piece that they travel in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tree::odd;

/// Files of a module: one directory that a person still overlooks.
pub const FILES: usize = 64;
/// Bytes of one file: scripts and configuration, not the application itself.
pub const FILE_BYTES: usize = 256 * 1024;
/// Bytes of all files: one entry of the replicated log, which must pass in one message.
pub const TOTAL_BYTES: usize = 768 * 1024;
/// Bytes of a path.
pub const PATH_BYTES: usize = 200;
/// Bytes of packed files: contents, paths, and a few bytes each for lengths and flags.
pub const PACKED_BYTES: usize = TOTAL_BYTES + FILES * (PATH_BYTES + 16) + 16;
/// First byte of packed files. Another layout gets another one.
const LAYOUT: u8 = 1;

/// One file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct File {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Whether it may be run.
    pub executable: bool,
}

/// The files of a module by path: relative, with `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Files(pub BTreeMap<String, File>);

/// Why packed files cannot be unpacked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damaged {
    /// More than [`PACKED_BYTES`].
    #[error("{0} bytes are more than packed files can have")]
    TooLong(usize),
    /// Another version of Farm packed it.
    #[error("the files are packed in a layout that this version does not know")]
    Layout,
    /// Cut off, or no packed files at all.
    #[error("the packed files cannot be read")]
    Unreadable,
    /// Not what [`Files::pack`] makes: a path twice, another order, bytes at the end.
    #[error("the packed files are not in the form in which they are packed")]
    Form,
    /// More, longer, or with other paths than a module may have.
    #[error("{0}")]
    Limit(String),
}

/// As it is packed: path, bytes, executable.
#[derive(Serialize, Deserialize)]
struct Packed<'a>(&'a str, &'a [u8], bool);

impl Files {
    /// All bytes of all files.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.values().map(|file| file.bytes.len()).sum()
    }

    /// One piece; the same bytes for the same files.
    ///
    /// # Panics
    /// Never: memory takes what is written.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let packed = self.0.iter().map(|(path, file)| Packed(path, &file.bytes, file.executable));
        let list: Vec<Packed<'_>> = packed.collect();
        postcard::to_extend(&list, vec![LAYOUT]).expect("a vector takes what is written")
    }

    /// The files of one piece.
    ///
    /// # Errors
    /// [`Damaged`], for whatever [`Files::pack`] does not make of files within the limits.
    pub fn unpack(bytes: &[u8]) -> Result<Self, Damaged> {
        if bytes.len() > PACKED_BYTES {
            return Err(Damaged::TooLong(bytes.len()));
        }
        let (layout, body) = bytes.split_first().ok_or(Damaged::Unreadable)?;
        if *layout != LAYOUT {
            return Err(Damaged::Layout);
        }
        let (list, rest): (Vec<Packed<'_>>, _) =
            postcard::take_from_bytes(body).map_err(|_| Damaged::Unreadable)?;
        if !rest.is_empty() || !list.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Damaged::Form);
        }
        let file = |Packed(path, bytes, executable): Packed<'_>| {
            (path.to_owned(), File { bytes: bytes.to_vec(), executable })
        };
        let files = Self(list.into_iter().map(file).collect());
        files.check()?;
        // A number can be written in more than one way; only one of them is the packed form.
        if files.pack() == bytes { Ok(files) } else { Err(Damaged::Form) }
    }

    fn check(&self) -> Result<(), Damaged> {
        let limit = |fact: String| Err(Damaged::Limit(fact));
        if self.0.len() > FILES {
            return limit(format!("{} files; the most are {FILES}", self.0.len()));
        }
        if self.size() > TOTAL_BYTES {
            return limit(format!("{} bytes in all files; the most are {TOTAL_BYTES}", self.size()));
        }
        for (path, file) in &self.0 {
            if let Some(why) = odd(self, path) {
                return limit(format!("path {path:?}: {why}"));
            }
            if file.bytes.len() > FILE_BYTES {
                return limit(format!("{path} has {} bytes; the most are {FILE_BYTES}", file.bytes.len()));
            }
        }
        Ok(())
    }
}
