//! Every mistake is found where it is, with what to do about it.

use farm_module::{CALLED, Definition, File, Files, Finding, TEMPLATES, template};

const SCRIPT: &str = "#!/bin/sh\n";

fn file(text: &str, executable: bool) -> File {
    File { bytes: text.as_bytes().to_vec(), executable }
}

/// A module of this text, with an application.
fn module(toml: &str) -> Files {
    let mut files = Files::default();
    files.0.insert("module.toml".into(), file(toml, false));
    for name in ["start_both", "stop_both"] {
        files.0.insert(format!("bin/{name}"), file(SCRIPT, true));
    }
    files
}

fn findings(files: Files) -> Vec<Finding> {
    Definition::parse("web", files).expect_err("something is wrong")
}

fn finding(file: &str, line: Option<u32>, fact: &str, remedy: &str) -> Finding {
    Finding { file: file.into(), line, fact: fact.into(), remedy: remedy.into() }
}

/// One text, and all that is wrong with it: line, fact, remedy.
type Case<'a> = (&'a str, &'a [(u32, &'a str, &'a str)]);

fn check(cases: &[Case<'_>]) {
    for (toml, expected) in cases {
        let expected: Vec<Finding> = expected
            .iter()
            .map(|(line, fact, remedy)| finding("module.toml", Some(*line), fact, remedy))
            .collect();
        assert_eq!(findings(module(toml)), expected, "{toml}");
    }
}

#[test]
fn values_of_the_module_itself() {
    check(&[
        ("", &[(1, "kind is missing", "add kind = \"farm\"")]),
        (
            "kind = \"big\"",
            &[(1, "kind = \"big\" is not \"farm\" or \"light\"", "write one of \"farm\" or \"light\"")],
        ),
        ("kind = 1", &[(1, "kind = 1 is not \"farm\" or \"light\"", "write one of \"farm\" or \"light\"")]),
        (
            "kind = \"farm\"\nbooth = 1",
            &[(
                2,
                "booth is not known",
                "known are macros, kind, boot, maxloop, loop_interval, drain, env, scripts, vip, service, weights, process, check, rule",
            )],
        ),
        (
            "kind = \"farm\"\nmaxloop = -1",
            &[(2, "maxloop = -1 is not 0 to 1000", "write a number, 0 to 1000")],
        ),
        (
            "kind = \"farm\"\nmaxloop = 3.5",
            &[(2, "maxloop = 3.5 is not 0 to 1000", "write a number, 0 to 1000")],
        ),
        ("kind = \"farm\"\ndrain = 5", &[(2, "drain = 5 has no unit", "write it as drain = \"5m\"")]),
        ("kind = \"farm\"\ndrain = \"5\"", &[(2, "drain = \"5\" has no unit", "write it as drain = \"5m\"")]),
        (
            "kind = \"farm\"\ndrain = \"soon\"",
            &[(2, "drain = \"soon\" is no length of time", "write it as drain = \"5m\"")],
        ),
        (
            "kind = \"farm\"\ndrain = \"25h\"",
            &[(2, "drain = \"25h\" is not 0s to 1day", "write it as drain = \"5m\"")],
        ),
        (
            "kind = \"farm\"\nloop_interval = 0",
            &[(2, "loop_interval = 0 has no unit", "write it as loop_interval = \"24h\"")],
        ),
        (
            "kind = \"farm\"\n[scripts]\nlog_size = 2\nstart_timeout = \"0s\"\nlog_files = 0\nsize = 1",
            &[
                (3, "[scripts] log_size = 2 has no unit", "write it as log_size = \"2MiB\""),
                (
                    4,
                    "[scripts] start_timeout = \"0s\" is not 1s to 1day",
                    "write it as start_timeout = \"5m\"",
                ),
                (5, "[scripts] log_files = 0 is not 1 to 100", "write a number, 1 to 100"),
                (
                    6,
                    "[scripts] size is not known",
                    "known are start_timeout, stop_timeout, force_timeout, log_size, log_files",
                ),
            ],
        ),
        ("kind = \"farm\"\nscripts = 1", &[(2, "scripts = 1 is no table", "write it under [scripts]")]),
        ("kind = \"farm\"\nvip = 1", &[(2, "vip = 1 is no list of tables", "write [[vip]]")]),
        (
            "kind = \"farm\"\n[weights]\nn1 = 65536\nN2 = 1",
            &[
                (3, "[weights] n1 = 65536 is not 0 to 65535", "write a number, 0 to 65535"),
                (4, "[weights] \"N2\" is no node name", "see the names with: farmctl node list"),
            ],
        ),
    ]);
}

#[test]
fn macros_and_variables() {
    check(&[
        (
            "kind = \"farm\"\n[macros]\nA = \"1\"\nB = \"2\"\n[env]\nX = \"%C%\"",
            &[(
                6,
                "[env] X: %C% is no macro of this module (known: A, B)",
                "add C to [macros], or write %% for a percent sign",
            )],
        ),
        (
            "kind = \"%K%\"",
            &[(
                1,
                "kind: %K% is no macro of this module (there are none)",
                "add K to [macros], or write %% for a percent sign",
            )],
        ),
        (
            "kind = \"farm\"\n[env]\nX = \"50% of 60%\"",
            &[(
                3,
                "[env] X: \"50% of 60%\" has a single %",
                "write %% for a percent sign, %NAME% for a macro",
            )],
        ),
        (
            "kind = \"farm\"\n[macros]\na = \"1\"\nN = 1",
            &[
                (3, "[macros] \"a\" is no name of a macro", "use A-Z, 0-9 and _, no digit first, 63 at most"),
                (4, "[macros] N = 1 is no text", "put it in quotation marks"),
            ],
        ),
        (
            "kind = \"farm\"\n[env]\npath = \"x\"\nFARM_NODE = \"x\"\nPORT = 80\nZ = \"\\u0000\"",
            &[
                (
                    3,
                    "[env] \"path\" is no name of a variable",
                    "use A-Z, 0-9 and _, no digit first, 63 at most",
                ),
                (
                    4,
                    "[env] FARM_NODE: names that begin with FARM_ are those of Farm itself",
                    "choose another name",
                ),
                (5, "[env] PORT = 80 is no text", "put it in quotation marks"),
                (6, "[env] Z = \"\\u0000\" has a null character", "remove it"),
            ],
        ),
    ]);
    check(&[(
        "kind = \"farm\"\nmaxloop = \"%N%\"\ndrain = \"%N%\"\n[macros]\nN = \"x\"",
        &[
            (2, "maxloop = \"%N%\" (\"x\") is not 0 to 1000", "write a number, 0 to 1000"),
            (3, "drain = \"%N%\" (\"x\") is no length of time", "write it as drain = \"5m\""),
        ],
    )]);
    let long = "x".repeat(3000);
    let toml = format!("kind = \"farm\"\n[macros]\nA = \"{long}\"\n[env]\nX = \"%A%%A%\"");
    check(&[(
        &toml,
        &[(5, "[env] X: the text has more than 4096 bytes", "put it into a file of the module")],
    )]);
}

const VIP: &str = "kind = \"farm\"\n[[vip]]\naddress = \"192.0.2.10\"\nmode = \"flood\"\n";

#[test]
fn virtual_ips_and_services() {
    let with = |rest: &str| format!("{VIP}{rest}");
    let service = "[[service]]\nprotocol = \"tcp\"\nport = 80\n";
    let twice = with(&format!("{service}{service}"));
    let again = with(&format!("[[vip]]\naddress = \"192.0.2.10\"\n{service}"));
    let stranger =
        with(&format!("{service}[[service]]\nvip = \"192.0.2.11\"\nprotocol = \"udp\"\nport = 53"));
    let vague = with(&format!("[[vip]]\naddress = \"192.0.2.10\"\nvlan = 30\n{service}vip = \"192.0.2.10\""));
    let unnamed = with(&format!("[[vip]]\naddress = \"192.0.2.11\"\n{service}"));
    let light = format!("{VIP}{service}").replace("farm", "light");
    let keep = "keep one of them";
    check(&[
        (VIP, &[(2, "virtual IP 192.0.2.10 has no service", "add a [[service]] for it, or remove it")]),
        (&twice, &[(8, "service 192.0.2.10 tcp port 80 is declared twice", keep)]),
        (&again, &[(5, "virtual IP 192.0.2.10 is declared twice", keep)]),
        (
            &stranger,
            &[(
                9,
                "192.0.2.11 is no virtual IP of this module (declared: 192.0.2.10)",
                "declare it with [[vip]], or name a declared one",
            )],
        ),
        (&vague, &[(11, "[[service]]: 192.0.2.10 can mean 2 virtual IPs", "name one with vlan = …")]),
        (&unnamed, &[(7, "[[service]]: the service can mean 2 virtual IPs", "name one with vip = …")]),
        (
            &light,
            &[
                (
                    2,
                    "a light module has no [[vip]]: it only supervises its application",
                    "remove it, or write kind = \"farm\"",
                ),
                (
                    5,
                    "a light module has no [[service]]: it only supervises its application",
                    "remove it, or write kind = \"farm\"",
                ),
            ],
        ),
        (
            "kind = \"farm\"\n[[service]]\nprotocol = \"tcp\"\nport = 80",
            &[(2, "[[service]] has no virtual IP: none is declared", "declare one with [[vip]]")],
        ),
    ]);
}

#[test]
fn values_of_virtual_ips_and_services() {
    let bad =
        format!("{VIP}{}", "[[service]]\nprotocol = \"icmp\"\nport = 0\ncriterion = \"x\"\nvlan = 5000");
    let addresses = "kind = \"farm\"\n[[vip]]\naddress = \"x\"\n[[vip]]\naddress = \"127.0.0.1\"\n[[vip]]\nmode = \"odd\"";
    check(&[
        (
            &bad,
            &[
                (
                    6,
                    "[[service]] protocol = \"icmp\" is not \"tcp\" or \"udp\"",
                    "write one of \"tcp\" or \"udp\"",
                ),
                (7, "[[service]] port = 0 is not 1 to 65535", "write a number, 1 to 65535"),
                (
                    8,
                    "[[service]] criterion = \"x\" is not \"source-address\" or \"source-port\" or \"source-network\"",
                    "write one of \"source-address\" or \"source-port\" or \"source-network\"",
                ),
                (
                    9,
                    "[[service]] vlan = \"5000\": a VLAN is 1 to 4094, two of them OUTER.INNER, and 0 for none",
                    "write it as vlan = 30, or vlan = \"100.30\"",
                ),
            ],
        ),
        (
            addresses,
            &[
                (3, "[[vip]] address = \"x\" is not an IP address", "write it as address = \"192.0.2.10\""),
                (
                    5,
                    "127.0.0.1 cannot be a virtual IP: it is no unicast address of a network",
                    "choose an unused address in a subnet of the clients",
                ),
                (6, "[[vip]] address is missing", "add address = \"192.0.2.10\""),
                (
                    7,
                    "[[vip]] mode = \"odd\" is not \"directed\" or \"flood\"",
                    "write one of \"directed\" or \"flood\"",
                ),
            ],
        ),
    ]);
}

#[test]
fn processes() {
    let one = "[[process]] needs exactly one of command, regex and unit; it has";
    check(&[
        (
            "kind = \"farm\"\n[[process]]\nname = \"a\"",
            &[(2, &format!("{one} none"), "keep one, as in command = \"nginx\"")],
        ),
        (
            "kind = \"farm\"\n[[process]]\nname = \"a\"\ncommand = \"x\"\nunit = \"y\"",
            &[(2, &format!("{one} command and unit"), "keep one, as in command = \"nginx\"")],
        ),
        (
            "kind = \"farm\"\n[[process]]\nname = \"a\"\nunit = \"x\"\nscope = \"host\"",
            &[(
                2,
                "[[process]] scope does not go with unit: systemd knows the processes of a unit",
                "remove scope",
            )],
        ),
        (
            "kind = \"farm\"\n[[process]]\nname = \"a\"\nregex = \"a(\"",
            &[(
                4,
                "[[process]] regex = \"a(\" does not compile: unclosed group",
                "see https://docs.rs/regex for the form",
            )],
        ),
        (
            "kind = \"farm\"\n[[process]]\nname = \"a\"\nregex = \"(a{1000}){1000}\"",
            &[(
                4,
                "[[process]] regex = \"(a{1000}){1000}\" needs too much memory",
                "see https://docs.rs/regex for the form",
            )],
        ),
        (
            "kind = \"farm\"\n[[process]]\nname = \"a\"\ncommand = \"\"\n[[process]]\nname = \"a\"\ncommand = \"y\"",
            &[
                (4, "[[process]] command = \"\" names nothing", "write what is to be watched"),
                (6, "two [[process]] are called \"a\"", "give one of them another name"),
            ],
        ),
        (
            "kind = \"farm\"\n[[process]]\nname = \"a b\"\ncommand = \"x\"\nat_least = 3\nat_most = 2\naction = \"x\"",
            &[
                (3, "[[process]] name = \"a b\" is no name of one", "use 1 to 63 of A-Z a-z 0-9 . _ -"),
                (6, "[[process]] at_most = 2 is less than at_least = 3", "raise at_most, or lower at_least"),
                (
                    7,
                    "[[process]] action = \"x\" is not \"restart\" or \"stopstart\" or \"stop\" or \"noaction\"",
                    "write one of \"restart\" or \"stopstart\" or \"stop\" or \"noaction\"",
                ),
            ],
        ),
    ]);
}

#[test]
fn toml_itself() {
    let found = findings(module("kind = \"farm\"\nboot = on\n\n[env\nkind = 1"));
    let lines: Vec<Option<u32>> = found.iter().map(|f| f.line).collect();
    assert!(lines.contains(&Some(2)) && lines.contains(&Some(4)), "all at once: {found:?}");
    assert!(found.iter().all(|f| f.remedy == "see https://toml.io for the form"));
}

#[test]
fn many_mistakes_are_cut_off() {
    let toml: String = (0..1000).map(|i| format!("k{i} = 1\n")).collect();
    assert_eq!(findings(module(&toml)).len(), 100);
}

/// A change of the good module, and what is then found.
type Change = (fn(&mut Files), Finding);

fn put(files: &mut Files, path: &str, text: &str, executable: bool) {
    files.0.insert(path.into(), file(text, executable));
}

#[test]
fn scripts() {
    let start = |fact, remedy| finding("bin/start_both", None, fact, remedy);
    let cases: [Change; 8] = [
        (
            |f| drop(f.0.remove("bin/start_both")),
            start("the script is missing, but bin/ has scripts for an application", "write bin/start_both"),
        ),
        (
            |f| put(f, "bin/start_both", SCRIPT, false),
            start("Farm calls this script, but it is not executable", "chmod +x bin/start_both"),
        ),
        (
            |f| put(f, "bin/start_both", "nginx\n", true),
            start("the first bytes are neither #! nor those of a program", "make #!/bin/sh the first line"),
        ),
        (
            |f| put(f, "bin/start_both", "#!/bin/sh\r\nnginx\r\n", true),
            start(
                "the first line ends with a carriage return: the kernel finds no such interpreter",
                "sed -i 's/\\r$//' bin/start_both",
            ),
        ),
        (
            |f| put(f, "bin/transition", SCRIPT, false),
            finding(
                "bin/transition",
                None,
                "Farm calls this script, but it is not executable",
                "chmod +x bin/transition",
            ),
        ),
        (
            |f| put(f, "bin/helper", "#!/bin/sh\r\n", true),
            finding(
                "bin/helper",
                None,
                "the first line ends with a carriage return: the kernel finds no such interpreter",
                "sed -i 's/\\r$//' bin/helper",
            ),
        ),
        (
            |f| drop(f.0.remove("module.toml")),
            finding("module.toml", None, "the file is missing", "write it; its least is: kind = \"farm\""),
        ),
        (
            |f| drop(f.0.get_mut("module.toml").unwrap().bytes.splice(.., *b"kind\n\xff")),
            finding("module.toml", Some(2), "byte 6 is not UTF-8", "save the file as UTF-8"),
        ),
    ];
    for (change, expected) in cases {
        let mut files = module("kind = \"farm\"");
        change(&mut files);
        assert_eq!(findings(files), [expected]);
    }
}

#[test]
fn what_is_no_mistake() {
    let mut files = module("kind = \"farm\"");
    put(&mut files, "bin/common", "PATH=/bin\r\n", false);
    put(&mut files, "bin/prestart", "\x7fELF\r\n", true);
    put(&mut files, "pages/index.html", "<html>", false);
    assert!(Definition::parse("web", files).unwrap().has_application());
    // The same port of another protocol is another service.
    let service = |protocol| format!("[[service]]\nprotocol = \"{protocol}\"\nport = 53\n");
    let mut traffic = Files::default();
    put(&mut traffic, "module.toml", &format!("{VIP}{}{}", service("tcp"), service("udp")), false);
    let traffic = Definition::parse("web", traffic).unwrap();
    assert_eq!((traffic.has_application(), traffic.services.len()), (false, 2));
}

/// Wrong checks, rules and processes: line, fact, remedy.
const WATCHED: [Case<'_>; 12] = [
    (
        "[[check]]\nname = \"a\"",
        &[(
            2,
            "[[check]] needs exactly one of tcp, http, ping, interface, address, program, module; it has none",
            "keep one, as in tcp = \"80\"",
        )],
    ),
    (
        "[[check]]\nname = \"a\"\ntcp = \"80\"\nping = \"192.0.2.1\"",
        &[(
            2,
            "[[check]] needs exactly one of tcp, http, ping, interface, address, program, module; it has tcp and ping",
            "keep one, as in tcp = \"80\"",
        )],
    ),
    (
        "[[check]]\nname = \"a\"\ntcp = \"host\"",
        &[(4, "[[check]] tcp = \"host\" is neither PORT nor HOST:PORT", "write it as tcp = \"80\"")],
    ),
    (
        "[[check]]\nname = \"a\"\nhttp = \"https://host/\"",
        &[(
            4,
            "[[check]] http = \"https://host/\" is no address of a page over HTTP",
            "write it as http = \"http://127.0.0.1:80/\"; for https use program",
        )],
    ),
    (
        "[[check]]\nname = \"a\"\nping = \"host\"\nstatus = 200",
        &[
            (4, "[[check]] ping = \"host\" is no IP address", "write it as ping = \"192.0.2.1\""),
            (5, "[[check]] status does not go with ping", "remove status"),
        ],
    ),
    (
        "[[check]]\nname = \"a\"\nhttp = \"http://h/\"\nstatus = \"99\"",
        &[(5, "[[check]] status = \"99\" is no range within 100-599", "write it as status = \"200-299\"")],
    ),
    (
        "[[check]]\nname = \"a\"\nprogram = \"b\"",
        &[(2, "[[check]] program = \"b\": there is no bin/b", "add bin/b, or name a file that is there")],
    ),
    (
        "[[check]]\nname = \"a\"\nmodule = \"web\"",
        &[(2, "[[check]] module = \"web\" is the module itself", "name another module")],
    ),
    (
        "[[check]]\nname = \"a\"\nping = \"192.0.2.1\"\nwhen = \"up\"",
        &[(
            2,
            "[[check]] action = \"wait\" does not go with when = \"up\": nothing would tell when to start again",
            "remove when",
        )],
    ),
    (
        "[[rule]]\nname = \"a\"\nif = \"ping.b is dwon\"\naction = \"stop\"",
        &[(
            4,
            "[[rule]] if is not understood at \"dwon\"",
            "init, up, down or unknown is wanted there, as in: ping.router is down and not tcp.web is up",
        )],
    ),
    (
        "[[rule]]\nname = \"a\"\nif = \"ping.b is down\"\naction = \"stop\"",
        &[(4, "[[rule]] if names ping.b, and no check and no process is called so", "known: there are none")],
    ),
    (
        "[[process]]\nname = \"a\"\ncommand = \"a-very-long-name\"",
        &[(
            4,
            "[[process]] command = \"a-very-long-name\" is longer than the kernel knows names",
            "write its first 15 bytes, or use regex",
        )],
    ),
];

#[test]
fn checks_and_rules() {
    let whole = WATCHED.map(|(text, _)| format!("kind = \"farm\"\n{text}"));
    for (text, (_, expected)) in whole.iter().zip(WATCHED) {
        check(&[(text, expected)]);
    }
    let vip = "[[vip]]\naddress = \"192.0.2.10\"\n[[service]]\nprotocol = \"tcp\"\nport = 80\n";
    let toml = format!("kind = \"farm\"\n{vip}[[check]]\nname = \"a\"\ntcp = \"192.0.2.10:80\"");
    assert_eq!(
        findings(module(&toml))[0].fact,
        "[[check]] looks at 192.0.2.10, which may lead to another node"
    );
}

#[test]
fn processes_without_scripts() {
    let mut files = Files::default();
    // The process is wrong too; both are told.
    put(&mut files, "module.toml", "kind = \"farm\"\n[[process]]\nname = \"a\"", false);
    let facts: Vec<(String, String)> = findings(files).into_iter().map(|f| (f.file, f.fact)).collect();
    let missing = "the script is missing, but [[process]] watches an application";
    assert_eq!(facts[0], ("bin/start_both".into(), missing.into()));
    assert_eq!(facts[1], ("bin/stop_both".into(), missing.into()));
    assert_eq!((facts[2].0.as_str(), facts.len()), ("module.toml", 3));
}

#[test]
fn limits_and_paths() {
    let package = "install large files with a package instead";
    let mut large = module("kind = \"farm\"");
    put(&mut large, "data", &"x".repeat(256 * 1024 + 1), false);
    assert_eq!(
        findings(large),
        [finding("data", None, "the file has 257 KiB; the most are 256 KiB", package)]
    );
    let mut all = module("kind = \"farm\"");
    (0..3).for_each(|i| put(&mut all, &format!("data{i}"), &"x".repeat(256 * 1024), false));
    assert_eq!(findings(all), [finding(".", None, "all files have 769 KiB; the most are 768 KiB", package)]);
    let mut many = module("kind = \"farm\"");
    (0..62).for_each(|i| put(&mut many, &format!("f{i}"), "", false));
    let remedy = "install what belongs to the application with a package instead";
    assert_eq!(findings(many), [finding(".", None, "65 files; a module has at most 64", remedy)]);
    for (path, why) in [
        ("", "it has 0 bytes, not 1 to 200"),
        ("/etc/passwd", "\"\" is no name of a file or directory"),
        ("a/../b", "\"..\" is no name of a file or directory"),
        ("a//b", "\"\" is no name of a file or directory"),
        ("./a", "\".\" is no name of a file or directory"),
        ("a b", "' ' is not one of A-Z a-z 0-9 . _ + @ - /"),
        ("a\nb", "'\\n' is not one of A-Z a-z 0-9 . _ + @ - /"),
        ("conf/-rf", "a name that begins with - is taken for an option"),
        ("module.toml/a", "module.toml is a file, so nothing can be below it"),
    ] {
        let mut files = module("kind = \"farm\"");
        put(&mut files, path, "", false);
        assert_eq!(findings(files), [finding(path, None, &format!("odd path: {why}"), "rename the file")]);
    }
    let fact = "\"Web\" is no module name: 1 to 63 of a-z 0-9 -, a letter first, no - at the end";
    let found = Definition::parse("Web", module("kind = \"farm\"")).unwrap_err();
    assert_eq!(found, [finding(".", None, fact, "rename the directory of the module")]);
    let shown = "module.toml:3: a; b";
    assert_eq!(finding("module.toml", Some(3), "a", "b").to_string(), shown);
}

#[test]
fn templates_are_good_modules() {
    for name in TEMPLATES {
        let files = template(name).unwrap();
        let definition =
            Definition::parse(name, files.clone()).unwrap_or_else(|found| panic!("{name}: {found:?}"));
        assert!(definition.has_application() && !definition.processes.is_empty(), "{name}");
        assert!(definition.script("prestart").is_some(), "{name}");
        for (path, file) in files.0.iter().filter(|(path, _)| path.starts_with("bin/")) {
            let text = core::str::from_utf8(&file.bytes).unwrap();
            assert!(is_shell(text), "{name}/{path}");
            let called = CALLED.iter().any(|script| path == &format!("bin/{script}"));
            assert_eq!(
                called,
                text.starts_with("#!/bin/sh\n") && text.contains("\nset -eu\n"),
                "{name}/{path}"
            );
        }
    }
    assert_eq!(template("odd"), None);
    // Every file that lies there is embedded.
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/modules");
    for name in TEMPLATES {
        let own = std::fs::read_dir(format!("{directory}/{name}")).unwrap();
        let bin = std::fs::read_dir(format!("{directory}/{name}/bin")).unwrap();
        let count = own.chain(bin).filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
        assert_eq!(count, template(name).unwrap().0.len(), "{name}");
    }
}

/// Whether `sh -n` reads it.
fn is_shell(text: &str) -> bool {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    shell.wait().unwrap().success()
}
