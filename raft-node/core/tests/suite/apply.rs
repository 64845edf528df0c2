//! Commands and the replicated state.

use std::collections::BTreeSet;
use std::net::IpAddr;

use farm_core::apply::{LEVEL, UnknownLevel};
use farm_core::command::{Body, Command, Evidence, ModuleBuckets, Transfer};
use farm_core::id::{EntryId, Epoch, FeatureLevel, Generation, Leadership, NodeId};
use farm_core::limits;
use farm_core::model::{
    BucketSet, Criterion, Link, Maintenance, Membership, Mode, ModuleKind, ModuleName, Node, Outline, Phase,
    Profile, Readiness, Role, Service, VirtualIp, Vlan, Weight,
};
use farm_core::state::ClusterState;
use farm_core::time::{Span, UnixTime};
use proptest::prelude::*;

use crate::world::{founding, node, service};

const BUCKETS: usize = 4;

struct Log {
    state: ClusterState,
    index: u64,
}

impl Log {
    fn founded() -> Self {
        let mut log = Self { state: ClusterState::unfounded(BUCKETS), index: 0 };
        log.ok(&founding());
        log
    }

    fn with_nodes(count: u8) -> Self {
        let mut log = Self::founded();
        (2..=count).for_each(|n| log.ok(&Command::any(Body::NodeJoin(node(n)))));
        log
    }

    fn entry(&mut self) -> EntryId {
        self.index += 1;
        EntryId { by: Leadership { term: 1, leader: NodeId(1) }, index: self.index }
    }

    /// Applies; the code of the refusal, if any. What must always hold is checked.
    fn apply(&mut self, command: &Command) -> Result<(), &'static str> {
        let entry = self.entry();
        let before = self.state.clone();
        let outcome = self.state.apply(command, entry).expect("a known level");
        check(&before, &self.state, command, outcome.is_applied());
        assert!(outcome.events.is_empty() || outcome.is_applied());
        outcome.result.map(|applied| assert_eq!(applied.epoch, self.state.epoch)).map_err(|r| {
            assert!(!r.fact.is_empty() && r.cure.starts_with("farmctl "), "{r:?}");
            r.code
        })
    }

    fn ok(&mut self, command: &Command) {
        assert_eq!(self.apply(command), Ok(()), "{command:?}");
    }

    fn any(&mut self, body: Body) -> Result<(), &'static str> {
        self.apply(&Command::any(body))
    }

    fn step(&mut self, body: Body) -> Result<(), &'static str> {
        self.apply(&Command::at(self.state.epoch, body))
    }
}

fn check(before: &ClusterState, after: &ClusterState, command: &Command, applied: bool) {
    if !applied {
        assert_eq!(before, after, "a refused command changed something: {command:?}");
        return;
    }
    let grown = if command.makes_epoch() { before.epoch.next() } else { before.epoch };
    assert_eq!(after.epoch, grown, "{command:?}");
    assert!(!after.electors.current.is_empty(), "no elector after {command:?}");
    assert!(after.electors.all().iter().all(|e| after.nodes.contains_key(e)), "a stranger grants");
    assert!(after.lease_bound >= before.lease_bound);
    for (node, fence) in &before.fences {
        assert!(after.fences.get(node) >= Some(fence), "a fence of {node} fell by {command:?}");
    }
    for (node, fence) in command.fences() {
        assert!(
            after.fences.get(&node) >= Some(&fence),
            "the log fences {node} at {fence}, the state does not"
        );
    }
    for (name, module) in &after.modules {
        assert_eq!(module.assignment.len(), after.buckets);
        for bucket in &module.assignment {
            let moving = matches!(bucket.phase, Phase::Move | Phase::MoveClosed);
            assert_eq!(moving, !bucket.pending.is_empty(), "{name}: {bucket:?}");
            assert!(
                bucket.parties().all(|n| after.nodes.contains_key(&n)),
                "{name}: a stranger in {bucket:?}"
            );
            assert!(bucket.changed <= after.epoch);
        }
        assert!(module.services.keys().all(|(vip, _, _)| module.vips.contains_key(vip)));
    }
    let slots: BTreeSet<u8> = after.modules.values().map(|m| m.slot).collect();
    assert_eq!(slots.len(), after.modules.len(), "two modules in one slot");
}

fn name(name: &str) -> ModuleName {
    ModuleName(name.into())
}

fn buckets(list: &[usize]) -> BucketSet {
    let mut set = BucketSet::empty(BUCKETS);
    list.iter().for_each(|b| set.insert(*b));
    set
}

fn transfer(to: u64, list: &[usize]) -> Transfer {
    Transfer { module: name("web"), to: NodeId(to), buckets: buckets(list) }
}

fn of(list: &[usize]) -> Vec<ModuleBuckets> {
    vec![ModuleBuckets { module: name("web"), buckets: buckets(list) }]
}

fn add(module: &str, service: Service, mode: Mode) -> Body {
    Body::ServiceAdd { module: name(module), service, mode }
}

