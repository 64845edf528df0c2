//! One fact at a time is not as it should be.

use std::time::Duration;

use farm_dataplane::attach::{Attached, Inspected, OtherEnd};

use super::judge;
use crate::{
    Disk, Facts, Finding, Firewall, Level, Link, Manager, Mode, Packet, Pair, Ports, Protocol, Ruling, Slew,
    Sync,
};

const PORTS: Ports = Ports { peer: 7601, lease: 7601, api: 7600, http: 9010 };

fn inspected() -> Inspected {
    let own = Attached { id: 7, name: "name farm".into(), native: true, own: true };
    Inspected { driver: "ice".into(), native: true, programs: vec![own], other_end: None }
}

fn packet() -> Packet {
    Packet { what: "peers", protocol: Protocol::Tcp, to: "10.0.0.1".parse().unwrap(), port: 7601 }
}

/// A node with which all is well.
fn well() -> Facts {
    let link = Link {
        device: "eth0".into(),
        filter: "eth0".into(),
        inspected: Ok(Some(inspected())),
        arp: Ok([2, 1]),
    };
    let pair = Pair {
        peer: "node2".into(),
        network: "lan".into(),
        ip: "10.0.0.2".parse().unwrap(),
        ports: PORTS,
        peer_port: Ok(Ok(())),
        lease_port: Ok(Ok(())),
        mtu: Ok((1500, 1500)),
    };
    Facts {
        kernel: Ok("6.1.0-18-amd64".into()),
        serves: true,
        filter: Ok(true),
        clock: Ok(()),
        clock_source: Ok("tsc".into()),
        slew: Ok(Slew { ppm: -12.5, synchronised: true }),
        stall: Ok(Duration::from_millis(2)),
        realtime_share: Ok(95),
        missing: Ok(Vec::new()),
        lockable: Ok(None),
        disk: Ok(Disk { fleeting: None, free: 20 << 30 }),
        sync: Ok(Sync { median: Duration::from_millis(1), slowest: Duration::from_millis(9) }),
        mtus: [("lan".to_owned(), Ok(1500))].into(),
        links: vec![link],
        firewall: Ok(Firewall { manager: None, legacy: false, rulings: vec![(packet(), Ruling::Accepted)] }),
        pairs: vec![pair],
        lease: Some(Duration::from_millis(100)),
        data_dir: "/var/lib/farm".into(),
        mode: Mode::Auto,
    }
}

fn bad(facts: &Facts) -> Vec<Finding> {
    judge(facts).into_iter().filter(|finding| finding.level != Level::Ok).collect()
}

/// A change of the facts, and the check, level and words that come of it.
type Row = (fn(&mut Facts), &'static str, Level, &'static str);

fn link(facts: &mut Facts) -> &mut Inspected {
    facts.links[0].inspected.as_mut().unwrap().as_mut().unwrap()
}

fn firewall(facts: &mut Facts, ruling: Ruling, manager: Option<Manager>) {
    facts.firewall = Ok(Firewall { manager, legacy: false, rulings: vec![(packet(), ruling)] });
}

fn veth(facts: &mut Facts, end: OtherEnd) {
    let link = link(facts);
    link.driver = "veth".into();
    link.other_end = Some(end);
}

const MACHINE: &[Row] = &[
    (
        |f| f.kernel = Ok("5.10.0-28-amd64".into()),
        "kernel",
        Level::Fault,
        "5.10.0-28-amd64 is older than 5.18",
    ),
    (|f| f.kernel = Ok("unreal".into()), "kernel", Level::Advice, "\"unreal\" is no version"),
    (|f| f.filter = Err("unknown func bpf_skc".into()), "filter", Level::Fault, "unknown func bpf_skc"),
    (|f| f.filter = Ok(false), "filter", Level::Warning, "bpf_jit_enable"),
    (|f| f.missing = Ok(vec!["CAP_BPF".into()]), "capabilities", Level::Fault, "lacks CAP_BPF"),
    (|f| f.clock = Err("shifted by 5 s".into()), "time_namespace", Level::Fault, "shifted by 5 s"),
    (|f| f.clock_source = Ok("kvm-clock".into()), "clock_source", Level::Warning, "hide a pause"),
    (|f| f.clock_source = Ok("hpet".into()), "clock_source", Level::Warning, "mistrusts"),
    (|f| f.clock_source = Err("none".into()), "clock_source", Level::Advice, "could not be looked at: none"),
    (
        |f| f.slew = Ok(Slew { ppm: -83_333.0, synchronised: true }),
        "clock_slew",
        Level::Warning,
        "-83333 ppm",
    ),
    (|f| f.slew = Ok(Slew { ppm: 0.0, synchronised: false }), "clock_slew", Level::Advice, "chrony"),
    (|f| f.realtime_share = Ok(10), "realtime_share", Level::Warning, "sched_rt_runtime_us=950000"),
    (|f| f.stall = Ok(Duration::from_millis(26)), "stalls", Level::Warning, "woke up to 26.0 ms late"),
    (|f| f.stall = Err("Operation not permitted".into()), "stalls", Level::Advice, "LimitRTPRIO"),
    (|f| f.lockable = Ok(Some(65536)), "memory_lock", Level::Warning, "65536 bytes"),
    (|f| f.disk = Ok(Disk { fleeting: Some("tmpfs"), free: 1 << 40 }), "disk", Level::Fault, "is on tmpfs"),
    (|f| f.disk = Ok(Disk { fleeting: None, free: 5 << 20 }), "disk", Level::Warning, "only 5 MiB are free"),
    (
        |f| f.sync = Err("the disk did not answer within 5 s".into()),
        "durable_writes",
        Level::Advice,
        "did not answer",
    ),
];

