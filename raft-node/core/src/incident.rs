//! An incident told in about ten lines: what began it, what followed, what clients felt, how it is now and what to do.
//! It is made of events and of what caused what, never of log lines.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::time::UnixTime;

/// An incident is over when nothing of it has happened for so long.
const QUIET: u64 = 30_000;
/// What comes before the first sign of something is looked for so far back: a death is noticed before its cause is.
const BEFORE: u64 = 2_000;
/// Lines of what followed.
const STEPS: usize = 6;

/// Something that happened, as a journal has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Told {
    /// When, by the clock of the node that says so.
    pub at: UnixTime,
    /// Unique in the cluster.
    pub id: String,
    /// Name of the node that says so.
    pub node: String,
    /// Stable code.
    pub kind: String,
    /// What it is about.
    pub resource: String,
    /// In a sentence.
    pub text: String,
    /// Id of what caused it, or empty.
    pub cause: String,
}

/// What is not green now.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Open {
    /// What it is about.
    pub resource: String,
    /// Why, in a sentence.
    pub cause: String,
    /// The command that ends it or shows more.
    pub next: String,
}

/// How a thing that happened stands to an incident.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Part {
    /// Something broke: it begins one, and is the more likely to be its cause the smaller the number.
    Fault(u8),
    /// Somebody asked for it: it begins one too.
    Asked,
    /// It follows.
    Follows,
    /// It is the end of something.
    Ends,
    /// It says nothing about incidents.
    Nothing,
}

fn part(kind: &str) -> Part {
    match kind {
        "drill_began" | "process_down" | "check_down" | "script_failed" | "script_error" | "filter_lost"
        | "keeper_failed" | "vip_duplicate" | "link_changed" => Part::Fault(0),
        "node_silent" => Part::Fault(1),
        "node_idle" => Part::Fault(2),
        "node_away" | "node_leaving" | "maintenance_on" | "restart_begun" | "module_closing"
        | "weight_set" | "service_removed" | "module_removed" => Part::Asked,
        "module_closed" | "module_state" | "buckets_moved" | "buckets_activated" | "module_unusable"
        | "electors_changed" => Part::Follows,
        "module_opened" | "node_heard" | "node_leased" | "node_back" | "maintenance_off"
        | "restart_ended" | "drill_over" | "check_up" | "filter_restored" | "address_restored"
        | "buckets_settled" => Part::Ends,
        _ => Part::Nothing,
    }
}

/// How much a kind of event matters, as syslog counts: 4 is a warning, 5 worth a note, 6 information.
#[must_use]
pub fn priority(kind: &str) -> u8 {
    match part(kind) {
        Part::Fault(_) => 4,
        Part::Asked | Part::Ends => 5,
        Part::Follows | Part::Nothing => 6,
    }
}

/// Which incident is asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Question {
    /// A node or a module; all when empty.
    pub about: String,
    /// The last one that had begun by then; the last of all without.
    pub at: Option<UnixTime>,
}

/// An incident, told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Story {
    /// The lines.
    pub lines: Vec<String>,
    /// What happened, in order.
    pub events: Vec<Told>,
    /// What to do.
    pub next: String,
}

/// Tells the incident that is asked for. `told`: the journals of all nodes, in any order, with what several of them say
/// more than once. `open`: what is not green at `now`. `None`: nothing of the kind is known.
#[must_use]
pub fn story(told: &[Told], open: &[Open], question: &Question, now: UnixTime) -> Option<Story> {
    let all = merged(told);
    let (first, entities) = beginning(&all, question)?;
    let events = incident(&all, first, &entities);
    let root = root(&events);
    let open: Vec<&Open> = open.iter().filter(|o| is_about(&events, o)).collect();
    let next = open.first().map_or_else(|| remedy(root), |open| open.next.clone());
    let mut lines = vec![headline(root, now)];
    lines.extend(steps(&events, root));
    lines.push(clients(&events, root));
    lines.push(present(&events, &open, root));
    lines.push(format!("Next: {next}"));
    Some(Story { lines, events: events.into_iter().cloned().collect(), next })
}

