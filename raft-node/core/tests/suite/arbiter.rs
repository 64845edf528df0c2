//! Which of two voters goes on: the ordinary courses. What happens in all orders is the model's (`docs/model.md`).

use farm_core::arbiter::{Act, Arbiter, Kind, Loss, Phase, Rules};
use farm_core::lease::Timing;
use farm_core::lease::timing::RATE_ERROR_PERCENT;
use farm_core::model::Profile;
use farm_core::time::{BootTime, Span};

const PROFILES: [Profile; 3] = [Profile::Fast, Profile::Standard, Profile::Virtual];

fn ms(ms: u64) -> BootTime {
    BootTime(0) + Span::millis(ms)
}

fn fast() -> Rules {
    Rules::of(&Timing::of(Profile::Fast))
}

/// One that has had a round trip at 1000 ms, the last for now.
fn silent(kind: Kind, routers: usize) -> Arbiter {
    let mut arbiter = Arbiter::new(fast(), kind, routers, false);
    arbiter.answered(ms(1_000));
    arbiter.heard(ms(1_000));
    arbiter
}

/// Runs it for every millisecond until `until`; `answers`: whether a router answers a ping sent then. When what was decided.
fn play(arbiter: &mut Arbiter, until: u64, answers: impl Fn(usize, u64) -> bool) -> Vec<(u64, Act)> {
    let mut decided = Vec::new();
    for at in 1_000..until {
        for act in arbiter.tick(ms(at), true) {
            match act {
                Act::Claim(router) | Act::Ping(router) if answers(router, at) => {
                    arbiter.pong(router, ms(at), ms(at));
                }
                Act::Claim(_) | Act::Ping(_) => {}
                Act::Record | Act::TakeOver | Act::Withdraw => decided.push((at, act)),
            }
        }
    }
    decided
}

#[test]
fn the_lengths_are_the_documented_ones_and_let_only_one_win() {
    let lengths = PROFILES.map(|profile| {
        let Rules { quiet, back, gap, hold, ping } = Rules::of(&Timing::of(profile));
        // Real time: the other one's clock runs at 0.9, the winner's at 1.1.
        let other = (back.0 + gap.0) * (100 + RATE_ERROR_PERCENT);
        let own = (quiet.0 + hold.0) * (100 - RATE_ERROR_PERCENT);
        assert!(other < own, "{profile:?}");
        assert!(quiet + ping < back, "who waits still begins in time");
        [quiet, back, gap, hold, ping].map(Span::as_millis)
    });
    assert_eq!(lengths, [[75, 125, 40, 132, 20], [300, 500, 40, 365, 20], [750, 1_250, 100, 905, 50]]);
}

#[test]
fn a_router_that_answers_lets_it_go_on_once_that_is_written_down() {
    let mut arbiter = silent(Kind::Exclusive, 1);
    assert!(!arbiter.hushed() && arbiter.due(ms(1_000)) == Some(ms(1_075)));
    let decided = play(&mut arbiter, 1_300, |_, _| true);
    // The first ping at 1075; the one sent at 1215 is the first that lies 132 ms behind it.
    assert_eq!(decided, [(1_216, Act::Record)]);
    assert!(arbiter.hushed());
    assert_eq!(arbiter.recorded(ms(1_300)), [Act::TakeOver]);
    assert!(arbiter.phase() == Phase::Alone && arbiter.hushed());
}

#[test]
fn what_took_too_long_to_write_is_taken_back() {
    let mut arbiter = silent(Kind::Exclusive, 1);
    play(&mut arbiter, 1_217, |_, _| true);
    assert_eq!(arbiter.recorded(ms(1_400)), [Act::Withdraw], "nobody knows what happened since");
    assert!(matches!(arbiter.phase(), Phase::Spent { loss: Loss::Unanswered, .. }));
}

#[test]
fn without_answers_the_claim_is_used_up_until_a_round_trip() {
    let mut arbiter = silent(Kind::Exclusive, 1);
    assert_eq!(play(&mut arbiter, 2_000, |_, _| false), []);
    assert!(matches!(arbiter.phase(), Phase::Spent { loss: Loss::Unanswered, .. }) && !arbiter.hushed());
    arbiter.answered(ms(1_050));
    assert!(matches!(arbiter.phase(), Phase::Spent { .. }), "that was sent before the claim");
    arbiter.answered(ms(2_000));
    assert_eq!(arbiter.phase(), Phase::Together);
}

#[test]
fn a_lock_that_is_lost_is_not_taken_back() {
    let mut arbiter = silent(Kind::Exclusive, 1);
    assert_eq!(play(&mut arbiter, 2_000, |_, at| !(1_120..1_180).contains(&at)), []);
    let mut arbiter = silent(Kind::Exclusive, 1);
    play(&mut arbiter, 1_100, |_, _| true);
    arbiter.foreign(0);
    assert!(matches!(arbiter.phase(), Phase::Spent { loss: Loss::Claimed, .. }));
}

#[test]
fn a_peer_that_is_heard_ends_the_contest() {
    let mut arbiter = silent(Kind::Exclusive, 1);
    play(&mut arbiter, 1_150, |_, _| true);
    arbiter.heard(ms(1_150));
    assert!(matches!(arbiter.phase(), Phase::Spent { loss: Loss::Heard, .. }) && !arbiter.hushed());
}

#[test]
fn it_is_too_late_long_after_the_last_round_trip() {
    let mut arbiter = silent(Kind::Exclusive, 1);
    arbiter.heard(ms(1_060));
    assert_eq!(arbiter.due(ms(1_060)), None);
    assert_eq!(play(&mut arbiter, 2_000, |_, _| true), []);
    assert_eq!(arbiter.phase(), Phase::Together);
}

#[test]
fn of_several_routers_a_majority_decides_and_of_plain_ones_any() {
    let two = |router: usize, _: u64| router < 2;
    assert_eq!(play(&mut silent(Kind::Exclusive, 3), 1_300, two).len(), 1);
    assert_eq!(play(&mut silent(Kind::Exclusive, 4), 1_300, two), []);
    assert_eq!(play(&mut silent(Kind::Plain, 4), 1_300, |router, _| router == 3).len(), 1);
}

#[test]
fn who_is_not_one_of_two_begins_nothing() {
    let mut arbiter = silent(Kind::Exclusive, 1);
    for at in 1_000..1_200 {
        assert_eq!(arbiter.tick(ms(at), false), []);
    }
    play(&mut arbiter, 1_110, |_, _| true);
    arbiter.refused();
    assert!(matches!(arbiter.phase(), Phase::Spent { loss: Loss::Ineligible, .. }));
}