const NETWORK: &[Row] = &[
    (|f| f.links[0].inspected = Ok(None), "interface", Level::Fault, "no such interface"),
    (|f| link(f).programs[0].own = false, "foreign_program", Level::Fault, "(name farm, id 7)"),
    (|f| f.links[0].arp = Ok([0, 1]), "arp", Level::Fault, "net.ipv4.conf.eth0.arp_announce=2"),
    (|f| f.links[0].arp = Ok([2, 0]), "arp", Level::Fault, "arp_ignore is 0"),
    (
        |f| {
            link(f).native = false;
            f.mode = Mode::Native;
        },
        "xdp_mode",
        Level::Advice,
        "asks for native",
    ),
    (|f| veth(f, OtherEnd::Elsewhere), "veth", Level::Warning, "outside of this container"),
    (
        |f| veth(f, OtherEnd::Here { name: "br-port".into(), program: false }),
        "veth",
        Level::Fault,
        "br-port, its other end, has no XDP program",
    ),
    (|f| firewall(f, Ruling::Dropped, None), "firewall", Level::Fault, "tcp dport 7601 accept"),
    (|f| firewall(f, Ruling::Dropped, Some(Manager::Ufw)), "firewall", Level::Fault, "ufw allow 7601/tcp"),
    (
        |f| firewall(f, Ruling::Dropped, Some(Manager::Firewalld)),
        "firewall",
        Level::Fault,
        "firewall-cmd --permanent --add-port=7601/tcp",
    ),
    (|f| firewall(f, Ruling::Unclear, None), "firewall", Level::Advice, "more than is understood"),
    (|f| f.firewall.as_mut().unwrap().legacy = true, "firewall", Level::Advice, "iptables-legacy"),
    (|f| f.firewall = Err("nft: not found".into()), "firewall", Level::Advice, "nft: not found"),
    (
        |f| f.pairs[0].peer_port = Ok(Err("no".into())),
        "peer_port",
        Level::Fault,
        "10.0.0.2:7601/tcp does not answer",
    ),
    (
        |f| f.pairs[0].lease_port = Ok(Err("no".into())),
        "lease_port",
        Level::Fault,
        "10.0.0.2:7601/udp does not answer",
    ),
    (
        |f| f.pairs[0].lease_port = Err("no file".into()),
        "lease_port",
        Level::Advice,
        "could not be looked at: no file",
    ),
    (
        |f| f.pairs[0].mtu = Ok((9000, 1500)),
        "mtu",
        Level::Fault,
        "sends packets of 9000 bytes, but only those of up to 1500",
    ),
    (|f| f.pairs[0].mtu = Ok((1500, 0)), "mtu", Level::Advice, "10.0.0.2 answers no ping"),
    (|f| f.mtus = [("lan".to_owned(), Err("gone".into()))].into(), "mtu", Level::Advice, "gone"),
];

#[test]
fn a_node_that_is_well_has_nothing_to_mend() {
    assert_eq!(bad(&well()), []);
    let all = judge(&well());
    assert!(all.len() >= 18 && all.iter().all(|finding| finding.remedy.is_empty()), "{all:#?}");
}

#[test]
fn each_fact_leads_to_its_finding_with_a_remedy() {
    for (number, (change, check, level, words)) in MACHINE.iter().chain(NETWORK).enumerate() {
        let mut facts = well();
        change(&mut facts);
        let found = bad(&facts);
        let [finding] = &found[..] else { panic!("{number}, {check}: {found:#?}") };
        assert_eq!((finding.check, finding.level), (*check, *level), "{number}");
        assert!(finding.to_string().contains(words), "{number}: {finding}");
        assert!(!finding.remedy.is_empty(), "{number}: {finding}");
    }
}

#[test]
fn a_slow_machine_is_measured_against_its_profile() {
    let mut facts = well();
    facts.stall = Ok(Duration::from_millis(60));
    facts.lease = Some(Duration::from_millis(500));
    assert_eq!(bad(&facts), [], "standard allows for it");
    facts.lease = None;
    let found = bad(&facts);
    assert_eq!((found[0].check, found[0].level), ("stalls", Level::Advice), "nothing is chosen yet");
}

#[test]
fn the_worst_comes_first() {
    let mut facts = well();
    facts.slew = Ok(Slew { ppm: 0.0, synchronised: false });
    facts.pairs[0].peer_port = Ok(Err("no".into()));
    facts.realtime_share = Ok(10);
    let levels: Vec<Level> = bad(&facts).iter().map(|finding| finding.level).collect();
    assert_eq!(levels, [Level::Fault, Level::Warning, Level::Advice]);
    assert_eq!(crate::summary(&judge(&facts)), "1 fault, 1 warning");
}

#[test]
fn a_witness_needs_nothing_that_a_filter_needs() {
    let facts = Facts {
        serves: false,
        links: Vec::new(),
        kernel: Ok("5.10.0".into()),
        filter: Err("Operation not permitted".into()),
        missing: Ok(vec!["CAP_BPF".into()]),
        ..well()
    };
    let worst = judge(&facts).first().map(|finding| finding.level);
    assert_eq!(worst, Some(Level::Ok));
    assert_eq!(judge(&Facts { serves: true, ..facts }).first().map(|f| f.level), Some(Level::Fault));
}