/// Each once, in the order in which it happened. What comes from the log is told by every node: the first to say so was
/// there when it counted.
fn merged(told: &[Told]) -> Vec<&Told> {
    let mut all: Vec<&Told> = told.iter().filter(|t| part(&t.kind) != Part::Nothing).collect();
    all.sort_by_key(|told| told.at);
    let mut seen = BTreeSet::new();
    all.retain(|t| seen.insert(&t.id));
    all
}

fn begins(told: &Told) -> bool {
    matches!(part(&told.kind), Part::Fault(_) | Part::Asked)
}

/// Where the incident begins: the last beginning that fits, and before it what has to do with that; and with whom all of
/// it has to do.
fn beginning(all: &[&Told], question: &Question) -> Option<(usize, Entities)> {
    let about = question.about.as_str();
    let fits = |t: &Told| {
        about.is_empty() || t.resource.split(',').any(|r| r == about) || t.node == about || names(t, about)
    };
    let in_time = |t: &Told| question.at.is_none_or(|at| t.at <= at);
    let last = all.iter().rposition(|t| begins(t) && fits(t) && in_time(t))?;
    let (mut first, mut entities) = (last, entities(all[last]));
    for (at, earlier) in all[..last].iter().enumerate().rev() {
        if all[first].at.0 - earlier.at.0 > QUIET {
            break;
        }
        let related = self::entities(earlier);
        if begins(earlier) && !related.is_disjoint(&entities) {
            first = at;
            entities.extend(related);
        }
    }
    Some((first, entities))
}

/// Nodes and modules, by name.
type Entities = BTreeSet<String>;

/// With whom an event has to do: what it is about, and the node on which only that node sees it.
fn entities(told: &Told) -> Entities {
    let about = told.resource.split(',').map(str::to_owned);
    let told_of_others = told.id.starts_with("log-") || told.kind.starts_with("node_");
    let here = (!told_of_others).then(|| told.node.clone());
    about.chain(here).collect()
}

fn names(told: &Told, about: &str) -> bool {
    told.text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == about)
}

/// From its beginning to when it has become quiet, without what has to do with others.
fn incident<'t>(all: &[&'t Told], first: usize, entities: &Entities) -> Vec<&'t Told> {
    let from = all[first].at.0.saturating_sub(BEFORE);
    let start = all[..first].iter().rposition(|t| t.at.0 < from || part(&t.kind) == Part::Ends);
    let start = start.map_or(0, |at| at + 1);
    let of_all = |t: &Told| matches!(t.resource.as_str(), "buckets" | "electors");
    let of_it = |t: &Told| of_all(t) || !self::entities(t).is_disjoint(entities);
    let mut events: Vec<&Told> = Vec::new();
    for told in all[start..].iter().filter(|t| of_it(t)) {
        let before = events.last().map_or(told.at.0, |last| last.at.0);
        if told.at.0 - before > QUIET {
            break;
        }
        events.push(told);
    }
    events
}

/// What began it: the likeliest cause among what happened at the same time, else what came first.
fn root<'t>(events: &[&'t Told]) -> &'t Told {
    let first = events.iter().position(|t| begins(t)).unwrap_or(0);
    let near = events[first..].iter().filter(|t| t.at.0 - events[first].at.0 <= BEFORE);
    let rank = |t: &&&Told| match part(&t.kind) {
        Part::Fault(rank) => rank,
        Part::Asked => 3,
        Part::Follows | Part::Ends | Part::Nothing => 4,
    };
    near.min_by_key(rank).copied().unwrap_or(events[first])
}

