//! The steps of a change. Each carries a base epoch, so that it meets exactly the state it was made for.

use std::collections::BTreeSet;

use super::{Done, Refusal, ensure};
use crate::assignment::{At, Batch, BatchError, Step, batch_losers};
use crate::command::{Evidence, ModuleBuckets, Transfer};
use crate::event::{Event, Kind};
use crate::id::{EntryId, NodeId};
use crate::model::{BucketSet, ModuleName, Pending, Role};
use crate::state::ClusterState;

impl ClusterState {
    pub(super) fn prepare(&mut self, transfers: &[Transfer], entry: EntryId) -> Done {
        self.check_targets(transfers)?;
        let at = self.next_at(entry);
        let batch =
            self.batch(transfers.iter().map(|t| (&t.module, &t.buckets, Step::Prepare { to: t.to })), at)?;
        ensure(!batch.is_empty(), nothing)?;
        batch.write(&mut self.modules);
        let prepared = |t: &Transfer| Event {
            kind: Kind::Prepared { module: t.module.clone(), buckets: t.buckets.len(), epoch: at.epoch },
            cause: None,
        };
        Ok((transfers.iter().map(prepared).collect(), None))
    }

    pub(super) fn move_buckets(&mut self, losers: &[NodeId], transfers: &[Transfer], entry: EntryId) -> Done {
        self.check_targets(transfers)?;
        self.check_losers(losers, transfers)?;
        let at = self.next_at(entry);
        let first = self.first_owners(transfers);
        let batch =
            self.batch(transfers.iter().map(|t| (&t.module, &t.buckets, Step::Move { to: t.to })), at)?;
        ensure(!batch.is_empty() || !losers.is_empty(), nothing)?;
        let moved = batch.len() - first.iter().map(|(_, n)| n).sum::<usize>();
        batch.write(&mut self.modules);
        let fences: Vec<_> = losers.iter().map(|n| (*n, at.epoch)).collect();
        self.fence(&fences);
        self.retire_fenced(losers, at);
        let assigned = first.into_iter().map(|(module, buckets)| Kind::Assigned { module, buckets });
        let names = losers.iter().map(|n| self.name_of(*n)).collect();
        let lost = (moved > 0).then_some(Kind::Moved { losers: names, buckets: moved, epoch: at.epoch });
        Ok((assigned.chain(lost).map(|kind| Event { kind, cause: None }).collect(), None))
    }

    pub(super) fn activate(
        &mut self,
        buckets: &[ModuleBuckets],
        evidence: &[Evidence],
        entry: EntryId,
    ) -> Done {
        let at = self.next_at(entry);
        let cause = self.first_pending(buckets).map(|p| p.entry);
        let batch =
            self.batch(buckets.iter().map(|b| (&b.module, &b.buckets, Step::Activate { evidence })), at)?;
        let clears = self.retired.values().flat_map(|r| &r.pending).any(|p| p.is_evidenced(evidence));
        ensure(!batch.is_empty() || clears, nothing)?;
        let count = batch.len();
        batch.write(&mut self.modules);
        self.retire_evidenced(evidence);
        let kind = Kind::Activated { buckets: count, epoch: at.epoch };
        Ok(((count > 0).then_some(Event { kind, cause }).into_iter().collect(), None))
    }

    pub(super) fn settle(&mut self, buckets: &[ModuleBuckets], entry: EntryId) -> Done {
        let at = self.next_at(entry);
        let count = self.step_all(buckets, Step::Settle, at)?;
        Ok((vec![Event { kind: Kind::Settled { buckets: count, epoch: at.epoch }, cause: None }], None))
    }

    pub(super) fn cancel(&mut self, buckets: &[ModuleBuckets], entry: EntryId) -> Done {
        let at = self.next_at(entry);
        let count = self.step_all(buckets, Step::Cancel, at)?;
        Ok((vec![Event { kind: Kind::Cancelled { buckets: count, epoch: at.epoch }, cause: None }], None))
    }

