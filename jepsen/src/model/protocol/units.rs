//! The machines of the core as units: elector, holder with its filter's deadline, a leader's reports.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::controller::Observed;
use farm_core::controller::evidence::Reports;
use farm_core::electors::Electors;
use farm_core::id::{EntryId, Epoch, Incarnation, Leadership, NodeId, Seq};
use farm_core::lease::{AppliedFences, Ask, Elector, Expiry, Grant, Holder, Renewal, Timing};
use farm_core::model::Pending;
use farm_core::planted::{Bug, is_planted};
use farm_core::time::{BootTime, Span};

use super::clock::{PROFILE, Ticks};
use super::pool::Unit;
use super::setup::generation;

/// Most runs of the daemon of one node.
pub const RUNS_MAX: u8 = 3;

/// The run `number` of a daemon.
#[must_use]
pub fn incarnation(number: u8) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[0] = number + 1;
    Incarnation(bytes)
}

/// An elector.
#[derive(Clone, Debug)]
pub struct ElectorUnit {
    /// Whose.
    pub me: NodeId,
    /// The machine of the core.
    pub elector: Elector,
    /// Its clock.
    pub now: BootTime,
    /// How fast that is.
    pub ticks: Ticks,
    /// The last number of a renewal that was new to it.
    pub seq: u64,
    /// Entries with fences that it was told and that were neither cut nor applied.
    pub told: BTreeMap<u64, u16>,
    /// What it was told of the state.
    pub applied: AppliedFences,
    /// Everybody.
    pub nodes: Vec<NodeId>,
    /// Whether renewals of an earlier run may still be under way.
    pub late: bool,
}

/// What an elector's future depends on. The numbers of renewals are no part of it: each is given one that is new to the
/// elector, or old, as the renewal is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ElectorView {
    me: NodeId,
    told: Vec<(u64, u16)>,
    applied: AppliedFences,
    nodes: Vec<NodeView>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct NodeView {
    fence: Epoch,
    left: u8,
    heard: Option<(Epoch, Incarnation)>,
    superseded: Vec<bool>,
    lenient: bool,
}

impl ElectorUnit {
    /// A renewal that is new to it.
    pub fn hear(&mut self, renewal: &Renewal) -> Option<Grant> {
        self.seq += 1;
        self.elector.renewal(&Renewal { seq: Seq(self.seq), ..*renewal }, self.now).ok()
    }

    /// A renewal that was sent before the last one that it heard of the same run.
    pub fn hear_again(&mut self, renewal: &Renewal) -> Option<Grant> {
        self.elector.renewal(&Renewal { seq: Seq(0), ..*renewal }, self.now).ok()
    }

    fn node(&self, probe: &Elector, node: NodeId) -> NodeView {
        let ask = Ask { entry: PROBE, node, leadership: Leadership::default() };
        let left = match probe.expiry(&ask, self.now) {
            Expiry::Remaining(span) => self.ticks.fast_left(span),
            Expiry::NotFenced => unreachable!("the probe holds the fence"),
        };
        let heard = self.elector.heard(node).map(|h| (h.applied, h.incarnation));
        let runs = if self.late { RUNS_MAX } else { 0 };
        let superseded = (0..runs).map(|run| self.refuses_run(node, run)).collect();
        let lenient = is_planted(Bug::CheckApartFromStamp) && self.grants_anything(node);
        NodeView { fence: self.elector.fence(node), left, heard, superseded, lenient }
    }

    fn refuses_run(&self, node: NodeId, run: u8) -> bool {
        let renewal = Renewal { incarnation: incarnation(run), ..self.probe(node, Epoch(u64::MAX)) };
        self.elector.clone().renewal(&renewal, self.now).is_err()
    }

    fn grants_anything(&self, node: NodeId) -> bool {
        let known = self.elector.heard(node).map(|h| h.incarnation);
        let renewal = Renewal { incarnation: known.unwrap_or_default(), ..self.probe(node, Epoch(0)) };
        self.elector.clone().renewal(&renewal, self.now).is_ok()
    }

    fn probe(&self, node: NodeId, applied: Epoch) -> Renewal {
        Renewal {
            generation: generation(),
            node,
            incarnation: incarnation(0),
            seq: Seq(u64::MAX),
            applied,
            leased: false,
            lease: Timing::of(PROFILE).lease,
        }
    }
}

