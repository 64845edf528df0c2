//! The command line: what parses, what does not and how that is said, and that cures parse.

use std::ffi::OsString;
use std::process::Command;

use farmctl::args::{parse, parse_cure};
use farmctl::usage;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn fact(line: &str) -> String {
    let args = words(line);
    let error = parse(args.clone()).expect_err(line);
    usage::problem(&error, &args).fact
}

#[test]
fn every_command_parses() {
    let lines = [
        "farmctl cluster init",
        "farmctl cluster init --name prod --profile fast",
        "farmctl cluster status --json",
        "farmctl --json --timeout 500ms cluster status",
        "farmctl cluster status --socket /tmp/farm.sock",
        "farmctl --server 192.0.2.1 cluster status",
        "farmctl --server [2001:db8::1]:7600 cluster status",
        "farmctl cluster profile virtual",
        "farmctl node join 192.0.2.1",
        "farmctl node join node1.example:7601",
        "farmctl node leave",
        "farmctl node leave node2",
        "farmctl node counters --json",
        "farmctl node list --json",
        "farmctl node set node1 --address lan=192.0.2.1 san=198.51.100.1",
        "farmctl node set node1 --address lan=192.0.2.1 --address san=2001:db8::1",
        "farmctl service add --module web --vip 192.0.2.100 --protocol tcp --port 80 --criterion source-address --mode directed",
        "farmctl service add --module web --vip 192.0.2.100 --vlan 100.30 --port 80",
        "farmctl explain --vlan 30 192.0.2.7 192.0.2.100:80",
        "farmctl service add --module dns --vip 192.0.2.100 --protocol udp --port 53 --criterion source-port --mode flood",
        "farmctl service add --module web --vip 2001:db8::100 --port 443 --criterion source-network",
        "farmctl service add --module web --vip 192.0.2.100 --port 80",
        "farmctl service list",
        "farmctl service remove --module web --vip 192.0.2.100 --port 80",
        "farmctl module weight web node1 0",
        "farmctl explain 192.0.2.7 192.0.2.100:80",
        "farmctl explain 192.0.2.7:4711 192.0.2.100:53/udp",
        "farmctl explain [2001:db8::7]:4711 [2001:db8::100]:80/tcp",
        "farmctl watch",
        "farmctl watch --plain",
        "farmctl events --follow --last 5",
        "farmctl lab up --nodes 3 --mode flood",
        "farmctl lab exec node1 -- farmctl cluster status --json",
        "farmctl lab --help",
        "farmctl demo --json --timeout x",
        "farmctl completions bash",
        "farmctl version --json",
    ];
    for line in lines {
        assert!(parse(words(line)).is_ok(), "{line}: {}", fact(line));
    }
}

