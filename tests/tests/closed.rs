//! P2: a node whose lease has run out accepts nothing, whatever becomes of its daemon, filter and guard. All clients
//! send to that very node, with its own hardware address: were it open, it would answer all of them.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use farm_lab::topology::mac_text;
use farm_lab::witness::{BootTime, Verdict, Violation};
use farm_lab::{FIRST_VIP, Mode, Network, Place, binaries, shell};
use farm_tests::farm::{Farm, LIMIT};
use farm_tests::load::Load;

const ONE: Place = Place::Node(1);
const TWO: Place = Place::Node(2);
const THREE: Place = Place::Node(3);
const ALL: [Place; 3] = [ONE, TWO, THREE];

#[test]
fn a_node_is_closed_when_its_daemon_is_killed_frozen_or_stopped() -> Result<()> {
    closed_in(Mode::Directed)
}

#[test]
fn in_flood_mode_a_node_is_closed_when_its_daemon_is_killed_frozen_or_stopped() -> Result<()> {
    closed_in(Mode::Flood)
}

fn closed_in(mode: Mode) -> Result<()> {
    let farm = Farm::up("closed", mode)?;
    let mut load = Load::start(&farm, Place::Client)?;

    enter_at(&farm, &load, THREE)?;
    farm.freeze(THREE)?;
    load.expect_closed(THREE, Load::closed_since(BootTime::now()))?;
    farm.thaw(THREE)?;
    farm.await_shared_by(&ALL)?;

    enter_at(&farm, &load, TWO)?;
    farm.kill_farmd(TWO)?;
    let closed = Load::closed_since(BootTime::now());
    load.expect_closed(TWO, closed)?;
    ensure!(filtered(&farm, TWO)? && guarded(&farm, TWO)? == 0, "the filter outlives the daemon");
    let lost = BootTime::now();
    std::fs::remove_dir_all(farm.spec().pin_dir(TWO))?;
    load.expect_closed(TWO, closed)?;
    ensure!(!filtered(&farm, TWO)?, "without pins and daemon there is no filter");
    // Frames for the virtual MAC are somebody else's to a kernel without the filter, before the guard can count them.
    ensure!(mode == Mode::Flood || guarded(&farm, TWO)? > 0, "the guard alone closed the node");
    farm.start_farmd(TWO)?;
    farm.await_shared_by(&ALL)?;
    load.expect_no_filter(TWO, lost);

    enter_at(&farm, &load, ONE)?;
    let lost = BootTime::now();
    farm.terminate_farmd(ONE)?;
    load.expect_closed(ONE, BootTime::now())?;
    nothing_left(&farm, ONE)?;
    farm.start_farmd(ONE)?;
    farm.await_shared_by(&ALL)?;
    load.expect_no_filter(ONE, lost);
    load.await_answers_of(&ALL)?;
    load.upheld(TWO).map(drop)
}

#[test]
fn a_filter_or_guard_that_is_lost_never_opens_the_node_and_is_put_back() -> Result<()> {
    let farm = Farm::up("lost", Mode::Directed)?;
    let mut load = Load::start(&farm, Place::Client)?;

    // Frozen, so that nobody can put it back.
    enter_at(&farm, &load, THREE)?;
    farm.freeze(THREE)?;
    let closed = Load::closed_since(BootTime::now());
    load.expect_closed(THREE, closed)?;
    let lost = BootTime::now();
    detach(&farm, THREE)?;
    load.expect_closed(THREE, closed)?;
    ensure!(!filtered(&farm, THREE)?, "the link was detached by force");
    ensure!(guarded(&farm, THREE)? > 0, "the guard alone closed the node");
    farm.thaw(THREE)?;
    put_back(&farm, &load, THREE, 0)?;
    load.expect_no_filter(THREE, lost);

    enter_at(&farm, &load, TWO)?;
    let known = farm_events(&farm, TWO)?;
    let lost = BootTime::now();
    detach(&farm, TWO)?;
    put_back(&farm, &load, TWO, known)?;
    load.expect_no_filter(TWO, lost);

    enter_at(&farm, &load, ONE)?;
    let known = farm_events(&farm, ONE)?;
    shell::run(farm.command(ONE, "nft")?.args(["flush", "ruleset"]))?;
    put_back(&farm, &load, ONE, known)?;
    let table = shell::run(farm.command(ONE, "nft")?.args(["list", "table", "inet", "farm"]))?;
    ensure!(table.contains(&FIRST_VIP.to_string()), "the guard protects the virtual IP: {table}");

    another_program_is_refused(&farm, TWO)?;
    load.await_answers_of(&ALL)?;
    load.upheld(TWO).map(drop)
}

