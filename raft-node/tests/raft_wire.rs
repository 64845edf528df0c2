//! Whatever the core can say survives the wire, byte for byte; whatever it cannot say is refused with the field's name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use farm_core::arbiter::Kind;
use farm_core::command::{Body, Command, Evidence, ModuleBuckets, Transfer};
use farm_core::electors::{Change, Electors, Seal};
use farm_core::id::{
    ClusterId, EntryId, Epoch, FeatureLevel, Generation, Incarnation, Leadership, NodeId, Seq,
};
use farm_core::lease::{Grant, Renewal};
use farm_core::model::{
    BUCKETS, BucketSet, BucketState, Criterion, Definition, HashKey, Link, Maintenance, Membership, Mode,
    Module, ModuleKind, ModuleName, Node, Outline, Pending, Phase, Profile, Protocol, Readiness, Revision,
    Role, Service, VirtualIp, Vlan, Weight,
};
use farm_core::restart::Restart;
use farm_core::state::{ClusterState, Retired, ServiceKey};
use farm_core::tiebreak::{Rehearsal, TieBreak};
use farm_core::time::{Span, UnixTime};
use farm_proto::v1;
use farmd::wire::{Wire, WireError, decode, encode};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn node_id() -> impl Strategy<Value = NodeId> {
    (1u64..).prop_map(NodeId)
}

fn entry() -> impl Strategy<Value = EntryId> {
    let id = |(term, leader, index)| EntryId { by: Leadership { term, leader: NodeId(leader) }, index };
    any::<(u64, u64, u64)>().prop_map(id)
}

fn generation() -> impl Strategy<Value = Generation> {
    let generation = |(number, survivor, nonce)| Generation { number, survivor: NodeId(survivor), nonce };
    any::<(u64, u64, u64)>().prop_map(generation)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn prefixed() -> impl Strategy<Value = (IpAddr, u8)> {
    (ip(), any::<u8>()).prop_map(|(ip, n)| if ip.is_ipv4() { (ip, n % 33) } else { (ip, n % 129) })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,63}"
}

fn module() -> impl Strategy<Value = ModuleName> {
    "[a-z][a-z0-9-]{0,62}".prop_map(ModuleName)
}

fn buckets() -> impl Strategy<Value = BucketSet> {
    vec(any::<u8>(), BUCKETS / 8).prop_map(BucketSet::from_bytes)
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Directed, Mode::Flood])
}

fn profile() -> impl Strategy<Value = Profile> {
    select(vec![Profile::Fast, Profile::Standard, Profile::Virtual])
}

fn vlan() -> impl Strategy<Value = Vlan> {
    let one = Vlan::one(30).expect("a VLAN");
    select(vec![Vlan::NONE, one, Vlan::two(4094, 1).expect("two VLANs")])
}

fn vip() -> impl Strategy<Value = VirtualIp> {
    (ip(), vlan()).prop_map(|(ip, vlan)| VirtualIp { ip, vlan })
}

fn link() -> impl Strategy<Value = Link> {
    (name(), any::<[u8; 6]>(), vec(prefixed(), 0..4), vlan()).prop_map(|(name, mac, addresses, vlan)| Link {
        name,
        mac,
        addresses,
        vlan,
    })
}

fn node() -> impl Strategy<Value = Node> {
    let role = select(vec![Role::Server, Role::Witness]);
    let membership =
        select(vec![Membership::Member, Membership::Away, Membership::Leaving, Membership::Overruled]);
    let room = prop_oneof![Just(String::new()), name()];
    let places = (btree_map(name(), ip(), 0..4), vec(link(), 0..3), 1u16.., 1u16.., 1u16.., room);
    (any::<u64>(), name(), role, membership, places).prop_map(|(id, name, role, membership, places)| {
        let (addresses, links, peer_port, lease_port, api_port, room) = places;
        Node {
            id: NodeId(id),
            name,
            role,
            membership,
            addresses,
            links,
            peer_port,
            lease_port,
            api_port,
            room,
        }
    })
}

