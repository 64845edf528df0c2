//! Applications of modules, as clients and their nodes see them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farm_host::cgroup::Cgroup;
use farm_lab::{Place, shell};

use crate::farm::{Farm, LIMIT};

/// A client that has no answer within this tries again.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A module in a scratch directory, by name.
pub struct App {
    /// Its name.
    pub name: &'static str,
    /// Where clients find it.
    pub at: SocketAddr,
    directory: tempfile::TempDir,
}

impl App {
    /// The project's module for nginx, at `vip` and a port of its own.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn nginx(name: &'static str, vip: IpAddr, port: u16) -> Result<Self> {
        let app = Self { name, at: SocketAddr::new(vip, port), directory: tempfile::tempdir()? };
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/modules/nginx");
        shell::run(std::process::Command::new("cp").arg("-r").arg(&conf).arg(app.directory()))?;
        app.edit("module.toml", |text| {
            let text = text.replace("192.0.2.10", &vip.to_string());
            let text = text.replace("PORT = \"80\"", &format!("PORT = \"{port}\""));
            text.replace("port = \"%PORT%\"", "port = \"%PORT%\"\ncriterion = \"source-port\"")
        })?;
        // It says who answers.
        app.edit("nginx.conf", |text| text.replace("\"nginx\\n\"", "\"@NODE@\\n\""))?;
        app.edit("bin/start_both", |text| {
            text.replace("s|@VAR@|$FARM_VAR|g\"", "s|@VAR@|$FARM_VAR|g\" -e \"s|@NODE@|$FARM_NODE|g\"")
        })?;
        Ok(app)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.directory.path().join(self.name)
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
    pub fn apply(&self, farm: &Farm, node: Place) -> Result<String> {
        let directory = self.directory();
        farm.farmctl(node, &["module", "apply", directory.to_str().context("UTF-8")?])
    }

    /// Who answers `count` new connections of the client, each of a port of its own; nobody counts where none does.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn answers(&self, farm: &Farm, from: Place, count: usize) -> Result<BTreeMap<Option<Place>, usize>> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let by = farm.namespace(from).run(|| Ok(ask(self.at).ok()))?;
            *answers.entry(by.and_then(|text| place(&text))).or_default() += 1;
        }
        Ok(answers)
    }

    /// Waits until clients are answered by exactly `places`.
    ///
    /// # Errors
    /// They are not.
    pub fn await_served_by(&self, farm: &Farm, places: &[Place]) -> Result<()> {
        let wanted: Vec<Option<Place>> = places.iter().copied().map(Some).collect();
        shell::await_value(&format!("{places:?} answer for {}", self.name), LIMIT, || {
            let answers = self.answers(farm, Place::Client, 30)?;
            Ok(answers.keys().eq(wanted.iter()).then_some(()))
        })
    }

    /// The group in which it runs on a node.
    ///
    /// # Errors
    /// There is none.
    pub fn group(&self, farm: &Farm, node: Place) -> Result<Cgroup> {
        let name = format!("{}/modules/{}", farm.spec().cgroup(node), self.name);
        Cgroup::existing(&name).with_context(|| name.clone())
    }

    /// Kills everything of it on a node, as an application dies that nobody stopped.
    ///
    /// # Errors
    /// Nothing of it runs there.
    pub fn die(&self, farm: &Farm, node: Place) -> Result<()> {
        let group = self.group(farm, node)?;
        ensure!(group.is_populated()?, "{} runs on {node}", self.name);
        Ok(group.kill()?)
    }
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
