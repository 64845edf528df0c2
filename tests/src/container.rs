//! Containers of the nodes of a farm: one engine per node, with a web server that says whose it is.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use farm_lab::app::App;
use farm_lab::{Lab, Place, shell};

/// What the module's container is called.
const CONTAINER: &str = "farm-application";
const IMAGE: &str = "localhost/farm-web:1";
/// The port and the node are in its environment, as the module says.
const SERVES: &str = r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; echo $FARM_NODE >/www/index.html; /bin/busybox httpd -f -p $PORT -h /www & wait"]"#;
/// More than the machine that the tests run on may give cannot be asked for.
const LIMITS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";

/// The engines; their containers are gone when this is dropped.
pub struct Engines {
    program: PathBuf,
    nodes: Vec<Place>,
}

impl Engines {
    /// An engine with the image for every node of the lab; `app`, a copy of the project's module for containers, uses it.
    ///
    /// # Errors
    /// An engine does not work.
    pub fn of(app: &App, lab: &Lab) -> Result<Self> {
        let at = app.beside("engines")?;
        let limits = at.join("containers.conf");
        std::fs::write(&limits, LIMITS)?;
        let program = at.join("engine");
        // Engines of two nodes share nothing, as if they were on two machines.
        let own = format!("--root {0}/$FARM_NODE/store --runroot {0}/$FARM_NODE/run", at.display());
        let how = "--storage-driver vfs --runtime runc --cgroup-manager cgroupfs";
        let script = format!(
            "#!/bin/sh\nexport CONTAINERS_CONF={}\nexec podman {own} {how} \"$@\"\n",
            limits.display()
        );
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        let engines = Self { program, nodes: lab.nodes().collect() };
        let image = image(&app.beside("image")?)?;
        for node in &engines.nodes {
            shell::run(engines.on(*node).args(["import", "--change", SERVES]).arg(&image).arg(IMAGE))?;
        }
        app.edit("module.toml", |text| {
            let text = text.replace("\"docker\"", &format!("\"{}\"", engines.program.display()));
            text.replace("registry.example/application:1", IMAGE)
        })?;
        Ok(engines)
    }

    /// Kills the container of a node behind Farm's back.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, node: Place) -> Result<()> {
        shell::run(self.on(node).args(["kill", "--signal", "KILL", CONTAINER])).map(drop)
    }

    /// The containers on a node, running or not.
    ///
    /// # Errors
    /// The engine does not answer.
    pub fn containers(&self, node: Place) -> Result<Vec<String>> {
        let names = shell::run(self.on(node).args(["ps", "--all", "--format", "{{.Names}}"]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn on(&self, node: Place) -> Command {
        let mut command = Command::new(&self.program);
        command.env("FARM_NODE", node.to_string());
        command
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        for node in &self.nodes {
            // Nobody is left to be told.
            let _ = shell::run(self.on(*node).args(["rm", "--force", "--all"]));
            let _ = shell::run(self.on(*node).args(["rmi", "--force", "--all"]));
        }
    }
}

/// A root file system with a shell and a web server, as an archive.
fn image(at: &std::path::Path) -> Result<PathBuf> {
    let root = at.join("root");
    for directory in ["bin", "www"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static")?;
    std::os::unix::fs::symlink("busybox", root.join("bin/sh"))?;
    let archive = at.join("image.tar");
    shell::run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg("."))?;
    Ok(archive)
}
