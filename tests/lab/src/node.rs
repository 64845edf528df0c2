//! What runs on a node: the daemon and a web server; started, stopped, frozen, killed.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::lab::{Lab, Spec, kill_inhabitants};
use crate::names::{Network, Place};
use crate::process::Process;
use crate::record::{Record, Role, Started};
use crate::{binaries, shell};

/// A daemon opens its store, loads its program and listens within a second; a busy machine gets more.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A daemon that was told to end hands its buckets over first.
const END_LIMIT: Duration = Duration::from_secs(20);
/// TCP port of the web server.
pub const WEB_PORT: u16 = 80;

/// User and group that own nothing, on every Linux.
const NOBODY: u32 = 65_534;

#[derive(Serialize)]
struct Config {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    data_dir: PathBuf,
    socket: PathBuf,
    pin_dir: PathBuf,
    secret_file: PathBuf,
    cgroup: String,
    address: Vec<Address>,
    interfaces: Interfaces,
}

#[derive(Serialize)]
struct Address {
    network: &'static str,
    ip: Ipv4Addr,
}

#[derive(Serialize)]
struct Interfaces {
    service: Vec<&'static str>,
    xdp_mode: &'static str,
}

fn configuration(spec: &Spec, node: Place, home: &Path, secret: PathBuf) -> Result<String> {
    let host = node.host().with_context(|| format!("{node} is no node"))?;
    let networks = [Network::Lan].into_iter().chain(spec.second_network.then_some(Network::Second));
    let address = networks.map(|network| Address { network: network.name(), ip: network.address(host) });
    let witness = spec.is_witness(node);
    let service = if witness { Vec::new() } else { vec![Network::Lan.interface()] };
    let config = Config {
        name: node.to_string(),
        role: witness.then_some("witness"),
        data_dir: home.join("data"),
        socket: home.join("farmd.sock"),
        pin_dir: spec.pin_dir(node),
        secret_file: secret,
        cgroup: spec.cgroup(node),
        address: address.collect(),
        interfaces: Interfaces { service, xdp_mode: if spec.native { "native" } else { "auto" } },
    };
    toml::to_string(&config).context("farmd.toml")
}

/// Lets a user without privileges have a directory and all that is in it.
fn give_to_nobody(directory: &Path) -> Result<()> {
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY));
    give(directory)?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { give_to_nobody(&path)? } else { give(&path)? }
    }
    Ok(())
}

impl Lab {
    /// Writes the configuration of a node and returns its path. A test may change it before the start.
    ///
    /// # Errors
    /// `node` is no node, or the file cannot be written.
    pub fn configure(&self, node: Place) -> Result<PathBuf> {
        let home = self.directory(node)?;
        let mut secret = self.secret()?;
        if self.spec.is_witness(node) {
            // It must be its own: nobody else's file of that mode can be read.
            std::fs::copy(&secret, home.join("secret"))?;
            secret = home.join("secret");
        }
        let text = configuration(&self.spec, node, &home, secret)?;
        for directory in ["data", "run"] {
            std::fs::create_dir_all(home.join(directory))?;
        }
        let path = home.join("farmd.toml");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        if self.spec.is_witness(node) {
            give_to_nobody(&home)?;
        }
        Ok(path)
    }