const PROBE: EntryId = EntryId { by: Leadership { term: u64::MAX, leader: NodeId(0) }, index: u64::MAX };

impl Unit for ElectorUnit {
    type View = ElectorView;

    fn view(&self) -> Self::View {
        let mut probe = self.elector.clone();
        let fences: Vec<_> = self.nodes.iter().map(|n| (*n, Epoch(0))).collect();
        probe.appended(PROBE, &fences);
        let nodes = self.nodes.iter().map(|n| self.node(&probe, *n)).collect();
        let told = self.told.iter().map(|(i, e)| (*i, *e)).collect();
        ElectorView { me: self.me, told, applied: self.applied.clone(), nodes }
    }

    fn futures(&self) -> Vec<(ElectorView, u16)> {
        let mut later = self.clone();
        later.now = later.now + later.ticks.fast;
        let mut futures = vec![(later.view(), 0)];
        for (index, record) in &self.told {
            let mut cut = self.clone();
            cut.elector.truncated(index - 1);
            cut.told.retain(|told, _| told < index);
            futures.push((cut.view(), *record));
        }
        for node in &self.nodes {
            let fence = self.elector.fence(*node);
            let run = self.elector.heard(*node).map_or(incarnation(0), |h| h.incarnation);
            for applied in [Epoch(fence.0.saturating_sub(1)), fence, fence.next()] {
                for incarnation in [run, incarnation(RUNS_MAX)] {
                    let mut asked = self.clone();
                    let granted = asked.hear(&Renewal { incarnation, ..self.probe(*node, applied) });
                    futures.push((asked.view(), granted.is_some().into()));
                }
            }
        }
        futures
    }
}

/// A holder, and what the filter of its node goes by.
#[derive(Clone, Debug)]
pub struct HolderUnit {
    /// Whose.
    pub me: NodeId,
    /// The machine of the core.
    pub holder: Holder,
    /// The clock of holder and filter.
    pub now: BootTime,
    /// How fast that is.
    pub ticks: Ticks,
    /// The deadline in the filter.
    pub deadline: BootTime,
    /// This run has taken up what the run before left in the filter.
    pub resumed: bool,
    /// Which run it is.
    pub run: u8,
    /// A renewal, or the answer to it, that is under way.
    pub flight: Option<Flight>,
}

/// A renewal that takes its time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flight {
    /// Which elector it is for.
    pub elector: NodeId,
    /// The renewal.
    pub renewal: Renewal,
    /// When it was sent.
    pub sent: BootTime,
    /// It was granted: the answer is under way.
    pub answered: bool,
    /// The elector has heard a later renewal of the same run.
    pub overtaken: bool,
    /// Of which run it is.
    pub run: u8,
}

/// What a holder's future depends on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HolderView {
    me: NodeId,
    electors: Electors,
    reported: Epoch,
    deadline: u8,
    filter: u8,
    granted: Vec<u8>,
    resumed: bool,
    run: u8,
    flight: Option<FlightView>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct FlightView {
    elector: NodeId,
    age: u8,
    applied: Epoch,
    answered: bool,
    overtaken: bool,
    run: u8,
    seq: Option<Seq>,
}

impl HolderUnit {
    /// Whether the filter acts.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.now < self.deadline
    }

    /// The deadline goes into the filter, once this run has taken it up.
    pub fn publish(&mut self, deadline: BootTime) {
        if self.resumed {
            self.deadline = deadline;
        }
    }

    /// An answer arrives.
    pub fn granted(&mut self, grant: &Grant) {
        if let Some(deadline) = self.holder.granted(grant, self.now) {
            self.publish(deadline);
        }
    }

    /// Until when `elector` granted, as the holder believes: of a change to that elector alone nothing else is left.
    fn granted_by(&self, elector: NodeId) -> u8 {
        let alone = |with: &[NodeId]| Electors::new(with.iter().copied().chain([elector]).collect());
        let mut probe = self.holder.clone();
        // Two strangers make it another set than the one that follows, with nothing of the elector forgotten.
        probe.set_electors(alone(&[NodeId(u64::MAX), NodeId(u64::MAX - 1)]));
        probe.inherit(BootTime(u64::MAX), self.now);
        self.ticks.slow_until(probe.set_electors(alone(&[])), self.now)
    }

    fn flight(&self) -> Option<FlightView> {
        self.flight.map(|f| FlightView {
            elector: f.elector,
            age: self.ticks.slow_until(self.now, f.sent).min(self.ticks.lease),
            applied: f.renewal.applied,
            answered: f.answered,
            overtaken: f.overtaken,
            run: f.run,
            seq: is_planted(Bug::NoIncarnation).then_some(f.renewal.seq.min(Seq(2))),
        })
    }
}

