//! What applications depend on is looked at: nodes whose application is not well serve nobody, and come back.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use farm_lab::app::App;
use farm_lab::{Life, Mode, Place, Status, shell};
use farm_tests::farm::{Farm, LIMIT, farmctl_problem};

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];
const TWO: Place = ALL[1];
const OTHERS: [Place; 2] = [ONE, ALL[2]];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
const PORT: u16 = 8080;

/// A farm of which every node runs nginx, with this at the end of its definition.
fn running(prefix: &str, more: &str) -> Result<(Farm, App)> {
    let farm = Farm::up(prefix, Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    app.edit("module.toml", |text| format!("{text}\n{more}"))?;
    app.run(&farm)?;
    Ok((farm, app))
}

/// Writes a script of the module.
fn script(app: &App, name: &str, text: &str) -> Result<()> {
    let path = app.directory().join("bin").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}"))?;
    Ok(std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?)
}

/// A script that finds fault as long as a file is there; which file of a node.
struct Fault(PathBuf);

impl Fault {
    fn of(app: &App) -> Result<Self> {
        let mark = app.beside("faults")?;
        script(app, "faultless", &format!("! cat {}/$FARM_NODE 2>/dev/null\n", mark.display()))?;
        Ok(Self(mark))
    }

    fn at(&self, node: Place) -> PathBuf {
        self.0.join(node.to_string())
    }

    fn begin(&self, node: Place, says: &str) -> Result<()> {
        std::fs::write(self.at(node), format!("{says}\n")).context("a fault")
    }

    fn end(&self, node: Place) -> Result<()> {
        std::fs::remove_file(self.at(node)).context("a fault")
    }
}

fn life(status: &Status, node: Place) -> Option<&Life> {
    let module = status.modules.iter().find(|m| m.module.name == "shop")?;
    module.lives.iter().find(|life| status.place(life.node) == Some(node))
}

fn await_place(farm: &Farm, node: Place, wanted: &str) -> Result<Status> {
    let is =
        |status: &Status| life(status, node).is_some_and(|l| format!("{} {}", l.place, l.status) == wanted);
    farm.await_status(ONE, &format!("the module is {wanted} on {node}"), LIMIT, is)
}

#[test]
fn one_that_hangs_is_found_started_again_and_serves() -> Result<()> {
    let check = format!(
        "[[check]]\nname = \"page\"\nhttp = \"http://127.0.0.1:{PORT}/\"\nbody = \"node\"\naction = \"restart\"\n[scripts]\nstop_timeout = \"1s\"\n"
    );
    let (farm, app) = running("check-hang", &check)?;
    let known = farm.events(TWO)?.len();
    let before = app.group(&farm, TWO)?.processes()?;
    // It lives, and its port is open: only who asks for a page notices.
    app.hang(&farm, TWO)?;
    let told = farm.await_event(TWO, "check_down", known)?;
    ensure!(told.text.contains("http.page is down") && told.text.contains("within 1s"), "{}", told.text);
    farm.await_event(TWO, "module_closed", known)?;
    farm.await_event(TWO, "module_opened", known)?;
    app.await_served_by(&farm, &ALL)?;
    let after = app.group(&farm, TWO)?.processes()?;
    ensure!(before.iter().all(|pid| !after.contains(pid)), "it was started again");
    Ok(())
}

#[test]
fn clients_come_when_it_is_well_and_not_before() -> Result<()> {
    let farm = Farm::up("check-slow", Mode::Directed)?;
    let app = App::small(0)?;
    // Its script ends long before it serves.
    app.edit("bin/start_both", |text| text.replace("exec busybox", "(sleep 3; exec busybox") + ") &\n")?;
    app.edit("module.toml", |text| {
        let check = format!("\n[[check]]\nname = \"port\"\ntcp = \"{}\"\n", app.at.port());
        text.split("[[process]]").next().unwrap_or_default().to_owned() + &check
    })?;
    app.apply(&farm, ONE)?;
    farm.farmctl(ONE, &["module", "start", &app.name, "--wait"])?;
    let answers = app.answers(&farm, Place::Client, 60)?;
    ensure!(!answers.contains_key(&None), "everybody is answered: {answers:?}");
    app.await_served_by(&farm, &ALL)
}

