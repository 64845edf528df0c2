//! How long scripts took, and how they ended, since this daemon began.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farm_core::model::ModuleName;

use crate::tally::Tally;

/// Bounds in seconds: a script that starts a service takes a fraction of one, a migration takes minutes.
const BOUNDS: [f64; 8] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

/// Which runs are counted together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Of {
    /// The module.
    pub module: String,
    /// The script: one of a handful.
    pub script: &'static str,
    /// Whether it ended with 0, in time.
    pub ok: bool,
}

/// All runs of this node.
#[derive(Debug, Default)]
pub struct Runs(Mutex<BTreeMap<Of, Tally>>);

impl Runs {
    /// One more.
    pub fn add(&self, of: Of, took: Duration) {
        self.lock().entry(of).or_insert_with(|| Tally::new(&BOUNDS)).add(took);
    }

    /// The module is no more.
    pub fn forget(&self, module: &ModuleName) {
        self.lock().retain(|of, _| of.module != module.0);
    }

    /// All there were.
    #[must_use]
    pub fn read(&self) -> Vec<(Of, Tally)> {
        self.lock().iter().map(|(of, tally)| (of.clone(), tally.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Of, Tally>> {
        // A panic elsewhere costs one count at most.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_script_and_result_until_the_module_goes() {
        let runs = Runs::default();
        let of = |module: &str, ok| Of { module: module.into(), script: "start_both", ok };
        runs.add(of("shop", true), Duration::from_secs(2));
        runs.add(of("shop", true), Duration::from_secs(2));
        runs.add(of("shop", false), Duration::from_secs(2));
        runs.add(of("other", true), Duration::ZERO);
        runs.forget(&ModuleName("other".into()));
        let counts: Vec<_> = runs.read().into_iter().map(|(of, tally)| (of, tally.count())).collect();
        assert_eq!(counts, [(of("shop", false), 1), (of("shop", true), 2)]);
    }
}