fn vip(ip: [u8; 4]) -> Service {
    Service { vip: IpAddr::from(ip).into(), ..service(80) }
}

fn vip6(ip: &str) -> Service {
    Service { vip: ip.parse::<IpAddr>().unwrap().into(), ..service(80) }
}

#[test]
fn wrong_commands_are_refused_with_a_code_and_change_nothing() {
    let mut log = Log::with_nodes(2);
    assert_eq!(log.apply(&founding()), Err("already_founded"));
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    let link_of_one = Node { links: node(1).links, addresses: node(3).addresses, ..node(3) };
    let macs_of_one = {
        let mut twin = node(3);
        twin.links[0].mac = node(1).links[0].mac;
        twin
    };
    let many = Node { links: vec![node(3).links[0].clone(); limits::LINKS + 1], ..node(3) };
    let mut group = node(3);
    group.links[0].mac[0] = 1;
    let mut on_vip = node(3);
    on_vip.links[0].addresses[0].0 = service(80).vip.ip;
    let cases = [
        ("name_taken", Body::NodeJoin(Node { name: "node1".into(), ..node(3) })),
        ("bad_name", Body::NodeJoin(Node { name: "Node_1".into(), ..node(3) })),
        ("bad_name", Body::NodeJoin(Node { name: String::new(), ..node(3) })),
        ("bad_name", Body::NodeJoin(Node { name: "n".repeat(limits::NAME + 1), ..node(3) })),
        ("bad_node_id", Body::NodeJoin(Node { id: NodeId(9), ..node(3) })),
        ("no_address", Body::NodeJoin(Node { addresses: Default::default(), ..node(3) })),
        ("bad_port", Body::NodeJoin(Node { lease_port: 0, ..node(3) })),
        ("address_taken", Body::NodeJoin(link_of_one)),
        ("mac_taken", Body::NodeJoin(macs_of_one)),
        ("too_many_links", Body::NodeJoin(many)),
        ("bad_mac", Body::NodeJoin(group)),
        ("address_is_vip", Body::NodeJoin(on_vip)),
        ("unknown_node", Body::NodeUpdate(Node { id: NodeId(9), ..node(3) })),
        ("name_taken", Body::NodeUpdate(Node { id: NodeId(1), ..node(2) })),
        ("unknown_node", Body::NodeAway(NodeId(9))),
        ("unknown_node", Body::NodeLeave(NodeId(9))),
        ("node_busy", Body::NodeRemove(NodeId(2))),
        ("port_zero", add("web", service(0), Mode::Directed)),
        ("vip_taken", add("mail", service(25), Mode::Directed)),
        ("mode_conflict", add("web", service(81), Mode::Flood)),
        ("service_exists", add("web", service(80), Mode::Directed)),
        ("vip_is_node_address", add("web", vip([10, 0, 0, 2]), Mode::Directed)),
        ("vip_uncovered", add("web", vip([10, 9, 0, 2]), Mode::Directed)),
        ("vip_not_unicast", add("web", vip([224, 0, 0, 2]), Mode::Directed)),
        ("vip_not_unicast", add("web", vip([127, 0, 0, 2]), Mode::Directed)),
        ("vip_not_unicast", add("web", vip6("fe80::100"), Mode::Directed)),
        ("vip_not_unicast", add("web", vip6("ff02::1"), Mode::Directed)),
        ("vip_not_unicast", add("web", vip6("::ffff:10.0.0.101"), Mode::Directed)),
        ("vip_uncovered", add("web", vip6("fd00::100"), Mode::Directed)),
        ("bad_name", add("1web", vip([10, 0, 0, 101]), Mode::Directed)),
        ("unknown_module", Body::ModuleRemove(name("mail"))),
        ("unknown_module", Body::ServiceRemove { module: name("mail"), service: service(80) }),
        ("unknown_service", Body::ServiceRemove { module: name("web"), service: service(81) }),
        ("kind_conflict", Body::ModulePut { name: name("web"), kind: ModuleKind::Light }),
        ("unknown_node", Body::WeightSet { module: name("web"), node: NodeId(9), weight: Weight(1) }),
        ("unknown_module", Body::WeightSet { module: name("mail"), node: NodeId(1), weight: Weight(1) }),
        ("bad_level", Body::FinalizeLevel(LEVEL)),
    ];
    for (code, body) in cases {
        assert_eq!(log.any(body.clone()), Err(code), "{body:?}");
    }
}

/// `node` also reaches this VLAN, by an interface with an address like its first one's.
fn with_vlan(mut node: Node, vlan: Vlan) -> Node {
    let [last] = node.links[0].mac[5..] else { unreachable!("a MAC has six bytes") };
    let addresses = vec![(IpAddr::from([10, 0, 1, last]), 16)];
    node.links.push(Link { name: "eth0.30".into(), mac: [2, 0, 0, 0, 1, last], addresses, vlan });
    node
}

