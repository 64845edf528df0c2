//! No lease outlives W after the grants that it rests on, in real time, whatever the clocks' rates.

use std::collections::BTreeMap;

use farm_core::electors::Electors;
use farm_core::id::NodeId;
use farm_core::time::{BootTime, Span};

use crate::world::sim::clock::{Clock, RealTime};

/// W as DESIGN L3 defines it for a rate error of 10 % and an epsilon of 5 ms. Written down a second time, so that a
/// wrong wait of the core does not vouch for itself.
fn wait(lease: Span) -> Span {
    Span::millis((lease.0 * 110).div_ceil(90 * 1_000_000) + 5)
}

/// Remembers when what each elector granted to each node has run out by its own reckoning.
#[derive(Default)]
pub struct Bound {
    out: BTreeMap<(NodeId, NodeId), RealTime>,
}

impl Bound {
    /// `elector`, whose clock this is, stamped a lease for `node`.
    pub fn granted(&mut self, elector: NodeId, node: NodeId, lease: Span, clock: &Clock, now: RealTime) {
        let until = clock.shows(clock.read(now) + wait(lease));
        let out = self.out.entry((elector, node)).or_default();
        *out = (*out).max(until);
    }

    /// Whether `elector` may have a lease out at `now`.
    #[must_use]
    pub fn is_out(&self, elector: NodeId, now: RealTime) -> bool {
        self.out.iter().any(|((e, _), until)| *e == elector && *until > now)
    }

    /// `node` believes that it may accept until `until`.
    ///
    /// # Errors
    /// The fact, when no majority of its electors would still wait then.
    pub fn believed(&self, node: NodeId, electors: &Electors, until: RealTime) -> Result<(), String> {
        let by = |e| BootTime(self.out.get(&(e, node)).copied().unwrap_or_default().0);
        let reached = RealTime(electors.reached(by).0);
        if until <= reached {
            return Ok(());
        }
        Err(format!("node {node} accepts until {until:?}, its electors wait until {reached:?}"))
    }
}
