//! One record: its key, its checksum, and how larger values are cut into records.
//!
//! sled moves anything above roughly 7 KB into files that it never syncs, hence [`MAX_VALUE`]. The checksum covers
//! the key, so that a record that turns up under another key is noticed as well.

use std::fmt;

/// Largest value handed to the engine, in bytes. A leaf of sled holds up to 16 values and must stay far below
/// 128 KiB.
pub(crate) const MAX_VALUE: usize = 4096;
const CRC: usize = 4;
/// Largest body of one record.
pub(crate) const MAX_BODY: usize = MAX_VALUE - CRC;
/// The first record of an entry starts with the entry's length, its checksum and its place in the chain.
const ENTRY_PREFIX: usize = 12;
const KEY: usize = 13;

/// A record that is not what was written.
#[derive(Debug)]
pub(crate) struct Damage(pub(crate) String);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The one record that says what the rest means.
    Head,
    /// Piece `chunk` of a log entry.
    Entry { index: u64, chunk: u32 },
    /// Piece `chunk` of a snapshot.
    Snapshot { id: u64, chunk: u32 },
}

impl Key {
    /// The key's bytes; entries sort by index, then chunk.
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Key::Head => b"h".to_vec(),
            Key::Entry { index, chunk } => numbered(b'e', index, chunk),
            Key::Snapshot { id, chunk } => numbered(b's', id, chunk),
        }
    }

    /// The inverse of [`encode`](Self::encode).
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        if bytes == b"h" {
            return Ok(Key::Head);
        }
        let unknown = || Damage(format!("unknown key {bytes:02x?}"));
        let bytes: &[u8; KEY] = bytes.try_into().map_err(|_| unknown())?;
        let number = u64::from_be_bytes(array(&bytes[1..9]));
        let chunk = u32::from_be_bytes(array(&bytes[9..]));
        match bytes[0] {
            b'e' => Ok(Key::Entry { index: number, chunk }),
            b's' => Ok(Key::Snapshot { id: number, chunk }),
            _ => Err(unknown()),
        }
    }
}

fn numbered(kind: u8, number: u64, chunk: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(KEY);
    key.push(kind);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

/// The first `N` bytes of a slice that is known to have them.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

/// `crc32c(key || body) || body`.
pub(crate) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= MAX_BODY, "a record body of {} bytes was not cut", body.len());
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), body);
    let mut value = Vec::with_capacity(CRC + body.len());
    value.extend_from_slice(&crc.to_le_bytes());
    value.extend_from_slice(body);
    value
}

/// The body, if the checksum holds.
pub(crate) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Damage> {
    if value.len() < CRC {
        return Err(Damage(format!("record {key:02x?} has {} bytes", value.len())));
    }
    let (crc, body) = value.split_at(CRC);
    if crc32c::crc32c_append(crc32c::crc32c(key), body) != u32::from_le_bytes(array(crc)) {
        return Err(Damage(format!("record {key:02x?} has a wrong checksum")));
    }
    Ok(body)
}

/// The chain value of an entry: a checksum over it and every entry before it. An entry that was silently replaced
/// by an older one under the same index breaks the chain.
pub(crate) fn chain(before: u32, index: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, &index.to_be_bytes()), bytes)
}

/// The start of an entry as its first record holds it.
pub(crate) struct EntryStart<'a> {
    pub(crate) len: usize,
    /// Over all of the entry: its records may be read while they are being replaced.
    pub(crate) crc: u32,
    pub(crate) chain: u32,
    pub(crate) bytes: &'a [u8],
}

impl<'a> EntryStart<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, Damage> {
        if body.len() < ENTRY_PREFIX {
            return Err(Damage(format!("a log entry starts with {} bytes only", body.len())));
        }
        let len = u32::from_le_bytes(array(body)) as usize;
        let crc = u32::from_le_bytes(array(&body[4..]));
        let chain = u32::from_le_bytes(array(&body[8..]));
        Ok(EntryStart { len, crc, chain, bytes: &body[ENTRY_PREFIX..] })
    }
}

/// The bodies of an entry's records, in order.
pub(crate) fn entry_bodies(chain: u32, bytes: &[u8]) -> Vec<Vec<u8>> {
    let (start, rest) = bytes.split_at(bytes.len().min(MAX_BODY - ENTRY_PREFIX));
    let len = u32::try_from(bytes.len()).expect("entries are limited to MAX_ENTRY");
    let mut first = Vec::with_capacity(ENTRY_PREFIX + start.len());
    first.extend_from_slice(&len.to_le_bytes());
    first.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    first.extend_from_slice(&chain.to_le_bytes());
    first.extend_from_slice(start);
    std::iter::once(first).chain(rest.chunks(MAX_BODY).map(<[u8]>::to_vec)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_under_another_key_is_damage() {
        let value = seal(b"a", b"body");
        assert_eq!(unseal(b"a", &value).expect("own key"), b"body");
        assert!(unseal(b"b", &value).is_err());
        assert!(unseal(b"a", &value[..3]).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_damage(body in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
            let mut value = seal(b"key", &body);
            let bit = at.index(value.len() * 8);
            value[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unseal(b"key", &value).is_err());
        }

        #[test]
        fn keys_keep_their_order(a in any::<(u64, u32)>(), b in any::<(u64, u32)>()) {
            let key = |(index, chunk)| Key::Entry { index, chunk };
            prop_assert_eq!(key(a).encode().cmp(&key(b).encode()), a.cmp(&b));
            prop_assert_eq!(Key::decode(&key(a).encode()).expect("own key"), key(a));
        }

        #[test]
        fn entries_survive_cutting(len in 0usize..20_000) {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let bodies = entry_bodies(7, &bytes);
            prop_assert!(bodies.iter().all(|body| body.len() <= MAX_BODY));
            let start = EntryStart::decode(&bodies[0]).expect("own entry");
            let whole: Vec<u8> = start.bytes.iter().chain(bodies[1..].iter().flatten()).copied().collect();
            prop_assert_eq!(start.crc, crc32c::crc32c(&whole));
            prop_assert_eq!((start.len, start.chain, whole), (len, 7, bytes));
        }
    }
}