/// Lets the client send everything to `node`, whatever it is told, and waits until all are served that way. In flood
/// mode every frame reaches every node anyway.
fn enter_at(farm: &Farm, load: &Load<'_>, node: Place) -> Result<()> {
    if farm.spec().mode == Mode::Flood {
        return load.await_answers_of(&ALL);
    }
    let mac = mac_text(node.mac(Network::Lan).context("nodes are on the link")?);
    let entry = format!("neigh replace {FIRST_VIP} dev eth0 lladdr {mac} nud permanent\n");
    farm.namespace(Place::Client).ip(&entry)?;
    load.await_answers_of(&ALL)
}

/// Frames that the guard of `node` has dropped: each had come past the filter.
fn guarded(farm: &Farm, node: Place) -> Result<u64> {
    let table = shell::run(farm.command(node, "nft")?.args(["list", "table", "inet", "farm"]))?;
    let counts = table.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next());
    Ok(counts.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?.into_iter().sum())
}

fn farm_events(farm: &Farm, node: Place) -> Result<usize> {
    farm.events(node).map(|events| events.len())
}

/// The node says that something was lost and that it is back; then it serves its share again.
fn put_back(farm: &Farm, load: &Load<'_>, node: Place, known: usize) -> Result<()> {
    let lost = farm.await_event(node, "filter_lost", known)?;
    let restored = farm.await_event(node, "filter_restored", known)?;
    ensure!(restored.cause == lost.id, "{restored:?} names {lost:?} as its cause");
    ensure!(filtered(farm, node)?, "the filter is attached again");
    farm.await_shared_by(&ALL)?;
    load.await_answers_of(&ALL)
}

/// Is there an XDP program on the node's interface?
fn filtered(farm: &Farm, node: Place) -> Result<bool> {
    let shown = shell::run(farm.command(node, "ip")?.args(["link", "show", "dev", "eth0"]))?;
    Ok(shown.contains("prog/xdp"))
}

