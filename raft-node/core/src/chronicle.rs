//! What several nodes have noted, in one order.
//!
//! Clocks differ, but two orders are certain: that of the log, and that in which each node has noted its own. What comes
//! from the log stands in its order. What only one node has seen stands where that node noted it, between the entries
//! before and after; among what others have seen meanwhile, by its clock, put right. How wrong a clock is shows where
//! nodes note the same entry: all apply it within milliseconds.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::time::UnixTime;

/// Differences that belong together lie within so much, in ms: what applying an entry takes, on a busy node too.
const NEAR: i64 = 200;

/// An event's index in the log and its place in that entry.
pub type InLog = (u64, u64);

/// Something that a node has noted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Noted {
    /// Which node.
    pub node: NodeId,
    /// When, by its clock.
    pub at: UnixTime,
    /// Where it comes from; `None`: only that node has seen it.
    pub log: Option<InLog>,
}

/// The order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Chronicle {
    /// Which of what was noted, and when by the clock that is taken for right. What several have noted is there once.
    pub order: Vec<(usize, UnixTime)>,
    /// By how many ms clocks are ahead of that clock.
    pub ahead: BTreeMap<NodeId, i64>,
}

/// Puts in order what nodes have noted; each node's in the order in which it did, mixed as they may be.
#[must_use]
pub fn chronicle(noted: &[Noted]) -> Chronicle {
    let ahead = clocks(noted);
    let right = |noted: &Noted| {
        let at = i64::try_from(noted.at.0).unwrap_or(i64::MAX);
        at.saturating_sub(ahead.get(&noted.node).copied().unwrap_or(0))
    };
    let entries = entries(noted, right);
    let mut keyed: Vec<(Key, usize)> =
        entries.iter().map(|(log, (at, i))| (Key::of_log(*at, *log), *i)).collect();
    for (node, own) in by_node(noted) {
        keyed.extend(locals(node, &own, noted, &entries, right));
    }
    keyed.sort();
    let at = |key: &Key| UnixTime(u64::try_from(key.at).unwrap_or(0));
    Chronicle { order: keyed.iter().map(|(key, i)| (*i, at(key))).collect(), ahead }
}

/// Sorts like the order: each part is at least that of what must stand before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    at: i64,
    /// The last entry of the log that is certain to stand before, or it itself.
    behind: Option<InLog>,
    /// `None`: the entry itself.
    local: Option<(NodeId, usize)>,
}

impl Key {
    const fn of_log(at: i64, log: InLog) -> Self {
        Self { at, behind: Some(log), local: None }
    }
}

/// What comes from the log: when the first node noted it, never before the entry before it, and which note that is.
fn entries(noted: &[Noted], right: impl Fn(&Noted) -> i64) -> BTreeMap<InLog, (i64, usize)> {
    let mut entries: BTreeMap<InLog, (i64, usize)> = BTreeMap::new();
    for (i, note) in noted.iter().enumerate() {
        let Some(log) = note.log else { continue };
        let first = entries.entry(log).or_insert((right(note), i));
        *first = (*first).min((right(note), i));
    }
    let mut last = i64::MIN;
    for (at, _) in entries.values_mut() {
        *at = last.max(*at);
        last = *at;
    }
    entries
}

fn by_node(noted: &[Noted]) -> BTreeMap<NodeId, Vec<usize>> {
    let mut nodes: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
    noted.iter().enumerate().for_each(|(i, note)| nodes.entry(note.node).or_default().push(i));
    nodes
}

/// What only this node has seen, each not before what it noted before, and not after the next entry of the log.
fn locals(
    node: NodeId,
    own: &[usize],
    noted: &[Noted],
    entries: &BTreeMap<InLog, (i64, usize)>,
    right: impl Fn(&Noted) -> i64,
) -> Vec<(Key, usize)> {
    // What it notes again after a restart is told by the first time.
    let mut last = None;
    let first_time = own.iter().map(|i| noted[*i].log.filter(|log| newest(&mut last, *log)));
    let logs: Vec<Option<InLog>> = first_time.collect();
    let mut latest = vec![i64::MAX; own.len()];
    for (position, log) in logs.iter().enumerate().skip(1).rev() {
        latest[position - 1] = log.map_or(latest[position], |log| entries[&log].0);
    }
    let (mut behind, mut earliest) = (None, i64::MIN);
    let mut keys = Vec::new();
    for (position, i) in own.iter().enumerate() {
        if let Some(log) = logs[position] {
            (behind, earliest) = (Some(log), entries[&log].0);
        } else if noted[*i].log.is_none() {
            earliest = right(&noted[*i]).max(earliest).min(latest[position]);
            keys.push((Key { at: earliest, behind, local: Some((node, position)) }, *i));
        }
    }
    keys
}

/// Whether it is behind all that came before it.
fn newest(last: &mut Option<InLog>, log: InLog) -> bool {
    let newest = Some(log) > *last;
    *last = (*last).max(Some(log));
    newest
}

