//! The second walk of ARCHITECTURE.md: one command. Shares change step by step, and nobody who is connected notices.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use farm_lab::witness::{BootTime, Content, Heading, Side, SynStream, acceptances};
use farm_lab::{BUCKETS, FIRST_VIP, FIRST_VIP6, Family, Mode, Place, Status, WEB_MODULE};
use farm_tests::farm::{Event, Farm, LIMIT, Service, json_lines};
use farm_tests::load::Load;
use farm_tests::talk::{Servers, Talk, Talking};

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const THREE: Place = Place::Node(3);
/// Where the long-lived connections go.
const TALK: u16 = 8080;
/// So many that some fall into the buckets that move.
const TALKS: u16 = 60;
/// First port of clients that come later: above those of the talking ones, below those of the load.
const LATER_PORT: u16 = 21_000;

#[test]
fn a_weight_changes_the_shares_and_disturbs_nobody() -> Result<()> {
    weight_under_load("command-d", Mode::Directed, FIRST_VIP)
}

#[test]
fn a_weight_changes_the_shares_and_disturbs_nobody_in_flood_mode() -> Result<()> {
    weight_under_load("command-f", Mode::Flood, FIRST_VIP)
}

#[test]
fn a_weight_changes_the_shares_and_disturbs_nobody_who_speaks_ipv6() -> Result<()> {
    weight_under_load("command-d6", Mode::Directed, FIRST_VIP6)
}

#[test]
fn a_weight_changes_the_shares_and_disturbs_nobody_who_speaks_ipv6_in_flood_mode() -> Result<()> {
    weight_under_load("command-f6", Mode::Flood, FIRST_VIP6)
}

fn weight_under_load(prefix: &str, mode: Mode, vip: IpAddr) -> Result<()> {
    let farm = Farm::on(prefix, mode, vip)?;
    let service = Service::tcp(vip, TALK);
    farm.add_service(service, "source-port")?;
    farm.await_applied()?;
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    let talks = Talk::open_many(&farm, service.at, TALKS)?;
    let mut load = Load::on(&farm, Place::Client, vip)?;
    let talking = Talking::start(talks);
    talking.await_rounds(20)?;
    load.await_answers_of(&[ONE, TWO, THREE])?;
    let known = farm.events(ONE)?.len();

    let at = BootTime::now();
    farm.farmctl(TWO, &["module", "weight", WEB_MODULE, "node2", "25"])?;
    farm.await_status(ONE, "node2 owns its new share", LIMIT, |s| shared(s, &[100, 25, 100]))?;
    farm.await_event(ONE, "buckets_activated", known)?;
    talking.await_rounds(100)?;
    load.await_answers_of(&[ONE, TWO, THREE])?;
    let held: BTreeMap<SocketAddr, Place> =
        talking.stop()?.into_iter().map(|talk| (talk.client, talk.node)).collect();
    let still = |s: &Status| s.module(WEB_MODULE).is_some_and(|m| m.open_changes == 0);
    farm.await_status(ONE, "the change is settled", LIMIT, still)?;
    farm.await_applied()?;
    let moved = moved(&farm, &held, service)?;
    ensure!(moved > 0, "void: no connection fell into a bucket that moved");
    load.await_everybody()?;

    load.expect_change(TWO, ONE, at);
    let seen = load.upheld(ONE)?;
    let reset = seen.resets(service.at);
    ensure!(reset.is_empty(), "connections were reset: {reset:?}");
    four_steps(&farm, known)
}

/// How many of the talking clients were held by others than who owns their buckets now.
fn moved(farm: &Farm, held: &BTreeMap<SocketAddr, Place>, service: Service) -> Result<usize> {
    let elsewhere = |(client, node): (&SocketAddr, &Place)| Ok(farm.owner(ONE, *client, service)? != *node);
    let elsewhere = held.iter().map(elsewhere).collect::<Result<Vec<bool>>>()?;
    Ok(elsewhere.into_iter().filter(|elsewhere| *elsewhere).count())
}

/// Are the shares of the nodes within one bucket of what their weights say?
fn shared(status: &Status, weights: &[u32]) -> bool {
    let total: u32 = weights.iter().sum();
    let fair = |weight: u32| f64::from(BUCKETS) * f64::from(weight) / f64::from(total);
    let near = |(node, weight): (Place, &u32)| {
        (f64::from(status.buckets(WEB_MODULE, node)) - fair(*weight)).abs() <= 1.0
    };
    let owned: u32 = Place::nodes(3).map(|node| status.buckets(WEB_MODULE, node)).sum();
    owned == BUCKETS && Place::nodes(3).zip(weights).all(near)
}

/// Every node tells the same: the weight, then the four steps, each a higher epoch.
fn four_steps(farm: &Farm, known: usize) -> Result<()> {
    let told = |node| -> Result<Vec<Event>> {
        let all = farm.events(node)?.into_iter().filter(|e| e.id.starts_with("log-"));
        let from_weight = all.skip_while(|e| e.kind != "weight_set");
        Ok(from_weight.filter(|e| e.kind.starts_with("buckets_") || e.kind == "weight_set").collect())
    };
    let first = told(ONE)?;
    in_order(first.get(1..).unwrap_or_default())?;
    ensure!(known > 0, "void: nothing had happened before");
    ensure!(first.windows(2).all(|w| w[0].epoch <= w[1].epoch), "epochs only grow: {first:?}");
    for node in [TWO, THREE] {
        let ids =
            |events: &[Event]| events.iter().map(|e| (e.id.clone(), e.text.clone())).collect::<Vec<_>>();
        let other = told(node)?;
        ensure!(ids(&other) == ids(&first), "{node} tells {other:?}, node1 {first:?}");
    }
    Ok(())
}

