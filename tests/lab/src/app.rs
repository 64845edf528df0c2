//! Applications of modules, as clients and their nodes see them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farm_host::cgroup::Cgroup;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::names::{NODES_MAX, Place};
use crate::shell;

/// Guard against clients that are never answered: many times what a busy machine needs.
const LIMIT: Duration = Duration::from_secs(60);

/// A client that has no answer within this tries again.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A module that needs little; what serves ends when its group is killed.
const SMALL: &str = r#"kind = "farm"

[env]
PORT = "@PORT@"

[[vip]]
address = "@VIP@"
mode = "directed"

[[service]]
protocol = "tcp"
port = @PORT@
criterion = "source-port"

[[process]]
name = "httpd"
regex = "^busybox httpd"
"#;
/// One without clients.
const LIGHT: &str = r#"kind = "light"

[[process]]
name = "sleeper"
command = "sleep"
"#;

/// Where the project has its module for `what`.
#[must_use]
pub fn template(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/modules").join(what)
}

/// A module in a scratch directory, by name.
pub struct App {
    /// Its name.
    pub name: String,
    /// Where clients find it.
    pub at: SocketAddr,
    directory: tempfile::TempDir,
}

impl App {
    /// The project's module for nginx, at `vip` and a port of its own; it says who answers.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn nginx(name: &str, vip: IpAddr, port: u16) -> Result<Self> {
        let app = Self::copy("nginx", name, vip, port)?;
        app.edit("nginx.conf", |text| text.replace("\"nginx\\n\"", "\"@NODE@\\n\""))?;
        app.edit("bin/start_both", |text| {
            text.replace("s|@VAR@|$FARM_VAR|g\"", "s|@VAR@|$FARM_VAR|g\" -e \"s|@NODE@|$FARM_NODE|g\"")
        })?;
        Ok(app)
    }

    /// The same for Apache, which serves a directory per node.
    ///
    /// # Errors
    /// As [`App::nginx`].
    pub fn apache(name: &str, vip: IpAddr, port: u16) -> Result<Self> {
        let app = Self::copy("apache", name, vip, port)?;
        let pages = app.directory.path().to_owned();
        // Apache drops its rights before it reads.
        std::fs::set_permissions(&pages, std::fs::Permissions::from_mode(0o755))?;
        for node in Place::nodes(NODES_MAX) {
            let index = app.beside(&node.to_string())?.join("index.html");
            std::fs::write(index, format!("{node}\n"))?;
        }
        let served = format!("{}/${{FARM_NODE}}", pages.display());
        app.edit("apache.conf", |text| text.replace("/var/www/html", &served))?;
        Ok(app)
    }

    /// The smallest that answers, one of many: each has a virtual IP and a port of its own, none of which is the daemon's.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn small(number: u8) -> Result<Self> {
        let (vip, port) = (Ipv4Addr::new(10, 77, 0, 60 + number), 9_100 + u16::from(number));
        let definition = SMALL.replace("@VIP@", &vip.to_string()).replace("@PORT@", &port.to_string());
        let serve = "mkdir -p $FARM_VAR/www\necho $FARM_NODE >$FARM_VAR/www/index.html\n\
                     exec busybox httpd -p $PORT -h $FARM_VAR/www\n";
        Self::write(format!("small{number}"), SocketAddr::new(vip.into(), port), &definition, serve)
    }

    /// One that does something for itself, without clients.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn light(name: &str) -> Result<Self> {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Self::write(name.into(), nowhere, LIGHT, "sleep 1000000 &\n")
    }

    /// What serves, and ends when its group is killed.
    fn write(name: String, at: SocketAddr, definition: &str, start: &str) -> Result<Self> {
        let app = Self { name, at, directory: tempfile::tempdir()? };
        let scripts = app.directory().join("bin");
        std::fs::create_dir_all(&scripts)?;
        std::fs::write(app.directory().join("module.toml"), definition)?;
        let start = format!("#!/bin/sh\nset -eu\n{start}");
        for (script, text) in [("start_both", start.as_str()), ("stop_both", "#!/bin/sh\nexit 0\n")] {
            std::fs::write(scripts.join(script), text)?;
            std::fs::set_permissions(scripts.join(script), std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(app)
    }

    /// The project's module for `what`, in a scratch directory, with clients told apart by their ports.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn copy(what: &str, name: &str, vip: IpAddr, port: u16) -> Result<Self> {
        let app =
            Self { name: name.to_owned(), at: SocketAddr::new(vip, port), directory: tempfile::tempdir()? };
        shell::run(Command::new("cp").arg("-r").arg(template(what)).arg(app.directory()))?;
        app.edit("module.toml", |text| {
            let text = text.replace("192.0.2.10", &vip.to_string());
            let text = text.replace("PORT = \"80\"", &format!("PORT = \"{port}\""));
            let text = text.replace("PORT = \"8080\"", &format!("PORT = \"{port}\""));
            text.replace("port = \"%PORT%\"", "port = \"%PORT%\"\ncriterion = \"source-port\"")
        })?;
        Ok(app)
    }

    /// A directory of this name beside it, for what it needs and Farm does not know.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn beside(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    /// Changes one of its files.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn edit(&self, file: &str, change: impl FnOnce(&str) -> String) -> Result<()> {
        let at = self.directory().join(file);
        let text = std::fs::read_to_string(&at).with_context(|| at.display().to_string())?;
        std::fs::write(&at, change(&text)).with_context(|| at.display().to_string())
    }

    /// `farmctl module apply` of it.
    ///
    /// # Errors
    /// It is refused.
    pub fn apply(&self, lab: &Lab, node: Place) -> Result<String> {
        let directory = self.directory();
        lab.farmctl(node, &["module", "apply", directory.to_str().context("UTF-8")?])
    }

    /// The same, started on every node and serving from all of them.
    ///
    /// # Errors
    /// It is refused, or does not get there.
    pub fn run(&self, lab: &Lab) -> Result<()> {
        let first = Place::Node(1);
        self.apply(lab, first)?;
        lab.farmctl(first, &["module", "start", &self.name, "--wait"])?;
        self.await_served_by(lab, &lab.nodes().collect::<Vec<_>>())
    }

    /// Who answers `count` new connections of the client, each of a port of its own; nobody counts where none does.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn answers(&self, lab: &Lab, from: Place, count: usize) -> Result<BTreeMap<Option<Place>, usize>> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let by = lab.namespace(from).run(|| Ok(ask(self.at).ok()))?;
            *answers.entry(by.and_then(|text| place(&text))).or_default() += 1;
        }
        Ok(answers)
    }

    /// What `count` new connections of the client are answered, each different text once.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn texts(&self, lab: &Lab, from: Place, count: usize) -> Result<BTreeSet<String>> {
        let ask = || lab.namespace(from).run(|| Ok(ask(self.at).unwrap_or_default()));
        (0..count).map(|_| ask()).collect()
    }

    /// Waits until clients are answered by exactly `places`.
    ///
    /// # Errors
    /// They are not.
    pub fn await_served_by(&self, lab: &Lab, places: &[Place]) -> Result<()> {
        let wanted: Vec<Option<Place>> = places.iter().copied().map(Some).collect();
        shell::await_value(&format!("{places:?} answer for {}", self.name), LIMIT, || {
            let answers = self.answers(lab, Place::Client, 30)?;
            Ok(answers.keys().eq(wanted.iter()).then_some(()))
        })
    }

    /// The group in which it runs on a node.
    ///
    /// # Errors
    /// There is none.
    pub fn group(&self, lab: &Lab, node: Place) -> Result<Cgroup> {
        group(lab, &self.name, node)
    }

    /// Stops all of its processes on a node: they live, and answer nobody any more.
    ///
    /// # Errors
    /// Nothing of it runs there.
    pub fn hang(&self, lab: &Lab, node: Place) -> Result<()> {
        for pid in self.group(lab, node)?.processes()? {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP)?;
        }
        Ok(())
    }

    /// See [`die`].
    ///
    /// # Errors
    /// As [`die`].
    pub fn die(&self, lab: &Lab, node: Place) -> Result<()> {
        die(lab, &self.name, node)
    }
}

fn group(lab: &Lab, module: &str, node: Place) -> Result<Cgroup> {
    let name = format!("{}/modules/{module}", lab.spec().cgroup(node));
    Cgroup::existing(&name).with_context(|| name.clone())
}

/// Kills everything of a module's application on a node, as one dies that nobody stopped.
///
/// # Errors
/// Nothing of it runs there.
pub fn die(lab: &Lab, module: &str, node: Place) -> Result<()> {
    let group = group(lab, module, node)?;
    ensure!(group.is_populated()?, "{module} runs on {node}");
    Ok(group.kill()?)
}

fn ask(at: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    ensure!(head.contains(" 200 "), "{head}");
    Ok(body.trim().to_owned())
}

fn place(name: &str) -> Option<Place> {
    name.strip_prefix("node")?.parse().ok().map(Place::Node)
}
