//! Applications under Farm's care: applied, started, dying, hanging, stopped, and found again.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use farm_lab::app::App;
use farm_lab::{Mode, Place, Status, shell};
use farm_tests::farm::{Event, Farm, LIMIT, farmctl_problem};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];
const TWO: Place = ALL[1];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
const PORT: u16 = 8080;

/// A farm of which every node runs the module.
fn running(prefix: &str, mode: Mode) -> Result<(Farm, App)> {
    let farm = Farm::up(prefix, mode)?;
    let app = App::nginx("shop", VIP, PORT)?;
    app.run(&farm)?;
    Ok((farm, app))
}

/// Where an event of this kind about `resource` stands behind `from`.
fn find(events: &[Event], from: usize, kind: &str) -> Result<usize> {
    let at = events.iter().skip(from).position(|e| e.kind == kind);
    let seen: Vec<&str> = events.iter().skip(from).map(|e| e.kind.as_str()).collect();
    Ok(from + at.with_context(|| format!("no {kind} in {seen:?}"))?)
}

fn place_of(status: &Status, node: Place) -> Option<String> {
    let module = status.modules.iter().find(|m| m.module.name == "shop")?;
    let life = module.lives.iter().find(|life| status.place(life.node) == Some(node))?;
    Some(format!("{} {}", life.place, life.status))
}

fn await_place(farm: &Farm, node: Place, wanted: &str) -> Result<Status> {
    let what = format!("the module is {wanted} on {node}");
    farm.await_status(ONE, &what, LIMIT, |status| place_of(status, node).as_deref() == Some(wanted))
}

#[test]
fn a_module_is_started_everywhere_and_stopped_one_node_after_the_other() -> Result<()> {
    let (farm, app) = running("module", Mode::Directed)?;
    farm.farmctl(ONE, &["module", "stop", "shop", "--node", "node2", "--wait"])?;
    app.await_served_by(&farm, &[ONE, ALL[2]])?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    // Local clients of that node reach the farm: the address is not theirs any more.
    let local = app.answers(&farm, TWO, 20)?;
    ensure!(!local.contains_key(&Some(TWO)) && !local.contains_key(&None), "{local:?}");
    farm.farmctl(TWO, &["module", "start", "shop", "--node", "node2", "--wait"])?;
    app.await_served_by(&farm, &ALL)?;
    let refused = farm.farmctl_output(ONE, &["module", "remove", "shop", "--json"])?;
    ensure!(farmctl_problem(&refused)?.code == "module_runs", "{refused:?}");
    farm.farmctl(ONE, &["module", "stop", "shop", "--wait"])?;
    for node in ALL {
        ensure!(!app.group(&farm, node)?.is_populated()?, "nothing of it is left on {node}");
    }
    farm.farmctl(ONE, &["module", "remove", "shop"])?;
    Ok(())
}

#[test]
fn an_application_that_dies_is_taken_over_started_again_and_gets_its_share_back() -> Result<()> {
    let (farm, app) = running("module-die", Mode::Directed)?;
    let known = farm.events(TWO)?.len();
    app.die(&farm, TWO)?;
    farm.await_event(TWO, "module_opened", known)?;
    app.await_served_by(&farm, &ALL)?;
    let events = farm.events(TWO)?;
    let died = find(&events, known, "process_down")?;
    let closed = find(&events, died, "module_closed")?;
    let moved = find(&events, closed, "buckets_moved")?;
    let others = find(&events, moved, "buckets_activated")?;
    let opened = find(&events, others, "module_opened")?;
    find(&events, opened, "buckets_prepared")?;
    ensure!(place_of(&farm.status(ONE)?, TWO).as_deref() == Some("up ready"));
    Ok(())
}

