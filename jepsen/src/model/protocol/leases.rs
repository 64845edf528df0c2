//! Steps of lease machines, each taken once per number and input.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::command::Command;
use farm_core::controller::Observed;
use farm_core::controller::evidence::Reports;
use farm_core::id::{EntryId, Epoch, Leadership, NodeId};
use farm_core::lease::{Ask, Elector, Expiry, Holder, Renewal, Timing};
use farm_core::restart::Inherited;
use farm_core::time::BootTime;

use super::book::Book;
use super::clock::{PROFILE, START, Ticks};
use super::config::Config;
use super::menu;
use super::pool::{Merge, Pool};
use super::setup::generation;
use super::store::Known;
use super::units::{ElectorUnit, Flight, HolderUnit, ReportsUnit, grant, incarnation};

/// No machine.
pub const NOBODY: u32 = u32::MAX;

/// All lease machines.
#[derive(Debug)]
pub struct Leases {
    ticks: Ticks,
    electors: Pool<ElectorUnit>,
    holders: Pool<HolderUnit>,
    reports: Pool<ReportsUnit>,
    known: Known<u32>,
    remember: bool,
}

/// Steps by number, for the keys of what is known.
#[derive(Clone, Copy)]
enum Op {
    ElectorTick,
    HolderTick,
    ReportsTick,
    Exchange,
    Renewed,
    Appended,
    Truncated,
    ElectorApplied,
    HolderApplied,
    Reported,
    Ask,
    Hear,
    Answer,
    Expiry,
    Take,
    Retain,
}

impl Leases {
    /// No machine yet.
    #[must_use]
    pub fn new(ticks: Ticks, merge: Merge) -> Self {
        Self {
            ticks,
            electors: Pool::new(merge),
            holders: Pool::new(merge),
            reports: Pool::new(merge),
            known: Known::default(),
            remember: merge != Merge::Never,
        }
    }

    /// How many machines were met: electors, holders, leaders.
    #[must_use]
    pub fn met(&self) -> [usize; 3] {
        [self.electors.len(), self.holders.len(), self.reports.len()]
    }

    /// What `step` comes to for that machine and input; taken once.
    fn once(&mut self, op: Op, unit: u32, input: u32, step: impl FnOnce(&mut Self) -> u32) -> u32 {
        assert!(unit < 1 << 26, "a configuration has too many machines");
        let key = (op as u64) << 58 | u64::from(unit) << 32 | u64::from(input);
        if let Some(known) = self.known.get(key).filter(|_| self.remember) {
            return known;
        }
        let result = step(self);
        self.known.insert(key, result);
        result
    }

    fn elector_step(&mut self, op: Op, elector: u32, input: u32, step: impl FnOnce(&mut ElectorUnit)) -> u32 {
        self.once(op, elector, input, |all| {
            let mut unit = all.electors.get(elector).clone();
            step(&mut unit);
            all.electors.number(unit)
        })
    }

    fn holder_step(&mut self, op: Op, holder: u32, input: u32, step: impl FnOnce(&mut HolderUnit)) -> u32 {
        self.once(op, holder, input, |all| {
            let mut unit = all.holders.get(holder).clone();
            step(&mut unit);
            all.holders.number(unit)
        })
    }

    fn reports_step(&mut self, op: Op, reports: u32, input: u32, step: impl FnOnce(&mut ReportsUnit)) -> u32 {
        self.once(op, reports, input, |all| {
            let mut unit = all.reports.get(reports).clone();
            step(&mut unit);
            all.reports.number(unit)
        })
    }

    /// A tick on the clock of an elector.
    pub fn elector_tick(&mut self, elector: u32) -> u32 {
        self.elector_step(Op::ElectorTick, elector, 0, |e| e.now = e.now + e.ticks.fast)
    }

    /// A tick on the clock of a holder.
    pub fn holder_tick(&mut self, holder: u32) -> u32 {
        self.holder_step(Op::HolderTick, holder, 0, |h| h.now = h.now + h.ticks.slow)
    }