/// Every bucket takes all four steps, each after the one before. They go in groups, each at its own pace: at no time
/// have more of them come to one step than to the one before it.
fn in_order(steps: &[Event]) -> Result<()> {
    let order = ["buckets_prepared", "buckets_moved", "buckets_activated", "buckets_settled"];
    let mut came = [0; 4];
    for step in steps {
        let at = order.iter().position(|kind| *kind == step.kind).with_context(|| format!("{step:?}"))?;
        came[at] += buckets(step)?;
        ensure!(came.is_sorted_by(|earlier, later| earlier >= later), "{came:?} by {step:?} of {steps:?}");
    }
    ensure!(
        came[0] > 0 && came.iter().all(|count| *count == came[0]),
        "not all steps: {came:?} by {steps:?}"
    );
    Ok(())
}

/// How many buckets it tells of.
fn buckets(step: &Event) -> Result<u32> {
    let words: Vec<&str> = step.text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "buckets").context("an event of buckets")?;
    let count = at.checked_sub(1).and_then(|before| words[before].parse().ok());
    count.with_context(|| format!("no number of buckets: {step:?}"))
}

#[test]
fn services_come_and_go_and_a_weight_of_zero_drains() -> Result<()> {
    let farm = Farm::up("command-s", Mode::Directed)?;
    let service = Service::tcp(FIRST_VIP, TALK);
    let _servers = Servers::echo_tcp(&farm, service.at)?;
    ensure!(farm_refuses(&farm, service)?, "nobody serves {service} yet");
    farm.add_service(service, "source-address")?;
    farm.await_applied()?;
    drop(open_talk(&farm, service, 0)?);

    farm.farmctl(THREE, &["module", "weight", WEB_MODULE, "node2", "0"])?;
    farm.await_shared_by(&[ONE, THREE])?;
    let load = Load::start(&farm, Place::Remote)?;
    load.await_answers_of(&[ONE, THREE])?;
    load.await_everybody()?;
    let seen = load.upheld(ONE)?;
    let by_two = acceptances(&seen.testimony.sightings, &[FIRST_VIP]).into_iter().filter(|a| a.node == TWO);
    ensure!(by_two.count() == 0, "a node of weight 0 accepted something");
    farm.farmctl(ONE, &["module", "weight", WEB_MODULE, "node2", "100"])?;
    farm.await_shared_by(&[ONE, TWO, THREE])?;

    farm.service("remove", service, &[])?;
    farm.await_applied()?;
    ensure!(farm_refuses(&farm, service)?, "{service} was removed");
    every_answer_is_json(&farm)
}

fn open_talk(farm: &Farm, service: Service, client: u16) -> Result<Talk> {
    let ip = Place::Client.crowd(Family::of(service.at.ip())).next().context("a crowd")?;
    let mut talk = Talk::open(farm, Place::Client, SocketAddr::new(ip, LATER_PORT + client), service.at)?;
    talk.round()?;
    Ok(talk)
}

/// Does nobody say anything at all to clients of `service`? SYNs arrived, and none was answered.
fn farm_refuses(farm: &Farm, service: Service) -> Result<bool> {
    const SYNS: usize = 200;
    let witness = farm_lab::witness::Witness::start(farm, &[FIRST_VIP])?;
    let sources = SynStream::clients(Place::Client, Family::of(service.at.ip()), SYNS);
    let last = sources.last().copied();
    let syns = SynStream { from: Place::Client, sources, service: service.at, rate: 400 }.start(farm)?;
    let arrived = |s: &farm_lab::witness::Sighting| {
        let Content::Tcp(segment) = s.frame.content else { return false };
        let arrives = s.side == Side::Cable && s.heading == Heading::Arriving;
        arrives
            && matches!(s.place, Place::Node(_))
            && Some(segment.source) == last
            && segment.destination == service.at
    };
    witness.await_sighting("the last SYN", LIMIT, arrived)?;
    syns.stop()?;
    let testimony = witness.stop()?;
    let answers = acceptances(&testimony.sightings, &[FIRST_VIP]);
    Ok(answers.iter().all(|a| a.service != service.at))
}

/// What prints state prints it as JSON too, with the version of its shape.
fn every_answer_is_json(farm: &Farm) -> Result<()> {
    let client = "10.77.0.128:20000";
    let web = Service::tcp(FIRST_VIP, farm_lab::WEB_PORT).to_string();
    let commands: [&[&str]; 6] = [
        &["cluster", "status"],
        &["node", "list"],
        &["service", "list"],
        &["explain", client, &web],
        &["events", "--last", "20"],
        &["module", "weight", WEB_MODULE, "node1", "100"],
    ];
    for (command, node) in commands.into_iter().zip([ONE, TWO, THREE].into_iter().cycle()) {
        let args: Vec<&str> = command.iter().copied().chain(["--json"]).collect();
        let lines: Vec<serde_json::Value> = json_lines(&farm.farmctl(node, &args)?)?;
        ensure!(!lines.is_empty(), "{command:?} printed nothing");
        ensure!(lines.iter().all(|line| line["schema"] == 1), "{command:?} printed {lines:?}");
    }
    Ok(())
}