fn headline(root: &Told, now: UnixTime) -> String {
    let ago = Duration::from_secs(now.0.saturating_sub(root.at.0) / 1000);
    let asked = part(&root.kind) == Part::Asked;
    let word = if asked { "Asked for" } else { "Cause" };
    let on = if says_where(root) { String::new() } else { format!(" (on {})", root.node) };
    format!("{word}: {}{on}, {}, {} ago", root.text, root.at, humantime::format_duration(ago))
}

/// What is about a node names it; what only one node knows does not.
fn says_where(told: &Told) -> bool {
    names(told, &told.node)
        || matches!(told.kind.as_str(), "node_silent" | "node_idle" | "node_away" | "node_leaving")
        || told.id.starts_with("log-")
}

/// What followed, with the time from the cause on; what is alike is told once.
fn steps(events: &[&Told], root: &Told) -> Vec<String> {
    let mut seen = BTreeSet::from([(root.kind.as_str(), root.text.as_str())]);
    let after = events.iter().filter(|t| t.at >= root.at && t.id != root.id);
    let news: Vec<&&Told> = after.filter(|t| seen.insert((t.kind.as_str(), t.text.as_str()))).collect();
    let line = |told: &&&Told| {
        let on = if says_where(told) { String::new() } else { format!(" (on {})", told.node) };
        format!("  +{} {}{on}", elapsed(told.at.0 - root.at.0), told.text)
    };
    let mut lines: Vec<String> = news.iter().take(STEPS).map(line).collect();
    if news.len() > STEPS {
        let last = news.last().map(|t| elapsed(t.at.0 - root.at.0)).unwrap_or_default();
        lines.push(format!("  and {} more until +{last}", news.len() - STEPS));
    }
    lines
}

