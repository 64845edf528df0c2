//! The same entry and the same state at the same index, on every node that ever applied it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use farm_core::id::EntryId;
use farm_core::state::ClusterState;

/// Remembers what was applied first at each index.
#[derive(Default)]
pub struct Agreement {
    first: BTreeMap<u64, (EntryId, u64)>,
}

impl Agreement {
    /// `entry` was applied and gave `state`.
    ///
    /// # Errors
    /// The fact, when another node applied something else there, or came to another state.
    pub fn applied(&mut self, entry: EntryId, state: &ClusterState) -> Result<(), String> {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let here = (entry, hasher.finish());
        let first = *self.first.entry(entry.index).or_insert(here);
        if first == here {
            return Ok(());
        }
        let what = if first.0 == entry { "led to different states" } else { "is not the same entry" };
        Err(format!("index {} {what}: {first:?} and {here:?}", entry.index))
    }
}
