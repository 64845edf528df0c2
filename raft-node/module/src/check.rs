//! What a node looks at again and again for a module.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeSet;
use std::net::IpAddr;

use farm_core::model::{ModuleName, is_name};
use farm_core::resource::Damping;
use http::Uri;
use http::uri::Authority;
use regex::bytes::RegexBuilder;

use crate::action::Action;
use crate::process::{check_name, last_line};
use crate::reader::{At, Reader, Table};

/// Checks of a module: each is a task, and some a process, every second.
pub const CHECKS: usize = 64;
/// Shorter is of no use beside the leases, longer is nobody's idea of a check.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3600);
const START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
/// Verdicts in a row.
const ROW: RangeInclusive<u32> = 1..=1000;
/// Bytes of a compiled regular expression, as of processes.
const REGEX_BYTES: usize = 1 << 20;
/// The kinds, which are also their keys.
const KINDS: [&str; 7] = ["tcp", "http", "ping", "interface", "address", "program", "module"];

/// When a check is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum When {
    /// From the end of `start_both` until the application is taken down.
    Up,
    /// As long as the module is not stopped.
    Always,
}

impl When {
    /// As it is written in `module.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Always => "always",
        }
    }
}

/// Where something answers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    /// A name or an address; of IPv6 without brackets.
    pub host: String,
    /// Port, not 0.
    pub port: u16,
}

/// What is looked at.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Probe {
    /// A connection can be opened.
    Tcp(Target),
    /// A page is there (RFC 9110).
    Http {
        /// Where.
        at: Target,
        /// Path and query.
        path: String,
        /// Answers that are good.
        status: RangeInclusiveStatus,
        /// The body matches this regular expression.
        body: Option<String>,
    },
    /// A host answers an echo request (RFC 792, RFC 4443).
    Ping(IpAddr),
    /// An interface is up and has a carrier.
    Interface(String),
    /// This host has an address, and nobody else.
    Address(IpAddr),
    /// A script of the module ends with exit code 0: its name in `bin/`.
    Program(String),
    /// Another module is UP on this node.
    Module(ModuleName),
}

/// First and last status of HTTP that is good.
pub type RangeInclusiveStatus = (u16, u16);

impl Probe {
    /// The first word of the resource's name.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Http { .. } => "http",
            Self::Ping(_) => "ping",
            Self::Interface(_) => "interface",
            Self::Address(_) => "address",
            Self::Program(_) => "program",
            Self::Module(_) => "module",
        }
    }
}

/// A check.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Check {
    /// Its name in the module.
    pub name: String,
    /// What is looked at.
    pub probe: Probe,
    /// From the end of one look to the next.
    pub interval: Duration,
    /// Longest look.
    pub timeout: Duration,
    /// How many looks in a row count.
    pub damping: Damping,
    /// When it is made.
    pub when: When,
    /// What happens when it goes down.
    pub action: Action,
    /// So long after `start_both` nothing bad is said of what has not been good yet.
    pub start_within: Duration,
}

impl Check {
    /// Its name among all resources: `tcp.web`.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("{}.{}", self.probe.kind(), self.name)
    }
}

/// All `[[check]]`, with the lines where they begin.
pub(crate) fn read<'t>(reader: &mut Reader<'t>, root: &mut Table<'t>) -> Vec<(Check, u32)> {
    let tables = reader.tables(root, "check", CHECKS);
    let (mut names, mut checks) = (BTreeSet::new(), Vec::new());
    for table in tables {
        let line = table.line;
        let (check, name) = read_one(reader, table);
        if let Some(name) = name.filter(|name| !names.insert(name.value.clone())) {
            let fact = format!("two [[check]] are called {:?}", name.value);
            reader.found.line(name.line, fact, "give one of them another name");
        }
        checks.extend(check.map(|check| (check, line)));
    }
    checks
}

fn read_one<'t>(reader: &mut Reader<'t>, mut table: Table<'t>) -> (Option<Check>, Option<At<String>>) {
    reader.need(&table, "name", "\"web\"");
    let name = reader.text(&mut table, "name").filter(|name| check_name(reader, "[[check]]", name));
    let probe = read_probe(reader, &mut table);
    let own = matches!(probe, Some(Probe::Tcp(_) | Probe::Http { .. } | Probe::Program(_)));
    let (interval, timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    let interval = reader.duration(&mut table, "interval", INTERVAL, "1s").unwrap_or(interval);
    let timeout = reader.duration(&mut table, "timeout", TIMEOUT, "1s").unwrap_or(timeout);
    let rise = reader.number(&mut table, "rise", ROW).map_or(1, |n| n.value);
    let fall = reader.number(&mut table, "fall", ROW).map_or(2, |n| n.value);
    let action = reader.choice(&mut table, "action", &Action::ALL);
    // What belongs to the application is helped by starting it anew; what does not is waited for.
    let action = action.unwrap_or(if own { Action::StopStart } else { Action::Wait });
    let waits = action == Action::Wait;
    let line = table.line;
    let when = reader.choice(&mut table, "when", &[("up", When::Up), ("always", When::Always)]);
    if waits && when == Some(When::Up) {
        let fact = "[[check]] action = \"wait\" does not go with when = \"up\": nothing would tell when to start again";
        reader.found.line(line, fact, "remove when");
    }
    let when = when.unwrap_or(if waits || !own { When::Always } else { When::Up });
    let start = Duration::from_secs(30);
    let start_within = reader.duration(&mut table, "start_within", START, "30s").unwrap_or(start);
    reader.finish(table);
    let damping = Damping { rise, fall };
    let check = name.clone().zip(probe).map(|(name, probe)| Check {
        name: name.value,
        probe,
        interval,
        timeout,
        damping,
        when,
        action,
        start_within,
    });
    (check, name)
}