impl Unit for HolderUnit {
    type View = HolderView;

    fn view(&self) -> HolderView {
        let left = |at| self.ticks.slow_until(at, self.now);
        HolderView {
            me: self.me,
            electors: self.holder.electors().clone(),
            reported: self.holder.reported(),
            deadline: left(self.holder.deadline()),
            filter: left(self.deadline),
            granted: self.holder.electors().all().into_iter().map(|e| self.granted_by(e)).collect(),
            resumed: self.resumed,
            run: self.run,
            flight: self.flight(),
        }
    }

    fn futures(&self) -> Vec<(HolderView, u16)> {
        let mut later = self.clone();
        later.now = later.now + later.ticks.slow;
        let mut answered = self.clone();
        if let Some(flight) = answered.flight.take() {
            answered.granted(&grant(&flight.renewal, flight.elector));
        }
        let mut next = self.clone();
        next.holder.applied(self.holder.reported().next());
        let mut futures = vec![(later.view(), 0), (answered.view(), 0), (next.view(), 0)];
        for elector in self.holder.electors().all() {
            let (mut asked, mut alone) = (self.clone(), self.clone());
            let renewal = asked.holder.renew(asked.now);
            asked.granted(&grant(&renewal, elector));
            alone.publish(BootTime(0));
            alone.holder.set_electors(Electors::new(BTreeSet::from([elector])));
            futures.extend([(asked.view(), asked.is_open().into()), (alone.view(), alone.is_open().into())]);
        }
        futures
    }
}

/// The answer of `elector`.
#[must_use]
pub fn grant(renewal: &Renewal, elector: NodeId) -> Grant {
    Grant {
        generation: renewal.generation,
        elector,
        node: renewal.node,
        incarnation: renewal.incarnation,
        seq: renewal.seq,
        lease: renewal.lease,
        epoch: renewal.applied,
    }
}

/// What a leader was told about leases that run out.
#[derive(Clone, Debug)]
pub struct ReportsUnit {
    /// The machine of the core.
    pub reports: Reports,
    /// Its leadership.
    pub leadership: Leadership,
    /// Its clock.
    pub now: BootTime,
    /// How fast that is.
    pub ticks: Ticks,
    /// What was reported, and by whom.
    pub taken: BTreeSet<(EntryId, NodeId, NodeId)>,
}

/// What a leader's future evidence depends on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReportsView {
    leadership: Leadership,
    taken: Vec<(EntryId, NodeId, NodeId, u8)>,
}

impl ReportsUnit {
    fn left(&self, entry: EntryId, node: NodeId, elector: NodeId) -> u8 {
        let pending = Pending { node, epoch: Epoch(u64::MAX), entry };
        let electors = Electors::new(BTreeSet::from([elector]));
        let expired = |ticks: &u8| {
            let at = self.now + Span(self.ticks.fast.0 * u64::from(*ticks));
            self.reports.evidence(&pending, &electors, &Observed::default(), at).is_some()
        };
        (0..u8::MAX).find(expired).unwrap_or(u8::MAX)
    }
}

impl Unit for ReportsUnit {
    type View = ReportsView;

    fn view(&self) -> ReportsView {
        let taken =
            self.taken.iter().map(|(entry, node, e)| (*entry, *node, *e, self.left(*entry, *node, *e)));
        ReportsView { leadership: self.leadership, taken: taken.collect() }
    }

    fn futures(&self) -> Vec<(ReportsView, u16)> {
        let mut later = self.clone();
        later.now = later.now + later.ticks.fast;
        let again = self.taken.iter().map(|(entry, node, elector)| {
            let mut told = self.clone();
            let ask = Ask { entry: *entry, node: *node, leadership: self.leadership };
            told.reports.take(*elector, ask, told.now);
            (told.view(), 0)
        });
        again.chain([(later.view(), 0)]).collect()
    }
}