    /// A tick on the clock of a leader.
    pub fn reports_tick(&mut self, reports: u32) -> u32 {
        if reports == NOBODY {
            return NOBODY;
        }
        self.reports_step(Op::ReportsTick, reports, 0, |r| r.now = r.now + r.ticks.fast)
    }

    /// An elector that starts with a state, `log` being the fences behind it that it is told of.
    pub fn start_elector(&mut self, me: NodeId, book: &Book, log: &[u16], config: &Config) -> u32 {
        let (state, timing) = (book.state(0), Timing::of(PROFILE));
        let applied = state.applied_fences(book.base);
        // Entries that allow longer leases are no part of the model.
        let bound = log.iter().filter_map(|r| book.command_of(*r)?.lease()).max().unwrap_or_default();
        let bound = bound.max(state.lease_bound);
        let none = Inherited::new(state.restarts.clone());
        let elector = Elector::start(me, generation(), timing, applied.clone(), bound, &none, START);
        let number = self.electors.number(ElectorUnit {
            me,
            elector,
            now: START,
            ticks: self.ticks,
            seq: 0,
            told: BTreeMap::new(),
            applied,
            nodes: state.nodes.keys().copied().collect(),
            late: config.slow > 0 && config.reboots + config.restarts > 0,
        });
        log.iter().fold(number, |elector, record| self.appended(elector, *record, book))
    }

    /// An entry is in the elector's log.
    pub fn appended(&mut self, elector: u32, record: u16, book: &Book) -> u32 {
        let (id, fences) = (book.record(record).id, book.fences(record));
        if fences.is_empty() {
            return elector;
        }
        self.elector_step(Op::Appended, elector, u32::from(record), |e| {
            e.elector.appended(id, &fences);
            if id.index > e.applied.index {
                e.told.insert(id.index, record);
            }
        })
    }

    /// The elector's log was cut behind the entry with this index.
    pub fn truncated(&mut self, elector: u32, after: u64) -> u32 {
        let input = u32::try_from(after).expect("logs are short");
        self.elector_step(Op::Truncated, elector, input, |e| {
            e.elector.truncated(after);
            e.told.retain(|index, _| *index <= after);
        })
    }

    /// The elector's state is that of the entry with this index.
    pub fn elector_applied(&mut self, elector: u32, state: u16, index: u64, book: &Book) -> u32 {
        let input = u32::from(state) << 16 | u32::try_from(index).expect("logs are short");
        self.elector_step(Op::ElectorApplied, elector, input, |e| {
            let applied = book.state(state).applied_fences(index);
            e.elector.applied(applied.clone());
            e.told.retain(|told, _| *told > index);
            e.applied = applied;
        })
    }

    /// A holder that starts with a state. `left` is what an earlier run left in the filter: its deadline is taken up,
    /// `reported` is the epoch of its table.
    pub fn start_holder(&mut self, me: NodeId, book: &Book, reported: Epoch, left: Option<u32>) -> u32 {
        let state = book.state(0);
        let before = left.map(|number| self.holders.get(number).clone());
        let run = before.as_ref().map_or(0, |b| b.run + 1);
        let timing = Timing::of(PROFILE);
        let mut holder =
            Holder::new(me, incarnation(run), generation(), state.electors.clone(), timing, reported);
        let now = before.as_ref().map_or(START, |b| b.now);
        holder.set_lease(timing, timing.lease, now);
        let (deadline, flight) = before.map_or((BootTime(0), None), |b| (b.deadline, b.flight));
        let unit = HolderUnit { me, holder, now, ticks: self.ticks, deadline, resumed: false, run, flight };
        self.holders.number(unit)
    }

    /// The filter of the holder's machine is gone, and with it the deadline.
    pub fn unpinned(&mut self, holder: u32) -> u32 {
        let mut unit = self.holders.get(holder).clone();
        unit.deadline = BootTime(0);
        self.holders.number(unit)
    }

