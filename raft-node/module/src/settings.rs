//! `module.toml` from top to bottom.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::net::IpAddr;

use farm_core::limits;
use farm_core::model::{ModuleKind, Weight, is_name};
use farm_core::time::Span;

use crate::check::{self, Check, Probe};
use crate::definition::{Boot, Definition, Scripts};
use crate::files::Files;
use crate::finding::Findings;
use crate::macros;
use crate::process::{self, Process};
use crate::reader::{Reader, Table};
use crate::rule;
use crate::traffic;
use crate::tree::BIN;

/// Macros, and variables, of a module: what a person still overlooks. More belongs into a file.
const NAMES: usize = 64;
/// Longest length of time: a year. What is longer is a mistake.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Times that scripts get: a second at least, and at most a day, after which nobody waits for them any more.
const SCRIPT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// A log holds some lines, and fits the disk.
const LOG_SIZE: RangeInclusive<u64> = (4 << 10)..=(1 << 30);
/// Logs that are kept.
const LOG_FILES: RangeInclusive<u32> = 1..=100;
/// Restarts; more in a row never end by themselves.
const MAXLOOP: RangeInclusive<u32> = 0..=1000;

/// Fills `definition` with what the text says. Gives back what watches an application, understood or
/// not.
pub(crate) fn read(
    text: &str,
    files: &Files,
    definition: &mut Definition,
    found: &mut Findings,
) -> Option<&'static str> {
    let (mut reader, root) = Reader::open(text, found);
    let mut root = root?;
    read_macros(&mut reader, &mut root);
    let kinds = [("farm", ModuleKind::Farm), ("light", ModuleKind::Light)];
    reader.need(&root, "kind", "\"farm\"");
    let kind = reader.choice(&mut root, "kind", &kinds);
    definition.kind = kind.unwrap_or(ModuleKind::Farm);
    read_plain(&mut reader, &mut root, definition);
    read_env(&mut reader, &mut root, definition);
    read_scripts(&mut reader, &mut root, &mut definition.scripts);
    definition.services = traffic::read(&mut reader, &mut root, kind);
    read_weights(&mut reader, &mut root, definition);
    let watches = ["process", "check"].into_iter().find(|key| root.contains(key));
    definition.processes = process::read(&mut reader, &mut root);
    read_checks(&mut reader, &mut root, definition, files);
    reader.finish(root);
    watches
}

fn read_checks<'t>(
    reader: &mut Reader<'t>,
    root: &mut Table<'t>,
    definition: &mut Definition,
    files: &Files,
) {
    let checks = check::read(reader, root);
    for (check, line) in &checks {
        check_probe(reader, &check.probe, *line, definition, files);
    }
    definition.checks = checks.into_iter().map(|(check, _)| check).collect();
    let processes = definition.processes.iter().map(Process::resource);
    let resources = processes.chain(definition.checks.iter().map(Check::resource)).collect();
    definition.rules = rule::read(reader, root, &resources);
}

/// What a probe needs of the rest of the definition.
fn check_probe(reader: &mut Reader<'_>, probe: &Probe, line: u32, definition: &Definition, files: &Files) {
    match probe {
        Probe::Tcp(at) | Probe::Http { at, .. } => {
            let ip = at.host.parse::<IpAddr>().ok();
            if let Some(ip) = ip.filter(|ip| definition.services.iter().any(|(s, _)| s.vip.ip == *ip)) {
                let fact = format!("[[check]] looks at {ip}, which may lead to another node");
                reader.found.line(line, fact, "look at 127.0.0.1, or at an address of the node");
            }
        }
        Probe::Program(name) => {
            let path = format!("{BIN}{name}");
            match files.0.get(&path) {
                None => {
                    let fact = format!("[[check]] program = {name:?}: there is no {path}");
                    reader.found.line(line, fact, format!("add {path}, or name a file that is there"));
                }
                Some(file) if !file.executable => {
                    let fact = format!("[[check]] program = {name:?}: {path} is not executable");
                    reader.found.line(line, fact, format!("chmod +x {path}"));
                }
                Some(_) => {}
            }
        }
        Probe::Module(name) if *name == definition.name => {
            let fact = format!("[[check]] module = {:?} is the module itself", name.0);
            reader.found.line(line, fact, "name another module");
        }
        Probe::Module(_) | Probe::Ping(_) | Probe::Interface(_) | Probe::Address(_) => {}
    }
}

