//! One bucket's change, step by step.

use farm_core::assignment::{At, Step};
use farm_core::command::Evidence;
use farm_core::id::{EntryId, Epoch, Leadership, NodeId};
use farm_core::model::{BucketState, Phase};
use proptest::prelude::*;

use crate::transcript::{number, play};

fn entry(index: u64) -> EntryId {
    EntryId { by: Leadership { term: 1, leader: NodeId(1) }, index }
}

fn show(state: &BucketState) -> String {
    let name = |n: Option<NodeId>| n.map_or("-".into(), |n| format!("n{n}"));
    let pending: Vec<String> = state.pending.iter().map(|p| format!("n{}@{}", p.node, p.epoch)).collect();
    let (previous, current) = (name(state.previous), name(state.current));
    format!("{:?} {previous} -> {current} pending [{}]", state.phase, pending.join(" "))
}

fn evidence(word: &str) -> Evidence {
    let (kind, rest) = word.split_once(':').expect("released:nNODE@EPOCH or expired:nNODE@INDEX");
    let (node, at) = rest[1..].split_once('@').expect("a node and a number");
    let (node, at) = (NodeId(node.parse().unwrap()), at.parse().unwrap());
    match kind {
        "released" => Evidence::Released { node, epoch: Epoch(at) },
        "expired" => Evidence::Expired { node, entry: entry(at) },
        other => panic!("unknown evidence {other}"),
    }
}

#[test]
fn assignment_transcript() {
    let mut state = BucketState::UNOWNED;
    let mut epoch = 0;
    play("assignment", |words| {
        let list: Vec<Evidence>;
        let step = match words[0] {
            "new" => {
                (state, epoch) = (BucketState::UNOWNED, 0);
                return show(&state);
            }
            "prepare" => Step::Prepare { to: NodeId(number(words, 1)) },
            "move" => Step::Move { to: NodeId(number(words, 1)) },
            "activate" => {
                list = words[1..].iter().map(|w| evidence(w)).collect();
                Step::Activate { evidence: &list }
            }
            "settle" => Step::Settle,
            "cancel" => Step::Cancel,
            other => panic!("unknown command {other}"),
        };
        // The entry's index equals the epoch it makes.
        match state.step(step, At { epoch: Epoch(epoch + 1), entry: entry(epoch + 1) }) {
            Ok(next) => {
                (state, epoch) = (next, epoch + 1);
                format!("{} epoch {epoch}", show(&state))
            }
            Err(misstep) => format!("refused: {misstep}"),
        }
    });
}

#[derive(Clone, Debug)]
enum Any {
    Prepare(u64),
    Move(u64),
    Activate,
    Settle,
    Cancel,
}

fn any_step() -> impl Strategy<Value = Any> {
    prop_oneof![
        (1..5_u64).prop_map(Any::Prepare),
        (1..5_u64).prop_map(Any::Move),
        Just(Any::Activate),
        Just(Any::Settle),
        Just(Any::Cancel),
    ]
}

fn check(state: &BucketState) {
    let moving = matches!(state.phase, Phase::Move | Phase::MoveClosed);
    assert_eq!(moving, !state.pending.is_empty(), "pending exactly in Move: {state:?}");
    assert_eq!(
        state.phase == Phase::Stable,
        state.previous.is_none(),
        "previous exactly in a change: {state:?}"
    );
    assert!(state.previous.is_none() || state.previous != state.current, "{state:?}");
    assert!(
        state.pending.iter().all(|p| Some(p.node) != state.current),
        "the new owner is not pending: {state:?}"
    );
    assert!(state.pending.is_sorted(), "{state:?}");
    let mut nodes: Vec<NodeId> = state.pending.iter().map(|p| p.node).collect();
    nodes.dedup();
    assert_eq!(nodes.len(), state.pending.len(), "one loss per node: {state:?}");
}

proptest! {
    /// Whatever the steps, nobody who may still accept is forgotten, and the shape of the state holds.
    #[test]
    fn every_loss_stays_pending_until_it_is_evidenced(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut state = BucketState::UNOWNED;
        for (index, step) in (1..).zip(steps) {
            let before = state.clone();
            let all: Vec<Evidence> = before.pending.iter().map(|p| Evidence::Expired { node: p.node, entry: p.entry }).collect();
            let at = At { epoch: Epoch(index), entry: entry(index) };
            let next = match step {
                Any::Prepare(to) => before.step(Step::Prepare { to: NodeId(to) }, at),
                Any::Move(to) => before.step(Step::Move { to: NodeId(to) }, at),
                Any::Activate => {
                    if let Some(short) = all.len().checked_sub(1) {
                        let early = before.step(Step::Activate { evidence: &all[..short] }, at);
                        prop_assert!(early.is_err());
                    }
                    before.step(Step::Activate { evidence: &all }, at)
                }
                Any::Settle => before.step(Step::Settle, at),
                Any::Cancel => before.step(Step::Cancel, at),
            };
            let Ok(next) = next else { continue };
            check(&next);
            if matches!(step, Any::Move(_)) {
                let kept = before.pending.iter().all(|p| Some(p.node) == next.current || next.pending.contains(p));
                prop_assert!(kept, "{before:?} -> {next:?}");
                let lost = before.loser().is_none_or(|l| next.pending.iter().any(|p| p.node == l && p.epoch == Epoch(index)));
                prop_assert!(lost, "{before:?} -> {next:?}");
                prop_assert_eq!(next.phase == Phase::MoveClosed, !matches!(before.phase, Phase::Stable | Phase::Prepare));
            }
            state = next;
        }
    }
}