    /// The holder's daemon applied a state, while its filter works with `pinned`.
    pub fn holder_applied(&mut self, holder: u32, state: u16, pinned: Epoch, book: &Book) -> u32 {
        let input = u32::from(state) << 16 | u32::try_from(pinned.0).expect("few epochs");
        self.holder_step(Op::HolderApplied, holder, input, |h| {
            let (state, timing) = (book.state(state), Timing::of(PROFILE));
            h.holder.set_electors(state.electors.clone());
            let deadline = h.holder.set_lease(timing, timing.lease, h.now);
            h.publish(deadline);
            if !h.resumed && state.epoch >= pinned {
                h.resumed = true;
                let deadline = h.holder.inherit(h.deadline, h.now);
                h.publish(deadline);
            }
        })
    }

    /// The filter works with `epoch`.
    pub fn reported(&mut self, holder: u32, epoch: Epoch) -> u32 {
        let input = u32::try_from(epoch.0).expect("few epochs");
        self.holder_step(Op::Reported, holder, input, |h| {
            h.holder.applied(epoch);
            h.publish(h.holder.deadline());
        })
    }

    /// What the holder reports.
    #[must_use]
    pub fn reports_epoch(&self, holder: u32) -> Epoch {
        self.holders.get(holder).holder.reported()
    }

    /// Whether the filter of the holder's node acts.
    #[must_use]
    pub fn is_open(&self, holder: u32) -> bool {
        self.holders.get(holder).is_open()
    }

    /// Whether `elector` counts for the holder.
    #[must_use]
    pub fn counts(&self, holder: u32, elector: NodeId) -> bool {
        self.holders.get(holder).holder.electors().all().contains(&elector)
    }

    /// What is under way from or to the holder.
    #[must_use]
    pub fn flight(&self, holder: u32) -> Option<Flight> {
        self.holders.get(holder).flight
    }

    /// Which run of its daemon the holder belongs to.
    #[must_use]
    pub fn run(&self, holder: u32) -> u8 {
        self.holders.get(holder).run
    }

    fn hears(&mut self, elector: u32, renewal: &Renewal, old: bool) -> (u32, bool) {
        let node = u32::try_from(renewal.node.0).expect("few nodes");
        let epoch = u32::try_from(renewal.applied.0).expect("few epochs");
        let run = u32::from(renewal.incarnation.0[0]);
        let input = node << 24 | epoch << 8 | run << 1 | u32::from(old);
        let result = self.once(Op::Exchange, elector, input, |all| {
            let mut unit = all.electors.get(elector).clone();
            let grant = if old { unit.hear_again(renewal) } else { unit.hear(renewal) };
            assert!(
                grant.is_none_or(|g| g.lease == Timing::of(PROFILE).lease),
                "no other lease is asked for"
            );
            all.electors.number(unit) << 1 | u32::from(grant.is_some())
        });
        (result >> 1, result & 1 == 1)
    }

    /// A holder asks an elector and, when granted, hears the answer at once.
    pub fn exchange(&mut self, holder: u32, elector: u32) -> (u32, u32, bool) {
        let unit = self.holders.get(holder);
        let renewal = unit.holder.clone().renew(unit.now);
        let (elector, granted) = self.hears(elector, &renewal, false);
        let by = self.electors.get(elector).me;
        let input = u32::try_from(by.0).expect("few nodes") << 1 | u32::from(granted);
        let holder = self.holder_step(Op::Renewed, holder, input, |h| {
            let renewal = h.holder.renew(h.now);
            if let Some(flight) = h.flight.as_mut().filter(|f| f.elector == by && f.run == h.run) {
                flight.overtaken = true;
            }
            if granted {
                h.granted(&grant(&renewal, by));
            }
        });
        (holder, elector, granted)
    }

    /// A holder asks; the question is under way.
    pub fn ask(&mut self, holder: u32, elector: NodeId) -> u32 {
        self.holder_step(Op::Ask, holder, u32::try_from(elector.0).expect("few nodes"), |h| {
            let renewal = h.holder.renew(h.now);
            let (sent, run) = (h.now, h.run);
            h.flight = Some(Flight { elector, renewal, sent, answered: false, overtaken: false, run });
        })
    }

