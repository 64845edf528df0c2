//! What a definition says, how its files travel, and what a change of it means.

use core::time::Duration;

use farm_core::model::{Criterion, Mode, ModuleKind, Protocol, Service, VirtualIp, Vlan, Weight};
use farm_core::time::Span;
use farm_module::{
    Action, Boot, Check, Damaged, Definition, Effect, File, Files, Process, Scope, Scripts, TEMPLATES, What,
    diff, template,
};
use proptest::prelude::*;

const FULL: &str = r#"
kind = "farm"
boot = "on"
maxloop = 5
loop_interval = "0s"
drain = "10m"

[macros]
PORT = "8080"
NAME = "web"

[env]
PORT = "%PORT%"
RATE = "50%%"

[scripts]
start_timeout = "2m"
stop_timeout = "3m"
force_timeout = "10s"
log_size = "64KiB"
log_files = 2

[[vip]]
address = "192.0.2.10"

[[vip]]
address = "192.0.2.10"
vlan = 30
mode = "flood"

[[service]]
vip = "192.0.2.10"
vlan = 0
protocol = "tcp"
port = "%PORT%"

[[service]]
vlan = 30
protocol = "udp"
port = 53
criterion = "source-network"

[weights]
node1 = 200

[[process]]
name = "%NAME%"
regex = "^%NAME% [0-9]+%%$"
scope = "host"
at_least = 2
at_most = 4
action = "restart"

[[process]]
name = "unit"
unit = "%NAME%.service"

[[check]]
name = "page"
http = "http://127.0.0.1:%PORT%/health?full=1"
status = "200-204"
body = "^ok"
interval = "2s"
timeout = "500ms"
rise = 3
fall = 4
action = "restart"
start_within = "1m"

[[check]]
name = "router"
ping = "192.0.2.1"

[[check]]
name = "port"
tcp = "[::1]:53"
when = "always"

[[check]]
name = "script"
program = "start_both"
action = "noaction"

[[check]]
name = "lan"
interface = "eth0"

[[check]]
name = "own"
address = "192.0.2.11"

[[check]]
name = "database"
module = "db"

[[rule]]
name = "alone"
if = "ping.router is down and not http.page is up"
action = "stop"
"#;

fn files(toml: &str) -> Files {
    let mut files = Files::default();
    let mut put = |path: &str, text: &str, executable| {
        files.0.insert(path.into(), File { bytes: text.as_bytes().to_vec(), executable })
    };
    put("module.toml", toml, false);
    put("bin/start_both", "#!/bin/sh\n", true);
    put("bin/stop_both", "#!/bin/sh\n", true);
    files
}

fn parsed(toml: &str) -> Definition {
    Definition::parse("web", files(toml)).unwrap_or_else(|found| panic!("{found:#?}"))
}

#[test]
fn everything_that_can_be_said_is_read() {
    let definition = parsed(FULL);
    assert_eq!((definition.name.0.as_str(), definition.kind), ("web", ModuleKind::Farm));
    assert_eq!((definition.boot, definition.maxloop, definition.loop_interval), (Boot::On, 5, Span::ZERO));
    assert_eq!(definition.drain, Some(Span::seconds(600)));
    let env: Vec<(&str, &str)> = definition.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("PORT", "8080"), ("RATE", "50%")]);
    let [start, stop, force] = [120, 180, 10].map(Duration::from_secs);
    assert_eq!(definition.scripts, Scripts { start, stop, force, log_size: 65536, log_files: 2 });
    let ip = "192.0.2.10".parse().unwrap();
    let vip = VirtualIp { ip, vlan: Vlan::NONE };
    let tagged = VirtualIp { ip, vlan: Vlan::one(30).unwrap() };
    let (protocol, criterion) = (Protocol::Tcp, Criterion::SourceAddress);
    let first = Service { vip, protocol, port: 8080, criterion };
    let (protocol, criterion) = (Protocol::Udp, Criterion::SourceNetwork);
    let second = Service { vip: tagged, protocol, port: 53, criterion };
    assert_eq!(definition.services, [(first, Mode::Directed), (second, Mode::Flood)]);
    assert_eq!(definition.weights.get("node1"), Some(&Weight(200)));
    let watched = Process {
        name: "web".into(),
        what: What::Regex("^web [0-9]+%$".into(), Scope::Host),
        at_least: 2,
        at_most: Some(4),
        action: Action::Restart,
    };
    let unit = Process {
        name: "unit".into(),
        what: What::Unit("web.service".into()),
        at_least: 1,
        at_most: None,
        action: Action::StopStart,
    };
    assert_eq!(definition.processes, [watched, unit]);
    check_checks(&definition);
    assert!(definition.script("start_both").is_some_and(|file| file.executable));
    assert_eq!(definition.script("poststop"), None);
}

