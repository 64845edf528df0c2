//! What happened to a module, and what its application writes, is told on any node of any node, also as it goes on.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use farm_lab::app::App;
use farm_lab::{Mode, Place, binaries};
use farm_tests::farm::{Event, Farm, LIMIT, farmctl_problem, json_lines};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];
const TWO: Place = ALL[1];
const THREE: Place = ALL[2];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));

/// A `farmctl` that goes on, and the lines that it prints. It is ended with the test.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn of(farm: &Farm, node: Place, args: &[&str]) -> Result<Self> {
        let mut command = farm.command(node, binaries::find("farmctl")?)?;
        let mut child = command.args(args).stdout(Stdio::piped()).spawn()?;
        let out = BufReader::new(child.stdout.take().context("piped")?);
        let (tell, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Ok(Self { child, lines })
    }

    /// The lines up to the first that says this.
    fn until(&self, part: &str) -> Result<Vec<String>> {
        let end = Instant::now() + LIMIT;
        let mut seen: Vec<String> = Vec::new();
        while !seen.last().is_some_and(|line| line.contains(part)) {
            let next = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()));
            seen.push(next.with_context(|| format!("no {part:?} behind {seen:#?}"))?);
        }
        Ok(seen)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The numbers of the beats in lines.
fn beats(lines: &[String]) -> Vec<u64> {
    let number = |line: &String| line.split_once("beat ")?.1.split(' ').next()?.parse().ok();
    lines.iter().filter_map(number).collect()
}

/// Where an event stands in the log.
fn index(event: &Event) -> Option<u64> {
    event.id.strip_prefix("log-")?.split('.').next()?.parse().ok()
}

#[test]
fn what_an_application_writes_is_followed_on_another_node_over_a_restart_of_its_daemon() -> Result<()> {
    let farm = Farm::up("logs-app", Mode::Directed)?;
    let app = App::light("beats")?;
    app.edit("bin/start_both", |text| {
        let beat = "n=0; while :; do n=$((n + 1)); echo \"beat $n on $FARM_NODE\"; sleep 0.05; done";
        text.replace("sleep 1000000 &", &format!("sleep 1000000 &\n({beat}) &"))
    })?;
    app.apply(&farm, ONE)?;
    farm.farmctl(ONE, &["module", "start", "beats", "--wait"])?;
    let applog = ["module", "applog", "beats", "--node", "node2"];
    let past = farm.farmctl(ONE, &[&applog[..], &["--last", "3"]].concat())?;
    ensure!(past.lines().count() == 3 && past.lines().all(|line| line.ends_with("on node2")), "{past}");

    let follower = Follower::of(&farm, ONE, &[&applog[..], &["--last", "1", "--follow"]].concat())?;
    let mut lines = follower.until("beat 40 ")?;
    farm.kill_farmd(TWO)?;
    lines.extend(follower.until("asking again")?);
    farm.start_farmd(TWO)?;
    lines.extend(follower.until("it answers again")?);
    std::thread::sleep(Duration::from_secs(1));
    lines.extend(follower.until("beat ")?);
    let beats = beats(&lines);
    ensure!(beats.windows(2).all(|two| two[1] == two[0] + 1), "each once and in order: {beats:?}");
    ensure!(beats.len() > 10, "{beats:?}");
    let refused = farm.farmctl_output(THREE, &["module", "applog", "mail", "--follow", "--json"])?;
    ensure!(farmctl_problem(&refused)?.code == "unknown_module", "{refused:?}");
    Ok(())
}

#[test]
fn what_happens_to_a_module_is_told_of_all_nodes_in_the_order_of_the_log() -> Result<()> {
    let farm = Farm::up("logs-module", Mode::Directed)?;
    let app = App::nginx("shop", VIP, 8080)?;
    let farmctl = binaries::find("farmctl")?.display().to_string();
    let says = format!("set -eu\n{farmctl} script log \"wakes up\"");
    app.edit("bin/start_both", |text| text.replace("set -eu", &says))?;
    app.run(&farm)?;
    let follower = Follower::of(&farm, THREE, &["module", "log", "shop", "--last", "1", "--follow"])?;
    farm.farmctl(ONE, &["module", "stop", "shop", "--wait"])?;
    farm.farmctl(ONE, &["module", "start", "shop", "--wait"])?;
    app.await_served_by(&farm, &ALL)?;
    let mut told = Vec::new();
    for _ in ALL {
        told.extend(follower.until("shop is up on ")?);
    }
    for node in ALL {
        let up = format!("shop is up on {node}");
        ensure!(told.iter().any(|line| line.contains(&up)), "{node}: {told:#?}");
    }
    drop(follower);

    let lines = farm.farmctl(TWO, &["module", "log", "shop", "--last", "500"])?;
    let lines: Vec<&str> = lines.lines().collect();
    let find = |from: usize, part: &str| -> Result<usize> {
        let at = lines.iter().skip(from).position(|line| line.contains(part));
        Ok(from + at.with_context(|| format!("no {part:?} from {from} on: {lines:#?}"))?)
    };
    for node in ALL {
        let said = find(0, &format!(" {node} wakes up"))?;
        let up = find(said, &format!("shop is up on {node}"))?;
        let gone = find(up, &format!("shop serves nobody on {node}"))?;
        let again = find(gone, &format!(" {node} wakes up"))?;
        find(again, &format!("shop is up on {node}"))?;
    }
    let ordered = |args: &str| -> Result<Vec<Event>> {
        json_lines(&farm.farmctl(TWO, &args.split(' ').collect::<Vec<_>>())?)
    };
    for args in ["module log shop --last 500 --json", "events --all --last 500 --json"] {
        let events = ordered(args)?;
        let indices: Vec<u64> = events.iter().filter_map(index).collect();
        ensure!(indices.len() > 8 && indices.is_sorted(), "{args}: {indices:?}");
    }
    let one = farm.farmctl(ONE, &["module", "log", "shop", "--node", "node3", "--last", "500"])?;
    ensure!(one.contains("node3 wakes up") && !one.contains("node2 wakes up"), "{one}");
    let refused = farm.farmctl_output(ONE, &["module", "log", "mail", "--json"])?;
    ensure!(farmctl_problem(&refused)?.code == "unknown_module", "{refused:?}");
    Ok(())
}