fn service() -> impl Strategy<Value = Service> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp]);
    let criterion = select(vec![Criterion::SourceAddress, Criterion::SourcePort, Criterion::SourceNetwork]);
    (vip(), protocol, 1u16.., criterion).prop_map(|(vip, protocol, port, criterion)| Service {
        vip,
        protocol,
        port,
        criterion,
    })
}

fn rehearsal() -> impl Strategy<Value = Rehearsal> {
    (any::<u64>(), btree_set(node_id(), 0..3), profile(), name())
        .prop_map(|(at, nodes, profile, failure)| Rehearsal { at: UnixTime(at), nodes, profile, failure })
}

fn tie_break() -> impl Strategy<Value = TieBreak> {
    let kind = select(vec![Kind::Plain, Kind::Exclusive]);
    let routers = btree_map(ip(), any::<[u8; 6]>(), 1..3);
    (kind, routers, option::of(ip()), option::of(rehearsal()))
        .prop_map(|(kind, routers, address, rehearsed)| TieBreak { kind, routers, address, rehearsed })
}

fn maintenance() -> impl Strategy<Value = Maintenance> {
    (any::<u64>(), option::of(any::<u64>()), name()).prop_map(|(since, until, reason)| Maintenance {
        since: UnixTime(since),
        until: until.map(UnixTime),
        reason,
    })
}

fn restart() -> impl Strategy<Value = Restart> {
    (entry(), 0..Span::MAX_MILLIS, any::<bool>(), option::of(1_u64..)).prop_map(
        |(entry, ms, everybody, over)| Restart {
            entry,
            lease: Span::millis(ms),
            everybody,
            over: over.map(Epoch),
        },
    )
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        (node_id(), any::<u64>()).prop_map(|(node, epoch)| Evidence::Released { node, epoch: Epoch(epoch) }),
        (node_id(), entry()).prop_map(|(node, entry)| Evidence::Expired { node, entry }),
    ]
}

fn transfers() -> impl Strategy<Value = Vec<Transfer>> {
    vec(
        (module(), node_id(), buckets()).prop_map(|(module, to, buckets)| Transfer { module, to, buckets }),
        0..3,
    )
}

fn sets() -> impl Strategy<Value = Vec<ModuleBuckets>> {
    vec((module(), buckets()).prop_map(|(module, buckets)| ModuleBuckets { module, buckets }), 0..3)
}

fn members() -> impl Strategy<Value = Body> {
    let found = (any::<[u8; 16]>(), name(), any::<[u8; 16]>(), profile(), node(), any::<u64>());
    prop_oneof![
        found.prop_map(|(cluster, name, key, profile, node, nonce)| Body::Found {
            cluster: ClusterId(cluster),
            name,
            hash_key: HashKey(key),
            profile,
            node,
            nonce
        }),
        node().prop_map(Body::NodeJoin),
        node().prop_map(Body::NodeUpdate),
        node_id().prop_map(Body::NodeAway),
        node_id().prop_map(Body::NodeBack),
        node_id().prop_map(Body::NodeLeave),
        node_id().prop_map(Body::NodeOverrule),
        (generation(), vec(node_id(), 0..3))
            .prop_map(|(generation, overruled)| Body::TakeOver { generation, overruled }),
        option::of(tie_break()).prop_map(Body::TieBreakSet),
        (tie_break(), rehearsal())
            .prop_map(|(tried, rehearsal)| Body::TieBreakRehearsed { tried, rehearsal }),
        node_id().prop_map(Body::NodeRemove),
        (node_id(), 0..Span::MAX_MILLIS, any::<bool>()).prop_map(|(node, ms, everybody)| {
            Body::RestartBegin { node, lease: Span::millis(ms), everybody }
        }),
        (node_id(), entry()).prop_map(|(node, begun)| Body::RestartEnd { node, begun }),
        (node_id(), entry()).prop_map(|(node, begun)| Body::RestartForget { node, begun }),
        (node_id(), maintenance()).prop_map(|(node, maintenance)| Body::MaintenanceOn { node, maintenance }),
        (node_id(), option::of(any::<u64>()))
            .prop_map(|(node, due)| Body::MaintenanceOff { node, due: due.map(UnixTime) }),
    ]
}