#[test]
fn the_fourth_death_stops_it_there_and_the_others_carry_on() -> Result<()> {
    let (farm, app) = running("module-loop", Mode::Directed)?;
    for _ in 0..3 {
        let known = farm.events(TWO)?.len();
        app.die(&farm, TWO)?;
        farm.await_event(TWO, "module_opened", known)?;
        await_place(&farm, TWO, "up ready")?;
    }
    app.die(&farm, TWO)?;
    let status = await_place(&farm, TWO, "stop not-ready")?;
    let told =
        status.conditions.iter().find(|c| c.code == "application_stopped").context("it is not green")?;
    ensure!(
        told.resource == "shop" && told.cause.contains("node2") && told.cause.contains("3 times"),
        "{told:?}"
    );
    app.await_served_by(&farm, &[ONE, ALL[2]])?;
    // Somebody acts by hand: it may be helped again.
    farm.farmctl(ONE, &["module", "start", "shop", "--node", "node2", "--wait"])?;
    app.await_served_by(&farm, &ALL)?;
    ensure!(farm.status(ONE)?.conditions.iter().all(|c| c.code != "application_stopped"), "and all is green");
    Ok(())
}

#[test]
fn an_application_outlives_its_daemon_and_is_not_started_twice() -> Result<()> {
    let (farm, app) = running("module-daemon", Mode::Directed)?;
    let before = app.group(&farm, TWO)?.processes()?;
    farm.kill_farmd(TWO)?;
    app.await_served_by(&farm, &[ONE, ALL[2]])?;
    ensure!(app.group(&farm, TWO)?.processes()? == before, "it goes on");
    farm.start_farmd(TWO)?;
    app.await_served_by(&farm, &ALL)?;
    ensure!(app.group(&farm, TWO)?.processes()? == before, "and was not started again");
    // The new daemon watches it.
    let known = farm.events(TWO)?.len();
    app.die(&farm, TWO)?;
    farm.await_event(TWO, "module_opened", known)?;
    app.await_served_by(&farm, &ALL)
}

#[test]
fn a_script_that_fails_or_hangs_is_told_and_the_others_carry_on() -> Result<()> {
    let (farm, app) = running("module-script", Mode::Directed)?;
    app.edit("bin/start_both", |text| {
        text.replace("set -eu", "set -eu\n[ \"$FARM_NODE\" != node2 ] || { echo wants to hang; sleep 600; }")
    })?;
    app.edit("module.toml", |text| text.replace("[[vip]]", "[scripts]\nstart_timeout = \"1s\"\n[[vip]]"))?;
    app.apply(&farm, ONE)?;
    app.await_served_by(&farm, &ALL)?;
    let known = farm.events(TWO)?.len();
    farm.farmctl(ONE, &["module", "restart", "shop", "--node", "node2"])?;
    let told = farm.await_event(TWO, "script_failed", known)?;
    ensure!(told.text == "start_both did not end within 1s", "{}", told.text);
    await_place(&farm, TWO, "stop not-ready")?;
    app.await_served_by(&farm, &[ONE, ALL[2]])?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    let log = farm.farmctl(ONE, &["module", "applog", "shop", "--node", "node2"])?;
    ensure!(log.contains("start_both: wants to hang"), "{log}");
    farm.farmctl(ONE, &["module", "rollback", "shop"])?;
    farm.farmctl(ONE, &["module", "start", "shop", "--node", "node2", "--wait"])?;
    app.await_served_by(&farm, &ALL)
}

#[test]
fn what_a_script_asks_for_waits_for_its_end() -> Result<()> {
    let (farm, app) = running("module-say", Mode::Directed)?;
    let farmctl = farm_lab::binaries::find("farmctl")?.display().to_string();
    app.edit("bin/start_both", |text| {
        let says = format!("set -eu\n[ \"$FARM_NODE\" != node2 ] || {{ {farmctl} script error no licence; {farmctl} script stop; }}");
        text.replace("set -eu", &says)
    })?;
    app.apply(&farm, ONE)?;
    let known = farm.events(TWO)?.len();
    farm.farmctl(ONE, &["module", "restart", "shop", "--node", "node2"])?;
    let told = farm.await_event(TWO, "script_error", known)?;
    ensure!(told.text == "no licence" && told.resource == "shop", "{told:?}");
    await_place(&farm, TWO, "stop not-ready")?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    let events = farm.events(TWO)?;
    let failed = events.iter().skip(known).find(|e| e.kind == "script_failed");
    ensure!(failed.is_none(), "it was stopped, not failed: {failed:?}");
    app.await_served_by(&farm, &[ONE, ALL[2]])
}