    /// The question arrives; its answer, if there is one, is under way.
    pub fn hear(&mut self, holder: u32, elector: u32) -> (u32, u32) {
        let flight = self.flight(holder).expect("something is under way");
        let (elector, granted) = self.hears(elector, &flight.renewal, flight.overtaken);
        let holder = self.holder_step(Op::Hear, holder, u32::from(granted), |h| {
            h.flight = h.flight.map(|f| Flight { answered: true, ..f }).filter(|_| granted);
        });
        (holder, elector)
    }

    /// The answer arrives.
    pub fn answer(&mut self, holder: u32) -> u32 {
        self.holder_step(Op::Answer, holder, 0, |h| {
            if let Some(flight) = h.flight.take() {
                h.granted(&grant(&flight.renewal, flight.elector));
            }
        })
    }

    /// A new leader has heard nothing.
    pub fn lead(&mut self, leadership: Leadership) -> u32 {
        let (reports, taken) = (Reports::new(leadership), BTreeSet::new());
        self.reports.number(ReportsUnit { reports, leadership, now: START, ticks: self.ticks, taken })
    }

    /// A leader asks an elector about a loss; `None` when that does not hold the fence of the entry.
    pub fn report(
        &mut self,
        reports: u32,
        elector: u32,
        record: u16,
        id: EntryId,
        node: NodeId,
    ) -> Option<u32> {
        let (by, place) = (self.electors.get(elector).me, u32::try_from(node.0).expect("few nodes"));
        let leadership = self.reports.get(reports).leadership;
        let ask = Ask { entry: id, node, leadership };
        let left = self.once(Op::Expiry, elector, u32::from(record) << 8 | place, |all| {
            let unit = all.electors.get(elector);
            match unit.elector.expiry(&ask, unit.now) {
                Expiry::Remaining(span) => u32::try_from(span.0).expect("leases are short"),
                Expiry::NotFenced => NOBODY,
            }
        });
        if left == NOBODY {
            return None;
        }
        let span = farm_core::time::Span(u64::from(left));
        let ticks = u32::from(self.ticks.fast_left(span));
        let input =
            u32::from(record) << 16 | place << 12 | u32::try_from(by.0).expect("few nodes") << 8 | ticks;
        Some(self.reports_step(Op::Take, reports, input, |r| {
            r.reports.take(by, ask, r.now + span);
            r.taken.insert((id, node, by));
        }))
    }

    /// Whether the elector has reported on the loss.
    #[must_use]
    pub fn has_reported(&self, reports: u32, id: EntryId, node: NodeId, elector: NodeId) -> bool {
        self.reports.get(reports).taken.contains(&(id, node, elector))
    }

    /// A leader applied a state.
    pub fn retain(&mut self, reports: u32, state: u16, book: &Book) -> u32 {
        self.reports_step(Op::Retain, reports, u32::from(state), |r| {
            let pending = book.state(state).pending();
            r.reports.retain(&pending);
            r.taken.retain(|(entry, node, _)| pending.iter().any(|p| (p.entry, p.node) == (*entry, *node)));
        })
    }

    /// What a leader with this state can propose by what it was told, and by what its own elector has heard.
    #[must_use]
    pub fn evidenced(
        &self,
        reports: u32,
        elector: u32,
        state: u16,
        book: &Book,
        config: &Config,
    ) -> Vec<Command> {
        let (leader, state) = (self.reports.get(reports), book.state(state));
        let heard = self.electors.get(elector).elector.all_heard();
        let observed = Observed { heard, ..Observed::default() };
        let found = |p: &_| leader.reports.evidence(p, &state.electors, &observed, leader.now);
        let followed = |n: NodeId| config.leased & 1 << (n.0 - 1) != 0;
        let knows = |n, epoch| observed.heard.get(&n).is_some_and(|h| h.applied >= epoch);
        menu::evidenced(state, found, knows, followed)
    }
}
