//! One entry's step over many buckets of many modules: all of them or none.

use std::collections::{BTreeMap, BTreeSet};

use super::{At, Misstep, Step};
use crate::command::Transfer;
use crate::id::NodeId;
use crate::model::{BucketSet, BucketState, Module, ModuleName};

type Modules = BTreeMap<ModuleName, Module>;

/// Why a batch does not apply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// No such module.
    #[error("there is no module {0}")]
    NoModule(ModuleName),
    /// A bucket is outside the module's range.
    #[error("module {module} has no bucket {bucket}")]
    NoBucket {
        /// The module.
        module: ModuleName,
        /// The number given.
        bucket: usize,
    },
    /// A bucket is named twice.
    #[error("bucket {bucket} of module {module} is named twice")]
    Twice {
        /// The module.
        module: ModuleName,
        /// The bucket.
        bucket: usize,
    },
    /// A bucket cannot take the step.
    #[error("bucket {bucket} of module {module}: {misstep}")]
    Misstep {
        /// The module.
        module: ModuleName,
        /// The bucket.
        bucket: usize,
        /// Why.
        misstep: Misstep,
    },
}

/// New states of buckets, collected before any is written.
#[derive(Default, Debug)]
pub struct Batch {
    changed: BTreeMap<ModuleName, BTreeMap<usize, BucketState>>,
}

impl Batch {
    /// Adds `step` for `buckets` of `module`.
    ///
    /// # Errors
    /// [`BatchError`]; `modules` is not touched in any case.
    pub fn add(
        &mut self,
        modules: &Modules,
        module: &ModuleName,
        buckets: &BucketSet,
        step: Step<'_>,
        at: At,
    ) -> Result<(), BatchError> {
        let assignment = &modules.get(module).ok_or_else(|| BatchError::NoModule(module.clone()))?.assignment;
        let changed = self.changed.entry(module.clone()).or_default();
        for bucket in buckets.iter() {
            let state = assignment
                .get(bucket)
                .ok_or_else(|| BatchError::NoBucket { module: module.clone(), bucket })?
                .step(step, at)
                .map_err(|misstep| BatchError::Misstep { module: module.clone(), bucket, misstep })?;
            if changed.insert(bucket, state).is_some() {
                return Err(BatchError::Twice { module: module.clone(), bucket });
            }
        }
        Ok(())
    }

    /// How many buckets change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changed.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the new states.
    pub fn write(self, modules: &mut Modules) {
        for (name, changed) in self.changed {
            let module = modules.get_mut(&name).expect("add() found the module");
            for (bucket, state) in changed {
                module.assignment[bucket] = state;
            }
        }
    }
}

/// Everybody who loses buckets by a Move of `transfers`; ascending. Unknown modules and buckets count for nobody.
#[must_use]
pub fn batch_losers(modules: &Modules, transfers: &[Transfer]) -> BTreeSet<NodeId> {
    let of = |t: &Transfer| -> BTreeSet<NodeId> {
        let Some(module) = modules.get(&t.module) else { return BTreeSet::new() };
        t.buckets.iter().filter_map(|b| module.assignment.get(b)?.loser()).collect()
    };
    transfers.iter().flat_map(of).collect()
}
