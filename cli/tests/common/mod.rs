//! A hand-made status: two healthy nodes, a silent one, one module.
#![allow(dead_code, reason = "each test file uses its part")]

use farm_proto::v1;

/// A node with everything in order.
pub fn node(id: u64, name: &str) -> v1::NodeStatus {
    let link = v1::Link {
        name: "eth0".into(),
        mac: vec![2, 0, 0, 0, 0, 0x0a].into(),
        addresses: vec!["192.0.2.1/24".into()],
        vlan: String::new(),
    };
    v1::NodeStatus {
        node: Some(v1::Node {
            id,
            name: name.into(),
            role: v1::NodeRole::Server.into(),
            phase: v1::NodePhase::Member.into(),
            addresses: vec![v1::Address { network: "lan".into(), ip: format!("192.0.2.{id}") }],
            links: vec![link],
            peer_port: 7601,
            lease_port: 7601,
            api_port: 7600,
            room: String::new(),
        }),
        heard: true,
        applied: 42,
        voter: true,
        lease_left_ms: 0,
        lease_known: false,
        filter_ok: None,
        silent_ms: 20,
        maintenance: None,
        buckets: 1365,
        buckets_draining: 0,
        sockets_draining: Some(0),
        feature_level: 1,
        version: "0.1.0".into(),
        run: vec![1; 16].into(),
        restarting: false,
    }
}

/// Three healthy nodes that share one module.
pub fn green() -> v1::StatusResponse {
    let mut nodes: Vec<_> =
        [(1, "node1"), (2, "node2"), (3, "node3")].map(|(id, name)| node(id, name)).into();
    nodes[0].lease_known = true;
    nodes[0].lease_left_ms = 87;
    nodes[0].filter_ok = Some(true);
    v1::StatusResponse {
        cluster: vec![0xab; 16].into(),
        name: "prod".into(),
        generation: Some(v1::Generation { number: 1, survivor: 1, nonce: u64::MAX }),
        epoch: 42,
        profile: v1::Profile::Fast.into(),
        feature_level: 1,
        term: 7,
        leader: 2,
        answered_by: 1,
        commit_index: 99,
        nodes,
        modules: vec![module()],
        electors: vec![1, 2, 3],
        voters: vec![1, 2, 3],
        conditions: Vec::new(),
        member: true,
        tie_break: None,
        contest: "together".into(),
    }
}

fn module() -> v1::ModuleStatus {
    let share = |node, buckets| v1::Share { node, buckets, weight: 100 };
    let service = |protocol: v1::Protocol, port| v1::Service {
        vip: "192.0.2.100".into(),
        protocol: protocol.into(),
        port,
        criterion: v1::Criterion::SourceAddress.into(),
        vlan: String::new(),
    };
    v1::ModuleStatus {
        module: Some(v1::Module {
            name: "web".into(),
            kind: v1::ModuleKind::Farm.into(),
            vips: vec![v1::VirtualIp {
                ip: "192.0.2.100".into(),
                mode: v1::Mode::Directed.into(),
                vlan: String::new(),
            }],
            services: vec![service(v1::Protocol::Tcp, 80), service(v1::Protocol::Udp, 53)],
            weights: vec![v1::NodeWeight { node: 3, weight: 100 }],
            assignment: None,
            drain_ms: None,
            slot: 0,
            definition: None,
        }),
        lives: Vec::new(),
        shares: vec![share(1, 1366), share(2, 1365), share(3, 1365)],
        open_changes: 0,
        sockets_draining: None,
    }
}

/// The same with node3 silent, behind, and its buckets on the way.
pub fn red() -> v1::StatusResponse {
    let mut status = green();
    let lost = &mut status.nodes[2];
    (lost.heard, lost.applied, lost.silent_ms) = (false, 41, 1_234);
    status.nodes[0].filter_ok = Some(false);
    let module = &mut status.modules[0];
    (module.shares[2].buckets, module.shares[2].weight) = (365, 0);
    (module.open_changes, module.sockets_draining) = (1000, Some(12));
    status.conditions = vec![v1::Condition {
        code: "node_silent".into(),
        resource: "node3".into(),
        since_ms: 1_234,
        cause: "node3 does not renew its lease".into(),
        next: "farmctl events".into(),
        passing: false,
    }];
    status
}

/// What a filter counted.
pub fn counters() -> v1::CountersResponse {
    let counter = |verdict: &str, reason: &str, meaning: &str, packets| v1::Counter {
        verdict: verdict.into(),
        reason: reason.into(),
        meaning: meaning.into(),
        packets,
    };
    v1::CountersResponse {
        answered_by: 1,
        attached: true,
        counters: vec![
            counter("accept", "accept_owner", "accepted: this node owns the bucket", 11_573),
            counter("drop", "vlan", "dropped: VLAN-tagged", 0),
            counter("drop", "lease_expired", "dropped: no valid lease", 7),
        ],
    }
}
