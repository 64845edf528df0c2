//! The modules that come with Farm, with the real programs: started, dying, stopped.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use farm_lab::app::App;
use farm_lab::{Mode, Place, binaries, shell};
use farm_tests::container::Engines;
use farm_tests::farm::Farm;

const ALL: [Place; 3] = [Place::Node(1), Place::Node(2), Place::Node(3)];
const ONE: Place = ALL[0];
const TWO: Place = ALL[1];
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
const PORT: u16 = 8080;

/// It is on all nodes, dies on one by `death`, comes back there, and leaves nothing when it is stopped.
fn lives(farm: &Farm, app: &App, death: impl Fn() -> Result<()>) -> Result<()> {
    app.run(farm)?;
    let known = farm.events(TWO)?.len();
    death()?;
    farm.await_event(TWO, "module_closed", known)?;
    farm.await_event(TWO, "module_opened", known)?;
    app.await_served_by(farm, &ALL)?;
    farm.farmctl(ONE, &["module", "stop", &app.name, "--wait"])?;
    for node in ALL {
        ensure!(!app.group(farm, node)?.is_populated()?, "nothing of it is left on {node}");
    }
    Ok(())
}

#[test]
fn apache_is_kept_alive() -> Result<()> {
    let farm = Farm::up("apache", Mode::Directed)?;
    let app = App::apache("pages", VIP, PORT)?;
    lives(&farm, &app, || app.die(&farm, TWO))
}

#[test]
fn a_container_is_kept_alive() -> Result<()> {
    let farm = Farm::up("container", Mode::Directed)?;
    let app = App::copy("container", "boxed", VIP, PORT)?;
    let engines = Engines::of(&app, &farm)?;
    lives(&farm, &app, || engines.kill(TWO))?;
    for node in ALL {
        let left = engines.containers(node)?;
        ensure!(left.is_empty(), "{node} has {left:?}");
    }
    Ok(())
}

#[test]
fn every_one_of_them_is_accepted_as_farmctl_writes_it() -> Result<()> {
    let farm = Farm::up("templates", Mode::Directed)?;
    let (at, farmctl) = (tempfile::tempdir()?, binaries::find("farmctl")?.display().to_string());
    for template in ["nginx", "apache", "service", "container"] {
        let mut new = farm.command(ONE, &farmctl)?;
        shell::run(new.current_dir(at.path()).args(["module", "new", template, "--template", template]))?;
        let definition = at.path().join(template).join("module.toml");
        let text = std::fs::read_to_string(&definition)?;
        std::fs::write(&definition, text.replace("192.0.2.10", &VIP.to_string()))?;
        let directory = at.path().join(template).display().to_string();
        let rehearsed = farm.farmctl(ONE, &["module", "apply", &directory, "--dry-run"])?;
        ensure!(rehearsed.contains("rehearsal"), "{rehearsed}");
        let applied = farm.farmctl(ONE, &["module", "apply", &directory])?;
        ensure!(applied.contains("revision"), "{applied}");
        farm.farmctl(ONE, &["module", "remove", template])?;
    }
    Ok(())
}
