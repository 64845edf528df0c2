use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farm_proto::v1;

use super::*;
use crate::modules::Of;
use crate::node::Spread;
use crate::tally::Tally;
use sample::{Lease, Part, Raft, Seen};

const BOUNDS: [f64; 2] = [0.0, 0.5];

fn tally(ms: &[u64]) -> Tally {
    let mut tally = Tally::new(&BOUNDS);
    ms.iter().for_each(|ms| tally.add(Duration::from_millis(*ms)));
    tally
}

/// A member with something in every family.
fn full() -> Sample {
    let counter =
        v1::Counter { verdict: "drop".into(), reason: "no_service".into(), packets: 7, ..Default::default() };
    let resource = v1::Resource {
        name: "tcp.we\"b".into(),
        state: v1::ResourceState::Down.into(),
        ..v1::Resource::default()
    };
    let life = v1::ModuleLife {
        module: "shop".into(),
        place: v1::Place::Up.into(),
        status: v1::LifeStatus::Ready.into(),
        loops: 2,
        resources: vec![resource],
        ..v1::ModuleLife::default()
    };
    let part = Part {
        module: "shop".into(),
        owned: 2048,
        leaving: 3,
        open: 5,
        unowned: 6,
        draining: 9,
        spread: Some(Spread { connections: 70, fullest: 4 }),
        ready: true,
    };
    let seen = Seen {
        packets: vec![counter],
        attached: true,
        sound: false,
        lease: Lease { left: 0.075, margins: tally(&[0, 75, 900]), grants: 3, lapses: 1, refused: 4 },
        epochs: (12, 11),
        modules: vec![part],
        lives: vec![life],
        runs: vec![(Of { module: "shop".into(), script: "start_both", ok: false }, tally(&[200]))],
        flushes: tally(&[900]),
        raft: Raft { term: 6, applied: 40, leader: 2, leads: false, votes: true },
        conditions: BTreeMap::from([(("filter_lost".into(), false), 1)]),
    };
    Sample { node: "node1".into(), seen: Some(seen) }
}

fn value(text: &str, line: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn every_number_is_where_its_name_says() {
    let text = render(full());
    for (line, wanted) in [
        ("farm_build_info{version=\"0.1.0\",node=\"node1\"}", 1.0),
        ("farm_member", 1.0),
        ("farm_packets_total{verdict=\"drop\",reason=\"no_service\"}", 7.0),
        ("farm_filter_attached", 1.0),
        ("farm_filter_sound", 0.0),
        ("farm_lease_left_seconds", 0.075),
        ("farm_lease_margin_seconds_bucket{le=\"0.0\"}", 1.0),
        ("farm_lease_margin_seconds_bucket{le=\"0.5\"}", 2.0),
        ("farm_lease_margin_seconds_bucket{le=\"+Inf\"}", 3.0),
        ("farm_lease_margin_seconds_count", 3.0),
        ("farm_lease_margin_seconds_sum", 0.975),
        ("farm_lease_lapses_total", 1.0),
        ("farm_epoch", 12.0),
        ("farm_epoch_applied", 11.0),
        ("farm_module_ready{module=\"shop\"}", 1.0),
        ("farm_module_buckets{module=\"shop\"}", 2048.0),
        ("farm_module_buckets_leaving{module=\"shop\"}", 3.0),
        ("farm_module_changes_open{module=\"shop\"}", 5.0),
        ("farm_module_buckets_unowned{module=\"shop\"}", 6.0),
        ("farm_module_connections_draining{module=\"shop\"}", 9.0),
        ("farm_module_connections{module=\"shop\"}", 70.0),
        ("farm_module_bucket_connections_max{module=\"shop\"}", 4.0),
        ("farm_module_state{module=\"shop\",state=\"up\"}", 1.0),
        ("farm_module_state{module=\"shop\",state=\"stop\"}", 0.0),
        ("farm_module_status{module=\"shop\",status=\"ready\"}", 1.0),
        ("farm_module_loops{module=\"shop\"}", 2.0),
        ("farm_resource_state{module=\"shop\",resource=\"tcp.we\\\"b\",state=\"down\"}", 1.0),
        ("farm_resource_state{module=\"shop\",resource=\"tcp.we\\\"b\",state=\"up\"}", 0.0),
        ("farm_script_run_seconds_count{module=\"shop\",script=\"start_both\",result=\"failed\"}", 1.0),
        ("farm_store_append_seconds_bucket{le=\"0.5\"}", 0.0),
        ("farm_store_append_seconds_count", 1.0),
        ("farm_raft_term", 6.0),
        ("farm_raft_applied_index", 40.0),
        ("farm_raft_leader_id", 2.0),
        ("farm_raft_is_leader", 0.0),
        ("farm_raft_is_voter", 1.0),
        ("farm_conditions{code=\"filter_lost\",level=\"red\"}", 1.0),
    ] {
        assert_eq!(value(&text, line), Some(wanted), "{line} in\n{text}");
    }
}

#[test]
fn a_node_without_a_cluster_says_so_and_nothing_else() {
    let text = render(Sample::default());
    assert_eq!(value(&text, "farm_member"), Some(0.0));
    assert!(!text.contains("farm_epoch"), "{text}");
}

/// Names by what `# WHAT NAME …` says.
fn told<'t>(text: &'t str, what: &str) -> BTreeMap<&'t str, &'t str> {
    let line = |l: &'t str| l.strip_prefix("# ")?.strip_prefix(what)?.strip_prefix(' ')?.split_once(' ');
    text.lines().filter_map(line).collect()
}

#[test]
fn every_family_has_meaning_type_and_unit_and_every_sample_a_family() {
    let text = render(full());
    assert!(text.ends_with("# EOF\n"));
    let (help, types, units) = (told(&text, "HELP"), told(&text, "TYPE"), told(&text, "UNIT"));
    assert!(help.len() > 20 && help.keys().eq(types.keys()), "{help:?}");
    assert!(help.values().all(|h| h.len() > 10 && h.ends_with('.')), "{help:?}");
    for name in help.keys() {
        assert_eq!(name.ends_with("_seconds"), units.get(name) == Some(&"seconds"), "{name}");
    }
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let suffixes = ["", "_total", "_info", "_sum", "_count", "_bucket"];
        let known = |s: &str| name.strip_suffix(s).is_some_and(|family| help.contains_key(family));
        assert!(suffixes.iter().any(|s| known(s)), "{line}");
    }
}

#[test]
fn labels_are_what_a_configuration_or_the_code_can_name() {
    let bounded = BTreeSet::from([
        "code", "le", "level", "module", "node", "reason", "resource", "result", "script", "state", "status",
        "verdict", "version",
    ]);
    let text = render(full());
    let labels = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('{'));
    let names = labels.flat_map(|(_, rest)| rest.split("=\"").map(|part| part.rsplit([',', '{']).next()));
    let names: BTreeSet<&str> =
        names.flatten().filter(|n| n.chars().all(|c| c.is_ascii_lowercase())).collect();
    assert!(names.is_subset(&bounded) && names.contains("resource"), "{names:?}");
}