/// By how much each node's clock is ahead of the one in the middle.
fn clocks(noted: &[Noted]) -> BTreeMap<NodeId, i64> {
    let mut logs: BTreeMap<NodeId, BTreeMap<InLog, i64>> = BTreeMap::new();
    for note in noted {
        let log = logs.entry(note.node).or_default();
        if let Some(entry) = note.log {
            log.entry(entry).or_insert_with(|| i64::try_from(note.at.0).unwrap_or(i64::MAX));
        }
    }
    // Whoever has noted most has most in common with the others.
    let Some((_, reference)) = logs.iter().max_by_key(|(_, log)| log.len()) else { return BTreeMap::new() };
    let against = |log: &BTreeMap<InLog, i64>| {
        let both = log.iter().filter_map(|(entry, at)| Some(at - reference.get(entry)?));
        densest(both.collect())
    };
    let mut ahead: BTreeMap<NodeId, i64> =
        logs.iter().filter_map(|(node, log)| Some((*node, against(log)?))).collect();
    let mut sorted: Vec<i64> = ahead.values().copied().collect();
    sorted.sort_unstable();
    let middle = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    ahead.values_mut().for_each(|ms| *ms -= middle);
    ahead
}

/// The middle of where most of them are. Not the middle of all: a node that was away applies late what it missed, and
/// these differences say how long it was away; but no two of them are alike.
fn densest(mut differences: Vec<i64>) -> Option<i64> {
    differences.sort_unstable();
    let mut best: &[i64] = &[];
    for (i, first) in differences.iter().enumerate() {
        let near = &differences[i..differences.partition_point(|d| *d <= first.saturating_add(NEAR))];
        if near.len() > best.len() {
            best = near;
        }
    }
    best.get(best.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_700_000_000_000;

    fn noted(node: u64, at: u64, index: u64) -> Noted {
        Noted { node: NodeId(node), at: UnixTime(START + at), log: (index > 0).then_some((index, 0)) }
    }

    #[test]
    fn a_clock_that_is_an_hour_off_is_put_right() {
        let hour = 3_600_000;
        let told = [
            noted(1, 0, 1),
            noted(1, 1_000, 2),
            noted(1, 2_000, 0),
            noted(1, 3_000, 3),
            noted(2, hour + 2, 1),
            noted(2, hour + 500, 0),
            noted(2, hour + 1_003, 2),
            noted(2, hour + 2_500, 0),
            noted(2, hour + 3_004, 3),
            noted(3, 1, 1),
            noted(3, 1_001, 2),
            noted(3, 1_500, 0),
            noted(3, 2_999, 3),
        ];
        let chronicle = chronicle(&told);
        let order: Vec<usize> = chronicle.order.iter().map(|(i, _)| *i).collect();
        assert_eq!(order, [4, 5, 1, 11, 2, 7, 12]);
        assert_eq!(chronicle.ahead[&NodeId(2)], 3_600_002);
        assert!(chronicle.ahead[&NodeId(1)].abs() < 5 && chronicle.ahead[&NodeId(3)].abs() < 5);
        assert_eq!(chronicle.order[5].1, UnixTime(START + 2_498));
    }

    #[test]
    fn a_node_that_was_away_has_no_wrong_clock() {
        // It applies within 10 ms what the others did within an hour, and is in time again.
        let mut told: Vec<Noted> = (1..=60).map(|i| noted(1, i * 60_000, i)).collect();
        told.extend((1..=50).map(|i| noted(2, 3_000_500 + i / 5, i)));
        told.extend((51..=60).map(|i| noted(2, i * 60_000 + 3, i)));
        assert_eq!(chronicle(&told).ahead[&NodeId(2)], 3);
    }

    #[test]
    fn the_log_is_certain_whatever_clocks_say() {
        // Both clocks were set back in between.
        let told = [
            noted(1, 5_000, 1),
            noted(1, 1_000, 2),
            noted(2, 5_001, 1),
            noted(2, 900, 0),
            noted(2, 1_001, 2),
        ];
        let order: Vec<usize> = chronicle(&told).order.iter().map(|(i, _)| *i).collect();
        assert_eq!(order, [0, 3, 1]);
        assert_eq!(chronicle(&[]), Chronicle::default());
    }

    /// Journals of nodes: who notes which entry or something of its own, and when by which clock.
    fn journals() -> impl Strategy<Value = Vec<Noted>> {
        let step = (1_u64..4, any::<bool>(), 0_u64..10_000_000, 0_u64..3);
        proptest::collection::vec(step, 0..60).prop_map(|steps| {
            let mut next: BTreeMap<u64, u64> = BTreeMap::new();
            let note = |(node, of_log, at, missed): (u64, bool, u64, u64)| {
                let index = next.entry(node).or_insert(1);
                *index += missed + 1;
                noted(node, at, if of_log { *index } else { 0 })
            };
            steps.into_iter().map(note).collect()
        })
    }

    proptest! {
        #[test]
        fn both_certain_orders_are_kept(told in journals()) {
            let order: Vec<usize> = chronicle(&told).order.into_iter().map(|(i, _)| i).collect();
            let logs: Vec<InLog> = order.iter().filter_map(|i| told[*i].log).collect();
            prop_assert!(logs.is_sorted_by(|a, b| a < b), "the log's, each entry once: {logs:?}");
            let count = told.iter().filter(|note| note.log.is_none()).count();
            prop_assert_eq!(order.len(), logs.len() + count, "nothing is missing");
            let place = |i: usize| match told[i].log {
                None => order.iter().position(|o| *o == i),
                Some(log) => order.iter().position(|o| told[*o].log == Some(log)),
            };
            for own in by_node(&told).values() {
                let places: Vec<Option<usize>> = own.iter().map(|i| place(*i)).collect();
                prop_assert!(places.is_sorted(), "a node's own: {places:?}");
            }
            let times: Vec<UnixTime> = chronicle(&told).order.into_iter().map(|(_, at)| at).collect();
            prop_assert!(times.is_sorted());
        }
    }
}