    fn step_all(&mut self, buckets: &[ModuleBuckets], step: Step<'_>, at: At) -> Result<usize, Refusal> {
        let batch = self.batch(buckets.iter().map(|b| (&b.module, &b.buckets, step)), at)?;
        ensure(!batch.is_empty(), nothing)?;
        let count = batch.len();
        batch.write(&mut self.modules);
        Ok(count)
    }

    fn batch<'a>(
        &self,
        steps: impl Iterator<Item = (&'a ModuleName, &'a BucketSet, Step<'a>)>,
        at: At,
    ) -> Result<Batch, Refusal> {
        let mut batch = Batch::default();
        for (module, buckets, step) in steps {
            batch.add(&self.modules, module, buckets, step, at).map_err(|e| misfit(&e))?;
        }
        Ok(batch)
    }

    fn check_targets(&self, transfers: &[Transfer]) -> Result<(), Refusal> {
        for transfer in transfers {
            let node = self.member(transfer.to)?;
            ensure(node.role == Role::Server, || {
                let fact = format!("{} is a witness: it owns no buckets", node.name);
                Refusal::new("witness", fact, "farmctl node list")
            })?;
        }
        Ok(())
    }

    /// Electors that have only the log believe what the entry says; it must be neither more nor less than the truth.
    fn check_losers(&self, losers: &[NodeId], transfers: &[Transfer]) -> Result<(), Refusal> {
        let named: BTreeSet<NodeId> = losers.iter().copied().collect();
        let lose = batch_losers(&self.modules, transfers);
        let may = &lose | &self.unfenced();
        ensure(named.len() == losers.len() && lose.is_subset(&named) && named.is_subset(&may), || {
            Refusal::new(
                "wrong_losers",
                format!("{losers:?} are not those who lose: {lose:?}"),
                "farmctl cluster status",
            )
        })
    }

    fn first_owners(&self, transfers: &[Transfer]) -> Vec<(ModuleName, usize)> {
        let unowned = |t: &Transfer| {
            let assignment = self.modules.get(&t.module).map_or(&[][..], |m| &m.assignment);
            t.buckets.iter().filter(|b| assignment.get(*b).is_some_and(|s| s.current.is_none())).count()
        };
        transfers.iter().map(|t| (t.module.clone(), unowned(t))).filter(|(_, n)| *n > 0).collect()
    }

    fn first_pending(&self, buckets: &[ModuleBuckets]) -> Option<Pending> {
        let of = |b: &ModuleBuckets| {
            let module = self.modules.get(&b.module)?;
            b.buckets.iter().find_map(|n| module.assignment.get(n)?.pending.last().copied())
        };
        buckets.iter().find_map(of)
    }

    fn retire_fenced(&mut self, losers: &[NodeId], at: At) {
        for retired in self.retired.values_mut() {
            for node in losers {
                if retired.unfenced.remove(node) {
                    retired.pending.push(Pending { node: *node, epoch: at.epoch, entry: at.entry });
                }
            }
            retired.pending.sort_unstable();
        }
    }

    fn retire_evidenced(&mut self, evidence: &[Evidence]) {
        self.retired.retain(|_, retired| {
            retired.pending.retain(|p| !p.is_evidenced(evidence));
            !(retired.pending.is_empty() && retired.unfenced.is_empty())
        });
    }
}

fn nothing() -> Refusal {
    Refusal::new("nothing_to_do", "the step names no buckets", "farmctl cluster status")
}

fn misfit(error: &BatchError) -> Refusal {
    let code = match error {
        BatchError::NoModule(_) => "unknown_module",
        BatchError::NoBucket { .. } | BatchError::Twice { .. } => "bad_buckets",
        BatchError::Misstep { .. } => "misstep",
    };
    Refusal::new(code, error.to_string(), "farmctl cluster status")
}