fn read_macros<'t>(reader: &mut Reader<'t>, root: &mut Table<'t>) {
    let Some(table) = reader.table(root, "macros") else { return };
    for (name, text) in reader.literals(table, NAMES) {
        if !macros::is_name(&name) {
            let fact = format!("[macros] {name:?} is no name of a macro");
            reader.found.line(text.line, fact, "use A-Z, 0-9 and _, no digit first, 63 at most");
        }
        reader.macros.insert(name, text.value);
    }
}

fn read_plain<'t>(reader: &mut Reader<'t>, root: &mut Table<'t>, definition: &mut Definition) {
    let boots = [("auto", Boot::Auto), ("on", Boot::On), ("off", Boot::Off)];
    definition.boot = reader.choice(root, "boot", &boots).unwrap_or_default();
    if let Some(maxloop) = reader.number(root, "maxloop", MAXLOOP) {
        definition.maxloop = maxloop.value;
    }
    if let Some(interval) = reader.duration(root, "loop_interval", Duration::ZERO..=YEAR, "24h") {
        definition.loop_interval = span(interval);
    }
    let most = Duration::from_nanos(limits::DRAIN.0);
    definition.drain = reader.duration(root, "drain", Duration::ZERO..=most, "5m").map(span);
}

/// Never cut off: a year of nanoseconds fits.
fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn read_env<'t>(reader: &mut Reader<'t>, root: &mut Table<'t>, definition: &mut Definition) {
    let Some(table) = reader.table(root, "env") else { return };
    for (name, text) in reader.texts(table, NAMES) {
        if !macros::is_name(&name) {
            let fact = format!("[env] {name:?} is no name of a variable");
            reader.found.line(text.line, fact, "use A-Z, 0-9 and _, no digit first, 63 at most");
        } else if name.starts_with("FARM_") {
            let fact = format!("[env] {name}: names that begin with FARM_ are those of Farm itself");
            reader.found.line(text.line, fact, "choose another name");
        }
        definition.env.insert(name, text.value);
    }
}

fn read_scripts<'t>(reader: &mut Reader<'t>, root: &mut Table<'t>, scripts: &mut Scripts) {
    let Some(mut table) = reader.table(root, "scripts") else { return };
    let times = [
        ("start_timeout", "5m", &mut scripts.start),
        ("stop_timeout", "5m", &mut scripts.stop),
        ("force_timeout", "1m", &mut scripts.force),
    ];
    for (key, example, time) in times {
        *time = reader.duration(&mut table, key, SCRIPT, example).unwrap_or(*time);
    }
    if let Some(size) = reader.size(&mut table, "log_size", LOG_SIZE, "2MiB") {
        scripts.log_size = size;
    }
    if let Some(files) = reader.number(&mut table, "log_files", LOG_FILES) {
        scripts.log_files = files.value;
    }
    reader.finish(table);
}

fn read_weights<'t>(reader: &mut Reader<'t>, root: &mut Table<'t>, definition: &mut Definition) {
    let Some(table) = reader.table(root, "weights") else { return };
    for (node, weight) in reader.numbers(table, limits::NODES, &(0..=u32::from(u16::MAX))) {
        if !is_name(&node) {
            let fact = format!("[weights] {node:?} is no node name");
            reader.found.line(weight.line, fact, "see the names with: farmctl node list");
        }
        let value = u16::try_from(weight.value).unwrap_or(u16::MAX);
        definition.weights.insert(node, Weight(value));
    }
}