#[test]
fn one_that_burns_every_core_costs_nobody_his_lease() -> Result<()> {
    let (farm, app) = running("module-burn", Mode::Directed)?;
    app.edit("bin/start_both", |text| {
        format!("{text}\nfor core in 1 2 3 4; do (while :; do :; done) & done\n")
    })?;
    app.apply(&farm, ONE)?;
    let leader = farm.leader()?;
    let known = farm.events(leader)?.len();
    farm.farmctl(ONE, &["module", "restart", "shop", "--node", "node2", "--wait"])?;
    let answers = app.answers(&farm, Place::Client, 200)?;
    ensure!(ALL.iter().all(|node| answers.contains_key(&Some(*node))), "{answers:?}");
    ensure!(!answers.contains_key(&None), "everybody is answered: {answers:?}");
    let events = farm.events(leader)?;
    let lost = events.iter().skip(known).find(|e| e.kind == "node_silent" || e.kind == "node_idle");
    ensure!(lost.is_none(), "{lost:?}");
    Ok(())
}

#[test]
fn a_stop_that_a_death_of_the_daemon_interrupts_goes_on_with_the_scripts_that_started_it() -> Result<()> {
    let (farm, app) = running("module-stopped", Mode::Directed)?;
    let marks = app.beside("marks")?;
    let (go, by) = (marks.join("go"), |which: &str| marks.join(which));
    let stop = |which: &str| {
        format!(
            "set -eu\ntouch {}\nwhile [ ! -e {} ]; do sleep 0.05; done",
            by(which).display(),
            go.display()
        )
    };
    app.edit("bin/stop_both", |text| text.replacen("set -eu", &stop("first"), 1))?;
    app.apply(&farm, ONE)?;
    std::fs::write(&go, "")?;
    farm.farmctl(ONE, &["module", "restart", "shop", "--wait"])?;
    std::fs::remove_file(&go)?;
    app.edit("bin/stop_both", |text| text.replace("/first", "/second"))?;
    app.apply(&farm, ONE)?;
    farm.farmctl(ONE, &["module", "stop", "shop", "--node", "node2", "--no-drain"])?;
    shell::await_value("its script runs", LIMIT, || Ok(by("first").exists().then_some(())))?;
    farm.kill_farmd(TWO)?;
    farm.start_farmd(TWO)?;
    std::fs::write(&go, "")?;
    await_place(&farm, TWO, "stop not-ready")?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    ensure!(!by("second").exists(), "what was applied later has started nothing, and stops nothing");
    app.await_served_by(&farm, &[ONE, ALL[2]])
}

#[test]
fn a_node_that_leaves_takes_nothing_with_it() -> Result<()> {
    let (farm, app) = running("module-leave", Mode::Directed)?;
    let leader = farm.leader()?;
    let leaver = farm.others(leader).pop().context("a follower")?;
    let stopped = app.beside("marks")?.join("stopped");
    app.edit("bin/stop_both", |text| {
        text.replacen("set -eu", &format!("set -eu\ntouch {}-$FARM_NODE", stopped.display()), 1)
    })?;
    app.apply(&farm, ONE)?;
    farm.farmctl(leaver, &["module", "restart", "shop", "--node", &leaver.to_string(), "--wait"])?;
    farm.farmctl(leaver, &["node", "leave"])?;
    farm.await_alone(leaver)?;
    let mark = format!("{}-{leaver}", stopped.display());
    ensure!(std::path::Path::new(&mark).exists(), "it was stopped by its script");
    ensure!(
        app.group(&farm, leaver).is_err() || !app.group(&farm, leaver)?.is_populated()?,
        "nothing of it runs"
    );
    app.await_served_by(&farm, &farm.others(leaver))
}

#[test]
fn a_node_that_loses_its_power_starts_it_again() -> Result<()> {
    let (farm, app) = running("module-power", Mode::Directed)?;
    farm.power_off(TWO)?;
    app.await_served_by(&farm, &[ONE, ALL[2]])?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    farm.power_on(TWO)?;
    app.await_served_by(&farm, &ALL)
}

