//! Conditions and rules over watched things.

use farm_core::life::{Gate, Request};
use farm_core::resource::Health;
use farm_core::rule::{Condition, Healths, Rule, Rules, Selector};
use proptest::prelude::*;

fn healths(of: &[(&str, Health)]) -> Healths {
    of.iter().map(|(name, health)| ((*name).to_owned(), *health)).collect()
}

fn every(start: &str) -> Selector {
    Selector::Every(start.to_owned())
}

#[test]
fn conditions_hold_by_what_they_say() {
    use Health::{Down, Init, Up};
    let now = healths(&[("ping.a", Down), ("ping.b", Up), ("ping.c", Down), ("tcp.web", Init)]);
    let holds = |condition: Condition| condition.holds(&now);
    assert!(holds(Condition::is("ping.a", Down)) && !holds(Condition::is("ping.b", Down)));
    assert!(!holds(Condition::is("ping.d", Down)), "what is not there is in no state");
    assert!(holds(Condition::AtLeast(2, every("ping."), Down)));
    assert!(!holds(Condition::AtLeast(3, every("ping."), Down)));
    assert!(!holds(Condition::All(every("ping."), Down)) && holds(Condition::All(every("tcp."), Init)));
    assert!(!holds(Condition::All(every("http."), Down)), "of none not even all");
}

#[test]
fn a_rule_begins_once_until_it_is_armed_again() {
    let rule = Rule {
        name: "lonely".into(),
        condition: Condition::All(every("ping."), Health::Down),
        request: Some(Request::Stop),
    };
    let mut rules = Rules::new(vec![rule]);
    let down = healths(&[("ping.a", Health::Down)]);
    let up = healths(&[("ping.a", Health::Up)]);
    let begun = |rules: &mut Rules, now: &Healths| rules.assess(now).begun.len();
    assert_eq!([&up, &down, &down, &up, &down].map(|now| begun(&mut rules, now)), [0, 1, 0, 0, 1]);
    rules.rearm();
    assert_eq!(begun(&mut rules, &down), 1, "the application is up again, and it is as bad as before");
}

#[test]
fn what_may_keep_it_from_starting_is_waited_for_and_what_is_unknown_is_no_obstacle() {
    let wait = |name: &str| Rule {
        name: name.into(),
        condition: Condition::is(name, Health::Down),
        request: Some(Request::Wait),
    };
    let stop = Rule { request: Some(Request::Stop), ..wait("tcp.web") };
    let mut rules = Rules::new(vec![wait("ping.a"), wait("ping.b"), stop]);
    let mut gate = |a, b, web| rules.assess(&healths(&[("ping.a", a), ("ping.b", b), ("tcp.web", web)])).gate;
    use Health::{Down, Init, Unknown, Up};
    assert_eq!(gate(Up, Up, Init), Gate::Open);
    assert_eq!(gate(Up, Init, Up), Gate::Undecided);
    assert_eq!(gate(Init, Down, Up), Gate::Shut);
    assert_eq!(gate(Unknown, Up, Down), Gate::Open);
}

fn health() -> impl Strategy<Value = Health> {
    prop::sample::select(Health::ALL.to_vec())
}

fn condition() -> impl Strategy<Value = Condition> {
    let selector =
        prop_oneof![Just(Selector::One("ping.a".into())), Just(every("ping.")), Just(every("tcp."))];
    let leaf = prop_oneof![
        (0..4usize, selector.clone(), health()).prop_map(|(n, s, h)| Condition::AtLeast(n, s, h)),
        (selector, health()).prop_map(|(s, h)| Condition::All(s, h)),
    ];
    leaf.prop_recursive(4, 32, 2, |inner| {
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            inner.clone().prop_map(|c| Condition::Not(Box::new(c))),
            pair().prop_map(|(a, b)| Condition::And(Box::new(a), Box::new(b))),
            pair().prop_map(|(a, b)| Condition::Or(Box::new(a), Box::new(b))),
        ]
    })
}

proptest! {
    #[test]
    fn conditions_obey_the_laws_of_logic(
        one in condition(),
        other in condition(),
        (a, b, web) in (health(), health(), health()),
    ) {
        let now = healths(&[("ping.a", a), ("ping.b", b), ("tcp.web", web)]);
        let (one, other) = (Box::new(one), Box::new(other));
        let neither = Condition::Not(Box::new(Condition::Or(one.clone(), other.clone())));
        let both_not = Condition::And(
            Box::new(Condition::Not(one.clone())),
            Box::new(Condition::Not(other.clone())),
        );
        prop_assert_eq!(neither.holds(&now), both_not.holds(&now), "De Morgan");
        prop_assert_eq!(Condition::Not(Box::new(Condition::Not(one.clone()))).holds(&now), one.holds(&now));
    }
}