fn configuration() -> impl Strategy<Value = Body> {
    let kind = select(vec![ModuleKind::Farm, ModuleKind::Light]);
    prop_oneof![
        (module(), kind).prop_map(|(name, kind)| Body::ModulePut { name, kind }),
        (module(), outline(), vec(any::<u8>(), 0..40)).prop_map(|(module, outline, content)| {
            Body::ModuleApply { module, outline, content: content.into() }
        }),
        (module(), node_id(), readiness()).prop_map(|(module, node, readiness)| Body::ModuleReadiness {
            module,
            node,
            readiness
        }),
        module().prop_map(Body::ModuleRemove),
        (module(), service(), mode()).prop_map(|(module, service, mode)| Body::ServiceAdd {
            module,
            service,
            mode
        }),
        (module(), service()).prop_map(|(module, service)| Body::ServiceRemove { module, service }),
        (module(), node_id(), any::<u16>()).prop_map(|(module, node, weight)| Body::WeightSet {
            module,
            node,
            weight: Weight(weight)
        }),
        (module(), 0..Span::MAX_MILLIS)
            .prop_map(|(module, ms)| Body::DrainSet { module, limit: Span::millis(ms) }),
        profile().prop_map(Body::ProfileSet),
        any::<u32>().prop_map(|level| Body::FinalizeLevel(FeatureLevel(level))),
    ]
}

fn changes() -> impl Strategy<Value = Body> {
    prop_oneof![
        transfers().prop_map(Body::Prepare),
        (vec(node_id(), 0..3), transfers()).prop_map(|(losers, transfers)| Body::Move { losers, transfers }),
        (sets(), vec(evidence(), 0..4)).prop_map(|(buckets, evidence)| Body::Activate { buckets, evidence }),
        sets().prop_map(Body::Settle),
        sets().prop_map(Body::Cancel),
        vec(node_id(), 0..6).prop_map(Body::ElectorsJoint),
        (any::<u64>(), vec(node_id(), 0..4))
            .prop_map(|(joint, nodes)| Body::ElectorsSeal { joint: Epoch(joint), nodes }),
        vec(evidence(), 0..4).prop_map(Body::ElectorsFinal),
        Just(Body::ElectorsCancel),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let body = prop_oneof![members(), configuration(), changes()];
    (any::<u32>(), any::<Option<u64>>(), body).prop_map(|(level, base, body)| Command {
        level: FeatureLevel(level),
        base: base.map(Epoch),
        body,
    })
}

fn pending() -> impl Strategy<Value = Pending> {
    (node_id(), any::<u64>(), entry()).prop_map(|(node, epoch, entry)| Pending {
        node,
        epoch: Epoch(epoch),
        entry,
    })
}

fn bucket() -> impl Strategy<Value = BucketState> {
    let phase = select(vec![Phase::Stable, Phase::Prepare, Phase::Move, Phase::MoveClosed, Phase::Activate]);
    let owners = (option::of(node_id()), option::of(node_id()));
    (owners, phase, any::<u64>(), vec(pending(), 0..3)).prop_map(
        |((current, previous), phase, changed, pending)| BucketState {
            current,
            previous,
            phase,
            changed: Epoch(changed),
            pending,
        },
    )
}

/// All buckets, in a handful of states.
fn assignment() -> impl Strategy<Value = Vec<BucketState>> {
    (vec(bucket(), 1..5), vec(any::<prop::sample::Index>(), BUCKETS))
        .prop_map(|(states, of)| of.iter().map(|i| i.get(&states).clone()).collect())
}

fn readiness() -> impl Strategy<Value = Readiness> {
    select(vec![Readiness::Closed, Readiness::Closing, Readiness::Open])
}

fn outline() -> impl Strategy<Value = Outline> {
    let kind = select(vec![ModuleKind::Farm, ModuleKind::Light]);
    let weights = btree_map(node_id(), any::<u16>().prop_map(Weight), 0..4);
    let drain = option::of((0..Span::MAX_MILLIS).prop_map(Span::millis));
    let parts = (kind, vec((service(), mode()), 0..4), weights, drain, any::<bool>());
    parts.prop_map(|(kind, services, weights, drain, application)| Outline {
        kind,
        services,
        weights,
        drain,
        application,
    })
}

fn definition() -> impl Strategy<Value = Definition> {
    let revision = (any::<u64>(), vec(any::<u8>(), 0..40))
        .prop_map(|(number, content)| Revision { number, content: content.into() });
    let application = option::of(btree_map(node_id(), readiness(), 0..4));
    (vec(revision, 1..4), application).prop_map(|(revisions, application)| Definition {
        revisions,
        born: 7,
        application,
    })
}

fn a_module() -> impl Strategy<Value = Module> {
    let kind = select(vec![ModuleKind::Farm, ModuleKind::Light]);
    let services = vec(service(), 0..4);
    let weights = btree_map(node_id(), any::<u16>().prop_map(Weight), 0..4);
    let parts = (kind, any::<u8>(), btree_map(vip(), mode(), 0..3), services, weights, assignment());
    (parts, option::of(definition())).prop_map(
        |((kind, slot, vips, services, weights, assignment), definition)| {
            let services = services.into_iter().map(|s| ((s.vip, s.protocol, s.port), s.criterion)).collect();
            let drain = (slot % 2 == 0).then_some(Span::millis(slot.into()));
            Module { kind, slot, vips, services, weights, drain, definition, assignment }
        },
    )
}

fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set(node_id(), 1..5)
}

