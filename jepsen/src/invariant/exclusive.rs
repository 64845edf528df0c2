//! P1: at any instant at most one node accepts new flows of a bucket.
//!
//! Between two changes of filters, tables and deadlines stand still, so that the nodes which accept can only become
//! fewer, as clocks reach their deadlines. Judging right after each change therefore judges every instant.

use std::collections::BTreeMap;

use farm_common::layout::Entry;
use farm_common::verdict::Mode;

use crate::world::sim::filter::{Cell, Filter, Table};
use crate::world::sim::walk::{Fate, walk};
use farm_core::time::BootTime;

/// The filter of one machine, and what its clock shows.
pub type View<'a> = (&'a Filter, BootTime);

/// Machines of the largest simulation.
const MACHINES: usize = 8;

type Key = (u8, [u32; MACHINES]);

/// Judges all filters at once; remembers only answers, to be quick.
#[derive(Default)]
pub struct Exclusive {
    fates: BTreeMap<Key, Fate>,
    seen: Vec<(u64, bool, bool)>,
}

impl Exclusive {
    /// Judges one instant.
    ///
    /// # Errors
    /// The fact, when two nodes accept, or a frame is sent on for ever.
    pub fn judge(&mut self, views: &[View<'_>]) -> Result<(), String> {
        let open = |t: &Table, now: BootTime| t.is_open(now);
        let seen: Vec<_> = views
            .iter()
            .map(|(f, now)| (f.version, open(f.in_force(), *now), f.stale().is_some_and(|t| open(t, *now))))
            .collect();
        if seen == self.seen {
            return Ok(());
        }
        self.seen = seen;
        let choices: Vec<Vec<Option<&Table>>> = views.iter().map(|(f, now)| versions(f, *now)).collect();
        let mut chosen = vec![0; choices.len()];
        loop {
            let tables: Vec<Option<&Table>> = choices.iter().zip(&chosen).map(|(c, i)| c[*i]).collect();
            self.judge_tables(&tables)?;
            if !advance(&mut chosen, &choices) {
                return Ok(());
            }
        }
    }

    fn judge_tables(&mut self, tables: &[Option<&Table>]) -> Result<(), String> {
        let cells = tables.iter().flatten().map(|t| t.cells.len()).max().unwrap_or(0);
        for cell in 0..cells {
            let fate = self.fate(tables, cell);
            if fate.acceptors.count_ones() > 1 || fate.endless {
                return Err(describe(tables, cell, fate));
            }
        }
        Ok(())
    }

    fn fate(&mut self, tables: &[Option<&Table>], cell: usize) -> Fate {
        let at = |t: &Option<&Table>| t.and_then(|t| t.cells.get(cell).copied());
        let mode = tables.iter().find_map(at).map_or(Mode::Directed, |(mode, _)| mode);
        let mut key: Key = (mode.into(), [u32::MAX; MACHINES]);
        let entries: Vec<Option<Entry>> = tables.iter().map(|t| at(t).map(|(_, e): Cell| e)).collect();
        for (slot, entry) in key.1.iter_mut().zip(&entries) {
            *slot = entry.map_or(u32::MAX, |e| u32::from_le_bytes([e.current, e.previous, e.phase, 0]));
        }
        *self.fates.entry(key).or_insert_with(|| walk(mode, &entries))
    }
}

/// Each table that some packet may go by: the one in force, and until the grace period ends the one before.
fn versions<'a>(filter: &'a Filter, now: BootTime) -> Vec<Option<&'a Table>> {
    let open = |t: &'a Table| Some(t).filter(|t| t.is_open(now));
    std::iter::once(open(filter.in_force())).chain(filter.stale().map(open)).collect()
}

fn advance(chosen: &mut [usize], choices: &[Vec<Option<&Table>>]) -> bool {
    for (at, of) in chosen.iter_mut().zip(choices) {
        *at += 1;
        if *at < of.len() {
            return true;
        }
        *at = 0;
    }
    false
}

fn describe(tables: &[Option<&Table>], cell: usize, fate: Fate) -> String {
    let who: Vec<String> =
        (0..tables.len()).filter(|m| fate.acceptors & (1 << m) != 0).map(|m| format!("m{m}")).collect();
    let of = |t: &Option<&Table>| t.map(|t| (t.epoch, t.cells.get(cell).map(|(_, e)| *e)));
    let tables: Vec<String> = tables.iter().enumerate().map(|(m, t)| format!("m{m} {:?}", of(t))).collect();
    let what = if fate.endless { "a frame does not come to rest" } else { "new flows are accepted" };
    format!("bucket {cell}: {what} by {}; {}", who.join(" and "), tables.join("; "))
}
