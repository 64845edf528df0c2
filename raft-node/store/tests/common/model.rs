//! What a store must hold after the first `n` requests of a reproducible sequence.

use std::collections::BTreeMap;

use bytes::Bytes;
use farm_store::{Bounds, Done, LogStore, Purged, Rewrite, Snapshot};

use super::rng::Rng;

/// One request.
#[derive(Clone, Debug)]
pub enum Op {
    Append(Vec<Bytes>),
    Vote(Bytes),
    /// Drop this many entries from the end.
    Truncate(u64),
    /// Keep this many entries.
    Purge(u64),
    Meta(String, Bytes),
    /// Take-over: a vote, one entry, a generation.
    Rewrite(Bytes, Bytes),
}

/// The expected content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub vote: Option<Bytes>,
    pub purged: Option<Purged>,
    pub entries: BTreeMap<u64, Bytes>,
    pub meta: BTreeMap<String, Bytes>,
}

impl Model {
    /// After the first `count` requests of a seed's sequence.
    pub fn after(seed: u64, count: u64) -> Self {
        let mut model = Model::default();
        (0..count).for_each(|number| model.apply(&op(seed, number)));
        model
    }

    pub fn next(&self) -> u64 {
        let after_purged = self.purged.as_ref().map_or(0, |purged| purged.index + 1);
        self.entries.last_key_value().map_or(after_purged, |(index, _)| index + 1)
    }

    /// What `Op::Truncate` and `Op::Purge` come to in this state.
    fn last_kept(&self, dropped: u64) -> Option<u64> {
        self.next().checked_sub(dropped + 1)
    }

    fn purge_upto(&self, kept: u64) -> Option<u64> {
        self.next().checked_sub(kept + 1)
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(entries) => entries.iter().for_each(|entry| self.push(entry.clone())),
            Op::Vote(vote) => self.vote = Some(vote.clone()),
            Op::Truncate(dropped) => {
                let next = self.last_kept(*dropped).map_or(0, |last| last + 1);
                self.entries.split_off(&next);
            }
            Op::Purge(kept) => {
                if let Some(upto) = self.purge_upto(*kept) {
                    self.purge(upto);
                }
            }
            Op::Meta(key, value) => {
                self.meta.insert(key.clone(), value.clone());
            }
            Op::Rewrite(vote, entry) => {
                self.vote = Some(vote.clone());
                self.push(entry.clone());
                self.meta.insert("generation".into(), vote.clone());
            }
        }
    }

    fn push(&mut self, entry: Bytes) {
        self.entries.insert(self.next(), entry);
    }

    fn purge(&mut self, upto: u64) {
        if self.purged.as_ref().is_none_or(|purged| purged.index < upto) {
            self.entries = self.entries.split_off(&(upto + 1));
            self.purged = Some(Purged { index: upto, marker: marker(upto) });
        }
    }

    /// Asks the store for the same change. A take-over blocks and replaces the handle.
    pub fn request<S: LogStore + Clone>(&self, store: &mut S, op: &Op, done: Done) {
        match op {
            Op::Append(entries) => store.append((self.next()..).zip(entries.iter().cloned()).collect(), done),
            Op::Vote(vote) => store.save_vote(vote.clone(), done),
            Op::Truncate(dropped) => store.truncate_after(self.last_kept(*dropped), done),
            Op::Purge(kept) => match self.purge_upto(*kept) {
                Some(upto) => store.purge(upto, marker(upto), done),
                None => store.append(Vec::new(), done),
            },
            Op::Meta(key, value) => store.put_meta(key, value.clone(), done),
            Op::Rewrite(vote, entry) => {
                let meta = BTreeMap::from([("generation".to_owned(), vote.clone())]);
                let entries = vec![(self.next(), entry.clone())];
                let result = store.rewrite(Rewrite { vote: vote.clone(), entries, meta });
                done(result.map(|fresh| *store = fresh));
            }
        }
    }

    /// The first difference between the store and this state.
    pub fn differs<S: LogStore>(&self, store: &S) -> Option<String> {
        let bounds = Bounds {
            purged: self.purged.clone(),
            first: self.entries.first_key_value().map(|(index, _)| *index),
            last: self.entries.last_key_value().map(|(index, _)| *index),
        };
        if store.bounds() != bounds {
            return Some(format!("bounds {:?}, not {bounds:?}", store.bounds()));
        }
        if store.vote() != self.vote || store.metas() != self.meta {
            return Some("vote or small records differ".into());
        }
        match store.read(0..u64::MAX) {
            Ok(read) if read.iter().map(|(index, bytes)| (index, bytes)).eq(&self.entries) => None,
            Ok(_) => Some("entries differ".into()),
            Err(error) => Some(error.to_string()),
        }
    }
}

fn marker(upto: u64) -> Bytes {
    Bytes::from(format!("log id of {upto}"))
}

/// Request `number` of a seed's sequence.
pub fn op(seed: u64, number: u64) -> Op {
    let mut rng = Rng::new(seed, number);
    match rng.below(100) {
        0..70 => Op::Append((0..=rng.below(8)).map(|_| entry(&mut rng)).collect()),
        70..82 => Op::Vote(small(&mut rng)),
        82..87 => Op::Truncate(1 + rng.below(6)),
        87..94 => Op::Purge(rng.below(300)),
        94..99 => Op::Meta(format!("key{}", rng.below(4)), small(&mut rng)),
        _ => Op::Rewrite(small(&mut rng), entry(&mut rng)),
    }
}

fn small(rng: &mut Rng) -> Bytes {
    let len = 8 + rng.below(56) as usize;
    Bytes::from(rng.bytes(len))
}

/// Mostly a few hundred bytes, now and then several records' worth.
fn entry(rng: &mut Rng) -> Bytes {
    let len = match rng.below(20) {
        0 => rng.below(20_000),
        1 | 2 => rng.below(4500),
        _ => rng.below(400),
    };
    Bytes::from(rng.bytes(len as usize))
}

/// Snapshot `number` of a seed's sequence; numbers start at 1.
pub fn snapshot(seed: u64, number: u64) -> Snapshot {
    let mut rng = Rng::new(!seed, number);
    let len = rng.below(300_000) as usize;
    Snapshot { meta: Bytes::from(number.to_le_bytes().to_vec()), data: Bytes::from(rng.bytes(len)) }
}

/// The number of a store's snapshot; 0 if there is none.
pub fn snapshot_number(seed: u64, found: Option<Snapshot>) -> Result<u64, String> {
    let Some(found) = found else { return Ok(0) };
    let number =
        found.meta[..].try_into().map(u64::from_le_bytes).map_err(|_| "snapshot without a number")?;
    if found == snapshot(seed, number) {
        Ok(number)
    } else {
        Err(format!("snapshot {number} has other bytes"))
    }
}