fn electors() -> impl Strategy<Value = Electors> {
    let seal = (any::<u64>(), entry(), btree_set(node_id(), 0..4));
    let seal = seal.prop_map(|(epoch, entry, nodes)| Seal { epoch: Epoch(epoch), entry, nodes });
    let change = (nodes(), any::<u64>(), option::of(seal));
    let change = change.prop_map(|(next, joint, seal)| Change { next, joint: Epoch(joint), seal });
    (nodes(), option::of(change)).prop_map(|(current, change)| Electors { current, change })
}

fn retired() -> impl Strategy<Value = (ServiceKey, Retired)> {
    (service(), nodes(), vec(pending(), 0..3))
        .prop_map(|(s, unfenced, pending)| ((s.vip, s.protocol, s.port), Retired { unfenced, pending }))
}

fn state() -> impl Strategy<Value = ClusterState> {
    let head = (any::<[u8; 16]>(), name(), generation(), any::<(u64, u32)>(), profile(), any::<[u8; 16]>());
    let node = (node_id(), node()).prop_map(|(id, node)| (id, Node { id, ..node }));
    let modules = btree_map(module(), a_module(), 0..2);
    let fences = btree_map(node_id(), any::<u64>().prop_map(Epoch), 0..4);
    let restarts = (btree_map(node_id(), restart(), 0..3), option::of(tie_break()));
    let maintenance = (btree_map(node_id(), maintenance(), 0..3), restarts);
    let body =
        (electors(), vec(node, 0..4), modules, fences, any::<u64>(), vec(retired(), 0..3), maintenance);
    (head, body).prop_map(|((cluster, name, generation, (epoch, level), profile, key), body)| {
        let (electors, nodes, modules, fences, lease_bound, retired, (maintenance, (restarts, tie_break))) =
            body;
        ClusterState {
            cluster: ClusterId(cluster),
            name,
            generation,
            epoch: Epoch(epoch),
            level: FeatureLevel(level),
            profile,
            hash_key: HashKey(key),
            electors,
            nodes: nodes.into_iter().collect(),
            modules,
            fences,
            lease_bound: Span(lease_bound),
            retired: retired.into_iter().collect(),
            maintenance,
            restarts,
            tie_break,
            ..ClusterState::default()
        }
    })
}