fn check_checks(definition: &Definition) {
    let texts = definition.checks.iter().map(|check| {
        let Check { probe, damping, when, action, .. } = check;
        let (name, when, action) = (check.resource(), when.name(), action.name());
        format!("{name} {probe:?} rise {} fall {} {when} {action}", damping.rise, damping.fall)
    });
    let target = |host: &str, port| format!("Target {{ host: {host:?}, port: {port} }}");
    let page = format!(
        "Http {{ at: {}, path: \"/health?full=1\", status: (200, 204), body: Some(\"^ok\") }}",
        target("127.0.0.1", 8080)
    );
    assert_eq!(
        texts.collect::<Vec<_>>(),
        [
            format!("http.page {page} rise 3 fall 4 up restart"),
            "ping.router Ping(192.0.2.1) rise 1 fall 2 always wait".into(),
            format!("tcp.port Tcp({}) rise 1 fall 2 always stopstart", target("::1", 53)),
            "program.script Program(\"start_both\") rise 1 fall 2 up noaction".into(),
            "interface.lan Interface(\"eth0\") rise 1 fall 2 always wait".into(),
            "address.own Address(192.0.2.11) rise 1 fall 2 always wait".into(),
            "module.database Module(ModuleName(\"db\")) rise 1 fall 2 always wait".into(),
        ]
    );
    let [start, interval, timeout] = [60_000, 2_000, 500].map(Duration::from_millis);
    let page = &definition.checks[0];
    assert_eq!((page.start_within, page.interval, page.timeout), (start, interval, timeout));
    let rules: Vec<String> =
        definition.all_rules().iter().map(|rule| format!("{} {:?}", rule.name, rule.request)).collect();
    assert_eq!(rules[..2], ["proc.web Some(Restart)", "proc.unit Some(StopStart)"]);
    assert_eq!(rules.last().unwrap(), "alone Some(Stop)");
    assert_eq!(rules.len(), 10);
}

#[test]
fn what_is_not_said_has_a_default() {
    let definition = parsed("kind = \"light\"");
    assert_eq!((definition.kind, definition.boot, definition.maxloop), (ModuleKind::Light, Boot::Auto, 3));
    assert_eq!((definition.loop_interval, definition.drain), (Span::seconds(86400), None));
    let [start, stop, force] = [300, 300, 60].map(Duration::from_secs);
    assert_eq!(definition.scripts, Scripts { start, stop, force, log_size: 2 << 20, log_files: 4 });
}

fn change(from: &str, to: &str) -> Vec<(String, Effect)> {
    let changes = diff(Some(&parsed(FULL)), &parsed(&FULL.replacen(from, to, 1)));
    changes.into_iter().map(|change| (change.text, change.effect)).collect()
}

