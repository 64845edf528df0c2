//! What this node knows of itself and its modules, as numbers (OpenMetrics 1.0; names and units as Prometheus has them,
//! <https://prometheus.io/docs/practices/naming/>). Labels have no more values than the cluster has modules, resources and
//! reasons of verdicts.

use std::sync::atomic::AtomicU64;

use farm_common::verdict::Reason;
use farm_core::model::{Module, ModuleName, Phase};
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use farm_proto::v1;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::api::verdict;
use crate::member::Member;

/// Names and values of a sample.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;
type Seconds = Gauge<f64, AtomicU64>;

/// Everything, as text.
pub fn of(member: &Member) -> String {
    let mut registry = Registry::with_prefix("farm");
    packets(member, &mut registry);
    node(member, &mut registry);
    cluster(member, &mut registry);
    modules(member, &mut registry);
    let mut text = String::new();
    // Writing into memory does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn packets(member: &Member, registry: &mut Registry) {
    // Without a filter, or where the kernel refuses to tell, there are none.
    let Ok(Some(read)) = member.host.counters() else { return };
    let family: Family<Labels, Counter> = Family::default();
    for reason in Reason::ALL.iter().copied() {
        let labels = vec![("verdict", verdict(reason).to_owned()), ("reason", reason.name().to_owned())];
        let packets = read.get(reason.name()).copied().unwrap_or(0);
        family.get_or_create(&labels).inc_by(packets);
    }
    registry.register("packets", "Packets by what the filter did with them, and why", family);
}

fn node(member: &Member, registry: &mut Registry) {
    let left = BootTime(member.lease.deadline()).since(BootTime(boot_now()));
    let seconds: Seconds = Gauge::default();
    seconds.set(left.as_millis() as f64 / 1000.0);
    let help = "Time until this node's lease runs out; 0: it accepts nothing";
    registry.register_with_unit("lease_remaining", help, Unit::Seconds, seconds);
    let sound = member.host.sound();
    one(registry, "filter_sound", "Whether filter and guard are in place", i64::from(sound));
    let applied = member.lease.applied().0;
    one(registry, "applied_epoch", "Epoch of the table that the filter works with", whole(applied));
    let family = Gauges::default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    family.get_or_create(&vec![("version", version), ("node", member.config.name.clone())]).set(1);
    registry.register("build_info", "The daemon; always 1", family);
}

fn cluster(member: &Member, registry: &mut Registry) {
    let (snapshot, role) = (member.snapshot(), member.role());
    let state = &snapshot.state;
    one(registry, "epoch", "Epoch of the assignment that this node knows", whole(state.epoch.0));
    one(registry, "raft_term", "Highest term seen", whole(role.term));
    one(registry, "raft_applied_index", "Last entry that was applied", whole(snapshot.last_applied.index));
    one(registry, "raft_has_leader", "Whether somebody leads", i64::from(role.leader.is_some()));
    one(registry, "raft_is_leader", "Whether this node leads", i64::from(role.leader == Some(member.me)));
    one(registry, "nodes", "Members", count(state.nodes.len()));
    one(registry, "voters", "Members that vote", count(role.voters.len()));
    let silent = state.nodes.keys().filter(|id| member.absence_in(state, **id).is_some()).count();
    one(registry, "nodes_absent", "Members that do not serve, as this elector hears", count(silent));
    let family = Gauges::default();
    for condition in member.conditions() {
        let severity = if condition.passing { "yellow" } else { "red" };
        family.get_or_create(&vec![("code", condition.code), ("severity", severity.into())]).inc();
    }
    registry.register("conditions", "What is not green as this node sees it", family);
}

fn modules(member: &Member, registry: &mut Registry) {
    let snapshot = member.snapshot();
    let [owned, unowned, open] = [Gauges::default(), Gauges::default(), Gauges::default()];
    for (name, module) in &snapshot.state.modules {
        let labels = of_module(&name.0);
        let buckets = |holds: &dyn Fn(&farm_core::model::BucketState) -> bool| {
            count(module.assignment.iter().filter(|bucket| holds(bucket)).count())
        };
        owned.get_or_create(&labels).set(buckets(&|b| b.current == Some(member.me)));
        unowned.get_or_create(&labels).set(if has_clients(module) {
            buckets(&|b| b.current.is_none())
        } else {
            0
        });
        open.get_or_create(&labels).set(buckets(&|b| b.phase != Phase::Stable));
    }
    registry.register("module_buckets_owned", "Buckets, of 4096, whose clients this node serves", owned);
    registry.register("module_buckets_unowned", "Buckets that nobody serves", unowned);
    registry.register("module_buckets_moving", "Buckets with an open change", open);
    let draining = Gauges::default();
    for (ModuleName(name), sockets) in member.draining() {
        draining.get_or_create(&of_module(&name)).set(whole(sockets));
    }
    registry.register(
        "module_sockets_draining",
        "Connections of buckets that are to leave this node",
        draining,
    );
    lives(&member.modules.lives(), registry);
}

fn lives(lives: &[v1::ModuleLife], registry: &mut Registry) {
    let [ready, failed, loops, resources] =
        [Gauges::default(), Gauges::default(), Gauges::default(), Gauges::default()];
    for life in lives {
        let labels = of_module(&life.module);
        ready.get_or_create(&labels).set((life.status() == v1::LifeStatus::Ready).into());
        failed.get_or_create(&labels).set(life.failed.into());
        loops.get_or_create(&labels).set(life.loops.into());
        for resource in &life.resources {
            let mut labels = of_module(&life.module);
            labels.push(("resource", resource.name.clone()));
            resources.get_or_create(&labels).set((resource.state() == v1::ResourceState::Up).into());
        }
    }
    registry.register("module_ready", "Whether the application is up here", ready);
    registry.register("module_failed", "Whether it was given up here", failed);
    registry.register(
        "module_automatic_actions",
        "How often it was helped since somebody acted by hand",
        loops,
    );
    registry.register("module_resource_up", "Whether what it depends on is up", resources);
}

fn of_module(name: &str) -> Labels {
    vec![("module", name.to_owned())]
}

fn has_clients(module: &Module) -> bool {
    !module.services.is_empty()
}

fn one(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).expect("it fits memory");
        text
    }

    #[test]
    fn what_modules_say_is_a_number_for_each() {
        let mut registry = Registry::with_prefix("farm");
        let resource = |name: &str, state: v1::ResourceState| v1::Resource {
            name: name.into(),
            state: state.into(),
            ..v1::Resource::default()
        };
        let life = v1::ModuleLife {
            module: "shop".into(),
            status: v1::LifeStatus::Ready.into(),
            loops: 2,
            resources: vec![
                resource("tcp.a", v1::ResourceState::Up),
                resource("ping.b", v1::ResourceState::Down),
            ],
            ..v1::ModuleLife::default()
        };
        lives(&[life], &mut registry);
        let text = text(&registry);
        for line in [
            "# TYPE farm_module_ready gauge",
            "farm_module_ready{module=\"shop\"} 1",
            "farm_module_failed{module=\"shop\"} 0",
            "farm_module_automatic_actions{module=\"shop\"} 2",
            "farm_module_resource_up{module=\"shop\",resource=\"tcp.a\"} 1",
            "farm_module_resource_up{module=\"shop\",resource=\"ping.b\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line}: {text}");
        }
    }

    #[test]
    fn numbers_that_are_too_large_stay_the_largest() {
        assert_eq!((whole(u64::MAX), count(7)), (i64::MAX, 7));
    }
}
