//! HTTP: what load balancers, Prometheus and browsers are told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use farm_lab::app::App;
use farm_lab::{FIRST_VIP, Mode, Place, WEB_MODULE, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::web::{HTTP_PORT, ask, ask_itself, await_ready, ready};
use serde_json::Value;
use yaml_rust2::YamlLoader;

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];
const TWO: Place = ALL[1];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
const PORT: u16 = 8080;
const VIP_AT: SocketAddr = SocketAddr::new(VIP, PORT);
/// Guard against a server that never answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// A start of the module on node2 waits while the file is there.
fn hold_starts(app: &App, file: &Path) -> Result<()> {
    let wait =
        format!("set -eu\nwhile [ \"$FARM_NODE\" = node2 ] && [ -e {} ]; do sleep 0.1; done", file.display());
    app.edit("bin/start_both", |text| text.replace("set -eu", &wait))
}

#[test]
fn a_load_balancer_is_told_who_serves_a_module() -> Result<()> {
    let farm = Farm::up("http-ready", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    let scratch = tempfile::tempdir()?;
    let held = scratch.path().join("held");
    hold_starts(&app, &held)?;
    app.run(&farm)?;
    for node in ALL {
        await_ready(&farm, node, "shop", true)?;
        let answer = ask(&farm, Place::Client, node.address().into(), "/healthz")?;
        ensure!(answer.code == 200 && answer.body.contains(&node.to_string()), "{answer:?}");
    }
    ensure!(ready(&farm, ONE, "no-such")?.code == 404);

    std::fs::write(&held, "")?;
    app.die(&farm, TWO)?;
    let told = await_ready(&farm, TWO, "shop", false)?;
    ensure!(told.body.contains("not open"), "{told:?}");
    ensure!(ready(&farm, ONE, "shop")?.code == 200, "the others carry on");
    ensure!(ready(&farm, TWO, WEB_MODULE)?.code == 200, "and so does what else runs there");
    std::fs::remove_file(&held)?;
    await_ready(&farm, TWO, "shop", true)?;

    farm.farmctl(ONE, &["module", "stop", "shop", "--node", "node2", "--wait"])?;
    await_ready(&farm, TWO, "shop", false)?;
    farm.farmctl(ONE, &["module", "start", "shop", "--node", "node2", "--wait"])?;
    await_ready(&farm, TWO, "shop", true)?;

    farm.farmctl(ONE, &["module", "weight", "shop", "node2", "0"])?;
    let told = await_ready(&farm, TWO, "shop", false)?;
    ensure!(told.body.contains("none of its clients"), "{told:?}");
    farm.farmctl(ONE, &["module", "weight", "shop", "node2", "100"])?;
    await_ready(&farm, TWO, "shop", true)?;
    Ok(())
}

#[test]
fn a_node_that_has_lost_the_others_says_that_it_serves_nobody() -> Result<()> {
    let farm = Farm::up("http-lease", Mode::Directed)?;
    await_ready(&farm, TWO, WEB_MODULE, true)?;
    farm.cut(TWO)?;
    let told = await_ready(&farm, TWO, WEB_MODULE, false)?;
    ensure!(told.body.contains("lease"), "{told:?}");
    ensure!(ask_itself(&farm, TWO, "/healthz")?.code == 200, "its daemon works all the same");
    farm.heal(TWO)?;
    await_ready(&farm, TWO, WEB_MODULE, true)?;
    Ok(())
}

#[test]
fn the_virtual_ip_leads_to_no_daemon() -> Result<()> {
    let farm = Farm::up("http-vip", Mode::Directed)?;
    ensure!(ask(&farm, Place::Client, ONE.address().into(), "/healthz")?.code == 200);
    let answer = ask(&farm, Place::Client, FIRST_VIP, "/healthz");
    ensure!(answer.is_err(), "{answer:?}");
    Ok(())
}

#[test]
fn a_port_that_is_taken_costs_nobody_a_client_and_is_told() -> Result<()> {
    let farm = Farm::up("http-port", Mode::Directed)?;
    farm.kill_farmd(TWO)?;
    let other =
        farm.namespace(TWO).run(|| Ok(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, HTTP_PORT))?))?;
    farm.start_farmd(TWO)?;
    farm.await_shared_by(&ALL)?;
    let told = |status: &farm_lab::Status| status.conditions.iter().any(|c| c.code == "http_closed");
    let status = farm.await_status(TWO, "a condition tells of the port", LIMIT, told)?;
    let of = status.conditions.iter().filter(|c| c.code == "http_closed").map(|c| c.resource.as_str());
    let of: BTreeSet<&str> = of.collect();
    ensure!(of.contains(format!("{}:{HTTP_PORT}", TWO.address()).as_str()), "{of:?}");
    drop(other);
    farm.await_status(TWO, "the port is taken up", LIMIT, |status| !told(status))?;
    ensure!(ask_itself(&farm, TWO, "/healthz")?.code == 200);
    Ok(())
}

