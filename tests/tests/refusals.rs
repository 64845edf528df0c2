//! Bad input: one clear error with a stable code, the observed fact and a command that cures it; and nothing is
//! half-applied.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use farm_lab::{FIRST_VIP, Place, binaries, shell};
use farm_tests::farm::{Farm, Told, farmctl_problem};
use farmctl::args::parse_cure;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
/// Peer port of the daemons.
const PEER_PORT: u16 = 7601;
/// A daemon that does not refuse is ended by `timeout` after so many seconds; its exit code is then 124.
const PATIENCE: &str = "20";

/// What a refusal must leave as it was.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    addresses: String,
    guard: String,
    link: String,
    pins: Vec<PathBuf>,
}

impl Host {
    fn of(farm: &Farm, node: Place) -> Result<Self> {
        let shown = |program: &str, args: &[&str]| shell::run(farm.command(node, program)?.args(args));
        let pins = farm.spec().pin_dir(node);
        let pins = if pins.exists() { files(&pins)? } else { Vec::new() };
        Ok(Self {
            addresses: shown("ip", &["-o", "address", "show", "dev", "lo"])?,
            guard: shown("nft", &["list", "ruleset"])?,
            link: shown("ip", &["-o", "link", "show", "dev", "eth0"])?,
            pins,
        })
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// Is it said as every problem must be?
fn well_said(told: &Told, code: &str) -> Result<()> {
    ensure!(told.code == code, "code {code} expected: {told:?}");
    ensure!(told.code.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{told:?}");
    ensure!(!told.fact.is_empty() && told.fact.lines().count() == 1, "one sentence: {told:?}");
    parse_cure(&told.cure).map_err(anyhow::Error::msg).with_context(|| format!("{told:?}"))
}

/// Runs the daemon with this configuration to its end, which must be a refusal, and reads it.
fn farmd_refuses(farm: &Farm, node: Place, config: &Path, before: &[&str]) -> Result<Told> {
    let untouched = Host::of(farm, node)?;
    let (farmd, config) = (binaries::find("farmd")?.display().to_string(), config.display().to_string());
    let wrapped = [before, &["timeout", PATIENCE, &farmd, "--config", &config]].concat();
    let output = farm.exec(node, wrapped[0], &wrapped[1..])?;
    ensure!(Host::of(farm, node)? == untouched, "the host was touched: {untouched:?}");
    farmd_problem(&output)
}

/// The last thing a daemon says: `farmd: error[CODE] FACT`, `  try: CURE`.
fn farmd_problem(output: &Output) -> Result<Told> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    ensure!(code.is_some_and(|c| c != 0 && c != 124), "exit code {code:?}: {said}");
    let told = || {
        let (_, problem) = said.split_once("farmd: error[")?;
        let (code, rest) = problem.split_once("] ")?;
        let (fact, cure) = rest.split_once("\n  try: ")?;
        Some(Told { code: code.into(), fact: fact.into(), cure: cure.trim_end().into() })
    };
    told().with_context(|| format!("no problem in: {said}"))
}

/// A configuration with `from` replaced by `to`, in a file of its own.
fn wrong_config(farm: &Farm, node: Place, from: &str, to: &str) -> Result<PathBuf> {
    let right = std::fs::read_to_string(farm.configure(node)?)?;
    ensure!(right.contains(from), "{from:?} is not in {right}");
    let path = farm.directory(node)?.join("wrong.toml");
    std::fs::write(&path, right.replacen(from, to, 1))?;
    Ok(path)
}

#[test]
fn a_daemon_that_cannot_run_says_why_and_touches_nothing() -> Result<()> {
    let farm = Farm::bare("refused", 1)?;
    let missing = farm.directory(ONE)?.join("nowhere.toml");
    well_said(&farmd_refuses(&farm, ONE, &missing, &[])?, "config_missing")?;
    let mistakes = [
        ("name = ", "nam = ", "nam"),
        ("name = \"node1\"", "name = \"Node 1\"", "Node 1"),
        ("[[address]]", "[[adress]]", "adress"),
        ("10.77.0.11", "0.0.0.0", "0.0.0.0"),
        ("xdp_mode = \"auto\"", "xdp_mode = \"turbo\"", "turbo"),
    ];
    for (right, wrong, named) in mistakes {
        let told = farmd_refuses(&farm, ONE, &wrong_config(&farm, ONE, right, wrong)?, &[])?;
        well_said(&told, "config_invalid")?;
        ensure!(told.fact.contains(named), "{named:?} is not named: {told:?}");
    }
    let elsewhere = wrong_config(&farm, ONE, "10.77.0.11", "10.77.0.99")?;
    let told = farmd_refuses(&farm, ONE, &elsewhere, &[])?;
    well_said(&told, "address_missing")?;
    let config = farm.configure(ONE)?;
    let taken = farm.namespace(ONE).run(|| Ok(TcpListener::bind((ONE.address(), PEER_PORT))?))?;
    let told = farmd_refuses(&farm, ONE, &config, &[])?;
    well_said(&told, "port_in_use")?;
    ensure!(told.fact.contains(&PEER_PORT.to_string()), "{told:?}");
    drop(taken);
    let told = farmd_refuses(&farm, ONE, &config, &["unshare", "--time", "--fork", "--boottime", "1000"])?;
    well_said(&told, "time_namespace")?;
    // And the right configuration is taken.
    farm.start_farmd(ONE)?;
    well_said(&farmd_refuses(&farm, ONE, &config, &[])?, "already_running")
}

#[test]
fn a_daemon_does_not_start_on_a_store_it_cannot_trust() -> Result<()> {
    let farm = Farm::bare("corrupt", 1)?;
    farm.run_farm()?;
    farm.kill_farmd(ONE)?;
    let log = farm.directory(ONE)?.join("data/log");
    let damaged = damage(&log)?;
    ensure!(damaged > 0, "there was something to damage");
    let told = farmd_refuses(&farm, ONE, &farm.directory(ONE)?.join("farmd.toml"), &[])?;
    well_said(&told, "store_damaged")?;
    ensure!(told.fact.contains(&log.display().to_string()), "the fact names the store: {told:?}");
    ensure!(log.exists() && damage(&log)? > 0, "nothing was wiped");
    Ok(())
}

/// Flips bytes all over the big files below `directory`; how many.
fn damage(directory: &Path) -> Result<usize> {
    /// Below a record and its checksum.
    const EVERY: usize = 64;
    let mut flipped = 0;
    for path in files(directory)? {
        if path.is_dir() {
            flipped += damage(&path)?;
            continue;
        }
        let mut bytes = std::fs::read(&path)?;
        if bytes.len() > 1 << 20 {
            // Room that the store keeps for a full disk, without content.
            bytes.truncate(0);
        }
        let flips = bytes.iter_mut().skip(EVERY / 2).step_by(EVERY).filter(|byte| **byte != 0);
        let before = flipped;
        flips.for_each(|byte| {
            *byte ^= 0x55;
            flipped += 1;
        });
        if flipped > before {
            std::fs::write(&path, bytes)?;
        }
    }
    Ok(flipped)
}

/// What the cluster agreed on.
fn agreed(farm: &Farm) -> Result<serde_json::Value> {
    let mut status: serde_json::Value = farm.farmctl_json(ONE, &["cluster", "status"])?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    let nodes: Vec<serde_json::Value> = nodes.iter().map(|node| node["node"].clone()).collect();
    let agreed =
        ["epoch", "modules", "name", "profile"].map(|field| (field.to_owned(), status[field].take()));
    let agreed = agreed.into_iter().chain([("nodes".to_owned(), nodes.into())]);
    Ok(serde_json::Value::Object(agreed.collect()))
}

/// farmctl on `node` is refused with `code`, and neither cluster nor host changed.
fn refused(farm: &Farm, node: Place, args: &[&str], code: &str) -> Result<Told> {
    let (state, host) = (agreed(farm)?, Host::of(farm, node)?);
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let told = farmctl_problem(&farm.farmctl_output(node, &args)?).with_context(|| format!("{args:?}"))?;
    well_said(&told, code).with_context(|| format!("{args:?}"))?;
    ensure!(agreed(farm)? == state, "{args:?} changed the cluster");
    ensure!(Host::of(farm, node)? == host, "{args:?} changed the host");
    Ok(told)
}

fn add<'a>(module: &'a str, vip: &'a str) -> [&'a str; 8] {
    ["service", "add", "--module", module, "--vip", vip, "--port", "80"]
}

#[test]
fn a_cluster_refuses_what_cannot_be_served() -> Result<()> {
    let farm = Farm::bare("refusing", 1)?;
    farm.run_farm()?;
    let vip = FIRST_VIP.to_string();
    refused(&farm, ONE, &add("web", "192.0.2.7"), "vip_uncovered")?;
    refused(&farm, ONE, &add("web", "10.77.0.11"), "vip_is_node_address")?;
    refused(&farm, ONE, &add("web", "fd00::1"), "vip_uncovered")?;
    refused(&farm, ONE, &add("mail", &vip), "vip_taken")?;
    refused(&farm, ONE, &add("web", &vip), "service_exists")?;
    let taken = "10.77.0.101";
    farm.namespace(Place::Router).ip(&format!("addr add {taken}/24 dev eth0\n"))?;
    let told = refused(&farm, ONE, &add("web", taken), "vip_in_use")?;
    ensure!(told.fact.contains(taken), "{told:?}");
    refused(&farm, ONE, &["module", "weight", "web", "node7", "1"], "unknown_node")?;
    refused(&farm, ONE, &["module", "weight", "mail", "node1", "1"], "unknown_module")?;
    let nowhere = ["service", "remove", "--module", "web", "--vip", &vip, "--port", "81"];
    refused(&farm, ONE, &nowhere, "unknown_service")?;
    refused(&farm, ONE, &["cluster", "init"], "already_member")?;
    refused(&farm, ONE, &["node", "leave"], "last_node")?;
    // It was the holder only that stood in the way.
    farm.namespace(Place::Router).ip(&format!("addr del {taken}/24 dev eth0\n"))?;
    farm.farmctl(ONE, &add("web", taken)).map(drop)
}

#[test]
fn a_node_that_does_not_fit_is_not_taken_in() -> Result<()> {
    let farm = Farm::bare("joining", 2)?;
    farm.start_farmd(ONE)?;
    farm.farmctl(ONE, &["cluster", "init", "--name", "first", "--profile", "fast"])?;
    let member = ONE.address().to_string();
    let join = ["node", "join", member.as_str()];

    with_config(&farm, TWO, "\"eth0\"", "\"eth9\"", |_| {
        let told = refused(&farm, TWO, &join, "unknown_interface")?;
        ensure!(told.fact.contains("eth9"), "{told:?}");
        Ok(())
    })?;
    with_config(&farm, TWO, "name = \"node2\"", "name = \"node1\"", |_| {
        let told = refused(&farm, TWO, &join, "name_taken")?;
        ensure!(told.fact.contains("node1"), "{told:?}");
        Ok(())
    })?;
    let other = farm.directory(TWO)?.join("other-secret");
    let secret = format!("{}/secret\"", farm.directory(TWO)?.parent().context("in the lab")?.display());
    with_config(&farm, TWO, &secret, &format!("{}\"", other.display()), |_| {
        refused(&farm, TWO, &join, "secret_missing")?;
        std::fs::write(&other, "another secret, as long as it takes")?;
        refused(&farm, TWO, &join, "secret_open")?;
        shell::run(std::process::Command::new("chmod").arg("600").arg(&other))?;
        refused(&farm, TWO, &join, "peer_refused").map(drop)
    })?;
    // A data directory of another cluster.
    with_config(&farm, TWO, "name = \"node2\"", "name = \"node2\"", |_| {
        refused(&farm, TWO, &["cluster", "init", "--name", "Second", "--profile", "fast"], "bad_name")?;
        farm.farmctl(TWO, &["cluster", "init", "--name", "second", "--profile", "fast"])?;
        let told = refused(&farm, TWO, &join, "already_member")?;
        ensure!(told.fact.contains("second"), "{told:?}");
        farm.kill_farmd(TWO)?;
        farm.start_farmd(TWO)?;
        let told = refused(&farm, TWO, &join, "already_member")?;
        ensure!(told.fact.contains("second"), "it remembers after a restart: {told:?}");
        let lonely = refused(&farm, TWO, &["node", "leave"], "last_node")?;
        ensure!(lonely.cure == told.cure, "{lonely:?} and {told:?} are cured alike");
        farm.kill_farmd(TWO)?;
        let [program, args @ ..] = &told.cure.split(' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("no command: {told:?}");
        };
        shell::run(farm.command(TWO, program)?.args(args))?;
        farm.start_farmd(TWO)?;
        farm.farmctl(TWO, &join).map(drop)
    })
}

/// Runs `test` while the daemon of `node` runs with a configuration in which `from` is `to`.
fn with_config(
    farm: &Farm,
    node: Place,
    from: &str,
    to: &str,
    test: impl FnOnce(&Farm) -> Result<()>,
) -> Result<()> {
    let wrong = wrong_config(farm, node, from, to)?;
    std::fs::rename(wrong, farm.directory(node)?.join("farmd.toml"))?;
    farm.start_farmd(node)?;
    test(farm)?;
    farm.kill_farmd(node)
}
