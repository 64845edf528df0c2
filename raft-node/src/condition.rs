//! What is not green as this node sees it, and since when: what the replicated state shows, and what only this node
//! knows of itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use farm_core::condition::{self, Condition, Since};
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use farm_proto::v1;

use crate::api::no_leader;
use crate::member::Member;

/// When each condition was first seen. The state has no clock, so whoever looks at it keeps the time.
#[derive(Default)]
pub struct Dated {
    first: Mutex<BTreeMap<Key, BootTime>>,
}

/// Code and resource.
type Key = (String, String);

impl Dated {
    /// Sets `since_ms` where it is not known otherwise; forgets what is green again.
    fn date(&self, mut found: Vec<v1::Condition>, now: BootTime) -> Vec<v1::Condition> {
        // A panic elsewhere leaves the map whole: it is replaced in one step.
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |c: &v1::Condition| (c.code.clone(), c.resource.clone());
        let seen = |c: &v1::Condition| first.get(&key(c)).copied().unwrap_or(now);
        let dated: BTreeMap<Key, BootTime> = found.iter().map(|c| (key(c), seen(c))).collect();
        for condition in found.iter_mut().filter(|c| c.since_ms == 0) {
            condition.since_ms = now.since(dated[&key(condition)]).as_millis();
        }
        *first = dated;
        found
    }
}

/// Everything that is not green.
#[must_use]
pub fn conditions(member: &Member, dated: &Dated) -> Vec<v1::Condition> {
    let (snapshot, now) = (member.snapshot(), BootTime(boot_now()));
    let state = &snapshot.state;
    let others = state.nodes.keys().filter(|id| **id != member.me);
    let absent = others.filter_map(|id| Some((*id, member.absence(*id)?))).collect();
    let shared = condition::conditions(state, &absent).into_iter().map(|c| shown(c, now));
    dated.date(own(member, now).into_iter().chain(shared).collect(), now)
}

fn shown(c: Condition, now: BootTime) -> v1::Condition {
    let since_ms = match c.since {
        // Zero: never heard, since this node began to listen.
        Since::Time(at) if at != BootTime(0) => now.since(at).as_millis(),
        Since::Time(_) | Since::Epoch(_) | Since::Unknown => 0,
    };
    let passing = condition::is_passing(c.code);
    v1::Condition {
        code: c.code.into(),
        resource: c.resource,
        since_ms,
        cause: c.cause,
        next: c.next,
        passing,
    }
}

fn own(member: &Member, now: BootTime) -> Vec<v1::Condition> {
    let condition = |code: &str, resource: &str, cause: String, next: &str| v1::Condition {
        code: code.into(),
        resource: resource.into(),
        since_ms: 0,
        cause,
        next: next.into(),
        passing: condition::is_passing(code),
    };
    let mut found = Vec::new();
    let snapshot = member.snapshot();
    if member.role().leader.is_none() {
        found.push(condition("no_leader", "cluster", no_leader().fact, "farmctl node list"));
    }
    if let Some(denied) = member.trouble() {
        found.push(condition("peers_at_odds", "cluster", denied, "farmctl events"));
    }
    for node in member.reverted() {
        let name = snapshot.state.name_of(node);
        let cause =
            format!("the log of {name} went back in time: its machine was reverted; it has to join anew");
        found.push(condition("log_reverted", &name, cause, &format!("farmctl node leave {name}")));
    }
    for (vip, mac) in member.duplicates() {
        let mac = farm_dataplane::guard::format_mac(&mac);
        let cause = format!("{mac} has {vip} too: clients may reach it instead of the farm");
        found.push(condition("vip_duplicate", &vip.to_string(), cause, "farmctl events"));
    }
    if let Some(trouble) = member.contest.trouble() {
        let cause = format!("{} cannot ask the routers of the tie-break: {trouble}", member.config.name);
        found.push(condition("tie_break_deaf", &member.config.name, cause, "farmctl cluster tie-break"));
    }
    if !member.host.sound() {
        let cause = "the filter or its guard is not in place on this node; it accepts nothing".into();
        found.push(condition("filter_lost", "filter", cause, "farmctl events"));
    }
    if let Some(trouble) = member.host.guard_trouble() {
        let cause = format!("it is not known whether the guard is in place on this node: {trouble}");
        found.push(condition("guard_unknown", "filter", cause, "nft list ruleset"));
    }
    if let Some(trouble) = member.host.elsewhere.trouble() {
        let cause =
            format!("connections to containers and virtual machines here end with a change: {trouble}");
        found.push(condition("flows_unknown", &member.config.name, cause, "farmctl events"));
    }
    if let Some(trouble) = member.told.trouble() {
        let cause = format!("{} could not tell anybody what is not green: {trouble}", member.config.name);
        found.push(condition("notify_failed", &member.config.name, cause, "farmctl notify test"));
    }
    for (at, why) in member.http.refused() {
        let cause = format!("nothing can be asked on {at} (health, metrics, page): {why}");
        let next = format!("ss -ltnp sport = :{}", at.port());
        found.push(condition("http_closed", &at.to_string(), cause, &next));
    }
    if member.host.attached() && BootTime(member.lease.deadline()) <= now {
        let cause = format!("{} has no lease and accepts nothing: {}", member.config.name, ungranted(member));
        found.push(condition("no_lease", &member.config.name, cause, "farmctl node list"));
    }
    found
}

/// Who would have to grant.
fn ungranted(member: &Member) -> String {
    let snapshot = member.snapshot();
    let (state, electors) = (&snapshot.state, &snapshot.state.electors);
    let current = state.names(&electors.current).join(", ");
    match &electors.change {
        None => format!("no majority of {current} grants one"),
        Some(change) => {
            let next = state.names(&change.next).join(", ");
            format!("no majority of {current}, and of {next}, grants one")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &str, since_ms: u64) -> v1::Condition {
        v1::Condition { code: code.into(), resource: "web".into(), since_ms, ..v1::Condition::default() }
    }

    fn ages(conditions: &[v1::Condition]) -> Vec<u64> {
        conditions.iter().map(|c| c.since_ms).collect()
    }

    #[test]
    fn a_condition_is_as_old_as_its_first_sight() {
        let dated = Dated::default();
        let at = |ms: u64| BootTime(ms * 1_000_000);
        assert_eq!(ages(&dated.date(vec![found("a", 0)], at(1_000))), [0]);
        assert_eq!(ages(&dated.date(vec![found("a", 0), found("b", 70)], at(1_500))), [500, 70]);
        assert_eq!(ages(&dated.date(vec![found("b", 0)], at(1_600))), [100], "known better before");
        assert_eq!(ages(&dated.date(vec![found("a", 0)], at(2_000))), [0], "it was green in between");
    }
}
