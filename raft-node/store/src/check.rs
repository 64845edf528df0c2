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
