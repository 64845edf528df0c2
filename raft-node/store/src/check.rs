//! The integrity pass over a database that has just been opened.

use std::io;

use crate::engine::{Engine, damage};
use crate::head::{Head, HeadError, SnapshotRef};
use crate::record::{Damage, Key, chain};

/// What a database holds.
pub(crate) enum Content {
    /// Nothing at all: it was just created.
    Nothing,
    /// One proven state, and records that no head counts.
    Sound { head: Head, leftovers: Vec<Key> },
    /// Written by a later version.
    Newer(u8),
}

/// Proves every record, the whole log and the snapshot.
pub(crate) fn check(engine: &Engine) -> io::Result<Content> {
    let keys = engine.scan().collect::<io::Result<Vec<Key>>>()?;
    if keys.is_empty() {
        return Ok(Content::Nothing);
    }
    let lost = || damage(Damage(format!("there are {} records but no head", keys.len())));
    let head = match Head::decode(&engine.get(Key::Head)?.ok_or_else(lost)?) {
        Ok(head) => head,
        Err(HeadError::Newer(format)) => return Ok(Content::Newer(format)),
        Err(HeadError::Damage(found)) => return Err(damage(found)),
    };
    check_log(engine, &head)?;
    check_snapshot(engine, head.snapshot.as_ref())?;
    let leftovers = keys.into_iter().filter(|key| !counts(&head, *key)).collect();
    Ok(Content::Sound { head, leftovers })
}

fn check_log(engine: &Engine, head: &Head) -> io::Result<()> {
    let mut tip = head.base;
    for index in head.state.first..head.state.next {
        let missing = || damage(Damage(format!("log entry {index} is missing")));
        let entry = engine.entry(index)?.ok_or_else(missing)?;
        tip = chain(tip, index, &entry.bytes);
        if tip != entry.chain {
            return Err(damage(Damage(format!("log entry {index} does not continue the one before it"))));
        }
    }
    if tip != head.tip {
        return Err(damage(Damage("the log does not end in the entry that the head names".into())));
    }
    Ok(())
}

fn check_snapshot(engine: &Engine, at: Option<&SnapshotRef>) -> io::Result<()> {
    let Some(at) = at else { return Ok(()) };
    let missing = || damage(Damage(format!("a piece of snapshot {} is missing", at.id)));
    engine.snapshot(at)?.map(|_| ()).ok_or_else(missing)
}

fn counts(head: &Head, key: Key) -> bool {
    match key {
        Key::Head => true,
        Key::Entry { index, .. } => head.state.holds(index),
        Key::Snapshot { id, .. } => head.snapshot.is_some_and(|at| at.id == id),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::head::FORMAT;
    use crate::{LogStore, OpenError, OpenOptions, Store, wait};

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new(Arc::new(|_| {}));
        (options.allow_volatile, options.ballast, options.cache) = (true, 0, 8 << 20);
        options
    }

    fn append(store: &Store, from: u64, fill: u8) {
        let entries = (from..from + 4).map(|index| (index, Bytes::from(vec![fill; 9000]))).collect();
        wait(|done| store.append(entries, done)).expect("durable");
    }

    /// A store with entries 0 to 7, changed behind its back, and what opening it then says.
    fn opened_after(change: impl FnOnce(&Engine)) -> Result<(Store, crate::Recovered), OpenError> {
        let dir = tempfile::tempdir().expect("scratch");
        {
            let (store, _) = Store::open(dir.path(), &options()).expect("new store");
            append(&store, 0, 1);
            append(&store, 4, 2);
        }
        change_in(dir.path(), change);
        Store::open(dir.path(), &options())
    }

    fn change_in(dir: &Path, change: impl FnOnce(&Engine)) {
        let engine = Engine::open(dir, &options()).expect("sound");
        change(&engine);
        engine.sync().expect("sync");
    }

    fn damage_after(change: impl FnOnce(&Engine)) -> String {
        match opened_after(change).err().expect("refused") {
            OpenError::Damaged { fact, .. } => fact,
            other => panic!("{other}"),
        }
    }

    fn remove(index: u64, chunk: u32) -> impl FnOnce(&Engine) {
        move |engine| engine.remove_key(Key::Entry { index, chunk }).expect("removed")
    }

    #[test]
    fn a_missing_entry_is_damage_wherever_it_is() {
        assert_eq!(damage_after(remove(0, 0)), "log entry 0 is missing");
        assert_eq!(damage_after(remove(5, 0)), "log entry 5 is missing");
        assert_eq!(damage_after(remove(7, 2)), "piece 2 of log entry 7 is missing");
    }

    #[test]
    fn an_older_entry_under_the_same_index_breaks_the_chain() {
        let replace = |engine: &Engine| engine.put_entry(5, 77, &[1; 9000]).expect("put");
        assert_eq!(damage_after(replace), "log entry 5 does not continue the one before it");
        // With its own chain value right, it is the next one that no longer fits.
        let replace = |engine: &Engine| {
            let before = engine.entry(4).expect("read").expect("present").chain;
            engine.put_entry(5, chain(before, 5, &[1; 9000]), &[1; 9000]).expect("put");
        };
        assert_eq!(damage_after(replace), "log entry 6 does not continue the one before it");
        let replace = |engine: &Engine| {
            let before = engine.entry(6).expect("read").expect("present").chain;
            engine.put_entry(7, chain(before, 7, &[1; 9000]), &[1; 9000]).expect("put");
        };
        assert_eq!(damage_after(replace), "the log does not end in the entry that the head names");
    }

    #[test]
    fn a_missing_head_is_damage() {
        let fact = damage_after(|engine| engine.remove_key(Key::Head).expect("removed"));
        assert!(fact.ends_with("but no head"), "{fact}");
    }

    #[test]
    fn a_later_format_is_named() {
        let error = opened_after(|engine| engine.put(Key::Head, &[FORMAT + 1, 1, 2]).expect("put"));
        let error = error.err().expect("refused");
        assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }), "{error}");
        assert!(!error.is_bad_store());
    }

    #[test]
    fn what_no_head_counts_is_removed() {
        let (store, recovered) = opened_after(|engine| {
            engine.put_entry(8, 1, &[3; 9000]).expect("put");
            engine.put(Key::Snapshot { id: 99, chunk: 0 }, b"piece").expect("put");
        })
        .expect("sound");
        assert_eq!((recovered.leftovers, recovered.bounds.last), (4, Some(7)));
        append(&store, 8, 4);
        assert_eq!(store.read(8..9).expect("readable")[0].1, vec![4; 9000]);
    }

    #[test]
    fn damage_found_while_running_ends_the_store() {
        let dir = tempfile::tempdir().expect("scratch");
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let mut options = options();
        options.fatal = Arc::new(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        let (store, _) = Store::open(dir.path(), &options).expect("new store");
        append(&store, 0, 1);
        remove(2, 1)(&store.inner.engine);
        assert_eq!(store.read(0..2).expect("sound so far").len(), 2);
        let error = store.read(0..4).expect_err("damage");
        assert_eq!(error.to_string(), "piece 1 of log entry 2 is missing");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(store.read(0..2).is_err() && wait(|done| store.append(Vec::new(), done)).is_err());
        assert_eq!(calls.load(Ordering::SeqCst), 1, "told once");
    }
}