#[test]
fn the_same_address_in_two_vlans_is_two_virtual_ips() {
    let vlan = Vlan::one(30).unwrap();
    let mut log = Log::with_nodes(2);
    let in_vlan = Service { vip: VirtualIp { vlan, ..service(80).vip }, ..service(80) };
    assert_eq!(log.any(add("web", in_vlan, Mode::Directed)), Err("vip_uncovered"), "nobody is in VLAN 30");
    let (id, links) = (NodeId(1), with_vlan(node(1), vlan).links);
    log.step(Body::NodeUpdate(Node { id, links, ..node(1) })).unwrap();
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    log.any(add("mail", in_vlan, Mode::Flood)).unwrap();
    assert_eq!(log.any(add("mail", in_vlan, Mode::Flood)), Err("service_exists"));
    assert_eq!(log.any(add("web", Service { port: 81, ..in_vlan }, Mode::Directed)), Err("vip_taken"));
    let elsewhere = Service { vip: VirtualIp { vlan: Vlan::two(30, 30).unwrap(), ..in_vlan.vip }, ..in_vlan };
    assert_eq!(log.any(add("db", elsewhere, Mode::Directed)), Err("vip_uncovered"));
    log.any(Body::ServiceRemove { module: name("mail"), service: in_vlan }).unwrap();
    assert!(log.state.module_of(service(80).vip).is_some(), "the other one stays");
}

fn outline(services: &[Service]) -> Outline {
    Outline {
        kind: ModuleKind::Farm,
        services: services.iter().map(|s| (*s, Mode::Directed)).collect(),
        weights: [(NodeId(1), Weight(50))].into(),
        drain: Some(Span::seconds(30)),
        application: true,
    }
}

fn module_apply(outline: Outline, content: &[u8]) -> Body {
    Body::ModuleApply { module: name("web"), outline, content: content.into() }
}

#[test]
fn a_module_is_applied_as_a_whole_or_not_at_all() {
    let mut log = Log::with_nodes(2);
    log.any(module_apply(outline(&[service(80), service(81)]), b"one")).unwrap();
    let web = |log: &Log| log.state.modules[&name("web")].clone();
    let ports = |log: &Log| web(log).services.keys().map(|(_, _, port)| *port).collect::<Vec<_>>();
    assert_eq!((ports(&log), web(&log).drain), (vec![80, 81], Some(Span::seconds(30))));
    assert_eq!(web(&log).weights[&NodeId(1)], Weight(50));
    let before = log.state.clone();
    let bad = Service { vip: vip([10, 9, 0, 2]).vip, ..service(82) };
    assert_eq!(log.any(module_apply(outline(&[service(80), bad]), b"two")), Err("vip_uncovered"));
    let other = Service { criterion: Criterion::SourcePort, ..service(80) };
    assert_eq!(log.any(module_apply(outline(&[other]), b"two")), Err("criterion_conflict"));
    let flood = Outline { services: vec![(service(80), Mode::Flood)], ..outline(&[]) };
    assert_eq!(log.any(module_apply(flood, b"two")), Err("mode_conflict"));
    let large = vec![0; limits::DEFINITION + 1];
    assert_eq!(log.any(module_apply(outline(&[]), &large)), Err("definition_too_large"));
    assert_eq!(log.state, before, "nothing of what was refused is left");
    log.any(module_apply(outline(&[service(80), service(82)]), b"two")).unwrap();
    assert_eq!(ports(&log), [80, 82], "what is named no more goes, what stays is not touched");
    assert_eq!(log.any(add("web", service(83), Mode::Directed)), Err("module_defined"));
    let removed = Body::ServiceRemove { module: name("web"), service: service(80) };
    assert_eq!(log.any(removed), Err("module_defined"));
}

#[test]
fn the_port_of_an_only_service_changes_in_one_step() {
    let mut log = Log::with_nodes(2);
    log.any(module_apply(outline(&[service(80)]), b"one")).unwrap();
    log.any(module_apply(outline(&[service(81)]), b"two")).unwrap();
    let web = &log.state.modules[&name("web")];
    assert_eq!(web.services.keys().map(|(_, _, port)| *port).collect::<Vec<_>>(), [81]);
    assert_eq!(web.vips.len(), 1, "its virtual IP never went");
}

#[test]
fn all_definitions_together_have_a_bound() {
    let mut log = Log::with_nodes(1);
    let each = |m: usize, n: usize| Body::ModuleApply {
        module: name(&format!("m{m}")),
        outline: Outline { kind: ModuleKind::Light, ..outline(&[]) },
        content: [vec![u8::try_from(n).unwrap()], vec![0; limits::DEFINITION - 1]].concat().into(),
    };
    let room = limits::DEFINITIONS / limits::DEFINITION;
    for at in 0..room {
        log.any(each(at / limits::REVISIONS, at % limits::REVISIONS)).unwrap();
    }
    assert_eq!(log.any(each(room, 0)), Err("definitions_too_large"));
}

