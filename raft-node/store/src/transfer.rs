//! Carrying a log from one engine to another.
//!
//! ```text
//! farm_store::import(&new, farm_store::export(&old))?;
//! ```
//! with both stores open and no Raft running on either. The new store must be empty. It is complete when `import`
//! returns; then the old directory may go.

use std::io;

use bytes::Bytes;

use crate::log_store::{LogStore, Purged, Snapshot, wait};

/// Bytes of entries read and written at a time.
const STEP: usize = 1 << 20;

/// One thing that a log consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The vote.
    Vote(Bytes),
    /// A small record.
    Meta(String, Bytes),
    /// The snapshot.
    Snapshot(Snapshot),
    /// The end of the purged part; comes before the entries.
    Purged(Purged),
    /// Entries, contiguous from one item to the next.
    Entries(Vec<(u64, Bytes)>),
}

/// Everything in a store, in the order in which [`import`] needs it.
pub fn export<S: LogStore + ?Sized>(store: &S) -> impl Iterator<Item = io::Result<Item>> + '_ {
    let bounds = store.bounds();
    let small = store.metas().into_iter().map(|(key, value)| Item::Meta(key, value));
    let small = small.chain(store.vote().map(Item::Vote)).chain(bounds.purged.map(Item::Purged)).map(Ok);
    let snapshot = std::iter::once_with(|| store.snapshot())
        .filter_map(|snapshot| snapshot.map(|found| found.map(Item::Snapshot)).transpose());
    let range = bounds.first.zip(bounds.last).map_or(0..0, |(first, last)| first..last + 1);
    small.chain(snapshot).chain(entries(store, range))
}

fn entries<S: LogStore + ?Sized>(
    store: &S,
    mut range: std::ops::Range<u64>,
) -> impl Iterator<Item = io::Result<Item>> + '_ {
    std::iter::from_fn(move || {
        if range.is_empty() {
            return None;
        }
        let read = store.read_limited(range.clone(), STEP);
        range.start = match &read {
            // An early end means that the log was changed under the export.
            Ok(read) => read.last().map_or(range.end, |(index, _)| index + 1),
            Err(_) => range.end,
        };
        Some(read.map(Item::Entries))
    })
}

/// Puts everything that [`export`] yields into an empty store. Durable on return.
///
/// # Errors
/// The first error of either store. The new store is then incomplete: start again with an empty one.
pub fn import<S: LogStore + ?Sized>(
    store: &S,
    items: impl IntoIterator<Item = io::Result<Item>>,
) -> io::Result<()> {
    for item in items {
        match item? {
            Item::Vote(vote) => wait(|done| store.save_vote(vote, done))?,
            Item::Meta(key, value) => wait(|done| store.put_meta(&key, value, done))?,
            Item::Snapshot(snapshot) => wait(|done| store.put_snapshot(snapshot, done))?,
            Item::Purged(purged) => wait(|done| store.purge(purged.index, purged.marker, done))?,
            Item::Entries(entries) => wait(|done| store.append(entries, done))?,
        }
    }
    Ok(())
}
