use proptest::prelude::*;

use super::*;

const PATIENCE: Patience = Patience { after: Span::seconds(5), pause: Span::seconds(60) };

fn at(seconds: u64) -> BootTime {
    BootTime(0) + Span::seconds(1000 + seconds)
}

fn open(resource: &str, word: &str) -> Open {
    Open {
        resource: resource.into(),
        word: word.into(),
        red: true,
        cause: format!("{resource} is {word}"),
        next: "farmctl node list".into(),
    }
}

fn silent() -> Open {
    open("node2", "node_silent")
}

/// Looks and delivers what is due; its subject.
fn tick(notices: &mut Notices, second: u64, open: &[Open]) -> Option<String> {
    notices.look(at(second), open);
    let message = notices.due(at(second))?;
    notices.delivered(at(second), &message);
    Some(message.subject("airport"))
}

#[test]
fn what_lasts_is_told_once_and_its_end_too() {
    let mut notices = Notices::new(PATIENCE);
    assert_eq!(tick(&mut notices, 0, &[silent()]), None, "it may pass");
    let told = tick(&mut notices, 5, &[silent()]);
    assert_eq!(told.as_deref(), Some("[farm airport] RED: node2: node_silent"));
    assert_eq!(tick(&mut notices, 500, &[silent()]), None, "once");
    assert_eq!(tick(&mut notices, 501, &[]), None, "it may come again");
    assert_eq!(
        tick(&mut notices, 506, &[]).as_deref(),
        Some("[farm airport] GREEN again: node2: node_silent")
    );
    assert_eq!(tick(&mut notices, 900, &[]), None);
}

#[test]
fn what_passes_at_once_is_not_worth_a_message() {
    let mut notices = Notices::new(PATIENCE);
    for second in (0..300).step_by(2) {
        let now = if second % 4 == 0 { vec![silent()] } else { Vec::new() };
        assert_eq!(tick(&mut notices, second, &now), None);
    }
}

#[test]
fn what_happens_together_is_one_message() {
    let mut notices = Notices::new(PATIENCE);
    let both = [silent(), open("shop", "application_stopped")];
    notices.look(at(0), &both);
    let message = notices.due(at(5)).unwrap();
    assert_eq!(message.subject("c"), "[farm c] RED: node2: node_silent and 1 more");
    let body = message.body("node1", &["Cause: node2 does not renew its lease".into()]);
    assert_eq!(
        body,
        "New:\n  node2: node_silent: node2 is node_silent\n    next: farmctl node list\n  shop: application_stopped: shop \
         is application_stopped\n    next: farmctl node list\n\nWhat happened (farmctl why):\n  Cause: node2 does not renew \
         its lease\n\nnode1 says so. See farmctl status on any node.\n"
    );
}

#[test]
fn one_that_flaps_slowly_is_told_once_a_pause() {
    let mut notices = Notices::new(PATIENCE);
    // Ten seconds down, ten up, for ten minutes.
    let flaps = (0..600).filter_map(|second| {
        let now = if second / 10 % 2 == 0 { vec![silent()] } else { Vec::new() };
        tick(&mut notices, second, &now)
    });
    let told: Vec<String> = flaps.collect();
    assert!((5..=11).contains(&told.len()), "{told:?}");
}

#[test]
fn what_came_and_went_between_two_messages_is_in_the_next() {
    let mut notices = Notices::new(PATIENCE);
    notices.look(at(0), &[silent()]);
    tick(&mut notices, 5, &[silent()]).unwrap();
    let other = open("shop", "application_stopped");
    assert_eq!(tick(&mut notices, 10, &[silent(), other.clone()]), None);
    assert_eq!(tick(&mut notices, 20, &[silent()]), None);
    notices.look(at(65), &[silent()]);
    let message = notices.due(at(65)).unwrap();
    assert_eq!((message.passed.as_slice(), message.still.as_slice()), (&[other][..], &[silent()][..]));
    assert_eq!(message.subject("c"), "[farm c] came and went: shop: application_stopped");
}

#[test]
fn a_message_that_cannot_be_delivered_is_made_anew_ever_more_seldom() {
    let mut notices = Notices::new(PATIENCE);
    notices.look(at(0), &[silent()]);
    let mut tries = Vec::new();
    for second in 5..1000 {
        notices.look(at(second), &[silent()]);
        if notices.due(at(second)).is_some() {
            tries.push(second);
            notices.failed(at(second));
        }
    }
    assert_eq!(tries, [5, 10, 20, 40, 80, 160, 320, 620, 920]);
    // What is over by then is told as having been.
    notices.look(at(1000), &[]);
    let message = notices.due(at(2000)).unwrap();
    assert_eq!(message.passed, [silent()]);
    notices.delivered(at(2000), &message);
    assert_eq!(notices.due(at(3000)), None);
}

#[test]
fn a_new_speaker_tells_nothing_twice_and_the_end_of_what_another_told() {
    let mut first = Notices::new(PATIENCE);
    first.look(at(0), &[silent()]);
    tick(&mut first, 5, &[silent()]).unwrap();
    let mut second = Notices::new(PATIENCE);
    second.adopt(first.told().cloned());
    assert_eq!(tick(&mut second, 50, &[silent()]), None);
    assert_eq!(tick(&mut second, 200, &[silent()]), None);
    first.listen(&[silent()]);
    tick(&mut second, 201, &[]);
    assert!(tick(&mut second, 206, &[]).unwrap().contains("GREEN again"));
    // The first one forgets it when it is over, so that nobody takes it from him later.
    first.listen(&[]);
    assert_eq!(first.told().count(), 0);
}

#[test]
fn events_are_told_and_bounded() {
    let mut notices = Notices::new(PATIENCE);
    (0..100).for_each(|n| notices.note(&format!("event {n}")));
    let message = notices.due(at(0)).unwrap();
    assert_eq!((message.critical.len(), message.more), (NAMED_MAX, 80));
    assert_eq!(message.subject("c"), "[farm c] event 0");
    notices.delivered(at(0), &message);
    assert_eq!(notices.due(at(1000)), None);
}

proptest! {
    /// Whatever comes and goes, and whatever fails: in the end what is told is what is so, once all is quiet.
    #[test]
    fn what_was_told_becomes_what_is(
        steps in prop::collection::vec((0u64..40, prop::collection::vec(0usize..4, 0..4), any::<bool>()), 1..40),
    ) {
        let things = ["a", "b", "c", "d"].map(|name| open(name, "down"));
        let mut notices = Notices::new(PATIENCE);
        let (mut second, mut last, mut quiet) = (0, Vec::new(), None::<u64>);
        for (wait, which, works) in steps {
            second += wait;
            last = which.iter().map(|n| things[*n].clone()).collect();
            notices.look(at(second), &last);
            let Some(message) = notices.due(at(second)) else { continue };
            if works {
                prop_assert!(quiet.is_none_or(|until| second >= until), "two within a pause");
                quiet = Some(second + 60);
                notices.delivered(at(second), &message);
            } else {
                notices.failed(at(second));
            }
        }
        for wait in [1, 400, 400] {
            second += wait;
            notices.look(at(second), &last);
            if let Some(message) = notices.due(at(second)) {
                notices.delivered(at(second), &message);
            }
        }
        last.sort();
        last.dedup();
        prop_assert_eq!(notices.told().cloned().collect::<Vec<_>>(), last);
        prop_assert_eq!(notices.due(at(second + 1000)), None);
    }
}