#[test]
fn bad_input_is_one_sentence_that_names_the_thing() {
    let table = [
        ("farmctl", "needs a subcommand"),
        (
            "farmctl cluster",
            "farmctl cluster needs a subcommand: init, status, check, tie-break, finalize, rename, profile",
        ),
        ("farmctl clutser status", "clutser"),
        ("farmctl cluster init --profile slow", "slow"),
        ("farmctl cluster init --name a/b", "a/b"),
        ("farmctl cluster profile", "<NAME>"),
        ("farmctl cluster status --timeout soon", "soon"),
        ("farmctl cluster status --timeout 0s", "0s"),
        ("farmctl cluster status --server 1.2.3", "1.2.3"),
        ("farmctl cluster status --server host:0", "\"0\" is not a port"),
        ("farmctl node join", "PEER"),
        ("farmctl node join 10.0.0.300", "10.0.0.300"),
        ("farmctl node join host:99999", "99999"),
        ("farmctl node leave a b", "'b'"),
        ("farmctl node leave a --force", "--force"),
        ("farmctl node list extra", "extra"),
        ("farmctl node set node1", "--address"),
        ("farmctl node set node1 --address 192.0.2.1", "NETWORK=IP"),
        ("farmctl node set node1 --address lan=192.0.2", "\"192.0.2\" is not an IP address"),
        ("farmctl service add --module web --port 80", "--vip"),
        ("farmctl service add --module Web --vip 192.0.2.1 --port 80", "\"Web\" is not a module name"),
        ("farmctl service add --module web --vip nowhere --port 80", "\"nowhere\" is not an IP address"),
        ("farmctl service add --module web --vip 0.0.0.0 --port 80", "0.0.0.0 cannot be a virtual IP"),
        ("farmctl service add --module web --vip 224.0.0.1 --port 80", "224.0.0.1 cannot be a virtual IP"),
        ("farmctl service add --module web --vip 192.0.2.1 --port 0", "\"0\" is not a port"),
        ("farmctl service add --module web --vip 192.0.2.1 --port 80 --protocol sctp", "sctp"),
        ("farmctl service add --module web --vip 192.0.2.1 --port 80 --criterion url", "url"),
        ("farmctl service add --module web --vip 192.0.2.1 --port 80 --vlan 4095", "1 to 4094"),
        ("farmctl service add --module web --vip 192.0.2.1 --port 80 --vlan 0", "1 to 4094"),
        ("farmctl service add --module web --vip 192.0.2.1 --port 80 --vlan 1.2.3", "OUTER.INNER"),
        ("farmctl service add --module web --vip 192.0.2.1 --port 80 --mode nat", "nat"),
        ("farmctl service remove --module web", "--vip"),
        ("farmctl service list web", "web"),
        ("farmctl module weight web node1 -1", "-1"),
        ("farmctl module weight web node1 65536", "65536"),
        ("farmctl module weight web node1", "<WEIGHT>"),
        ("farmctl explain 192.0.2.7", "VIP:PORT"),
        ("farmctl explain client 192.0.2.100:80", "\"client\" is not IP[:PORT]"),
        ("farmctl explain 192.0.2.7 192.0.2.100", "\"192.0.2.100\" is not VIP:PORT"),
        ("farmctl explain 192.0.2.7 192.0.2.100:80/icmp", "\"icmp\" is neither tcp nor udp"),
        ("farmctl explain 192.0.2.7 192.0.2.100:0", "\"0\" is not a port"),
        ("farmctl watch node1", "node1"),
        ("farmctl events --last 0", "--last"),
        ("farmctl events --last many", "many"),
        ("farmctl completions tcsh", "tcsh"),
        ("farmctl version now", "now"),
    ];
    for (line, named) in table {
        let fact = fact(line);
        assert!(fact.contains(named), "{line}: {fact}");
        assert!(!fact.contains('\n'), "{line}: {fact}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_where_to_look() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_farmctl")).args(args).output().unwrap();
    let plain = run(&["module", "weight", "web", "node1", "heavy"]);
    assert_eq!(plain.status.code(), Some(2));
    assert!(plain.stdout.is_empty());
    let text = String::from_utf8(plain.stderr).unwrap();
    assert!(text.starts_with("error[usage]: invalid value 'heavy' for '<WEIGHT>'"), "{text}");
    assert!(text.ends_with("\n  try: farmctl module weight --help\n"), "{text}");

    let json = run(&["--json", "service", "add"]);
    assert_eq!(json.status.code(), Some(2));
    let error: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "usage");
    assert_eq!(error["error"]["cure"], "farmctl service add --help");
    assert!(error["error"]["fact"].as_str().unwrap().contains("--module"));

    let twice = run(&["node", "set", "node1", "--address", "lan=192.0.2.1", "lan=192.0.2.2"]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(String::from_utf8(twice.stderr).unwrap().contains("names the network lan twice"));
}

#[test]
fn help_is_no_mistake_and_lists_the_exit_codes() {
    let help = Command::new(env!("CARGO_BIN_EXE_farmctl")).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains(farmctl::exit::HELP));
}

#[test]
fn cures_are_commands() {
    for good in [
        farmctl::error::LOOK,
        farmctl::error::START,
        "farmctl service add --help",
        "sudo farmctl --socket /run/farm/farmd.sock cluster status",
        "farmctl node join 192.0.2.1",
        "cargo build -p farm-lab",
        "farmctl node set NODE --address NETWORK=IP",
        "farmctl module weight MODULE NODE 100",
        "farmctl node join PEER:PORT",
        "farmctl explain CLIENT VIP:PORT/tcp",
    ] {
        parse_cure(good).unwrap();
    }
    for bad in [
        "",
        "farmctl revive",
        "copy the file",
        "farmctl node join",
        "farmctl node join ANYBODY:x",
        "farmctl cluster init (first node)",
    ] {
        assert!(parse_cure(bad).is_err(), "{bad}");
    }
}
