//! The holder of a lease.

use std::collections::BTreeSet;

use farm_core::electors::{Change, Electors};
use farm_core::id::{Epoch, Generation, Incarnation, NodeId, Seq};
use farm_core::lease::{Grant, Holder, Timing};
use farm_core::model::Profile;
use farm_core::time::{BootTime, Span};

use crate::transcript::{number, play};

fn set(list: &str) -> BTreeSet<NodeId> {
    list.split(',').map(|n| NodeId(n.trim_start_matches('n').parse().unwrap())).collect()
}

fn electors(current: &str, next: Option<&str>) -> Electors {
    let change = next.map(|n| Change { next: set(n), joint: Epoch(2), seal: None });
    Electors { change, ..Electors::new(set(current)) }
}

fn at(words: &[&str], index: usize) -> BootTime {
    BootTime(0) + Span::millis(number(words, index))
}

fn ms(time: BootTime) -> u64 {
    time.0 / 1_000_000
}

fn grant(words: &[&str]) -> Grant {
    let flag = |name: &str| words.contains(&name);
    Grant {
        generation: Generation { number: if flag("generation=2") { 2 } else { 1 }, ..Generation::default() },
        elector: NodeId(number(words, 1)),
        node: NodeId(if flag("other-node") { 9 } else { 1 }),
        incarnation: Incarnation([if flag("other-run") { 2 } else { 1 }; 16]),
        seq: Seq(number(words, 2)),
        lease: Span::millis(
            words.iter().find_map(|w| w.strip_prefix("lease=")).map_or(100, |l| l.parse().unwrap()),
        ),
        epoch: Epoch(0),
    }
}

#[test]
fn holder_transcript() {
    let start = || {
        let generation = Generation { number: 1, ..Generation::default() };
        let timing = Timing::of(Profile::Fast);
        Holder::new(NodeId(1), Incarnation([1; 16]), generation, electors("1,2,3", None), timing, Epoch(1))
    };
    let mut holder = start();
    play("holder", |words| match words[0] {
        "start" => {
            holder = start();
            format!("deadline {}", ms(holder.deadline()))
        }
        "renew" => {
            let renewal = holder.renew(at(words, 1));
            let held = if renewal.leased { "held" } else { "not held" };
            format!(
                "seq {} applied {} {held} asks for {} ms next {}",
                renewal.seq,
                renewal.applied,
                renewal.lease.as_millis(),
                ms(holder.next_renewal())
            )
        }
        "grant" => {
            let grown = holder.granted(&grant(words), at(words, 3));
            grown.map_or_else(
                || format!("deadline stays {}", ms(holder.deadline())),
                |d| format!("deadline {}", ms(d)),
            )
        }
        "electors" => {
            format!("deadline {}", ms(holder.set_electors(electors(words[1], words.get(2).copied()))))
        }
        "lease" => {
            let lease = Span::millis(number(words, 1));
            format!("deadline {}", ms(holder.set_lease(Timing::of(Profile::Fast), lease, at(words, 2))))
        }
        "inherit" => format!("deadline {}", ms(holder.inherit(at(words, 1), at(words, 2)))),
        "applied" => {
            holder.applied(Epoch(number(words, 1)));
            format!("next {}", ms(holder.next_renewal()))
        }
        other => panic!("unknown command {other}"),
    });
}

#[test]
#[should_panic(expected = "applied 1 after 2")]
fn a_reported_epoch_never_goes_back() {
    let mut holder = Holder::new(
        NodeId(1),
        Incarnation([1; 16]),
        Generation::default(),
        electors("1", None),
        Timing::of(Profile::Fast),
        Epoch(2),
    );
    holder.applied(Epoch(1));
}