#[test]
fn the_last_definitions_are_kept_in_order() {
    let mut log = Log::with_nodes(1);
    for n in 0..=u8::try_from(limits::REVISIONS).unwrap() {
        log.any(module_apply(outline(&[service(80)]), &[n])).unwrap();
    }
    let definition = log.state.modules[&name("web")].definition.clone().unwrap();
    let contents: Vec<u8> = definition.revisions.iter().map(|r| r.content[0]).collect();
    assert_eq!(contents, [1, 2, 3, 4]);
    assert!(definition.revisions.is_sorted_by_key(|r| r.number));
    // Who asks again changes nothing.
    let before = log.state.clone();
    log.any(module_apply(outline(&[service(80)]), &[4])).unwrap();
    assert_eq!(log.state.modules, before.modules);
}

#[test]
fn a_module_that_runs_is_neither_removed_nor_left_without_scripts() {
    let mut log = Log::with_nodes(2);
    let ready =
        |node, readiness| Body::ModuleReadiness { module: name("web"), node: NodeId(node), readiness };
    assert_eq!(log.any(ready(1, Readiness::Open)), Err("unknown_module"));
    log.any(add("mail", vip([10, 0, 0, 101]), Mode::Directed)).unwrap();
    let mail = Body::ModuleReadiness { module: name("mail"), node: NodeId(1), readiness: Readiness::Open };
    assert_eq!(log.any(mail), Err("no_application"));
    log.any(module_apply(outline(&[service(80)]), b"one")).unwrap();
    assert_eq!(log.any(ready(9, Readiness::Open)), Err("unknown_node"));
    log.any(ready(2, Readiness::Open)).unwrap();
    let web = |log: &Log, node| log.state.modules[&name("web")].readiness(NodeId(node));
    assert_eq!((web(&log, 1), web(&log, 2)), (Readiness::Closed, Readiness::Open));
    let light = Outline { kind: ModuleKind::Light, ..outline(&[]) };
    assert_eq!(log.any(module_apply(light.clone(), b"two")), Err("kind_conflict"));
    let bare = Outline { application: false, ..outline(&[service(80)]) };
    assert_eq!(log.any(module_apply(bare.clone(), b"two")), Err("module_runs"));
    assert_eq!(log.any(Body::ModuleRemove(name("web"))), Err("module_runs"));
    log.any(module_apply(outline(&[service(80)]), b"two")).unwrap();
    assert_eq!(web(&log, 2), Readiness::Open, "another definition stops nothing");
    log.any(ready(2, Readiness::Closed)).unwrap();
    log.any(module_apply(bare, b"three")).unwrap();
    log.any(Body::ModuleRemove(name("web"))).unwrap();
    log.any(module_apply(light, b"four")).unwrap();
}

#[test]
fn a_cluster_has_room_for_what_the_table_holds_and_no_more() {
    let mut log = Log::founded();
    for n in 2..=u8::try_from(limits::NODES).unwrap() {
        log.any(Body::NodeJoin(node(n))).unwrap();
    }
    assert_eq!(log.any(Body::NodeJoin(node(99))), Err("too_many_nodes"));
    for m in 0..limits::MODULES {
        log.any(Body::ModulePut { name: name(&format!("m{m}")), kind: ModuleKind::Farm }).unwrap();
    }
    assert_eq!(
        log.any(Body::ModulePut { name: name("more"), kind: ModuleKind::Farm }),
        Err("too_many_modules")
    );
    for v in 0..u8::try_from(limits::VIPS).unwrap() {
        log.any(add("m0", vip([10, 0, 0, 100 + v]), Mode::Directed)).unwrap();
    }
    assert_eq!(log.any(add("m0", vip([10, 0, 0, 250]), Mode::Directed)), Err("too_many_vips"));
    for port in 1..=u16::try_from(limits::SERVICES - limits::VIPS).unwrap() {
        log.any(add("m0", service(1_000 + port), Mode::Directed)).unwrap();
    }
    assert_eq!(log.any(add("m0", service(999), Mode::Directed)), Err("too_many_services"));
}

#[test]
fn a_command_of_a_higher_level_stops_the_reader() {
    let mut log = Log::founded();
    let before = log.state.clone();
    let command = Command { level: FeatureLevel(2), ..Command::any(Body::NodeAway(NodeId(1))) };
    let entry = log.entry();
    let unknown = UnknownLevel { needs: FeatureLevel(2), knows: LEVEL };
    assert_eq!(log.state.apply(&command, entry), Err(unknown));
    let finalized = Command::any(Body::FinalizeLevel(FeatureLevel(2)));
    assert_eq!(log.state.apply(&finalized, entry), Err(unknown), "the others go on at that level");
    assert_eq!(log.state, before);
}

#[test]
fn a_step_made_for_another_epoch_does_nothing() {
    let mut log = Log::with_nodes(2);
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    let body = Body::Move { losers: vec![], transfers: vec![transfer(1, &[0, 1])] };
    assert_eq!(log.apply(&Command::any(body.clone())), Err("base_missing"));
    for wrong in [log.state.epoch.0 - 1, log.state.epoch.0 + 1] {
        assert_eq!(log.apply(&Command::at(Epoch(wrong), body.clone())), Err("stale_epoch"));
    }
    log.step(body).unwrap();
}

