//! The epoch of a filter only grows, also across restarts of its daemon, and none is reported before the filter works
//! with it.

use std::collections::BTreeMap;

use farm_core::id::Epoch;

/// Remembers the newest epoch of each machine's filter.
#[derive(Default)]
pub struct Epochs {
    newest: BTreeMap<usize, Epoch>,
}

impl Epochs {
    /// The filter of `machine` now works with `epoch`.
    ///
    /// # Errors
    /// The fact, when it worked with this or a newer one before.
    pub fn published(&mut self, machine: usize, epoch: Epoch) -> Result<(), String> {
        let before = self.newest.insert(machine, epoch);
        match before {
            Some(before) if before >= epoch => {
                Err(format!("m{machine} publishes {epoch:?} after {before:?}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The machine lost its filter.
    pub fn rebooted(&mut self, machine: usize) {
        self.newest.remove(&machine);
    }
}
