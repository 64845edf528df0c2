//! Judging a store after a crash.

use std::path::Path;

use farm_store::{LogStore, OpenError, OpenOptions, Store};

use crate::Tally;
use crate::common::model::{self, Model};

/// Requests that may be under way at once; so many may be there beyond the acknowledged ones.
pub const WINDOW: u64 = 16;

/// What was acknowledged before the crash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledged {
    /// Requests.
    pub requests: u64,
    /// Number of the last snapshot; 0 if none.
    pub snapshot: u64,
}

/// What the store shows after it.
#[derive(Debug)]
pub enum Verdict {
    /// The state after so many requests, not fewer than acknowledged, and a snapshot not older than acknowledged.
    Sound(Acknowledged),
    /// It did not open.
    Refused(OpenError),
    /// Something acknowledged is missing or wrong.
    Violation(String),
}

/// Opens the store and compares it with its model.
pub fn judge(dir: &Path, options: &OpenOptions, seed: u64, acknowledged: Acknowledged) -> Verdict {
    let store = match Store::open(dir, options) {
        Ok((store, _)) => store,
        Err(error) => return Verdict::Refused(error),
    };
    compare(&store, seed, acknowledged).map_or_else(Verdict::Violation, Verdict::Sound)
}

fn compare(store: &Store, seed: u64, acknowledged: Acknowledged) -> Result<Acknowledged, String> {
    let snapshot = store.snapshot().map_err(|error| error.to_string())?;
    let snapshot = model::snapshot_number(seed, snapshot)?;
    if snapshot < acknowledged.snapshot {
        return Err(format!("snapshot {snapshot} after {} was acknowledged", acknowledged.snapshot));
    }
    let mut model = Model::after(seed, acknowledged.requests);
    let first = model.differs(store);
    for requests in acknowledged.requests..=acknowledged.requests + WINDOW {
        if model.differs(store).is_none() {
            return Ok(Acknowledged { requests, snapshot });
        }
        model.apply(&model::op(seed, requests));
    }
    Err(format!("not the state after {} requests or up to {WINDOW} more: {first:?}", acknowledged.requests))
}

impl Tally {
    /// Counts a crash point. A refusal is told from a loss, but after a mere crash it is as little wanted.
    pub fn count(&mut self, story: &str, verdict: Verdict) -> Option<Acknowledged> {
        self.points += 1;
        match verdict {
            Verdict::Sound(found) => Some(found),
            Verdict::Refused(error) => {
                self.refused += 1;
                self.violations.push(format!("{story}: refused: {error}"));
                None
            }
            Verdict::Violation(what) => {
                self.violations.push(format!("{story}: {what}"));
                None
            }
        }
    }
}
