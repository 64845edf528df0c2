//! Shares and plans.

use std::collections::BTreeMap;

use farm_core::id::NodeId;
use farm_core::model::Weight;
use farm_core::planner::{Claim, plan, shares};
use proptest::prelude::*;

type Weights = BTreeMap<NodeId, Weight>;

fn weights() -> impl Strategy<Value = Weights> {
    prop::collection::btree_map(
        (1..12_u64).prop_map(NodeId),
        prop_oneof![Just(0), 1..300_u16].prop_map(Weight),
        0..8,
    )
}

fn claims(open: bool) -> impl Strategy<Value = Vec<Claim>> {
    let node = || (1..12_u64).prop_map(NodeId);
    let held = if open { 1 } else { 0 };
    let claim = prop_oneof![
        6 => node().prop_map(Claim::Kept),
        1 => Just(Claim::Free),
        held => node().prop_map(Claim::Held),
    ];
    prop::collection::vec(claim, 0..300)
}

fn owners(claims: &[Claim], moves: &BTreeMap<usize, NodeId>) -> BTreeMap<NodeId, usize> {
    let mut owned = BTreeMap::new();
    for (bucket, claim) in claims.iter().enumerate() {
        let owner = match (moves.get(&bucket), claim) {
            (Some(to), _) => Some(*to),
            (None, Claim::Kept(n) | Claim::Held(n)) => Some(*n),
            (None, Claim::Free) => None,
        };
        owner.into_iter().for_each(|n| *owned.entry(n).or_insert(0) += 1);
    }
    owned
}

fn count(claims: &[Claim], node: NodeId) -> usize {
    claims.iter().filter(|c| **c == Claim::Kept(node)).count()
}

proptest! {
    #[test]
    fn every_share_is_within_one_bucket_of_the_ideal(weights in weights(), buckets in 0..5_000_usize) {
        let shares = shares(&weights, buckets);
        let total: u64 = weights.values().map(|w| u64::from(w.0)).sum();
        prop_assert_eq!(shares.values().sum::<usize>(), if total == 0 { 0 } else { buckets });
        for (node, share) in &shares {
            let ideal = buckets as f64 * f64::from(weights[node].0) / total as f64;
            prop_assert!((*share as f64 - ideal).abs() < 1.0, "{node}: {share}, ideal {ideal}");
            prop_assert!(weights[node].0 > 0, "a weight of 0 has no share");
        }
    }

    #[test]
    fn a_plan_reaches_the_shares_with_exactly_as_many_moves_as_needed(weights in weights(), claims in claims(false)) {
        let moves = plan(&weights, &claims);
        let shares = shares(&weights, claims.len());
        if shares.is_empty() {
            prop_assert!(moves.is_empty(), "nobody to move to");
            return Ok(());
        }
        prop_assert_eq!(&owners(&claims, &moves), &shares.iter().filter(|(_, s)| **s > 0).map(|(n, s)| (*n, *s)).collect());
        let needed: usize = shares.iter().map(|(n, s)| s.saturating_sub(count(&claims, *n))).sum();
        prop_assert_eq!(moves.len(), needed);
        prop_assert_eq!(plan(&weights, &claims), moves);
    }

    #[test]
    fn open_changes_stay_and_nobody_else_gets_more_than_its_share(weights in weights(), claims in claims(true)) {
        let moves = plan(&weights, &claims);
        let shares = shares(&weights, claims.len());
        let owned = owners(&claims, &moves);
        for (bucket, to) in &moves {
            prop_assert!(!matches!(claims[*bucket], Claim::Held(_)), "an open change moved");
            prop_assert!(claims[*bucket] != Claim::Kept(*to), "a move to the owner");
            prop_assert!(owned[to] <= shares[to], "{to} got more than its share");
        }
        if !shares.is_empty() {
            let free = (0..claims.len()).filter(|b| claims[*b] == Claim::Free);
            prop_assert!(free.into_iter().all(|b| moves.contains_key(&b)), "a bucket without an owner was left");
        }
    }

    #[test]
    fn a_settled_plan_changes_nothing(weights in weights(), claims in claims(false)) {
        let moves = plan(&weights, &claims);
        let after: Vec<Claim> = claims.iter().enumerate().map(|(b, c)| moves.get(&b).map_or(*c, |n| Claim::Kept(*n))).collect();
        prop_assert!(plan(&weights, &after).is_empty());
    }
}

#[test]
fn a_node_that_dies_moves_only_its_own_buckets() {
    let node = |n: usize| NodeId(n as u64);
    let claims: Vec<Claim> = (0..4096).map(|b| Claim::Kept(node(b % 4 + 1))).collect();
    let three = [1, 2, 4].map(|n| (node(n), Weight::DEFAULT)).into();
    let moves = plan(&three, &claims);
    assert_eq!(moves.len(), 1024);
    assert!(moves.keys().all(|b| b % 4 == 2));
}