#[test]
fn a_move_must_name_exactly_those_who_lose() {
    let mut log = Log::with_nodes(3);
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    log.step(Body::Move { losers: vec![], transfers: vec![transfer(1, &[0, 1]), transfer(2, &[2, 3])] })
        .unwrap();
    let all = || vec![transfer(3, &[0, 2])];
    for losers in [vec![], vec![1], vec![2], vec![1, 2, 3], vec![1, 1, 2]] {
        let losers = losers.into_iter().map(NodeId).collect();
        assert_eq!(log.step(Body::Move { losers, transfers: all() }), Err("wrong_losers"));
    }
    let command =
        Command::at(log.state.epoch, Body::Move { losers: vec![NodeId(1), NodeId(2)], transfers: all() });
    let target = log.state.epoch.next();
    assert_eq!(command.fences(), [(NodeId(1), target), (NodeId(2), target)]);
    log.ok(&command);
    assert_eq!(log.state.fences.get(&NodeId(2)), Some(&target));
}

#[test]
fn a_removed_service_comes_back_only_when_its_nodes_know() {
    let mut log = Log::with_nodes(2);
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    log.step(Body::Move { losers: vec![], transfers: vec![transfer(2, &[0, 1, 2, 3])] }).unwrap();
    log.any(Body::ServiceRemove { module: name("web"), service: service(80) }).unwrap();
    assert_eq!(log.any(add("web", service(80), Mode::Directed)), Err("service_retiring"));
    // Another port of an address that nobody carries any more: the address is what two nodes might answer for.
    assert_eq!(log.any(add("mail", service(25), Mode::Directed)), Err("service_retiring"));
    log.step(Body::Move { losers: vec![NodeId(2)], transfers: vec![] }).unwrap();
    let fenced_at = log.state.epoch;
    assert_eq!(log.any(add("web", service(80), Mode::Directed)), Err("service_retiring"));
    let pending = log.state.pending();
    assert_eq!(pending.iter().map(|p| (p.node, p.epoch)).collect::<Vec<_>>(), [(NodeId(2), fenced_at)]);
    let early = Evidence::Released { node: NodeId(2), epoch: Epoch(fenced_at.0 - 1) };
    assert_eq!(log.step(Body::Activate { buckets: vec![], evidence: vec![early] }), Err("nothing_to_do"));
    let released = Evidence::Released { node: NodeId(2), epoch: fenced_at };
    log.step(Body::Activate { buckets: vec![], evidence: vec![released] }).unwrap();
    log.any(add("mail", service(80), Mode::Flood)).unwrap();
}

#[test]
fn electors_change_one_at_a_time_in_three_steps() {
    let mut log = Log::with_nodes(3);
    let nodes = |list: &[u64]| list.iter().map(|n| NodeId(*n)).collect::<Vec<_>>();
    assert_eq!(log.step(Body::ElectorsJoint(nodes(&[1, 2, 3]))), Err("electors"), "two at once");
    assert_eq!(log.step(Body::ElectorsJoint(nodes(&[]))), Err("electors"));
    assert_eq!(log.step(Body::ElectorsJoint(nodes(&[1, 9]))), Err("unknown_node"));
    assert_eq!(log.step(Body::ElectorsSeal { joint: Epoch(1), nodes: nodes(&[1, 2, 3]) }), Err("electors"));
    assert_eq!(log.step(Body::ElectorsCancel), Err("electors"), "nothing to take back");
    log.step(Body::ElectorsJoint(nodes(&[1, 2]))).unwrap();
    log.step(Body::ElectorsCancel).unwrap();
    assert_eq!(log.state.electors.current, BTreeSet::from([NodeId(1)]));
    log.step(Body::ElectorsJoint(nodes(&[1, 2]))).unwrap();
    let joint = log.state.epoch;
    assert_eq!(log.step(Body::ElectorsJoint(nodes(&[1, 3]))), Err("electors"));
    assert_eq!(log.step(Body::ElectorsFinal(vec![])), Err("electors"), "not sealed");
    assert_eq!(
        log.step(Body::ElectorsSeal { joint, nodes: nodes(&[1, 2]) }),
        Err("electors"),
        "one is missing"
    );
    log.step(Body::ElectorsSeal { joint, nodes: nodes(&[1, 2, 3]) }).unwrap();
    let (seal, index) = (log.state.epoch, log.index);
    assert_eq!(log.state.fences.get(&NodeId(3)), Some(&joint), "the Seal fences at Joint");
    let released = |n: u64| Evidence::Released { node: NodeId(n), epoch: seal };
    let at_joint = Evidence::Released { node: NodeId(3), epoch: joint };
    assert_eq!(log.step(Body::ElectorsFinal(vec![released(1), released(2), at_joint])), Err("electors"));
    let sealed = log.state.electors.change.as_ref().unwrap().seal.as_ref().unwrap().entry;
    assert_eq!(sealed.index, index);
    let expired = Evidence::Expired { node: NodeId(3), entry: sealed };
    log.step(Body::ElectorsFinal(vec![released(1), released(2), expired])).unwrap();
    assert_eq!(log.state.electors.current, BTreeSet::from([NodeId(1), NodeId(2)]));
}