/// Encodes, decodes, and encodes again.
fn survives<T>(value: &T)
where
    T: Wire + PartialEq + std::fmt::Debug,
    T::Proto: prost::Message + Default,
{
    let bytes = encode(value);
    let back: T = decode(&bytes).expect("what was encoded can be decoded");
    assert_eq!(&back, value);
    assert_eq!(encode(&back), bytes);
}

proptest! {
    #[test]
    fn commands_survive(command in command()) { survives(&command) }

    #[test]
    fn entry_ids_and_generations_survive(entry in entry(), generation in generation()) {
        survives(&entry);
        survives(&generation);
    }

    #[test]
    fn lease_messages_survive(
        generation in generation(),
        (a, b) in (node_id(), node_id()),
        incarnation in any::<[u8; 16]>(),
        (seq, epoch, lease) in any::<(u64, u64, u32)>(),
    ) {
        let incarnation = Incarnation(incarnation);
        let lease = Span::millis(lease.into());
        survives(&Renewal { generation, node: a, incarnation, seq: Seq(seq), applied: Epoch(epoch), leased: seq % 2 == 0, lease });
        survives(&Grant { generation, elector: a, node: b, incarnation, seq: Seq(seq), lease, epoch: Epoch(epoch) });
    }

    /// Damage is an error or another value, never a panic.
    #[test]
    fn damage_is_never_a_panic(command in command(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encode(&command);
        let at = at.index(bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) { *byte = to; }
        let _ = decode::<Command>(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn states_survive(state in state()) { survives(&state) }
}

#[test]
fn the_state_before_the_first_entry_survives() {
    survives(&ClusterState::default())
}

/// 4096 buckets in three states are three bitmaps, and every bucket is in exactly one.
#[test]
fn buckets_are_grouped_and_each_is_there_once() {
    let of = |n| BucketState {
        current: Some(NodeId(n)),
        previous: None,
        phase: Phase::Stable,
        changed: Epoch(1),
        pending: vec![],
    };
    let module = Module {
        assignment: (0..BUCKETS as u64).map(|b| of(b % 3 + 1)).collect(),
        ..Module::new(ModuleKind::Farm, 0, BUCKETS)
    };
    let state = ClusterState {
        modules: BTreeMap::from([(ModuleName("web".into()), module)]),
        ..ClusterState::default()
    };
    let proto = state.to_wire();
    assert_eq!(proto.modules[0].assignment.as_ref().expect("assigned").groups.len(), 3);
    assert!(encode(&state).len() < 2_500);

    let spoilt = |spoil: fn(&mut Vec<v1::BucketGroup>)| {
        let mut proto = proto.clone();
        spoil(&mut proto.modules[0].assignment.as_mut().expect("assigned").groups);
        ClusterState::from_wire(proto)
    };
    assert_eq!(spoilt(|_| ()).as_ref(), Ok(&state));
    for spoilt in [spoilt(|groups| drop(groups.pop())), spoilt(|groups| groups.push(groups[0].clone()))] {
        let field = "Assignment.groups";
        assert!(matches!(&spoilt, Err(WireError::Invalid { field: f, .. }) if *f == field), "{spoilt:?}");
    }
}

/// The same value gives the same bytes, in whatever order its maps were filled.
#[test]
fn a_node_has_one_form() {
    let addresses = [("b", 2), ("a", 1), ("c", 3)].map(|(n, i)| (n.to_owned(), IpAddr::from([10, 0, 0, i])));
    let node = |addresses: BTreeMap<_, _>| Node {
        id: NodeId(1),
        name: "n".into(),
        role: Role::Server,
        membership: Membership::Member,
        addresses,
        links: vec![],
        peer_port: 1,
        lease_port: 2,
        api_port: 3,
        room: "east".into(),
    };
    let mut reversed = addresses.clone();
    reversed.reverse();
    assert_eq!(encode(&node(addresses.into())), encode(&node(reversed.into())));
}

fn sample() -> v1::Command {
    let node = v1::Node {
        id: 1,
        name: "n".into(),
        role: 1,
        phase: 1,
        addresses: vec![v1::Address { network: "lan".into(), ip: "10.0.0.1".into() }],
        links: vec![v1::Link {
            name: "eth0".into(),
            mac: vec![0; 6].into(),
            addresses: vec!["10.0.0.1/24".into()],
            vlan: "30".into(),
        }],
        peer_port: 1,
        lease_port: 2,
        api_port: 3,
        room: "east".into(),
    };
    let body = v1::command::Body::NodeJoin(v1::NodeJoin { node: Some(node) });
    v1::Command { feature_level: 1, base: None, body: Some(body) }
}

/// Changes the sample's node and says which field is blamed.
fn blamed(change: impl FnOnce(&mut v1::Node)) -> String {
    let mut command = sample();
    let Some(v1::command::Body::NodeJoin(v1::NodeJoin { node: Some(node) })) = &mut command.body else {
        panic!("the sample is a NodeJoin");
    };
    change(node);
    match Command::from_wire(command).expect_err("the change makes it wrong") {
        WireError::Missing { field }
        | WireError::Unknown { field, .. }
        | WireError::Invalid { field, .. } => field.into(),
        WireError::Malformed(error) => panic!("not a matter of protobuf: {error}"),
    }
}

#[test]
fn errors_name_the_field() {
    Command::from_wire(sample()).expect("the sample itself is sound");
    assert_eq!(blamed(|n| n.name.clear()), "Node.name");
    assert_eq!(blamed(|n| n.role = 0), "Node.role");
    assert_eq!(blamed(|n| n.phase = 99), "Node.phase");
    assert_eq!(blamed(|n| n.peer_port = 0), "Node.peer_port");
    assert_eq!(blamed(|n| n.api_port = 65_536), "Node.api_port");
    assert_eq!(blamed(|n| n.addresses[0].ip = "10.0.0".into()), "Address.ip");
    assert_eq!(blamed(|n| n.addresses.push(n.addresses[0].clone())), "Node.addresses");
    assert_eq!(blamed(|n| n.links[0].mac = vec![0; 5].into()), "Link.mac");
    assert_eq!(blamed(|n| n.links[0].addresses[0] = "10.0.0.1/33".into()), "Link.addresses");
    assert_eq!(blamed(|n| n.links[0].vlan = "4095".into()), "Link.vlan");
}

#[test]
fn a_command_of_a_newer_version_says_so() {
    let newer = v1::Command { feature_level: 7, base: None, body: None };
    let error = Command::from_wire(newer).expect_err("no body");
    assert_eq!(error, WireError::Unknown { field: "Command.body", value: "feature level 7".into() });
}

#[test]
fn module_names_and_bitmaps_are_checked() {
    let set =
        |module: &str, bytes: usize| v1::BucketSet { module: module.into(), buckets: vec![0; bytes].into() };
    ModuleBuckets::from_wire(set("web-1", BUCKETS / 8)).expect("sound");
    for module in ["", "1web", "Web", "web_1", &"w".repeat(64)] {
        ModuleBuckets::from_wire(set(module, BUCKETS / 8)).expect_err(module);
    }
    ModuleBuckets::from_wire(set("web", BUCKETS / 8 - 1)).expect_err("a bitmap that is too short");
    Evidence::from_wire(v1::Evidence { node: 0, released: true, epoch: 1, entry: None }).expect_err("nobody");
    Evidence::from_wire(v1::Evidence { node: 1, released: false, epoch: 1, entry: None })
        .expect_err("no entry");
}