#[test]
fn each_change_says_when_it_counts() {
    use Effect::{AtOnce, NextRun};
    let service = "service 192.0.2.10 vlan 30 udp port 53";
    let page = "http://127.0.0.1:8080/health?full=1 200-204 with \"^ok\" every 2s, at most 500ms, rise 3,";
    let rest = ", when up, first good within 1m, otherwise restart";
    let watched = "regex \"^web [0-9]+%$\" of the host, at least 2, at most 4, otherwise";
    for (from, to, text, effect) in [
        ("maxloop = 5", "maxloop = 6", "maxloop: 5 → 6".into(), AtOnce),
        ("boot = \"on\"", "", "boot: on → auto".into(), AtOnce),
        ("\"0s\"", "\"1h\"", "loop_interval: no limit → 1h".into(), AtOnce),
        ("drain = \"10m\"", "", "drain: 10m → not set".into(), AtOnce),
        ("flood", "directed", "mode of 192.0.2.10 vlan 30: flood → directed".into(), AtOnce),
        ("source-network", "source-port", format!("{service}: source-network → source-port"), AtOnce),
        ("node1 = 200", "", "weight of node1: 200 → not set".into(), AtOnce),
        ("\"restart\"", "\"stop\"", format!("process web: {watched} restart → {watched} stop"), AtOnce),
        (
            "name = \"unit\"\nunit",
            "name = \"%NAME%x\"\nunit",
            "process unit is removed".into(),
            AtOnce,
        ),
        (
            "fall = 4",
            "",
            format!("check http.page: {page} fall 4{rest} → {page} fall 2{rest}"),
            AtOnce,
        ),
        (
            "not http.page is up",
            "tcp.port is up",
            "rule alone: if ping.router is down and not http.page is up then stop → if ping.router is down and \
             tcp.port is up then stop"
                .into(),
            AtOnce,
        ),
        ("\"2m\"", "\"4m\"", "start_timeout: 2m → 4m".into(), NextRun),
        ("64KiB", "1MiB", "log_size: 64KiB → 1MiB".into(), NextRun),
        ("\"50%%\"", "\"60%%\"", "RATE: \"50%\" → \"60%\"".into(), NextRun),
        ("RATE = \"50%%\"", "", "RATE is removed".into(), NextRun),
        ("PORT = \"%PORT%\"", "PORT = \"1\"", "PORT: \"8080\" → \"1\"".into(), NextRun),
        ("kind", "# A word.\nkind", "module.toml is written differently and says the same".into(), AtOnce),
    ] {
        assert_eq!(change(from, to)[0], (text, effect), "{from}");
    }
    let moved = change("port = 53", "port = 54");
    let removed = ("service 192.0.2.10 vlan 30 udp port 53 is removed".to_owned(), AtOnce);
    let added = "service 192.0.2.10 vlan 30 udp port 54 is added (source-network, flood)".to_owned();
    assert_eq!(moved, [removed, (added, AtOnce)]);
    assert_eq!(diff(Some(&parsed(FULL)), &parsed(FULL)), []);
}

#[test]
fn files_change_and_scripts_do_not_go_while_it_runs() {
    let old = parsed("kind = \"farm\"");
    let mut new = files("kind = \"farm\"\n");
    new.0.insert("a".into(), File::default());
    new.0.get_mut("bin/stop_both").unwrap().bytes.extend(b"exit\n");
    let changes = diff(Some(&old), &Definition::parse("web", new).unwrap());
    let texts: Vec<&str> = changes.iter().map(|change| change.text.as_str()).collect();
    assert_eq!(texts, ["a is added", "bin/stop_both is changed"]);
    assert_eq!(changes.iter().map(|c| c.effect).collect::<Vec<_>>(), [Effect::NextRun, Effect::NextRun]);
    let mut none = files("kind = \"farm\"");
    none.0.retain(|path, _| path == "module.toml");
    let changes = diff(Some(&old), &Definition::parse("web", none).unwrap());
    assert_eq!(changes[0].text, "bin/ goes: nothing would stop the application any more");
    assert_eq!((changes[0].effect, changes.len()), (Effect::Stopped, 3));
}