#[test]
fn a_node_goes_when_nothing_depends_on_it() {
    let mut log = Log::with_nodes(2);
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    log.step(Body::Move { losers: vec![], transfers: vec![transfer(2, &[0])] }).unwrap();
    log.any(Body::NodeLeave(NodeId(2))).unwrap();
    assert_eq!(log.any(Body::NodeLeave(NodeId(1))), Err("last_node"));
    assert_eq!(log.any(Body::NodeBack(NodeId(2))), Err("node_leaving"));
    assert_eq!(log.step(Body::NodeRemove(NodeId(2))), Err("node_busy"), "it owns");
    log.step(Body::Move { losers: vec![NodeId(2)], transfers: vec![transfer(1, &[0])] }).unwrap();
    let epoch = log.state.epoch;
    assert_eq!(log.step(Body::NodeRemove(NodeId(2))), Err("node_busy"), "it is pending");
    let evidence = vec![Evidence::Released { node: NodeId(2), epoch }];
    log.step(Body::Activate { buckets: of(&[0]), evidence }).unwrap();
    assert_eq!(log.step(Body::NodeRemove(NodeId(2))), Err("node_busy"), "it drains");
    log.step(Body::Settle(of(&[0]))).unwrap();
    log.step(Body::NodeRemove(NodeId(2))).unwrap();
    assert!(log.state.fences.contains_key(&NodeId(2)), "its fence outlives it");
}

fn take_over(number: u64, survivor: u64, overruled: &[u64]) -> Body {
    let generation = Generation { number, survivor: NodeId(survivor), nonce: 7 };
    Body::TakeOver { generation, overruled: overruled.iter().copied().map(NodeId).collect() }
}

#[test]
fn a_survivor_alone_grants_in_a_generation_of_its_own() {
    let mut log = Log::with_nodes(2);
    log.state.electors.current.insert(NodeId(2));
    assert_eq!(log.any(take_over(1, 2, &[1])), Err("bad_generation"), "it is that of the founding");
    assert_eq!(log.any(take_over(2, 9, &[1])), Err("unknown_node"));
    assert_eq!(log.any(take_over(2, 2, &[1, 2])), Err("bad_generation"));
    let epoch = log.state.epoch;
    assert_eq!(log.any(take_over(2, 2, &[1])), Ok(()));
    assert_eq!(log.any(take_over(2, 1, &[2])), Err("bad_generation"), "only one survivor");
    assert_eq!(log.state.epoch, epoch.next());
    assert_eq!(log.state.electors.all(), BTreeSet::from([NodeId(2)]));
    assert_eq!(log.state.nodes[&NodeId(1)].membership, Membership::Overruled);
    assert_eq!(log.any(Body::NodeBack(NodeId(1))), Err("node_leaving"), "its old self does not come back");
}

#[test]
fn who_was_overruled_joins_anew_and_finds_its_settings() {
    let mut log = Log::with_nodes(3);
    let module = name("web");
    log.ok(&Command::any(add("web", service(80), Mode::Directed)));
    let weight =
        |node: u64, w: u16| Body::WeightSet { module: name("web"), node: NodeId(node), weight: Weight(w) };
    log.ok(&Command::any(weight(3, 7)));
    log.ok(&Command::any(Body::MaintenanceOn { node: NodeId(3), maintenance: maintenance(None) }));
    log.state.nodes.get_mut(&NodeId(3)).unwrap().room = "hall-b".into();
    assert_eq!(log.any(Body::NodeJoin(node(3))), Err("name_taken"));
    assert_eq!(log.any(Body::NodeOverrule(NodeId(1))), Err("node_busy"), "it grants leases");
    log.ok(&Command::any(Body::NodeOverrule(NodeId(3))));
    log.ok(&Command::any(Body::NodeJoin(node(3))));
    assert!(!log.state.nodes.contains_key(&NodeId(3)));
    let new = log.state.nodes.values().last().unwrap().clone();
    assert_eq!((new.name, new.room, new.membership), (node(3).name, "hall-b".into(), Membership::Member));
    assert_eq!(log.state.modules[&module].weight(new.id), Weight(7));
    assert!(log.state.maintenance.contains_key(&new.id) && log.state.maintenance.len() == 1);
}

