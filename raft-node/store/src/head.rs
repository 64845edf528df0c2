//! The head: the one small record that says what all other records mean.
//!
//! Entries are written before the head that counts them, and removed after the head that no longer does. sled
//! recovers a prefix of what was written, so whatever it recovers is one state that once was, plus leftovers that no
//! head counts. Nothing here relies on sled's batches.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::log_store::{Bounds, Purged};
use crate::record::{Damage, Key, MAX_BODY, array};

/// Newest format that this version reads, and the one it writes.
pub(crate) const FORMAT: u8 = 1;

/// What readers see, besides the entries themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) vote: Option<Bytes>,
    pub(crate) purged: Option<Purged>,
    /// The log is `first..next`.
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) meta: BTreeMap<String, Bytes>,
}

impl State {
    /// The index that must come next; `None` if the log may start anywhere.
    pub(crate) fn expected(&self) -> Option<u64> {
        let unanchored = self.first == self.next && self.purged.is_none();
        (!unanchored).then_some(self.next)
    }

    /// Takes up contiguous entries from `start` on.
    pub(crate) fn append(&mut self, start: u64, count: u64) {
        if self.expected().is_none() {
            self.first = start;
        }
        self.next = start + count;
    }

    /// Drops everything from `next` on.
    pub(crate) fn truncate(&mut self, next: u64) {
        if next >= self.next {
            return;
        }
        if next <= self.first {
            self.first = self.purged.as_ref().map_or(0, |purged| purged.index + 1);
            self.next = self.first;
        } else {
            self.next = next;
        }
    }

    /// True if purging up to `upto` changes anything.
    pub(crate) fn purges(&self, upto: u64) -> bool {
        self.purged.as_ref().is_none_or(|purged| purged.index < upto)
    }

    /// Forgets everything up to `upto`.
    pub(crate) fn purge(&mut self, upto: u64, marker: Bytes) {
        if !self.purges(upto) {
            return;
        }
        let empty = self.first == self.next;
        self.next = self.next.max(upto + 1);
        self.first = if empty { self.next } else { self.first.max(upto + 1) };
        self.purged = Some(Purged { index: upto, marker });
    }

    /// True if the entry belongs to the log.
    pub(crate) fn holds(&self, index: u64) -> bool {
        (self.first..self.next).contains(&index)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let empty = self.first == self.next;
        Bounds {
            purged: self.purged.clone(),
            first: (!empty).then_some(self.first),
            last: (!empty).then(|| self.next - 1),
        }
    }
}

/// Where the published snapshot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotRef {
    pub(crate) id: u64,
    pub(crate) meta_len: u64,
    pub(crate) data_len: u64,
    pub(crate) crc: u32,
}

impl SnapshotRef {
    /// Number of records it takes.
    pub(crate) fn chunks(&self) -> u32 {
        let chunks = (self.meta_len + self.data_len).div_ceil(MAX_BODY as u64);
        u32::try_from(chunks).expect("snapshots are limited to MAX_SNAPSHOT")
    }

    /// The keys of its records.
    pub(crate) fn keys(&self) -> Range<Key> {
        Key::Snapshot { id: self.id, chunk: 0 }..Key::Snapshot { id: self.id + 1, chunk: 0 }
    }
}

/// The durable head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Grows with every head written.
    pub(crate) seq: u64,
    pub(crate) state: State,
    /// Chain value before the first entry, and of the last one.
    pub(crate) base: u32,
    pub(crate) tip: u32,
    pub(crate) snapshot: Option<SnapshotRef>,
}

/// Why a head could not be read.
#[derive(Debug)]
pub(crate) enum HeadError {
    Damage(Damage),
    Newer(u8),
}

impl From<Damage> for HeadError {
    fn from(damage: Damage) -> Self {
        HeadError::Damage(damage)
    }
}

const SEQ: u8 = 1;
const VOTE: u8 = 2;
const PURGED: u8 = 3;
const FIRST: u8 = 4;
const NEXT: u8 = 5;
const BASE: u8 = 6;
const TIP: u8 = 7;
const SNAPSHOT: u8 = 8;
const META: u8 = 9;

/// Bytes that one field takes besides its content.
const FIELD: usize = 5;

/// Bytes that a small record takes in the head.
pub(crate) fn meta_size(key: &str, value: &[u8]) -> usize {
    FIELD + 1 + key.len() + value.len()
}