    /// The secret that all nodes share; made at the first call.
    fn secret(&self) -> Result<PathBuf> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.directory.path().join("secret");
        if !path.exists() {
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
            std::io::copy(&mut std::io::Read::take(File::open("/dev/urandom")?, 32), &mut file)?;
        }
        Ok(path)
    }

    /// The socket of a node's daemon.
    ///
    /// # Errors
    /// The directory of the node cannot be made.
    pub fn socket(&self, node: Place) -> Result<PathBuf> {
        Ok(self.directory(node)?.join("farmd.sock"))
    }

    /// The log of a node's daemon.
    ///
    /// # Errors
    /// The directory of the node cannot be made.
    pub fn log(&self, node: Place) -> Result<PathBuf> {
        Ok(self.directory(node)?.join("farmd.log"))
    }

    /// Starts the daemon of a node (writing its configuration if there is none) and waits until it listens.
    ///
    /// # Errors
    /// It runs already, ended at once (then with the end of its log), or does not listen in time.
    pub fn start_farmd(&self, node: Place) -> Result<Process> {
        let process = self.spawn_farmd(node)?;
        self.await_farmd(node)?;
        Ok(process)
    }

    /// Starts the daemon of a node and does not wait.
    ///
    /// # Errors
    /// It runs already, or the program is missing.
    pub fn spawn_farmd(&self, node: Place) -> Result<Process> {
        ensure!(self.farmd(node)?.is_none(), "farmd runs on {node} already");
        let config = self.directory(node)?.join("farmd.toml");
        let config = if config.exists() { config } else { self.configure(node)? };
        let mut command = self.daemon(node)?;
        // Logs are read as text by errors and by people.
        command.arg("--config").arg(config).env("NO_COLOR", "1");
        self.spawn(node, Role::Farmd, &mut command, &self.log(node)?)
    }

    /// The daemon of a node; of a witness as a user who may nothing.
    fn daemon(&self, node: Place) -> Result<Command> {
        let program = self.program(node)?;
        if !self.spec.is_witness(node) {
            return self.namespace(node).command(program);
        }
        let mut command = self.namespace(node).command("setpriv")?;
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(user).args(["--clear-groups", "--bounding-set=-all", "--no-new-privs"]).arg(program);
        Ok(command)
    }

    /// The program of a node's daemon: its own, where it has one.
    fn program(&self, node: Place) -> Result<PathBuf> {
        let own = self.directory(node)?.join("farmd");
        if own.exists() { Ok(own) } else { binaries::find("farmd") }
    }

    /// Installs `program` as the daemon of `node` beside the ones that are there, and lets the link that they are started
    /// by lead to it, while another one may run. The next start or restart takes it.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn install_farmd(&self, node: Place, program: &Path) -> Result<()> {
        let own = self.directory(node)?.join("farmd");
        let versions = (1..).map(|version| own.with_extension(version.to_string()));
        let fresh = versions.into_iter().find(|version| !version.exists()).context("a name is free")?;
        std::fs::copy(program, &fresh).with_context(|| program.display().to_string())?;
        let link = own.with_extension("new");
        std::os::unix::fs::symlink(&fresh, &link).with_context(|| link.display().to_string())?;
        std::fs::rename(&link, &own).with_context(|| own.display().to_string())
    }

    /// Waits until the daemon of a node listens.
    ///
    /// # Errors
    /// As [`Lab::start_farmd`].
    pub fn await_farmd(&self, node: Place) -> Result<()> {
        let (socket, log) = (self.socket(node)?, self.log(node)?);
        let listens = || {
            if UnixStream::connect(&socket).is_ok() {
                return Ok(Some(()));
            }
            ensure!(self.farmd(node)?.is_some(), "farmd on {node} ended: {}", tail(&log));
            Ok(None)
        };
        shell::await_value(&format!("farmd on {node} listens"), START_LIMIT, listens)
    }

    /// Starts `command` in the background, with its output in `log`, and writes it down.
    pub(crate) fn spawn(
        &self,
        place: Place,
        role: Role,
        command: &mut Command,
        log: &Path,
    ) -> Result<Process> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        // A process group of its own: Ctrl-C in the terminal must not reach the nodes.
        command.process_group(0).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn().with_context(|| format!("starting {role:?} on {place}"))?;
        let process = Process::of(i32::try_from(child.id())?)
            .with_context(|| format!("{role:?} on {place} ended at once: {}", tail(log)))?;
        // Only this thread may wait for the child, and somebody must: else it stays a zombie.
        std::thread::spawn(move || child.wait());
        let noted = self.directory.update(|record| record.processes.push(Started { place, role, process }));
        if noted.is_err() {
            // The lab went down meanwhile: nobody else would end what is not written down.
            process.kill()?;
        }
        noted.map(|()| process)
    }

    fn record(&self) -> Result<Record> {
        self.directory.read()?.with_context(|| format!("lab {} is down", self.spec.name))
    }

    /// The running daemon of a node.
    ///
    /// # Errors
    /// The lab is down.
    pub fn farmd(&self, node: Place) -> Result<Option<Process>> {
        Ok(self.record()?.running(node, Role::Farmd))
    }

    fn running_farmd(&self, node: Place) -> Result<Process> {
        self.farmd(node)?.with_context(|| format!("farmd does not run on {node}"))
    }

    /// `kill -9` of the daemon; waits for its end.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_farmd(&self, node: Place) -> Result<()> {
        self.running_farmd(node)?.kill()
    }

    /// SIGTERM to the daemon: it hands its buckets over and ends; waits for its end.
    ///
    /// # Errors
    /// It does not run or does not end in time.
    pub fn terminate_farmd(&self, node: Place) -> Result<()> {
        let process = self.running_farmd(node)?;
        process.signal(Signal::SIGTERM)?;
        process.await_end(END_LIMIT)
    }

    /// SIGSTOP to the daemon: it lives and does nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self, node: Place) -> Result<()> {
        self.running_farmd(node)?.signal(Signal::SIGSTOP).map(drop)
    }

    /// SIGCONT to the daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self, node: Place) -> Result<()> {
        self.running_farmd(node)?.signal(Signal::SIGCONT).map(drop)
    }

    /// The node loses power: cable dead, every process gone, and with the kernel its pins, filter and guard.
    /// The data directory stays.
    ///
    /// # Errors
    /// Something did not go.
    pub fn power_off(&self, node: Place) -> Result<()> {
        self.cut(node)?;
        let namespace = self.namespace(node);
        kill_inhabitants(&namespace)?;
        let pins = self.spec.pin_dir(node);
        if pins.exists() {
            std::fs::remove_dir_all(&pins).with_context(|| pins.display().to_string())?;
        }
        shell::run(namespace.command("nft")?.args(["flush", "ruleset"]))?;
        namespace.ip("addr flush dev lo\naddr add 127.0.0.1/8 dev lo\naddr add ::1/128 dev lo\n")
    }

    /// The node boots again: cable, web server, daemon.
    ///
    /// # Errors
    /// Something does not start.
    pub fn power_on(&self, node: Place) -> Result<()> {
        self.heal(node)?;
        self.start_nginx(node)?;
        self.start_farmd(node).map(drop)
    }

    /// Starts the web server of a node: it answers every request with the node's name.
    ///
    /// # Errors
    /// nginx is not installed or refuses its configuration.
    pub fn start_nginx(&self, node: Place) -> Result<Process> {
        let home = self.directory(node)?;
        let config = home.join("nginx.conf");
        std::fs::write(&config, nginx_configuration(node, &home))?;
        let mut command = self.namespace(node).command("nginx")?;
        command.arg("-c").arg(&config).arg("-e").arg(home.join("nginx.log"));
        let process = self.spawn(node, Role::Nginx, &mut command, &home.join("nginx.log"))?;
        let target = (node.address(), WEB_PORT);
        let listens = || {
            ensure!(process.alive(), "nginx on {node} ended: {}", tail(&home.join("nginx.log")));
            self.namespace(node).run(|| Ok(std::net::TcpStream::connect(target).ok().map(drop)))
        };
        shell::await_value(&format!("nginx on {node} listens"), START_LIMIT, listens)?;
        Ok(process)
    }

    /// Ends the web server of a node at once, workers and all.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_nginx(&self, node: Place) -> Result<()> {
        let running = self.record()?.running(node, Role::Nginx);
        // The master ends its workers itself on SIGTERM; killed, it would leave them listening.
        let master = running.with_context(|| format!("nginx does not run on {node}"))?;
        master.signal(Signal::SIGTERM)?;
        master.await_end(END_LIMIT)
    }

    /// A command as a person on that machine would run it: `farmctl` is found and speaks to the node's daemon.
    ///
    /// # Errors
    /// The machine does not exist.
    pub fn command(&self, place: Place, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = self.namespace(place).command(program)?;
        command.env("PATH", binaries::search_path()).env("FARM_LAB", self.spec.name.as_str());
        if matches!(place, Place::Node(_)) {
            command.env("FARM_SOCKET", self.socket(place)?);
        }
        Ok(command)
    }

    /// Runs a command on a machine to its end; a failure of the command is in the result.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exec(&self, place: Place, program: &str, args: &[&str]) -> Result<Output> {
        let mut command = self.command(place, program)?;
        command.args(args).stdin(Stdio::null()).output().with_context(|| format!("{program} on {place}"))
    }
}

fn nginx_configuration(node: Place, home: &Path) -> String {
    let home = home.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|kind| format!("  {kind}_temp_path {home}/tmp-{kind};\n")).concat();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {home}/nginx.pid;\nerror_log {home}/nginx.log warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n{temporary}  server {{\n    listen {WEB_PORT} backlog=4096;\n\
         \x20   listen [::]:{WEB_PORT} ipv6only=on backlog=4096;\n\
         \x20   location / {{ default_type text/plain; return 200 \"{node}\\n\"; }}\n  }}\n}}\n"
    )
}

/// The last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 8;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return format!("({} is empty)", log.display());
    }
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Fails with the output of a command that failed.
///
/// # Errors
/// It failed.
pub(crate) fn successful(what: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // With --json a problem is an answer like any other.
    let said = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes));
    bail!("{what} failed ({}): {}", output.status, said.concat().trim())
}