#[test]
fn who_is_overruled_joins_anew_only_when_nothing_names_it() {
    let mut log = Log::with_nodes(2);
    log.ok(&Command::any(add("web", service(80), Mode::Directed)));
    let all: Vec<usize> = (0..BUCKETS).collect();
    assert_eq!(log.step(Body::Move { losers: vec![], transfers: vec![transfer(2, &all)] }), Ok(()));
    log.state.electors.current.insert(NodeId(2));
    log.ok(&Command::any(take_over(2, 1, &[2])));
    assert_eq!(log.any(Body::NodeJoin(node(2))), Err("node_busy"), "it owns buckets");
    let losers = vec![NodeId(2)];
    assert_eq!(log.step(Body::Move { losers, transfers: vec![transfer(1, &all)] }), Ok(()));
    assert_eq!(log.any(Body::NodeJoin(node(2))), Err("node_busy"), "it may still accept");
    let evidence =
        log.state.pending().iter().map(|p| Evidence::Expired { node: p.node, entry: p.entry }).collect();
    assert_eq!(log.step(Body::Activate { buckets: of(&all), evidence }), Ok(()));
    assert_eq!(log.any(Body::NodeJoin(node(2))), Err("node_busy"), "its connections may go on");
    assert_eq!(log.step(Body::Settle(of(&all))), Ok(()));
    assert_eq!(log.any(Body::NodeJoin(node(2))), Ok(()));
}

fn node_id() -> impl Strategy<Value = NodeId> {
    (1..5_u64).prop_map(NodeId)
}

fn set() -> impl Strategy<Value = BucketSet> {
    prop::collection::btree_set(0..BUCKETS, 1..=BUCKETS)
        .prop_map(|s| buckets(&s.into_iter().collect::<Vec<_>>()))
}

fn transfers() -> impl Strategy<Value = Vec<Transfer>> {
    let one = (node_id(), set()).prop_map(|(to, buckets)| Transfer { module: name("web"), to, buckets });
    prop::collection::vec(one, 1..3)
}

fn maintenance(until: Option<u64>) -> Maintenance {
    Maintenance { since: UnixTime(1_000), until: until.map(UnixTime), reason: String::new() }
}

#[test]
fn maintenance_begins_and_ends() {
    let mut log = Log::with_nodes(3);
    let on = |node, maintenance| Body::MaintenanceOn { node: NodeId(node), maintenance };
    let off = |node, due: Option<u64>| Body::MaintenanceOff { node: NodeId(node), due: due.map(UnixTime) };
    assert_eq!(log.any(on(9, maintenance(None))), Err("unknown_node"));
    assert_eq!(log.any(off(2, None)), Err("no_maintenance"));
    assert_eq!(log.any(on(2, maintenance(Some(1_000)))), Err("bad_until"), "it would be over at once");
    let wordy = Maintenance { reason: "x".repeat(limits::REASON + 1), ..maintenance(None) };
    assert_eq!(log.any(on(2, wordy)), Err("bad_reason"));
    let lines = Maintenance { reason: "one\ntwo".into(), ..maintenance(None) };
    assert_eq!(log.any(on(2, lines)), Err("bad_reason"));
    log.any(on(2, maintenance(Some(5_000)))).unwrap();
    assert!(!log.state.takes_part(&log.state.nodes[&NodeId(2)]));
    // Somebody gave it longer before the first end came.
    log.any(on(2, maintenance(Some(9_000)))).unwrap();
    assert_eq!(log.any(off(2, Some(5_000))), Err("no_maintenance"));
    log.any(on(1, maintenance(None))).unwrap();
    assert_eq!(log.any(on(3, maintenance(None))), Err("last_server"));
    log.any(off(2, Some(9_000))).unwrap();
    assert!(log.state.takes_part(&log.state.nodes[&NodeId(2)]));
    log.any(on(3, maintenance(None))).unwrap();
}

#[test]
fn a_witness_serves_nothing_and_founds_nothing() {
    let witness = |number| Node { role: Role::Witness, links: Vec::new(), ..node(number) };
    let mut log = Log::with_nodes(1);
    assert_eq!(
        log.any(Body::NodeJoin(Node { role: Role::Witness, ..node(2) })),
        Err("witness"),
        "it has links"
    );
    log.any(Body::NodeJoin(witness(2))).unwrap();
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    let id = *log.state.nodes.keys().last().unwrap();
    let weight = Body::WeightSet { module: name("web"), node: id, weight: Weight(1) };
    assert_eq!(log.any(weight), Err("witness"));
    assert_eq!(log.step(Body::Prepare(vec![transfer(id.0, &[0])])), Err("witness"));
    assert_eq!(log.any(Body::NodeLeave(NodeId(1))), Err("last_node"), "it is the last server");
    log.any(Body::NodeLeave(id)).unwrap();
    let founding = match founding().body {
        Body::Found { cluster, name, hash_key, profile, nonce, .. } => {
            Body::Found { cluster, name, hash_key, profile, nonce, node: witness(1) }
        }
        other => other,
    };
    let entry = EntryId { index: 1, ..EntryId::default() };
    let outcome = ClusterState::unfounded(4).apply(&Command::any(founding), entry).unwrap();
    assert_eq!(outcome.refusal().unwrap().code, "witness");
}