#[test]
fn a_machine_that_goes_down_stops_it_in_order_and_starts_it_with_the_next_boot() -> Result<()> {
    let (farm, app) = running("module-shut", Mode::Directed)?;
    let mark = farm.directory(TWO)?.join("stopped");
    app.edit("bin/stop_both", |text| {
        text.replace("set -eu", &format!("set -eu\ndate >>{}-$FARM_NODE", mark.display()))
    })?;
    app.apply(&farm, ONE)?;
    farm.farmctl(TWO, &["module", "restart", "shop", "--wait"])?;
    let said = farm.farmctl(TWO, &["node", "shutdown"])?;
    ensure!(said == "stopped: shop\n", "{said}");
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    ensure!(mark.with_file_name("stopped-node2").exists(), "by its script");
    app.await_served_by(&farm, &[ONE, ALL[2]])?;
    ensure!(farm.farmctl(TWO, &["node", "shutdown"])? == "no application runs here\n");
    farm.power_off(TWO)?;
    farm.power_on(TWO)?;
    app.await_served_by(&farm, &ALL)
}

#[test]
fn where_it_fails_alike_everywhere_nothing_oscillates() -> Result<()> {
    let (farm, app) = running("module-all", Mode::Directed)?;
    app.edit("bin/start_both", |text| text.replace("set -eu", "set -eu\nexit 1"))?;
    app.apply(&farm, ONE)?;
    farm.farmctl(ONE, &["module", "restart", "shop"])?;
    for node in ALL {
        await_place(&farm, node, "stop not-ready")?;
    }
    let list = farm.farmctl(ONE, &["module", "list"])?;
    ensure!(list.contains("start_both ended with exit code 1"), "it says why: {list}");
    farm.farmctl(ONE, &["module", "rollback", "shop"])?;
    farm.farmctl(ONE, &["module", "start", "shop", "--wait"])?;
    app.await_served_by(&farm, &ALL)
}

#[test]
fn what_is_applied_during_a_failover_is_in_force_everywhere_afterwards() -> Result<()> {
    let (farm, app) = running("module-push", Mode::Directed)?;
    let leader = farm.leader()?;
    let [one, other] = farm.others(leader).try_into().ok().context("three nodes")?;
    app.edit("bin/start_both", |text| text.replace("$FARM_NODE", "$FARM_NODE-anew"))?;
    farm.power_off(leader)?;
    // Nobody leads yet: it is taken up by who leads next.
    app.apply(&farm, one)?;
    app.await_served_by(&farm, &[one, other])?;
    farm.farmctl(other, &["module", "restart", "shop", "--wait", "--node", &one.to_string()])?;
    farm.farmctl(one, &["module", "restart", "shop", "--wait", "--node", &other.to_string()])?;
    farm.power_on(leader)?;
    let anew = || {
        let texts = app.texts(&farm, Place::Client, 30)?;
        let all = ALL.iter().all(|node| texts.contains(&format!("{node}-anew")));
        Ok((all && texts.len() == ALL.len()).then_some(()))
    };
    shell::await_value("all nodes serve what was applied", LIMIT, anew)
}

#[test]
fn what_scripts_write_is_logged_whatever_it_is() -> Result<()> {
    let (farm, app) = running("module-bytes", Mode::Directed)?;
    app.edit("bin/start_both", |text| {
        text.replace("set -eu", "set -eu\nprintf 'no \\377 text\\n'\nyes flood | head -c 20000000\nsetsid sh -c 'trap \"\" TERM HUP; exec sleep 1000' &")
    })?;
    app.apply(&farm, ONE)?;
    farm.farmctl(ONE, &["module", "restart", "shop", "--wait"])?;
    app.await_served_by(&farm, &ALL)?;
    let log = farm.directory(TWO)?.join("data/modules/shop/log");
    let kept = shell::run(std::process::Command::new("du").arg("-sk").arg(&log))?;
    let kilobytes: u64 = kept.split_whitespace().next().context("du")?.parse()?;
    ensure!(kilobytes < 4 * 2_100, "no more than four files of 2 MiB: {kept}");
    let told = farm.farmctl(ONE, &["module", "applog", "shop", "--node", "node2", "--last", "10000"])?;
    ensure!(told.contains("start_both: no \u{fffd} text"), "{}", &told[..told.len().min(2_000)]);
    // What it has left behind, and what wants to stay, goes with it.
    farm.farmctl(ONE, &["module", "stop", "shop", "--wait"])?;
    for node in ALL {
        ensure!(!app.group(&farm, node)?.is_populated()?, "nothing of it is left on {node}");
    }
    Ok(())
}

