//! Who should own which bucket: largest remainder for the shares, as few moves as possible.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::model::Weight;

/// What may happen to a bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Claim {
    /// Its owner keeps it if its share allows.
    Kept(NodeId),
    /// It counts for this node and cannot move now: a change is open.
    Held(NodeId),
    /// It needs an owner.
    Free,
}

/// How many of `buckets` each node gets: largest remainder (Hamilton), ties to the lower node id. Every share is
/// within one bucket of the ideal. Empty when no node has a weight.
#[must_use]
pub fn shares(weights: &BTreeMap<NodeId, Weight>, buckets: usize) -> BTreeMap<NodeId, usize> {
    let weighted = || weights.iter().filter(|(_, w)| w.0 > 0).map(|(n, w)| (*n, u64::from(w.0)));
    let total: u64 = weighted().map(|(_, w)| w).sum();
    if total == 0 {
        return BTreeMap::new();
    }
    let count = buckets as u64;
    let mut shares: BTreeMap<NodeId, usize> =
        weighted().map(|(n, w)| (n, to_usize(count * w / total))).collect();
    let mut remainders: Vec<(u64, NodeId)> = weighted().map(|(n, w)| (count * w % total, n)).collect();
    remainders.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let left = buckets - shares.values().sum::<usize>();
    for (_, node) in remainders.into_iter().take(left) {
        *shares.entry(node).or_default() += 1;
    }
    shares
}

/// Which buckets go to whom, so that every node has its share: buckets without an owner, of owners without a
/// weight, and what owners have above their share; nothing else. They are dealt out in turn to the nodes below
/// their share, by node id. The same input gives the same plan.
#[must_use]
pub fn plan(weights: &BTreeMap<NodeId, Weight>, claims: &[Claim]) -> BTreeMap<usize, NodeId> {
    let mut room = shares(weights, claims.len());
    for held in claims.iter().filter_map(|c| if let Claim::Held(n) = c { Some(n) } else { None }) {
        take_one(&mut room, *held);
    }
    let stays = |claim: &Claim, room: &mut BTreeMap<NodeId, usize>| match claim {
        Claim::Kept(node) => take_one(room, *node),
        Claim::Held(_) => true,
        Claim::Free => false,
    };
    let freed: Vec<usize> = (0..claims.len()).filter(|b| !stays(&claims[*b], &mut room)).collect();
    deal(&freed, room)
}

fn deal(freed: &[usize], mut room: BTreeMap<NodeId, usize>) -> BTreeMap<usize, NodeId> {
    let mut dealt = BTreeMap::new();
    let mut freed = freed.iter();
    loop {
        room.retain(|_, left| *left > 0);
        if room.is_empty() {
            return dealt;
        }
        for (node, left) in &mut room {
            let Some(bucket) = freed.next() else { return dealt };
            dealt.insert(*bucket, *node);
            *left -= 1;
        }
    }
}

fn take_one(room: &mut BTreeMap<NodeId, usize>, node: NodeId) -> bool {
    match room.get_mut(&node) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        Some(_) | None => false,
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("a share is at most the number of buckets, which is a usize")
}