#[test]
fn a_drain_has_a_longest() {
    let mut log = Log::with_nodes(2);
    let limit = |limit| Body::DrainSet { module: name("web"), limit };
    assert_eq!(log.any(limit(Span::seconds(1))), Err("unknown_module"));
    log.any(add("web", service(80), Mode::Directed)).unwrap();
    assert_eq!(log.any(limit(limits::DRAIN + Span::seconds(1))), Err("drain_too_long"));
    log.any(limit(Span::ZERO)).unwrap();
    assert_eq!(log.state.modules[&name("web")].drain, Some(Span::ZERO));
}

fn listed() -> impl Strategy<Value = Vec<ModuleBuckets>> {
    set().prop_map(|buckets| vec![ModuleBuckets { module: name("web"), buckets }])
}

fn body() -> impl Strategy<Value = Body> {
    let member = node_id().prop_map(|id| Node { id, ..node(u8::try_from(id.0).unwrap()) });
    let port = || (80..83_u16).prop_map(service);
    prop_oneof![
        2 => (2..7_u8).prop_map(|n| Body::NodeJoin(node(n))),
        1 => member.prop_map(Body::NodeUpdate),
        1 => node_id().prop_map(Body::NodeAway),
        1 => node_id().prop_map(Body::NodeBack),
        1 => node_id().prop_map(Body::NodeLeave),
        2 => node_id().prop_map(Body::NodeRemove),
        1 => node_id().prop_map(|node| Body::MaintenanceOn { node, maintenance: maintenance(None) }),
        1 => node_id().prop_map(|node| Body::MaintenanceOff { node, due: None }),
        1 => (0..3_u64).prop_map(|s| Body::DrainSet { module: name("web"), limit: Span::seconds(s) }),
        1 => Just(Body::ModuleRemove(name("web"))),
        5 => port().prop_map(|service| add("web", service, Mode::Directed)),
        2 => port().prop_map(|service| Body::ServiceRemove { module: name("web"), service }),
        1 => (node_id(), 0..3_u16).prop_map(|(node, w)| Body::WeightSet { module: name("web"), node, weight: Weight(w) }),
        1 => prop_oneof![Just(Profile::Fast), Just(Profile::Virtual)].prop_map(Body::ProfileSet),
        6 => transfers().prop_map(Body::Prepare),
        12 => transfers().prop_map(|transfers| Body::Move { losers: vec![], transfers }),
        8 => listed().prop_map(|buckets| Body::Activate { buckets, evidence: vec![] }),
        6 => listed().prop_map(Body::Settle),
        3 => listed().prop_map(Body::Cancel),
        3 => prop::collection::vec(node_id(), 1..4).prop_map(Body::ElectorsJoint),
        3 => Just(Body::ElectorsSeal { joint: Epoch(0), nodes: vec![] }),
        3 => Just(Body::ElectorsFinal(vec![])),
        1 => Just(Body::ElectorsCancel),
        1 => node_id().prop_map(Body::NodeOverrule),
        1 => (2..5_u64, node_id()).prop_map(|(number, n)| take_over(number, n.0, &[1, 2, 3].map(|id| if id == n.0 { 9 } else { id }))),
    ]
}

/// Fills in what only the state knows, as the leader does.
fn complete(state: &ClusterState, body: Body) -> Body {
    let all =
        || state.pending().iter().map(|p| Evidence::Released { node: p.node, epoch: p.epoch }).collect();
    match body {
        Body::Move { transfers, .. } => {
            let losers = farm_core::assignment::batch_losers(&state.modules, &transfers);
            let losers = (&losers | &state.unfenced()).into_iter().collect();
            Body::Move { losers, transfers }
        }
        Body::Activate { buckets, .. } => Body::Activate { buckets, evidence: all() },
        Body::ElectorsSeal { .. } => {
            let joint = state.electors.change.as_ref().map_or(Epoch(0), |c| c.joint);
            Body::ElectorsSeal { joint, nodes: state.nodes.keys().copied().collect() }
        }
        Body::ElectorsFinal(_) => Body::ElectorsFinal(all()),
        other => other,
    }
}

proptest! {
    /// Invariants after every command (see `check`), and that the commands are not all refused.
    #[test]
    fn the_state_stays_sound_whatever_comes(bodies in prop::collection::vec((body(), any::<bool>()), 1..80)) {
        let mut log = Log::with_nodes(3);
        log.any(add("web", service(80), Mode::Directed)).unwrap();
        for (body, true_to_state) in bodies {
            let body = if true_to_state { complete(&log.state, body) } else { body };
            let step = Command::at(log.state.epoch, body.clone()).is_step();
            let _ = if step { log.step(body) } else { log.any(body) };
        }
        prop_assert!(log.state.nodes.values().any(|n| n.membership != Membership::Leaving));
        prop_assert!(log.state.nodes.values().all(|n| n.role == Role::Server));
    }
}