fn elapsed(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

/// What clients felt, by when nobody accepted what.
fn clients(events: &[&Told], root: &Told) -> String {
    let find = |kind: &str, from: u64| events.iter().find(|t| t.kind == kind && t.at.0 >= from);
    let Some(moved) = find("buckets_moved", root.at.0) else {
        return "Clients: nothing moved; who was served went on being served".into();
    };
    let asked = part(&root.kind) == Part::Asked;
    match (find("buckets_activated", moved.at.0), asked) {
        (Some(_), true) => "Clients: moved one after the other; no connection was cut".into(),
        (Some(active), false) => {
            let waited = elapsed(active.at.0 - root.at.0);
            let left = if lost_connections(root) { "; connections that were open there ended" } else { "" };
            format!("Clients: {}; new connections of these waited up to {waited}{left}", moved.text)
        }
        (None, _) => format!("Clients: {}; nobody accepts them yet", moved.text),
    }
}

fn lost_connections(root: &Told) -> bool {
    matches!(
        root.kind.as_str(),
        "drill_began" | "node_silent" | "process_down" | "check_down" | "script_failed" | "filter_lost"
    )
}

/// An open thing belongs to the incident when one of its events is about the same, or names it.
fn is_about(events: &[&Told], open: &Open) -> bool {
    events.iter().any(|t| t.resource == open.resource || names(t, &open.resource))
}

fn present(events: &[&Told], open: &[&Open], root: &Told) -> String {
    match open.first() {
        Some(open) => format!("Now: {}", open.cause),
        None => {
            let last = events.last().map_or(root.at.0, |last| last.at.0);
            format!("Now: all of it is green again; it took {}", elapsed(last - root.at.0))
        }
    }
}

/// What to do about what is over.
fn remedy(root: &Told) -> String {
    match root.kind.as_str() {
        "process_down" | "check_down" | "script_failed" | "script_error" => {
            format!("farmctl module applog {} --node {}", root.resource, root.node)
        }
        _ => "farmctl status".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: u64, node: &str, kind: &str, resource: &str, text: &str) -> Told {
        let logged = kind.starts_with("buckets")
            || kind.starts_with("module_") && kind != "module_state"
            || kind.starts_with("maintenance");
        let id = if logged { format!("log-{at}.0") } else { format!("{node}-{at}") };
        let [node, kind, resource, text] = [node, kind, resource, text].map(str::to_owned);
        Told { at: UnixTime(1_000_000_000_000 + at), id, node, kind, resource, text, cause: String::new() }
    }

    fn tell(events: &[Told], open: &[Open], about: &str) -> String {
        let question = Question { about: about.into(), at: None };
        let story = story(events, open, &question, UnixTime(1_000_000_060_000)).expect("an incident");
        story.lines.join("\n") + "\n"
    }

    #[test]
    fn a_node_that_dies() {
        let mut events = vec![
            told(1_000, "node1", "node_silent", "node3", "node3 does not renew its lease"),
            told(1_010, "node1", "buckets_moved", "node3", "node3 lost 1365 buckets (epoch 9)"),
            told(
                1_110,
                "node1",
                "buckets_activated",
                "buckets",
                "new owners accept for 1365 buckets (epoch 10)",
            ),
            told(1_190, "node1", "buckets_settled", "buckets", "1365 buckets are settled (epoch 11)"),
        ];
        // Another node says the same a little later, and in any order.
        events.insert(0, Told { at: UnixTime(1_000_000_001_013), node: "node2".into(), ..events[1].clone() });
        let open = Open {
            resource: "node3".into(),
            cause: "node3 does not renew its lease".into(),
            next: "systemctl status farmd".into(),
        };
        assert_eq!(
            tell(&events, &[open], ""),
            "Cause: node3 does not renew its lease, 2001-09-09T01:46:41Z, 59s ago\n\
             \x20 +0.010 s node3 lost 1365 buckets (epoch 9)\n\
             \x20 +0.110 s new owners accept for 1365 buckets (epoch 10)\n\
             \x20 +0.190 s 1365 buckets are settled (epoch 11)\n\
             Clients: node3 lost 1365 buckets (epoch 9); new connections of these waited up to 0.110 s; connections that \
             were open there ended\n\
             Now: node3 does not renew its lease\n\
             Next: systemctl status farmd\n"
        );
    }

    #[test]
    fn an_application_that_dies_and_comes_back() {
        let events = [
            told(500, "node2", "process_down", "shop", "nginx ran once, now 0"),
            told(501, "node2", "module_state", "shop", "shop is in UP (on its way): restart"),
            told(505, "node1", "module_closed", "shop", "shop serves nobody on node2"),
            told(508, "node1", "buckets_moved", "node2", "node2 lost 1365 buckets (epoch 9)"),
            told(
                520,
                "node1",
                "buckets_activated",
                "buckets",
                "new owners accept for 1365 buckets (epoch 10)",
            ),
            told(900, "node1", "module_opened", "shop", "shop is up on node2: clients may come"),
        ];
        assert_eq!(
            tell(&events, &[], "shop"),
            "Cause: nginx ran once, now 0 (on node2), 2001-09-09T01:46:40Z, 59s ago\n\
             \x20 +0.001 s shop is in UP (on its way): restart (on node2)\n\
             \x20 +0.005 s shop serves nobody on node2\n\
             \x20 +0.008 s node2 lost 1365 buckets (epoch 9)\n\
             \x20 +0.020 s new owners accept for 1365 buckets (epoch 10)\n\
             \x20 +0.400 s shop is up on node2: clients may come\n\
             Clients: node2 lost 1365 buckets (epoch 9); new connections of these waited up to 0.020 s; connections that \
             were open there ended\n\
             Now: all of it is green again; it took 0.400 s\n\
             Next: farmctl module applog shop --node node2\n"
        );
    }

    #[test]
    fn a_rehearsal_is_its_own_cause() {
        let events = [
            told(0, "node2", "drill_began", "node2", "a rehearsal: node2 stands still for 10 s"),
            told(80, "node1", "node_silent", "node2", "node2 does not renew its lease"),
            told(90, "node1", "buckets_moved", "node2", "node2 lost 1365 buckets (epoch 9)"),
            told(
                180,
                "node1",
                "buckets_activated",
                "buckets",
                "new owners accept for 1365 buckets (epoch 10)",
            ),
            told(10_000, "node2", "drill_over", "node2", "the rehearsal is over: node2 goes on"),
            told(10_040, "node1", "node_heard", "node2", "node2 renews its lease"),
        ];
        let text = tell(&events, &[], "node2");
        assert!(text.starts_with("Cause: a rehearsal: node2 stands still for 10 s, "), "{text}");
        assert!(text.contains("waited up to 0.180 s; connections that were open there ended\n"), "{text}");
        assert!(
            text.ends_with("Now: all of it is green again; it took 10.040 s\nNext: farmctl status\n"),
            "{text}"
        );
    }

    #[test]
    fn something_that_was_asked_for() {
        let events = [
            told(0, "node1", "maintenance_on", "node2", "node2 goes into maintenance: new disk"),
            told(300, "node1", "buckets_moved", "node2", "node2 lost 1365 buckets (epoch 9)"),
            told(
                400,
                "node1",
                "buckets_activated",
                "buckets",
                "new owners accept for 1365 buckets (epoch 10)",
            ),
        ];
        let text = tell(&events, &[], "node2");
        assert!(text.starts_with("Asked for: node2 goes into maintenance: new disk, "), "{text}");
        assert!(text.contains("Clients: moved one after the other; no connection was cut\n"), "{text}");
    }

    #[test]
    fn one_incident_is_told_from_another_and_by_its_time() {
        let old = told(0, "node1", "check_down", "shop", "tcp.web is down: refused");
        let new = told(200_000, "node1", "node_silent", "node3", "node3 does not renew its lease");
        let events = [old.clone(), new];
        assert!(tell(&events, &[], "").contains("node3 does not renew"));
        assert!(tell(&events, &[], "shop").contains("tcp.web is down"));
        let question = Question { at: Some(UnixTime(old.at.0 + 5)), ..Question::default() };
        let before = story(&events, &[], &question, UnixTime(old.at.0 + 300_000)).unwrap();
        assert_eq!(before.events, [old]);
        let nothing = Question { about: "mail".into(), at: None };
        assert_eq!(story(&events, &[], &nothing, UnixTime(0)), None);
    }

    #[test]
    fn what_happens_to_others_at_the_same_time_is_no_part_of_it() {
        let events = [
            told(0, "node1", "node_silent", "node3", "node3 does not renew its lease"),
            told(5, "node1", "buckets_moved", "node3", "node3 lost 1365 buckets (epoch 7)"),
            told(2_500, "node2", "process_down", "shop", "nginx runs 0 times"),
            told(2_505, "node1", "module_closed", "shop", "shop serves nobody on node2"),
            told(2_600, "node1", "node_heard", "node3", "node3 renews its lease"),
        ];
        let text = tell(&events, &[], "shop");
        assert!(text.starts_with("Cause: nginx runs 0 times (on node2)"), "{text}");
        assert!(!text.contains("node3"), "{text}");
        assert!(tell(&events, &[], "node3").starts_with("Cause: node3 does not renew its lease"));
        // The machine on which it runs is another matter.
        let mut gone = events.clone();
        gone[4] = told(2_600, "node1", "node_silent", "node2", "node2 does not renew its lease");
        assert!(tell(&gone, &[], "node2").starts_with("Cause: nginx runs 0 times (on node2)"));
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_said_twice_is_told_once() {
        let mut events = vec![told(0, "node1", "filter_lost", "filter", "the filter is gone")];
        events.extend((1..20).map(|n| told(n, "node1", "module_state", "shop", &format!("step {}", n / 2))));
        let text = tell(&events, &[], "");
        assert_eq!(text.lines().count(), 1 + STEPS + 1 + 3, "{text}");
        assert!(text.contains("  and 4 more until +0.018 s\n"), "{text}");
    }
}
