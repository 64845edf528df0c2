//! What the clients noticed of a fault: pure functions of attempts and answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::names::Place;
use crate::witness::{Acceptance, BootTime, Kind, Outcome};

/// Attempts of the last moment may still be on their way when the stream ends.
const TAIL: Duration = Duration::from_millis(200);

/// The longest time from one answer to the next with an attempt in between that got none: what the clients of
/// `outcomes` were without service for. Zero if every attempt was answered; `None` if none was at the end.
/// Answers are timed, not attempts: one that was held up on its way is no service until it is answered.
pub(super) fn outage(outcomes: &[Outcome]) -> Option<Duration> {
    let end = outcomes.last()?.syn.at - TAIL;
    let (mut longest, mut last, mut lost) = (Duration::ZERO, outcomes.first()?.syn.at, false);
    for outcome in outcomes.iter().filter(|o| o.syn.at <= end) {
        let Some((_, at)) = outcome.answer else {
            lost = true;
            continue;
        };
        if lost {
            longest = longest.max(at.since(last));
        }
        (last, lost) = (last.max(at), false);
    }
    (!lost).then_some(longest)
}

/// Time from `fault` until somebody else than `victim` opened a connection of one of `clients`.
pub(super) fn taken_over(
    accepted: &[Acceptance],
    clients: &BTreeSet<SocketAddr>,
    victim: Place,
    fault: BootTime,
) -> Option<Duration> {
    let new = |a: &&Acceptance| a.at > fault && a.node != victim && matches!(a.kind, Kind::Opened(_));
    let first = accepted.iter().filter(new).find(|a| clients.contains(&a.client))?;
    Some(first.at.since(fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::FIRST_VIP;
    use crate::witness::Syn;

    const CLIENT: SocketAddr = SocketAddr::new(FIRST_VIP, 61_000);

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    /// One attempt every 4 ms for a second; those sent within `dark` are not answered.
    fn attempts(dark: std::ops::Range<u64>) -> Vec<Outcome> {
        let one = |ms: u64| Outcome {
            syn: Syn { at: at(ms), source: CLIENT, isn: ms as u32 },
            answer: (!dark.contains(&ms)).then_some((Place::Node(1), at(ms))),
        };
        (0..1_000).step_by(4).map(one).collect()
    }

    #[test]
    fn an_outage_reaches_from_answer_to_answer() {
        assert_eq!(outage(&attempts(100..200)), Some(Duration::from_millis(104)));
        assert_eq!(outage(&attempts(0..0)), Some(Duration::ZERO));
    }

    #[test]
    fn a_sender_that_paused_lost_nothing() {
        let mut outcomes = attempts(0..0);
        outcomes.drain(50..100);
        assert_eq!(outage(&outcomes), Some(Duration::ZERO));
    }

    #[test]
    fn an_attempt_that_was_held_up_counts_when_it_is_answered() {
        let mut outcomes = attempts(100..200);
        outcomes[50].answer = Some((Place::Node(2), at(240)));
        assert_eq!(outage(&outcomes), Some(Duration::from_millis(240 - 96)));
    }

    #[test]
    fn an_outage_without_end_has_no_length() {
        assert_eq!(outage(&attempts(700..1_000)), None);
        assert_eq!(outage(&attempts(900..1_000)), Some(Duration::ZERO), "still on their way");
        assert_eq!(outage(&[]), None);
    }

    #[test]
    fn the_first_acceptance_by_another_counts() {
        let accepted = |ms, node, client, kind| Acceptance {
            at: at(ms),
            node: Place::Node(node),
            client,
            service: CLIENT,
            kind,
        };
        let stranger = SocketAddr::new(CLIENT.ip(), 61_001);
        let seen = [
            accepted(90, 2, CLIENT, Kind::Opened(1)),
            accepted(110, 3, CLIENT, Kind::Opened(2)),
            accepted(120, 2, stranger, Kind::Opened(3)),
            accepted(130, 2, CLIENT, Kind::Established(8)),
            accepted(240, 1, CLIENT, Kind::Opened(4)),
            accepted(250, 2, CLIENT, Kind::Opened(5)),
        ];
        let clients = BTreeSet::from([CLIENT]);
        let taken = taken_over(&seen, &clients, Place::Node(3), at(100));
        assert_eq!(taken, Some(Duration::from_millis(140)));
        assert_eq!(taken_over(&seen, &clients, Place::Node(3), at(300)), None);
    }
}