#[test]
fn what_waits_for_something_comes_back_by_itself() -> Result<()> {
    let farm = Farm::up("check-wait", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    let fault = Fault::of(&app)?;
    let check = "\n[[check]]\nname = \"disk\"\nprogram = \"faultless\"\naction = \"wait\"\n";
    app.edit("module.toml", |text| text.to_owned() + check)?;
    app.run(&farm)?;
    fault.begin(TWO, "the database is gone")?;
    let status = await_place(&farm, TWO, "wait not-ready")?;
    let life = life(&status, TWO).context("a life")?;
    ensure!(life.cause.contains("program.disk is down: the database is gone"), "{}", life.cause);
    app.await_served_by(&farm, &OTHERS)?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it runs meanwhile");
    fault.end(TWO)?;
    await_place(&farm, TWO, "up ready")?;
    app.await_served_by(&farm, &ALL)
}

#[test]
fn a_check_that_is_off_does_nothing_until_it_is_on_again() -> Result<()> {
    let farm = Farm::up("check-off", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    let fault = Fault::of(&app)?;
    let check = "\n[[check]]\nname = \"disk\"\nprogram = \"faultless\"\naction = \"wait\"\n";
    app.edit("module.toml", |text| text.to_owned() + check)?;
    app.run(&farm)?;
    let refused = farm.farmctl_output(ONE, &["checker", "off", "shop", "tcp.nothing"])?;
    ensure!(!refused.status.success(), "{refused:?}");
    farm.farmctl(ONE, &["checker", "off", "shop", "program.disk", "--node", "node2"])?;
    let known = farm.events(TWO)?.len();
    fault.begin(TWO, "a known fault")?;
    farm.await_event(TWO, "check_down", known)?;
    app.await_served_by(&farm, &ALL)?;
    // Also a daemon that has just been started knows that.
    farm.kill_farmd(TWO)?;
    farm.start_farmd(TWO)?;
    let known = farm.events(TWO)?.len();
    app.await_served_by(&farm, &ALL)?;
    farm.await_status(ONE, "the check is off and down", LIMIT, |status| {
        let resources = life(status, TWO).map(|life| life.resources.as_slice()).unwrap_or_default();
        resources.iter().any(|r| r.name == "program.disk" && r.off && r.state == "down")
    })?;
    farm.farmctl(ONE, &["checker", "on", "shop", "program.disk", "--node", "node2"])?;
    farm.await_event(TWO, "module_closed", known)?;
    await_place(&farm, TWO, "wait not-ready")?;
    app.await_served_by(&farm, &OTHERS)
}

#[test]
fn a_rule_says_what_checks_alone_cannot() -> Result<()> {
    let router = "[[check]]\nname = \"NAME\"\nping = \"IP\"\naction = \"noaction\"\nwhen = \"up\"\n";
    let one = router.replace("NAME", "client").replace("IP", "10.77.0.50");
    let other = router.replace("NAME", "nobody").replace("IP", "10.77.0.99");
    let rule = "[[rule]]\nname = \"alone\"\nif = \"all of ping.* is down\"\naction = \"stop\"\n";
    let (farm, app) = running("check-rule", &format!("{one}{other}{rule}"))?;
    let known = farm.events(TWO)?.len();
    let told = farm.await_event(TWO, "check_down", 0)?;
    ensure!(told.text.contains("ping.nobody is down"), "{}", told.text);
    ensure!(
        farm.events(TWO)?.iter().skip(known).all(|e| e.kind != "module_closed"),
        "one of the two answers"
    );
    // Now none does, for any node: each does what the rule says.
    farm.namespace(Place::Client).ip("link set eth0 down")?;
    for node in ALL {
        let status = await_place(&farm, node, "stop not-ready")?;
        let cause = &life(&status, node).context("a life")?.cause;
        ensure!(cause.contains("rule alone holds"), "{cause}");
    }
    farm.namespace(Place::Client).ip("link set eth0 up")?;
    farm.farmctl(ONE, &["module", "start", "shop", "--wait"])?;
    app.await_served_by(&farm, &ALL)
}

/// What this is not green says all that somebody needs.
fn ensure_explained(status: &Status) -> Result<()> {
    ensure!(!status.conditions.is_empty(), "something is not green");
    for condition in &status.conditions {
        ensure!(!condition.resource.is_empty() && !condition.cause.is_empty(), "{condition:?}");
        farmctl::args::parse_cure(&condition.next).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// How often a check that notes it was run on a node.
fn looks_of(mark: &Path, node: Place) -> usize {
    // Before the first one there is nothing.
    std::fs::read_to_string(mark.join(node.to_string())).unwrap_or_default().lines().count()
}

#[test]
fn what_flaps_does_nothing() -> Result<()> {
    let farm = Farm::up("check-flap", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    let mark = app.beside("faults")?;
    // Every second look is bad.
    let text = format!(
        "looks={}/$FARM_NODE\necho look >>$looks\n[ $(($(wc -l <$looks) % 2)) = 0 ]\n",
        mark.display()
    );
    script(&app, "flaps", &text)?;
    let check =
        "\n[[check]]\nname = \"door\"\nprogram = \"flaps\"\naction = \"stopstart\"\ninterval = \"100ms\"\n";
    app.edit("module.toml", |text| text.to_owned() + check)?;
    app.run(&farm)?;
    let looks = |node| looks_of(&mark, node);
    let known = looks(TWO);
    shell::await_value("it is looked twenty times", LIMIT, || Ok((looks(TWO) > known + 20).then_some(())))?;
    let events = farm.events(TWO)?;
    ensure!(!events.iter().any(|e| e.kind == "check_down" || e.kind == "module_closed"), "{events:?}");
    app.await_served_by(&farm, &ALL)
}

#[test]
fn a_router_that_nobody_reaches_stops_all_and_its_return_starts_all() -> Result<()> {
    let check = "[[check]]\nname = \"router\"\nping = \"10.77.0.50\"\naction = \"wait\"\n";
    let (farm, app) = running("check-router", check)?;
    farm.namespace(Place::Client).ip("link set eth0 down")?;
    for node in ALL {
        let status = await_place(&farm, node, "wait not-ready")?;
        let cause = &life(&status, node).context("a life")?.cause;
        ensure!(cause.contains("ping.router is down"), "{cause}");
        ensure_explained(&status)?;
    }
    farm.namespace(Place::Client).ip("link set eth0 up")?;
    app.await_served_by(&farm, &ALL)
}

#[test]
fn a_check_that_floods_and_forks_costs_nothing_but_itself() -> Result<()> {
    let farm = Farm::up("check-flood", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    let mark = app.beside("faults")?;
    // What it leaves behind has a name of its own.
    let sleeper = format!("{}.25", std::process::id());
    let text = format!(
        "sleep {sleeper} &\nsleep {sleeper} &\nhead -c 20000000 /dev/zero | tr '\\0' 'x'\necho look >>{}/$FARM_NODE\n",
        mark.display()
    );
    script(&app, "wild", &text)?;
    let check = "\n[[check]]\nname = \"wild\"\nprogram = \"wild\"\naction = \"noaction\"\ntimeout = \"10s\"\ninterval = \"100ms\"\n";
    app.edit("module.toml", |text| text.to_owned() + check)?;
    app.run(&farm)?;
    let looks = |node| looks_of(&mark, node);
    shell::await_value("it is looked ten times", LIMIT, || Ok((looks(TWO) > 10).then_some(())))?;
    let line = format!("sleep\0{sleeper}\0");
    let is_left = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|cmdline| cmdline == line)
    };
    let left = std::fs::read_dir("/proc")?.filter_map(Result::ok).filter(is_left).count();
    // Two of the look that is under way, on each node.
    ensure!(left <= 2 * ALL.len(), "{left} of some sixty processes are left");
    let answers = app.answers(&farm, Place::Client, 60)?;
    ensure!(!answers.contains_key(&None), "{answers:?}");
    Ok(())
}

#[test]
fn a_drain_that_takes_too_long_is_cut_short() -> Result<()> {
    let (farm, app) = running("check-drain", "")?;
    // One that holds its connection open: the drain waits for it.
    let mut held = Vec::new();
    let open = || farm.namespace(Place::Client).run(|| Ok(std::net::TcpStream::connect((VIP, PORT))?));
    for _ in 0..30 {
        held.push(open()?);
    }
    farm.farmctl(ONE, &["module", "stop", "shop", "--node", "node2"])?;
    await_place(&farm, TWO, "up transient")?;
    ensure!(app.group(&farm, TWO)?.is_populated()?, "it waits for its connections");
    farm.farmctl(ONE, &["module", "stop", "shop", "--node", "node2", "--no-drain", "--wait"])?;
    ensure!(!app.group(&farm, TWO)?.is_populated()?, "nothing of it is left on node2");
    drop(held);
    app.await_served_by(&farm, &OTHERS)
}

#[test]
fn wrong_checks_are_refused_by_line() -> Result<()> {
    let farm = Farm::up("check-bad", Mode::Directed)?;
    let app = App::nginx("shop", VIP, PORT)?;
    let lines = "\n[[check]]\nname = \"a\"\ntcp = \"x\"\n[[rule]]\nname = \"b\"\nif = \"tcp.b is up\"\naction = \"stop\"\n";
    app.edit("module.toml", |text| text.to_owned() + lines)?;
    let directory: &Path = &app.directory();
    let refused = farm.farmctl_output(ONE, &["module", "apply", &directory.display().to_string()])?;
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    ensure!(!refused.status.success(), "{said}");
    ensure!(said.contains("tcp = \"x\" is neither PORT nor HOST:PORT"), "{said}");
    ensure!(said.contains("names tcp.b, and no check and no process is called so"), "{said}");
    let unknown = farm.farmctl_output(ONE, &["checker", "off", "shop", "tcp.b", "--json"])?;
    ensure!(farmctl_problem(&unknown)?.code == "unknown_module", "{unknown:?}");
    Ok(())
}
