//! The elector.

use farm_core::command::{Body, Command};
use farm_core::id::{EntryId, Epoch, Generation, Incarnation, Leadership, NodeId, Seq};
use farm_core::lease::{AppliedFences, Ask, Elector, Expiry, Renewal, Timing};
use farm_core::model::Profile;
use farm_core::restart::{Inherited, Restart, Restarts};
use farm_core::time::{BootTime, Span};

use crate::transcript::{number, play};

/// `7.2` is index 7 of term 2.
fn entry(word: &str) -> EntryId {
    let (index, term) = word.split_once('.').expect("an entry is INDEX.TERM");
    let by = Leadership { term: term.parse().unwrap(), leader: NodeId(1) };
    EntryId { by, index: index.parse().unwrap() }
}

/// `n2@5`: node 2 below epoch 5.
fn fence(word: &str) -> (NodeId, Epoch) {
    let (node, epoch) = word.split_once('@').expect("a fence is nNODE@EPOCH");
    (NodeId(node[1..].parse().unwrap()), Epoch(epoch.parse().unwrap()))
}

fn at(words: &[&str]) -> BootTime {
    let time = words.iter().find_map(|w| w.strip_prefix('t')).expect("a time");
    BootTime(0) + Span::millis(time.parse().unwrap())
}

/// The number behind `name`, else 0.
fn option(words: &[&str], name: &str) -> u64 {
    words.iter().find_map(|w| w.strip_prefix(name)).map_or(0, |n| n.parse().unwrap())
}

/// `n2/7.1`: node 2 restarts by entry 7 of term 1; `all` where everybody gets longer leases, `over` where it is over.
fn restarts(words: &[&str]) -> Restarts {
    let one = |word: &&str| {
        let (node, begun) = word.split_once('/')?;
        let over = words.contains(&"over").then_some(Epoch(1));
        let (lease, everybody) = (Span::millis(10_000), words.contains(&"all"));
        let restart = Restart { entry: entry(begun), lease, everybody, over };
        Some((NodeId(node[1..].parse().unwrap()), restart))
    };
    words.iter().filter_map(one).collect()
}

fn renewal(words: &[&str]) -> Renewal {
    let run = words.iter().find_map(|w| w.strip_prefix("run=")).map_or(1, |r| r.parse().unwrap());
    let generation =
        words.iter().find_map(|w| w.strip_prefix("generation=")).map_or(1, |g| g.parse().unwrap());
    Renewal {
        generation: Generation { number: generation, ..Generation::default() },
        node: NodeId(number(words, 1)),
        incarnation: Incarnation([run; 16]),
        seq: Seq(number(words, 2)),
        applied: Epoch(number(words, 3)),
        leased: !words.contains(&"unleased"),
        lease: Span::millis(option(words, "lease=")),
    }
}

fn start(words: &[&str]) -> Elector {
    let generation = Generation { number: 1, ..Generation::default() };
    let mut applied = AppliedFences { index: 1, ..AppliedFences::default() };
    applied.fences.extend(words.iter().filter(|w| w.contains('@')).map(|w| fence(w)));
    let longer = Inherited { settled: option(words, "settled="), ..Inherited::new(restarts(words)) };
    Elector::start(NodeId(1), generation, Timing::of(Profile::Fast), applied, Span::ZERO, &longer, at(words))
}

fn applied(words: &[&str]) -> AppliedFences {
    let mut applied = AppliedFences { index: number(words, 1), ..AppliedFences::default() };
    for word in &words[2..] {
        match word.split_once('/') {
            Some((node, id)) => drop(applied.open.insert((entry(id), NodeId(node[1..].parse().unwrap())))),
            None => applied.fences.extend([fence(word)]),
        }
    }
    applied
}

#[test]
fn elector_transcript() {
    let mut elector = start(&["t0"]);
    play("elector", |words| match words[0] {
        "start" => {
            elector = start(words);
            "started".into()
        }
        "renewal" => match elector.renewal(&renewal(words), at(words)) {
            Ok(grant) => format!("granted {} ms", grant.lease.as_millis()),
            Err(refused) => refused.to_string(),
        },
        "appended" => {
            let fences: Vec<_> = words[2..].iter().map(|w| fence(w)).collect();
            elector.appended(entry(words[1]), &fences);
            String::new()
        }
        "truncated" => {
            elector.truncated(number(words, 1));
            String::new()
        }
        "applied" => {
            elector.applied(applied(words));
            String::new()
        }
        "restarts" => {
            elector.set_restarts(restarts(words), Span::millis(100), at(words));
            String::new()
        }
        "expiry" => {
            let leadership = Leadership { term: 1, leader: NodeId(1) };
            let ask = Ask { entry: entry(words[1]), node: NodeId(number(words, 2)), leadership };
            match elector.expiry(&ask, at(words)) {
                Expiry::Remaining(left) => format!("{} ms left", left.as_millis()),
                Expiry::NotFenced => "not fenced".into(),
            }
        }
        "heard" => elector
            .heard(NodeId(number(words, 1)))
            .map_or("never".into(), |h| format!("at {} with epoch {}", h.at.0 / 1_000_000, h.applied)),
        other => panic!("unknown command {other}"),
    });
}

fn begin(lease: u64, everybody: bool) -> Command {
    Command::any(Body::RestartBegin { node: NodeId(2), lease: Span::millis(lease), everybody })
}

/// The log does not tell which of two Begins was refused: what either allows counts, until the state tells that it
/// knows of none, which it does behind the later one.
#[test]
fn a_refused_begin_takes_nothing_from_the_one_that_is_open() {
    let mut longer = Inherited::default();
    longer.follow(&begin(10_000, true), entry("7.1"));
    longer.follow(&begin(5_000, false), entry("9.1"));
    let restart = longer.restarts[&NodeId(2)];
    assert_eq!((restart.lease, restart.everybody), (Span::millis(10_000), true));
    assert_eq!((restart.entry, longer.settled), (entry("9.1"), 9));
    // That the first one is forgotten says nothing of the second, should it be the one that was refused.
    let forget = |begun: &str| Command::any(Body::RestartForget { node: NodeId(2), begun: entry(begun) });
    longer.follow(&forget("7.1"), entry("11.1"));
    assert!(longer.restarts.contains_key(&NodeId(2)));
    longer.follow(&forget("9.1"), entry("12.1"));
    assert_eq!((longer.restarts.len(), longer.settled), (0, 12));
    let end = Body::RestartEnd { node: NodeId(2), begun: entry("9.1") };
    longer.follow(&Command::any(end), entry("13.1"));
    assert_eq!(longer.settled, 13, "an elector may have told that it is over");
}