fn read_probe<'t>(reader: &mut Reader<'t>, table: &mut Table<'t>) -> Option<Probe> {
    let given: Vec<&str> = KINDS.into_iter().filter(|key| table.contains(key)).collect();
    let texts = KINDS.map(|key| reader.text(table, key));
    let (status, body) = (reader.word(table, "status"), reader.text(table, "body"));
    let [kind] = given[..] else {
        let given = if given.is_empty() { "none".into() } else { given.join(" and ") };
        let fact = format!("[[check]] needs exactly one of {}; it has {given}", KINDS.join(", "));
        reader.found.line(table.line, fact, "keep one, as in tcp = \"80\"");
        return None;
    };
    for (key, extra) in [("status", &status), ("body", &body)] {
        if let Some(extra) = extra.as_ref().filter(|_| kind != "http") {
            let fact = format!("[[check]] {key} does not go with {kind}");
            reader.found.line(extra.line, fact, format!("remove {key}"));
        }
    }
    let text = texts.into_iter().flatten().next()?;
    let probe = match kind {
        "tcp" => target(&text.value).map(Probe::Tcp),
        "http" => return read_http(reader, &text, status, body),
        "ping" => text.value.parse().ok().map(Probe::Ping),
        "interface" => is_interface(&text.value).then(|| Probe::Interface(text.value.clone())),
        "address" => text.value.parse().ok().map(Probe::Address),
        "program" => is_file(&text.value).then(|| Probe::Program(text.value.clone())),
        _ => is_name(&text.value).then(|| Probe::Module(ModuleName(text.value.clone()))),
    };
    probe.or_else(|| {
        let (what, example) = form(kind);
        wrong(reader, kind, &text, what, format!("write it as {kind} = \"{example}\""))
    })
}

fn form(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "tcp" => ("is neither PORT nor HOST:PORT", "80"),
        "interface" => ("is no name of an interface", "eth0"),
        "program" => ("is no name of a file in bin/", "check_database"),
        "module" => ("is no name of a module", "database"),
        _ => ("is no IP address", "192.0.2.1"),
    }
}

fn wrong<T>(
    reader: &mut Reader<'_>,
    key: &str,
    at: &At<String>,
    what: &str,
    remedy: impl Into<String>,
) -> Option<T> {
    let start: String = at.value.chars().take(60).collect();
    reader.found.line(at.line, format!("[[check]] {key} = {start:?} {what}"), remedy);
    None
}

fn read_http(
    reader: &mut Reader<'_>,
    url: &At<String>,
    status: Option<At<String>>,
    body: Option<At<String>>,
) -> Option<Probe> {
    let uri: Option<Uri> = url.value.parse().ok();
    let plain = uri.filter(|uri| uri.scheme_str() == Some("http"));
    let at = plain.as_ref().and_then(|uri| authority(uri.authority()?, Some(80)));
    let Some((at, uri)) = at.zip(plain) else {
        let remedy = "write it as http = \"http://127.0.0.1:80/\"; for https use program";
        return wrong(reader, "http", url, "is no address of a page over HTTP", remedy);
    };
    let good = match status {
        None => (200, 299),
        Some(text) => match status_range(&text.value) {
            Some(range) => range,
            None => {
                let remedy = "write it as status = \"200-299\"";
                return wrong(reader, "status", &text, "is no range within 100-599", remedy);
            }
        },
    };
    if let Some(body) = &body
        && let Err(error) = RegexBuilder::new(&body.value).size_limit(REGEX_BYTES).build()
    {
        let what = format!("does not compile: {}", last_line(&error.to_string()));
        return wrong(reader, "body", body, &what, "see https://docs.rs/regex for the form");
    }
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Some(Probe::Http { at, path, status: good, body: body.map(|body| body.value) })
}

fn status_range(text: &str) -> Option<RangeInclusiveStatus> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (100 <= range.0 && range.0 <= range.1 && range.1 <= 599).then_some(range)
}

/// `80` is a port of this host.
fn target(text: &str) -> Option<Target> {
    match text.parse::<u16>() {
        Ok(0) => None,
        Ok(port) => Some(Target { host: "127.0.0.1".into(), port }),
        Err(_) => authority(&text.parse().ok()?, None),
    }
}

fn authority(authority: &Authority, default: Option<u16>) -> Option<Target> {
    let port = authority.port_u16().or(default).filter(|port| *port > 0)?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let good = !host.is_empty() && !authority.as_str().contains('@');
    good.then(|| Target { host: host.to_owned(), port })
}

/// As the kernel takes it (`dev_valid_name`).
fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && ![".", ".."].contains(&name)
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

fn is_file(name: &str) -> bool {
    !name.is_empty() && ![".", ".."].contains(&name) && !name.contains('/')
}