impl Head {
    /// Format, then fields: tag, length (u32, little-endian), content. No field depends on its place.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put(&mut out, SEQ, &[&self.seq.to_le_bytes()]);
        if let Some(vote) = &self.state.vote {
            put(&mut out, VOTE, &[vote]);
        }
        if let Some(purged) = &self.state.purged {
            put(&mut out, PURGED, &[&purged.index.to_le_bytes(), &purged.marker]);
        }
        put(&mut out, FIRST, &[&self.state.first.to_le_bytes()]);
        put(&mut out, NEXT, &[&self.state.next.to_le_bytes()]);
        put(&mut out, BASE, &[&self.base.to_le_bytes()]);
        put(&mut out, TIP, &[&self.tip.to_le_bytes()]);
        if let Some(s) = &self.snapshot {
            let lengths = [s.id.to_le_bytes(), s.meta_len.to_le_bytes(), s.data_len.to_le_bytes()].concat();
            put(&mut out, SNAPSHOT, &[&lengths, &s.crc.to_le_bytes()]);
        }
        for (key, value) in &self.state.meta {
            let len = u8::try_from(key.len()).expect("keys are limited to MAX_KEY");
            put(&mut out, META, &[&[len], key.as_bytes(), value]);
        }
        out
    }

    /// The inverse of [`encode`](Self::encode).
    pub(crate) fn decode(body: &[u8]) -> Result<Self, HeadError> {
        let (format, mut rest) = body.split_first().ok_or_else(|| Damage("the head is empty".into()))?;
        if *format > FORMAT {
            return Err(HeadError::Newer(*format));
        }
        let mut head = Head::default();
        while !rest.is_empty() {
            let (tag, content, after) = split_field(rest)?;
            head.take(tag, content)?;
            rest = after;
        }
        head.state.check()?;
        Ok(head)
    }

    fn take(&mut self, tag: u8, content: &[u8]) -> Result<(), Damage> {
        match tag {
            SEQ => self.seq = u64::from_le_bytes(fixed(content)?),
            VOTE => self.state.vote = Some(Bytes::copy_from_slice(content)),
            PURGED => {
                let (index, marker) = split(content, 8)?;
                let marker = Bytes::copy_from_slice(marker);
                self.state.purged = Some(Purged { index: u64::from_le_bytes(array(index)), marker });
            }
            FIRST => self.state.first = u64::from_le_bytes(fixed(content)?),
            NEXT => self.state.next = u64::from_le_bytes(fixed(content)?),
            BASE => self.base = u32::from_le_bytes(fixed(content)?),
            TIP => self.tip = u32::from_le_bytes(fixed(content)?),
            SNAPSHOT => self.snapshot = Some(SnapshotRef::decode(content)?),
            META => {
                let (key, value) = decode_meta(content)?;
                self.state.meta.insert(key, value);
            }
            unknown => return Err(Damage(format!("the head has an unknown field {unknown}"))),
        }
        Ok(())
    }
}

impl State {
    fn check(&self) -> Result<(), Damage> {
        let below = self.purged.as_ref().is_some_and(|purged| self.first <= purged.index);
        if self.first > self.next || below {
            return Err(Damage(format!("the head names an impossible log {self:?}")));
        }
        Ok(())
    }
}

impl SnapshotRef {
    fn decode(content: &[u8]) -> Result<Self, Damage> {
        let content: [u8; 28] = fixed(content)?;
        Ok(SnapshotRef {
            id: u64::from_le_bytes(array(&content)),
            meta_len: u64::from_le_bytes(array(&content[8..])),
            data_len: u64::from_le_bytes(array(&content[16..])),
            crc: u32::from_le_bytes(array(&content[24..])),
        })
    }
}

fn decode_meta(content: &[u8]) -> Result<(String, Bytes), Damage> {
    let (len, rest) = split(content, 1)?;
    let (key, value) = split(rest, usize::from(len[0]))?;
    let key = std::str::from_utf8(key).map_err(|_| Damage("a small record's key is not text".into()))?;
    Ok((key.to_owned(), Bytes::copy_from_slice(value)))
}

fn put(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.push(tag);
    out.extend_from_slice(&u32::try_from(len).expect("the head fits one record").to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn split_field(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Damage> {
    let (prefix, rest) = split(bytes, FIELD)?;
    let len = u32::from_le_bytes(array(&prefix[1..])) as usize;
    let (content, after) = split(rest, len)?;
    Ok((prefix[0], content, after))
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), Damage> {
    bytes.split_at_checked(at).ok_or_else(|| Damage("the head is cut short".into()))
}

fn fixed<const N: usize>(content: &[u8]) -> Result<[u8; N], Damage> {
    content.try_into().map_err(|_| Damage(format!("a field of the head has {} bytes", content.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let meta = BTreeMap::from([("identity".to_owned(), Bytes::from_static(b"node1"))]);
        let purged = Some(Purged { index: 4, marker: Bytes::from_static(b"marker") });
        let state = State { vote: Some(Bytes::from_static(b"vote")), purged, first: 5, next: 9, meta };
        let snapshot = Some(SnapshotRef { id: 3, meta_len: 1, data_len: 9000, crc: 77 });
        Head { seq: 12, state, base: 1, tip: 2, snapshot }
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        assert_eq!(Head::decode(&head().encode()).expect("own head"), head());
        assert_eq!(Head::decode(&Head::default().encode()).expect("own head"), Head::default());
    }

    #[test]
    fn a_cut_head_is_damage_and_a_later_format_is_named() {
        let bytes = head().encode();
        assert!(matches!(Head::decode(&bytes[..bytes.len() - 1]), Err(HeadError::Damage(_))));
        assert!(matches!(Head::decode(&[]), Err(HeadError::Damage(_))));
        assert!(matches!(Head::decode(&[FORMAT + 1, 0]), Err(HeadError::Newer(2))));
    }

    #[test]
    fn the_log_may_start_anywhere_only_while_it_is_empty_and_unpurged() {
        let mut state = State::default();
        assert_eq!(state.expected(), None);
        state.append(7, 3);
        assert_eq!((state.first, state.expected()), (7, Some(10)));
        state.truncate(0);
        assert_eq!(state.expected(), None);
        state.purge(20, Bytes::new());
        assert_eq!(state.expected(), Some(21));
        state.append(21, 2);
        state.truncate(5);
        assert_eq!((state.bounds().last, state.expected()), (None, Some(21)));
    }

    #[test]
    fn a_purge_never_goes_back() {
        let mut state = State::default();
        state.append(0, 10);
        state.purge(5, Bytes::from_static(b"five"));
        state.purge(3, Bytes::from_static(b"three"));
        assert_eq!(state.bounds().purged.map(|purged| purged.index), Some(5));
        assert_eq!((state.first, state.next), (6, 10));
    }
}
