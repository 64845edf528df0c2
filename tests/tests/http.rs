//! Load balancers and Prometheus look at a node over HTTP.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farm_lab::app::App;
use farm_lab::{Mode, Place, shell};
use farm_tests::farm::{Farm, LIMIT};
use yaml_rust2::YamlLoader;

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const TWO: Place = ALL[1];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
const PORT: u16 = 9010;
/// Guard against a server that never answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Status and body of a page of a node, as the client sees it.
fn get(farm: &Farm, node: Place, path: &str) -> Result<(u16, String)> {
    let answer =
        ask(farm, node, &format!("GET {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("an answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn ask(farm: &Farm, node: Place, request: &str) -> Result<String> {
    let at = SocketAddr::new(node.address().into(), PORT);
    farm.namespace(Place::Client).run(|| {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

fn await_ready(farm: &Farm, node: Place, module: &str, wanted: u16) -> Result<String> {
    let path = format!("/var/modules/{module}/ready.txt");
    shell::await_value(&format!("{path} of {node} is {wanted}"), LIMIT, || {
        let (status, body) = get(farm, node, &path)?;
        Ok((status == wanted).then_some(body))
    })
}

#[test]
fn a_node_is_ready_as_long_as_it_serves() -> Result<()> {
    let farm = Farm::up("http-ready", Mode::Directed)?;
    let app = App::nginx("shop", VIP, 8080)?;
    app.run(&farm)?;
    for node in ALL {
        await_ready(&farm, node, "shop", 200)?;
        ensure!(get(&farm, node, "/healthz")? == (200, "ok\n".into()));
    }
    farm.farmctl(ALL[0], &["module", "stop", "shop", "--node", "node2", "--wait"])?;
    let why = await_ready(&farm, TWO, "shop", 404)?;
    ensure!(why == "not ready: shop is not up here\n", "{why}");
    farm.farmctl(ALL[0], &["module", "start", "shop", "--node", "node2", "--wait"])?;
    await_ready(&farm, TWO, "shop", 200)?;
    // Without a lease it accepts nobody, though its application runs.
    farm.power_off(ALL[0])?;
    farm.power_off(ALL[2])?;
    let why = await_ready(&farm, TWO, "shop", 404)?;
    ensure!(why == "not ready: it has no lease\n", "{why}");
    ensure!(get(&farm, TWO, "/healthz")?.0 == 200, "the daemon itself is well");
    ensure!(get(&farm, TWO, "/var/modules/mail/ready.txt")?.0 == 404);
    Ok(())
}

#[test]
fn metrics_are_numbers_with_names_and_change_with_what_happens() -> Result<()> {
    let farm = Farm::up("http-metrics", Mode::Directed)?;
    let app = App::nginx("shop", VIP, 8080)?;
    app.run(&farm)?;
    let value = |text: &str, sample: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
    };
    let (status, text) = get(&farm, TWO, "/metrics")?;
    ensure!(status == 200 && text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, number) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        ensure!(name.starts_with("farm_") && number.parse::<f64>().is_ok(), "{line}");
    }
    let documented = page("docs/operate/seeing.md")?;
    let shown = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let unknown: Vec<&str> = names(&shown).difference(&names(&documented)).copied().collect();
    ensure!(unknown.is_empty(), "not in seeing.md: {unknown:?}");
    let owned = value(&text, "farm_module_buckets_owned{module=\"shop\"}").context("buckets")?;
    ensure!((1300.0..1400.0).contains(&owned), "{owned}");
    ensure!(value(&text, "farm_module_ready{module=\"shop\"}") == Some(1.0), "{text}");
    let left = value(&text, "farm_lease_remaining_seconds").context("a lease")?;
    ensure!(left > 0.0 && left < 1.0, "{left}");
    let accepted = "farm_packets_total{verdict=\"accept\",reason=\"accept_owner\"}";
    let before = value(&text, accepted).context("packets")?;
    app.answers(&farm, Place::Client, 60)?;
    shell::await_value("what was accepted is counted", LIMIT, || {
        let (_, text) = get(&farm, TWO, "/metrics")?;
        Ok(value(&text, accepted).filter(|now| *now > before).map(drop))
    })?;
    farm.farmctl(ALL[0], &["module", "stop", "shop", "--node", "node2", "--wait"])?;
    shell::await_value("it is shown as stopped", LIMIT, || {
        let (_, text) = get(&farm, TWO, "/metrics")?;
        Ok((value(&text, "farm_module_ready{module=\"shop\"}") == Some(0.0)).then_some(()))
    })
}

/// All names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("farm_")).collect()
}

fn page(path: &str) -> Result<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn alerts_ask_for_metrics_that_there_are() -> Result<()> {
    let (rules, seeing) = (page("conf/prometheus-rules.yml")?, page("docs/operate/seeing.md")?);
    let parsed = YamlLoader::load_from_str(&rules)?;
    let group = &parsed[0]["groups"][0];
    let rules = group["rules"].as_vec().context("rules")?;
    ensure!(group["name"].as_str() == Some("farm") && rules.len() > 5);
    let known = names(&seeing);
    for rule in rules {
        let text = |key: &str| rule[key].as_str().with_context(|| format!("{key} of {rule:?}"));
        let asked = names(text("expr")?);
        ensure!(asked.is_subset(&known), "{} asks for {asked:?}", text("alert")?);
        let notes = &rule["annotations"];
        let cure = notes["description"].as_str().context("what to do")?;
        let cure = cure.replace("{{ $labels.module }}", "web").replace("{{ $labels.code }}", "no_leader");
        farmctl::args::parse_cure(&cure).map_err(anyhow::Error::msg)?;
        ensure!(notes["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{rule:?}");
        ensure!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()));
        humantime::parse_duration(text("for")?)?;
    }
    Ok(())
}

#[test]
fn who_sends_nonsense_or_nothing_harms_nobody() -> Result<()> {
    let farm = Farm::up("http-bad", Mode::Directed)?;
    let answer = ask(&farm, TWO, "nonsense\r\n\r\n")?;
    ensure!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    // It is refused, or cut off while it is still being sent.
    let refused = ask(&farm, TWO, &long);
    ensure!(refused.as_ref().is_ok_and(|a| a.starts_with("HTTP/1.1 4")) || refused.is_err(), "{refused:?}");
    ensure!(get(&farm, TWO, "/passwd")?.0 == 404);
    ensure!(
        ask(&farm, TWO, "DELETE /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?
            .starts_with("HTTP/1.1 405")
    );
    // More than it takes at once, none of which says anything: they are dropped, and others have their turn.
    let at = SocketAddr::new(TWO.address().into(), PORT);
    let silent = farm.namespace(Place::Client).run(|| {
        (0..100).map(|_| Ok(TcpStream::connect_timeout(&at, PATIENCE)?)).collect::<Result<Vec<_>>>()
    })?;
    shell::await_value("others have their turn", LIMIT, || {
        Ok(get(&farm, TWO, "/healthz").is_ok_and(|(status, _)| status == 200).then_some(()))
    })?;
    drop(silent);
    Ok(())
}
