//! What the flows noticed, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::Place;

/// What was noticed since the last step began.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Open when it began.
    pub(super) open: u64,
    /// Questions that were answered.
    pub(super) rounds: u64,
    /// Flows that ended, by the node that held the other end.
    pub(super) ended: BTreeMap<Place, u64>,
    pub(super) stall_ms: f64,
    pub(super) connect_ms: f64,
    /// New connections that failed.
    pub(super) refused: u64,
    /// How late the clients' own thread was at most.
    pub(super) late_ms: f64,
}

impl Seen {
    pub(super) fn answered(&mut self, waited: Duration) {
        self.rounds += 1;
        self.stall_ms = self.stall_ms.max(ms(waited));
    }

    /// It waited for nothing; that is a stall, too.
    pub(super) fn lost(&mut self, node: Place, waited: Duration) {
        *self.ended.entry(node).or_default() += 1;
        self.stall_ms = self.stall_ms.max(ms(waited));
    }

    pub(super) fn connected(&mut self, waited: Duration, opened: bool) {
        self.connect_ms = self.connect_ms.max(ms(waited));
        self.refused += u64::from(!opened);
    }

    pub(super) fn was_late(&mut self, by: Duration) {
        self.late_ms = self.late_ms.max(ms(by));
    }

    pub(super) fn ended_in_all(&self) -> u64 {
        self.ended.values().sum()
    }

    pub(super) fn ended_of(&self, node: Place) -> u64 {
        self.ended.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn ended_but_of(&self, node: Place) -> u64 {
        self.ended_in_all() - self.ended_of(node)
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
