//! How evenly clients lie over the buckets of this node: balancing goes by buckets, and one that many clients share
//! cannot be divided.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_core::id::NodeId;
use farm_core::model::{BUCKETS, Module, ModuleName};
use farm_core::state::ClusterState;
use farm_host::sockets::SockDiag;
use tokio::sync::watch;

use super::{Elsewhere, census};
use crate::raft::Snapshot;

/// Shortest pause between two counts: monitoring asks no more often.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// Counting takes at most one part in so many of a core: the kernel walks all sockets.
const COUNT_SHARE: u32 = 100;

/// Connections of one module in the buckets that this node owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// All of them.
    pub connections: u64,
    /// Those in the bucket that has most.
    pub fullest: u64,
}

/// The last count, by module.
#[derive(Debug, Default)]
pub struct Spreads(Mutex<BTreeMap<ModuleName, Spread>>);

impl Spreads {
    /// That of one module; none before it was counted.
    #[must_use]
    pub fn of(&self, module: &ModuleName) -> Option<Spread> {
        self.lock().get(module).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ModuleName, Spread>> {
        // The map is replaced as a whole: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts again and again until the state's sender is gone.
    pub async fn run(
        self: Arc<Self>,
        me: NodeId,
        state: watch::Receiver<Arc<Snapshot>>,
        elsewhere: Arc<Elsewhere>,
    ) {
        let mut diag = match SockDiag::open() {
            Ok(diag) => diag,
            Err(error) => return tracing::error!(%error, "connections are not counted"),
        };
        while state.has_changed().is_ok() {
            let start = tokio::time::Instant::now();
            let snapshot = state.borrow().clone();
            match count(&mut diag, me, &snapshot.state, &elsewhere).await {
                Ok(counted) => *self.lock() = counted,
                Err(error) => tracing::warn!(%error, "cannot count connections"),
            }
            tokio::time::sleep(COUNT_EVERY.max(start.elapsed() * COUNT_SHARE)).await;
        }
    }
}

async fn count(
    diag: &mut SockDiag,
    me: NodeId,
    state: &ClusterState,
    elsewhere: &Elsewhere,
) -> Result<BTreeMap<ModuleName, Spread>, farm_host::Error> {
    let flows = elsewhere.flows().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the flows that the filter remembers");
        Default::default()
    });
    let mut counted = BTreeMap::new();
    for (name, module) in &state.modules {
        let mut buckets: Vec<usize> = Vec::new();
        buckets.extend(census::tcp(diag, state, module).await?.iter().map(|(_, bucket)| *bucket));
        buckets.extend(census::udp(diag, state, module).await?.iter().map(|(_, bucket)| *bucket));
        buckets.extend(census::remembered(&flows, state, module).iter().map(|(.., bucket)| *bucket));
        counted.insert(name.clone(), spread(module, me, &buckets));
    }
    Ok(counted)
}

/// Of connections in `buckets`, one element each.
fn spread(module: &Module, me: NodeId, buckets: &[usize]) -> Spread {
    let mut counts = vec![0; BUCKETS];
    for bucket in buckets.iter().filter(|b| module.assignment[**b].current == Some(me)) {
        counts[*bucket] += 1;
    }
    Spread { connections: counts.iter().sum(), fullest: counts.iter().copied().max().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use farm_core::model::ModuleKind;

    use super::*;

    #[test]
    fn only_own_buckets_count_and_the_fullest_is_told() {
        let me = NodeId(1);
        let mut module = Module::new(ModuleKind::Farm, 0, BUCKETS);
        for bucket in [3, 4] {
            module.assignment[bucket].current = Some(me);
        }
        module.assignment[5].current = Some(NodeId(2));
        let counted = spread(&module, me, &[3, 4, 4, 5, 5, 5, 6]);
        assert_eq!(counted, Spread { connections: 3, fullest: 2 });
        assert_eq!(spread(&module, me, &[]), Spread::default());
    }
}
