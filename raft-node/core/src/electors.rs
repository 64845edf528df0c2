//! Who grants leases, and what counts as their majority.

use std::collections::BTreeSet;

use crate::id::{EntryId, Epoch, NodeId};
use crate::time::BootTime;

/// The electors of an epoch (DESIGN L7).
///
/// ```text
///            Joint              Seal               Final
/// current ─────────▶ joint ─────────▶ sealed ─────────▶ current (= next)
/// ```
/// While a change is open, a majority means a majority of both sets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Electors {
    /// The electors in force.
    pub current: BTreeSet<NodeId>,
    /// The open change, if any.
    pub change: Option<Change>,
}

/// An open elector change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Change {
    /// The electors that come.
    pub next: BTreeSet<NodeId>,
    /// Epoch of Joint.
    pub joint: Epoch,
    /// The Seal, once it applied.
    pub seal: Option<Seal>,
}

/// An applied Seal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seal {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its entry, which evidence names.
    pub entry: EntryId,
    /// The members at that epoch: each must report it or be expired for it before Final.
    pub nodes: BTreeSet<NodeId>,
}

impl Electors {
    /// These electors and no open change.
    #[must_use]
    pub fn new(current: BTreeSet<NodeId>) -> Self {
        Self { current, change: None }
    }

    /// Everybody who may have to grant: both sets of an open change.
    #[must_use]
    pub fn all(&self) -> BTreeSet<NodeId> {
        self.sets().flat_map(|set| set.iter().copied()).collect()
    }

    /// Whether those for whom `counts` holds are a majority (of both sets in a change).
    #[must_use]
    pub fn majority(&self, counts: impl Fn(NodeId) -> bool) -> bool {
        self.sets().all(|set| set.iter().filter(|n| counts(**n)).count() > set.len() / 2)
    }

    /// The latest instant that a majority (of both sets in a change) has reached: `at` gives each elector's own.
    #[must_use]
    pub fn reached(&self, at: impl Fn(NodeId) -> BootTime) -> BootTime {
        self.sets().map(|set| majority_th(set, &at)).min().unwrap_or_default()
    }

    fn sets(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        core::iter::once(&self.current).chain(self.change.as_ref().map(|c| &c.next))
    }
}

fn majority_th(set: &BTreeSet<NodeId>, at: impl Fn(NodeId) -> BootTime) -> BootTime {
    let mut times: Vec<BootTime> = set.iter().map(|n| at(*n)).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(set.len() / 2).copied().unwrap_or_default()
}