/// The numbers of a node, by name and labels; every line of them is one.
fn metrics(farm: &Farm, node: Place) -> Result<BTreeMap<String, f64>> {
    let answer = ask(farm, Place::Client, node.address().into(), "/metrics")?;
    ensure!(answer.code == 200 && answer.kind.starts_with("application/openmetrics-text"), "{answer:?}");
    ensure!(answer.body.ends_with("# EOF\n"), "it is whole");
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let number = |line: &str| {
        let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        Ok((name.to_owned(), value.parse().with_context(|| line.to_owned())?))
    };
    lines.map(number).collect()
}

#[test]
fn prometheus_reads_what_a_node_does() -> Result<()> {
    let farm = Farm::up("http-metrics", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    app.run(&farm)?;
    let answered = app.answers(&farm, Place::Client, 100)?;
    ensure!(!answered.contains_key(&None), "{answered:?}");
    // Made before the answers, it may be a second old.
    let accepted = |numbers: &BTreeMap<String, f64>| {
        numbers.get("farm_packets_total{verdict=\"accept\",reason=\"accept_owner\"}").copied()
    };
    let what = "the metrics have the counters of the filter";
    let documented = page("docs/operate/seeing.md")?;
    let text = ask_itself(&farm, TWO, "/metrics")?.body;
    let shown = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let documented = names(&documented);
    let shown = names(&shown);
    let unknown: Vec<&str> =
        shown.into_iter().map(family).filter(|name| !documented.contains(name)).collect();
    ensure!(unknown.is_empty(), "not in seeing.md: {unknown:?}");
    let numbers = shell::await_value(what, LIMIT, || {
        let counted = farm.counter(TWO, "accept_owner")?;
        let numbers = metrics(&farm, TWO)?;
        let seen = accepted(&numbers).context("accepted frames are counted")?;
        Ok((counted > 0 && seen >= counted as f64).then_some(numbers))
    })?;
    let of = |name: &str| numbers.get(name).copied().with_context(|| format!("{name} in {numbers:?}"));
    ensure!(of("farm_module_ready{module=\"shop\"}")? == 1.0);
    ensure!(of("farm_module_state{module=\"shop\",state=\"up\"}")? == 1.0);
    let started = "farm_script_run_seconds_count{module=\"shop\",script=\"start_both\",result=\"ok\"}";
    ensure!(of(started)? == 1.0);
    ensure!(of("farm_store_append_seconds_count")? > 0.0);
    ensure!(of("farm_lease_left_seconds")? > 0.0 && of("farm_lease_margin_seconds_count")? > 10.0);
    let mut owned = 0.0;
    let mut leaders = 0.0;
    for node in ALL {
        let numbers = metrics(&farm, node)?;
        owned += numbers.get("farm_module_buckets{module=\"shop\"}").context("owned")?;
        leaders += numbers.get("farm_raft_is_leader").context("leader")?;
    }
    ensure!(owned == 4096.0 && leaders == 1.0, "{owned} {leaders}");
    counts_connections(&farm)
}

/// A connection that stays open is counted by the node that owns its bucket, and by no other.
fn counts_connections(farm: &Farm) -> Result<()> {
    let open = farm.namespace(Place::Client).run(|| Ok(TcpStream::connect_timeout(&VIP_AT, PATIENCE)?))?;
    shell::await_value("one node counts the connection", LIMIT, || {
        let of = |name: &str| -> Result<Vec<f64>> {
            let node = |node| Ok(metrics(farm, node)?.get(name).copied().unwrap_or(f64::NAN));
            ALL.into_iter().map(node).collect()
        };
        let mut counted = of("farm_module_connections{module=\"shop\"}")?;
        let mut fullest = of("farm_module_bucket_connections_max{module=\"shop\"}")?;
        counted.sort_by(f64::total_cmp);
        fullest.sort_by(f64::total_cmp);
        Ok((counted == [0.0, 0.0, 1.0] && fullest == counted).then_some(()))
    })?;
    drop(open);
    Ok(())
}

/// A browser that has the page open on `node`.
struct Browser {
    curl: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    fn open(farm: &Farm, node: Place) -> Result<Self> {
        let url = format!("http://{}:{HTTP_PORT}/api/live", node.address());
        let mut curl = farm.command(Place::Client, "curl")?;
        let limit = LIMIT.as_secs().to_string();
        curl.args(["-s", "-N", "-m", &limit, &url]).stdout(Stdio::piped());
        let mut curl = curl.spawn()?;
        let lines = BufReader::new(curl.stdout.take().context("its output")?).lines();
        Ok(Self { curl, lines })
    }

    /// What comes next of this kind, when `wanted` holds of it.
    fn await_told(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut of = String::new();
        for line in self.lines.by_ref() {
            let line = line?;
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut of);
            }
            let Some(data) = line.strip_prefix("data: ").filter(|_| of == kind) else { continue };
            let told: Value = serde_json::from_str(data)?;
            ensure!(told["schema"] == 1, "{told}");
            if wanted(&told) {
                return Ok(told);
            }
        }
        bail!("the node ended the stream, or told nothing of the sort within {LIMIT:?}")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

/// The state of node2 in words.
fn state_of_two(told: &Value) -> Option<&Value> {
    let nodes = told["nodes"].as_array()?;
    let id = &nodes.iter().find(|n| n["node"]["name"] == TWO.to_string())?["node"]["id"];
    told["states"].as_array()?.iter().find(|s| s["node"] == *id)
}

#[test]
fn an_open_page_is_told_that_a_node_died_and_why() -> Result<()> {
    let farm = Farm::up("http-page", Mode::Directed)?;
    let page = ask(&farm, Place::Client, ONE.address().into(), "/")?;
    ensure!(
        page.code == 200 && page.kind.starts_with("text/html") && page.body.contains("/api/live"),
        "{page:?}"
    );
    let mut browser = Browser::open(&farm, ONE)?;
    let green = |told: &Value| told["open"].as_array().is_some_and(Vec::is_empty);
    let told = browser.await_told("status", green)?;
    ensure!(state_of_two(&told).is_some_and(|s| s["level"] == "green"), "{told}");

    farm.kill_farmd(TWO)?;
    // It comes once; states come again and again.
    browser.await_told("event", |told| told["kind"] == "buckets_moved")?;
    let red = |told: &Value| state_of_two(told).is_some_and(|s| s["level"] == "red");
    let told = browser.await_told("status", red)?;
    let said = told["open"].as_array().context("what is not green")?;
    let two = said.iter().find(|o| o["resource"] == TWO.to_string()).with_context(|| told.to_string())?;
    ensure!(two["cause"].as_str().is_some_and(|c| !c.is_empty()) && two["next"].is_string(), "{two}");
    // The command line says the same, word for word.
    let shown = farm.farmctl(ONE, &["cluster", "status"])?;
    let cause = two["cause"].as_str().context("a cause")?;
    ensure!(shown.contains(cause.split(" for ").next().unwrap_or(cause)), "{cause} in {shown}");
    farm.start_farmd(TWO)?;
    browser.await_told("status", |told| state_of_two(told).is_some_and(|s| s["level"] == "green"))?;
    Ok(())
}

#[test]
fn programs_are_told_what_the_command_line_prints() -> Result<()> {
    let farm = Farm::up("http-api", Mode::Directed)?;
    let json = |text: &str| serde_json::from_str::<Value>(text).with_context(|| text.to_owned());
    let answer = ask_itself(&farm, ONE, "/api/status")?;
    ensure!(answer.kind == "application/json", "{answer:?}");
    let (told, printed) = (json(&answer.body)?, json(&farm.farmctl(ONE, &["cluster", "status", "--json"])?)?);
    let keys = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
    ensure!(keys(&told) == keys(&printed) && told["nodes"][0]["node"] == printed["nodes"][0]["node"]);
    // Something may happen between the two questions.
    shell::await_value("both tell the same events", LIMIT, || {
        let told = ask_itself(&farm, ONE, "/api/events?last=3")?.body;
        let printed = farm.farmctl(ONE, &["events", "--last", "3", "--json"])?;
        Ok((told == printed && told.lines().count() == 3).then_some(()))
    })?;
    ensure!(ask_itself(&farm, ONE, "/api/events?last=x")?.code == 400);
    ensure!(ask_itself(&farm, ONE, "/elsewhere")?.code == 404);
    Ok(())
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() -> Result<()> {
    let (dashboard, seeing) = (page("conf/grafana-farm.json")?, page("docs/operate/seeing.md")?);
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let known = names(&seeing);
    let mut places = BTreeSet::new();
    for panel in panels {
        ensure!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        let at = &panel["gridPos"];
        ensure!(places.insert((at["y"].as_u64(), at["x"].as_u64())), "two panels at one place: {panel}");
        for target in panel["targets"].as_array().with_context(|| panel.to_string())? {
            let asked = names(target["expr"].as_str().context("a question")?);
            ensure!(!asked.is_empty() && asked.iter().all(|name| known.contains(family(name))), "{asked:?}");
        }
    }
    ensure!(panels.len() > 10);
    Ok(())
}

/// What a node answers to these bytes.
fn say(farm: &Farm, node: Place, request: &str) -> Result<String> {
    let at = SocketAddr::new(node.address().into(), HTTP_PORT);
    farm.namespace(Place::Client).run(|| {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

/// The family of a sample of a histogram.
fn family(name: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
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
        ensure!(
            asked.iter().all(|name| known.contains(family(name))),
            "{} asks for {asked:?}",
            text("alert")?
        );
        let notes = &rule["annotations"];
        let cure = notes["description"].as_str().context("what to do")?;
        let cure = cure.replace("{{ $labels.module }}", "web").replace("{{ $labels.code }}", "no_leader");
        farmctl::args::parse_cure(&cure).map_err(anyhow::Error::msg)?;
        ensure!(notes["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{rule:?}");
        ensure!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()));
        if let Some(held) = rule["for"].as_str() {
            humantime::parse_duration(held)?;
        }
    }
    Ok(())
}

#[test]
fn who_sends_nonsense_or_nothing_harms_nobody() -> Result<()> {
    let farm = Farm::up("http-bad", Mode::Directed)?;
    let answer = say(&farm, TWO, "nonsense\r\n\r\n")?;
    ensure!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    // It is refused, or cut off while it is still being sent.
    let refused = say(&farm, TWO, &long);
    ensure!(refused.as_ref().is_ok_and(|a| a.starts_with("HTTP/1.1 4")) || refused.is_err(), "{refused:?}");
    ensure!(ask_itself(&farm, TWO, "/passwd")?.code == 404);
    ensure!(
        say(&farm, TWO, "DELETE /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?
            .starts_with("HTTP/1.1 405")
    );
    // More than it takes at once, none of which says anything: they are dropped, and others have their turn.
    let at = SocketAddr::new(TWO.address().into(), HTTP_PORT);
    let silent = farm.namespace(Place::Client).run(|| {
        (0..300).map(|_| Ok(TcpStream::connect_timeout(&at, PATIENCE)?)).collect::<Result<Vec<_>>>()
    })?;
    shell::await_value("others have their turn", LIMIT, || {
        Ok(ask_itself(&farm, TWO, "/healthz").is_ok_and(|a| a.code == 200).then_some(()))
    })?;
    drop(silent);
    Ok(())
}