#[test]
fn a_new_module_is_told_as_a_whole() {
    let new = Definition::parse("web", template("nginx").unwrap()).unwrap();
    let texts: Vec<String> = diff(None, &new).into_iter().map(|change| change.text).collect();
    let watched = "process nginx is added (regex \"^nginx: master process\" of the module, at least 1, \
                   otherwise stopstart)";
    assert_eq!(
        texts,
        [
            "web is a new farm module",
            "service 192.0.2.10 tcp port 80 is added (source-address, directed)",
            watched,
            "PORT=\"80\" is added",
            "bin/common is added",
            "bin/prestart is added",
            "bin/start_both is added",
            "bin/stop_both is added",
            "nginx.conf is added",
        ]
    );
}

#[test]
fn damage_is_told() {
    let packed = files(FULL).pack();
    assert_eq!(Files::unpack(&packed), Ok(files(FULL)));
    assert_eq!(Files::unpack(&[]), Err(Damaged::Unreadable));
    assert_eq!(Files::unpack(&packed[..packed.len() - 1]), Err(Damaged::Unreadable));
    assert_eq!(Files::unpack(&[&packed[..], b"x"].concat()), Err(Damaged::Form));
    assert_eq!(Files::unpack(&[&[9], &packed[1..]].concat()), Err(Damaged::Layout));
    assert_eq!(Files::unpack(&vec![1; 2 << 20]), Err(Damaged::TooLong(2 << 20)));
    // A list of 2^63 files, and a number that is written longer than it must be.
    assert_eq!(Files::unpack(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 127]), Err(Damaged::Unreadable));
    assert_eq!(Files::unpack(&[1, 0x80, 0]), Err(Damaged::Form));
    let mut odd = files(FULL);
    odd.0.insert("../x".into(), File::default());
    assert!(matches!(Files::unpack(&odd.pack()), Err(Damaged::Limit(_))));
    for name in TEMPLATES {
        let files = template(name).unwrap();
        assert_eq!(Files::unpack(&files.pack()), Ok(files), "{name}");
    }
}

fn any_files() -> impl Strategy<Value = Files> {
    let file = (prop::collection::vec(any::<u8>(), 0..200), any::<bool>());
    let file = file.prop_map(|(bytes, executable)| File { bytes, executable });
    prop::collection::btree_map("[a-z]{1,8}(/[a-z.]{0,2}[a-z]{1,8}){0,3}", file, 0..20).prop_map(|mut map| {
        let paths: Vec<String> = map.keys().cloned().collect();
        // What lies below a file cannot be.
        map.retain(|path, _| !paths.iter().any(|above| path.starts_with(&format!("{above}/"))));
        Files(map)
    })
}

proptest! {
    #[test]
    fn packed_files_unpack_to_themselves(files in any_files()) {
        prop_assert_eq!(Files::unpack(&files.pack()), Ok(files));
    }

    #[test]
    fn any_bytes_unpack_to_what_packs_to_them_or_to_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(files) = Files::unpack(&[&[1], &bytes[..]].concat()) {
            prop_assert_eq!(files.pack(), [&[1], &bytes[..]].concat());
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_makes_other_files(files in any_files(), at in any::<prop::sample::Index>(), to: u8) {
        let mut bytes = files.pack();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        if let Ok(other) = Files::unpack(&bytes) {
            prop_assert_ne!(&other, &files);
            prop_assert_eq!(other.pack(), bytes);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(kind = \"farm\"\n)?[a-z\\[\\]=\"%.0-9 \n]{0,200}") {
        let _ = Definition::parse("web", files(&text));
    }

    #[test]
    fn a_damaged_definition_is_read_or_refused(at in any::<prop::sample::Index>(), to: char) {
        let text: String = FULL.chars().enumerate()
            .map(|(i, c)| if i == at.index(FULL.len()) { to } else { c }).collect();
        if let Err(found) = Definition::parse("web", files(&text)) {
            prop_assert!(!found.is_empty());
        }
    }
}