/// The pin of the link on the node's interface.
fn link_pin(farm: &Farm, node: Place) -> Result<PathBuf> {
    let pins = std::fs::read_dir(farm.spec().pin_dir(node))?;
    let mut links = pins
        .filter_map(|pin| pin.ok().map(|p| p.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link-")));
    links.next().with_context(|| format!("{node} has pinned its link"))
}

fn detach(farm: &Farm, node: Place) -> Result<()> {
    let pin = link_pin(farm, node)?;
    let pin = pin.to_str().context("pins have plain names")?;
    shell::run(farm.command(node, "bpftool")?.args(["link", "detach", "pinned", pin])).map(drop)
}

/// What a daemon left behind answers for the node until somebody takes it up: also when nothing is to be served
/// any more.
#[test]
fn a_daemon_takes_up_what_another_left_although_nothing_is_served_any_more() -> Result<()> {
    let farm = Farm::up("inherit", Mode::Directed)?;
    let vip = FIRST_VIP.to_string();
    farm.kill_farmd(THREE)?;
    ensure!(holds_address(&farm, THREE)?, "the address outlives the daemon");
    let remove = ["service", "remove", "--module", "web", "--vip", &vip, "--port", "80"];
    farm.farmctl(ONE, &remove)?;
    farm.start_farmd(THREE)?;
    farm.await_status(THREE, "the new daemon works with the newest epoch", LIMIT, |status| {
        status.nodes.iter().all(|n| n.applied >= status.epoch)
    })?;
    // The address goes after the table, which is what was awaited.
    let deadline = Instant::now() + LIMIT;
    while holds_address(&farm, THREE)? || guards(&farm, THREE, &vip)? {
        ensure!(Instant::now() < deadline, "the address of a service that is no more is left on {THREE}");
    }
    ensure!(filtered(&farm, THREE)?, "the filter that was found is in force, and owned");
    farm.terminate_farmd(THREE)?;
    nothing_left(&farm, THREE)
}

fn holds_address(farm: &Farm, node: Place) -> Result<bool> {
    let lo = shell::run(farm.command(node, "ip")?.args(["address", "show", "dev", "lo"]))?;
    Ok(lo.contains(&FIRST_VIP.to_string()))
}

fn guards(farm: &Farm, node: Place, vip: &str) -> Result<bool> {
    Ok(shell::run(farm.command(node, "nft")?.args(["list", "table", "inet", "farm"]))?.contains(vip))
}

/// Nothing can be put in the place of an attached filter, nor beside it.
fn another_program_is_refused(farm: &Farm, node: Place) -> Result<()> {
    let link = link_pin(farm, node)?;
    let link = link.to_str().context("pins have plain names")?;
    let shown = shell::run(farm.command(node, "bpftool")?.args(["-j", "link", "show", "pinned", link]))?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let program = shown["prog_id"].to_string();
    for overwrite in [&[][..], &["overwrite"][..]] {
        for mode in ["xdpgeneric", "xdpdrv"] {
            let args = [&["net", "attach", mode, "id", &program, "dev", "eth0"], overwrite].concat();
            let refused = farm.exec(node, "bpftool", &args)?;
            ensure!(!refused.status.success(), "bpftool {args:?} was let through: {refused:?}");
        }
    }
    for off in ["xdpgeneric", "xdp"] {
        let refused = farm.exec(node, "ip", &["link", "set", "dev", "eth0", off, "off"])?;
        ensure!(!refused.status.success() || filtered(farm, node)?, "{off} off took the filter away");
    }
    ensure!(filtered(farm, node)?, "the filter is still attached");
    Ok(())
}

/// An orderly stop leaves no address, no guard, no filter and no pins.
fn nothing_left(farm: &Farm, node: Place) -> Result<()> {
    ensure!(!holds_address(farm, node)?, "the address is gone");
    let rules = shell::run(farm.command(node, "nft")?.args(["list", "ruleset"]))?;
    ensure!(!rules.contains("table inet farm"), "the guard is gone: {rules}");
    ensure!(!filtered(farm, node)?, "the filter is gone");
    let pins = farm.spec().pin_dir(node);
    let left = std::fs::read_dir(&pins).map(|dir| dir.count()).unwrap_or(0);
    ensure!(left == 0, "{left} pins are left in {}", pins.display());
    Ok(())
}

#[test]
fn a_link_that_is_not_pinned_and_not_guarded_is_caught() -> Result<()> {
    let farm = Farm::up("planted", Mode::Directed)?;
    let mut load = Load::start(&farm, Place::Client)?;
    enter_at(&farm, &load, THREE)?;
    // A daemon that neither pins its link nor sets a guard: here a process holds the link in its place.
    farm.freeze(THREE)?;
    let closed = Load::closed_since(BootTime::now());
    shell::run(farm.command(THREE, "nft")?.args(["flush", "ruleset"]))?;
    let holder = hold_link(&farm, THREE)?;
    std::fs::remove_dir_all(farm.spec().pin_dir(THREE))?;
    load.expect_closed(THREE, closed)?;
    ensure!(filtered(&farm, THREE)?, "the link lives as long as its holder");
    let dead = BootTime::now();
    end(holder)?;
    // The kernel lets go of the last reference a little later.
    shell::await_value("the link dies with its holder", LIMIT, || {
        Ok((!filtered(&farm, THREE)?).then_some(()))
    })?;
    load.expect_closed(THREE, closed)?;
    farm.kill_farmd(THREE)?;
    let seen = load.stop(TWO)?;
    let Verdict::Broken(found) = seen.verdict() else { anyhow::bail!("not caught") };
    let open =
        |v: &&Violation| matches!(v, Violation::AcceptedWhileClosed(a) if a.node == THREE && a.at > dead);
    ensure!(found.iter().any(|v| open(&v)), "caught for another reason: {:?}", found.first());
    let passed =
        |v: &&Violation| matches!(v, Violation::PassedWhileClosed(s) if s.place == THREE && s.at > dead);
    ensure!(found.iter().any(|v| passed(&v)), "the tap on the node saw nothing: {:?}", found.first());
    Ok(())
}

/// Starts a process that holds the link of the node as long as it lives: by a pin in a mount of its own.
fn hold_link(farm: &Farm, node: Place) -> Result<Child> {
    const HOLD: &str =
        "mount -t bpf bpf /sys/fs/bpf && bpftool link pin id \"$1\" /sys/fs/bpf/held && echo held && cat";
    let link = link_pin(farm, node)?;
    let link = link.to_str().context("pins have plain names")?;
    let shown = shell::run(farm.command(node, "bpftool")?.args(["-j", "link", "show", "pinned", link]))?;
    let id = serde_json::from_str::<serde_json::Value>(&shown)?["id"].to_string();
    let mut command = farm.command(node, "unshare")?;
    command.args(["--mount", "--propagation", "private", "sh", "-c", HOLD, "sh", &id]);
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    BufReader::new(holder.stdout.as_mut().context("piped")?).read_line(&mut said)?;
    ensure!(said == "held\n", "the link is not held: {said}");
    Ok(holder)
}

/// Ends the holder; its mount goes with it.
fn end(mut holder: Child) -> Result<()> {
    drop(holder.stdin.take());
    ensure!(holder.wait()?.success(), "the holder ended well");
    Ok(())
}

/// nft is a process of its own, which other rulesets may hold up: nobody waits for it to serve, and it is said.
#[test]
fn a_node_whose_nft_hangs_goes_on_and_says_so() -> Result<()> {
    let farm = Farm::up("nft", Mode::Directed)?;
    let hangs = stub_nft(&farm, TWO)?;
    farm.kill_farmd(TWO)?;
    farm.start_farmd(TWO)?;
    farm.await_shared_by(&ALL)?;
    let load = Load::start(&farm, Place::Client)?;
    enter_at(&farm, &load, TWO)?;
    let known = farm_events(&farm, TWO)?;

    std::fs::write(&hangs, "")?;
    farm.await_event(TWO, "guard_unknown", known)?;
    farm.await_status(TWO, "the status says it", LIMIT, |status| {
        status.conditions.iter().any(|condition| condition.code == "guard_unknown")
    })?;
    farm.farmctl(ONE, &["module", "weight", "web", "node3", "50"])?;
    farm.await_applied()?;
    load.await_answers_of(&ALL)?;
    std::fs::remove_file(&hangs)?;
    farm.await_event(TWO, "guard_known", known)?;
    let events = farm.events(TWO)?;
    let lost = events.iter().skip(known).find(|event| event.kind == "filter_lost");
    ensure!(lost.is_none(), "{lost:?}");
    load.upheld(TWO).map(drop)
}

/// Lets the next daemon of `node` find an nft that hangs while the file exists whose name is given back.
fn stub_nft(farm: &Farm, node: Place) -> Result<PathBuf> {
    let home = farm.directory(node)?;
    let (tools, hangs) = (home.join("tools"), home.join("hangs"));
    std::fs::create_dir_all(&tools)?;
    let shown = |path: &Path| path.display().to_string();
    let nft = shell::run(std::process::Command::new("sh").args(["-c", "command -v nft"]))?;
    script(
        &tools.join("nft"),
        &format!("[ ! -e {} ] || exec sleep 600\nexec {} \"$@\"", shown(&hangs), nft.trim()),
    )?;
    let (farmd, tools) = (binaries::find("farmd")?, shown(&tools));
    script(&home.join("farmd"), &format!("PATH={tools}:$PATH exec {} \"$@\"", shown(&farmd)))?;
    Ok(hangs)
}

fn script(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}