#[test]
fn a_light_one_is_kept_alive_without_an_address() -> Result<()> {
    let farm = Farm::up("module-light", Mode::Directed)?;
    let app = App::light("batch")?;
    app.apply(&farm, ONE)?;
    farm.farmctl(ONE, &["module", "start", "batch", "--wait"])?;
    let before = app.group(&farm, TWO)?.processes()?;
    let known = farm.events(TWO)?.len();
    app.die(&farm, TWO)?;
    farm.await_event(TWO, "module_opened", known)?;
    let after = app.group(&farm, TWO)?.processes()?;
    ensure!(!after.is_empty() && before != after, "{before:?}, then {after:?}");
    farm.farmctl(ONE, &["module", "stop", "batch", "--wait"])?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    Ok(())
}

#[test]
fn thirty_two_of_them_live_side_by_side() -> Result<()> {
    let farm = Farm::unborn("module-many", Mode::Directed)?;
    farm.run_cluster()?;
    let apps = (0..32).map(App::small).collect::<Result<Vec<_>>>()?;
    for app in &apps {
        app.apply(&farm, ONE)?;
        farm.farmctl(ONE, &["module", "start", &app.name])?;
    }
    for app in &apps {
        app.await_served_by(&farm, &ALL)?;
    }
    let known = farm.events(TWO)?.len();
    apps[7].die(&farm, TWO)?;
    farm.await_event(TWO, "module_opened", known)?;
    apps[7].await_served_by(&farm, &ALL)?;
    let events = farm.events(TWO)?;
    let others = events.iter().skip(known).filter(|e| e.kind.starts_with("module_"));
    let others: Vec<&Event> = others.filter(|e| e.resource != apps[7].name).collect();
    ensure!(others.is_empty(), "the others notice nothing: {others:?}");
    Ok(())
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_touched() -> Result<()> {
    let farm = Farm::up("module-bad", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    let directory = app.directory().display().to_string();
    app.edit("module.toml", |text| text.replace("kind = \"farm\"", "kind = \"farm\"\nkolor = \"red\""))?;
    let refused = farm.farmctl_output(ONE, &["module", "apply", &directory])?;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    ensure!(!refused.status.success() && said.contains("module.toml:") && said.contains("kolor"), "{said}");
    app.edit("module.toml", |text| text.replace("\nkolor = \"red\"", ""))?;
    // The web module has this one.
    app.edit("module.toml", |text| text.replace(&VIP.to_string(), "10.77.0.100"))?;
    let refused = farm.farmctl_output(ONE, &["module", "apply", &directory, "--json"])?;
    ensure!(farmctl_problem(&refused)?.code == "vip_taken", "{refused:?}");
    app.edit("module.toml", |text| text.replace("10.77.0.100", &VIP.to_string()))?;
    app.edit("bin/prestart", |text| format!("{text}{}", "# large\n".repeat(64 * 1024)))?;
    let refused = farm.farmctl_output(ONE, &["module", "apply", &directory])?;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    ensure!(!refused.status.success() && said.contains("bin/prestart"), "{refused:?}");
    app.edit("bin/prestart", |text| text.replace("# large\n", ""))?;
    let rehearsed = farm.farmctl(ONE, &["module", "apply", &directory, "--dry-run"])?;
    ensure!(rehearsed.contains("rehearsal"), "{rehearsed}");
    let list = farm.farmctl(ONE, &["module", "list"])?;
    ensure!(!list.contains("shop"), "nothing was done: {list}");
    let applied = app.apply(&farm, ONE)?;
    ensure!(applied.contains("revision"), "{applied}");
    ensure!(app.apply(&farm, ALL[2])?.contains("like that already"));
    Ok(())
}
