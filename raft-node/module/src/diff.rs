//! What a new definition changes, in words for the operator who is about to apply it.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::event::{mode_name, protocol_name};
use farm_core::model::{Criterion, Mode, ModuleKind, Protocol, Service, VirtualIp};
use farm_core::time::Span;

use crate::check::{Check, Probe, When};
use crate::definition::{Boot, Definition, Scripts};
use crate::files::File;
use crate::finding::SETTINGS;
use crate::process::{Process, Scope, What};
use crate::rule::Rule;
use crate::units::size_text;

/// When a change counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// At once, while the application goes on.
    AtOnce,
    /// When the application is started the next time: what runs is stopped by the scripts that started it.
    NextRun,
    /// Only while the module is stopped on all nodes.
    Stopped,
}

/// One change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Change {
    /// What changes.
    pub text: String,
    /// When it counts.
    pub effect: Effect,
}

/// What `new` changes about `old`, which may not exist yet: first what it is, then traffic, watching, scripts, files. The
/// kind is the same: it never changes.
#[must_use]
pub fn diff(old: Option<&Definition>, new: &Definition) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    let empty = Definition::empty(&new.name.0, new.kind);
    let before = old.unwrap_or(&empty);
    if old.is_none() {
        changes.add(Effect::AtOnce, format!("{} is a new {} module", new.name, kind_name(new.kind)));
    }
    changes.scripts_go(before, new);
    changes.plain(before, new);
    changes.traffic(before, new);
    let processes = |d: &Definition| d.processes.iter().map(|p| (p.name.clone(), process_text(p))).collect();
    changes.watched("process", &processes(before), &processes(new));
    let checks = |d: &Definition| d.checks.iter().map(|c| (c.resource(), check_text(c))).collect();
    changes.watched("check", &checks(before), &checks(new));
    let rules = |d: &Definition| d.rules.iter().map(|r| (r.name.clone(), rule_text(r))).collect();
    changes.watched("rule", &rules(before), &rules(new));
    changes.scripts(&before.scripts, &new.scripts);
    changes.env(&before.env, &new.env);
    changes.files(&before.files.0, &new.files.0);
    let rewritten = before.files.0.get(SETTINGS) != new.files.0.get(SETTINGS);
    if changes.0.is_empty() && rewritten {
        changes.add(Effect::AtOnce, format!("{SETTINGS} is written differently and says the same"));
    }
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, effect: Effect, text: String) {
        self.0.push(Change { text, effect });
    }

    /// `what: before → after`, if they differ.
    fn value<T: PartialEq>(
        &mut self,
        effect: Effect,
        what: &str,
        (before, after): (&T, &T),
        show: impl Fn(&T) -> String,
    ) {
        if before != after {
            self.add(effect, format!("{what}: {} → {}", show(before), show(after)));
        }
    }

    fn scripts_go(&mut self, old: &Definition, new: &Definition) {
        if old.has_application() && !new.has_application() {
            self.add(Effect::Stopped, "bin/ goes: nothing would stop the application any more".into());
        }
    }

    fn plain(&mut self, old: &Definition, new: &Definition) {
        let now = Effect::AtOnce;
        self.value(now, "boot", (&old.boot, &new.boot), |boot| boot_name(*boot).into());
        self.value(now, "maxloop", (&old.maxloop, &new.maxloop), ToString::to_string);
        let interval = (&old.loop_interval, &new.loop_interval);
        self.value(now, "loop_interval", interval, |span| {
            if *span == Span::ZERO { "no limit".into() } else { span.to_string() }
        });
        self.value(now, "drain", (&old.drain, &new.drain), |drain| or_nothing(drain.as_ref()));
    }

    fn traffic(&mut self, old: &Definition, new: &Definition) {
        self.modes(&modes(old), &modes(new));
        let (before, after) = (services(old), services(new));
        for key in union(&before, &after) {
            let (vip, protocol, port) = key;
            let what = format!("service {vip} {} port {port}", protocol_name(*protocol));
            match (before.get(key), after.get(key)) {
                (None, Some((criterion, mode))) => {
                    let how = format!("{}, {}", criterion_name(*criterion), mode_name(*mode));
                    self.add(Effect::AtOnce, format!("{what} is added ({how})"));
                }
                (Some(_), None) => self.add(Effect::AtOnce, format!("{what} is removed")),
                (Some((before, _)), Some((after, _))) => {
                    self.value(Effect::AtOnce, &what, (before, after), |c| criterion_name(*c).into());
                }
                (None, None) => {}
            }
        }
        for node in union(&old.weights, &new.weights) {
            let of = |definition: &Definition| definition.weights.get(node).map(|weight| weight.0);
            let what = format!("weight of {node}");
            self.value(Effect::AtOnce, &what, (&of(old), &of(new)), |w| or_nothing(w.as_ref()));
        }
    }

    fn modes(&mut self, old: &BTreeMap<VirtualIp, Mode>, new: &BTreeMap<VirtualIp, Mode>) {
        for (vip, mode) in old {
            if let Some(after) = new.get(vip) {
                let what = format!("mode of {vip}");
                self.value(Effect::AtOnce, &what, (mode, after), |mode| mode_name(*mode).into());
            }
        }
    }

    fn watched(&mut self, what: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        for name in union(old, new) {
            match (old.get(name), new.get(name)) {
                (None, Some(new)) => self.add(Effect::AtOnce, format!("{what} {name} is added ({new})")),
                (Some(_), None) => self.add(Effect::AtOnce, format!("{what} {name} is removed")),
                (before, after) => {
                    let show = |text: &Option<&String>| text.cloned().unwrap_or_default();
                    self.value(Effect::AtOnce, &format!("{what} {name}"), (&before, &after), show);
                }
            }
        }
    }

    fn scripts(&mut self, old: &Scripts, new: &Scripts) {
        let next = Effect::NextRun;
        let time = |time: &core::time::Duration| humantime::format_duration(*time).to_string();
        self.value(next, "start_timeout", (&old.start, &new.start), time);
        self.value(next, "stop_timeout", (&old.stop, &new.stop), time);
        self.value(next, "force_timeout", (&old.force, &new.force), time);
        self.value(next, "log_size", (&old.log_size, &new.log_size), |size| size_text(*size));
        self.value(next, "log_files", (&old.log_files, &new.log_files), ToString::to_string);
    }

    fn env(&mut self, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        for name in union(old, new) {
            match (old.get(name), new.get(name)) {
                (None, Some(value)) => self.add(Effect::NextRun, format!("{name}={value:?} is added")),
                (Some(_), None) => self.add(Effect::NextRun, format!("{name} is removed")),
                (before, after) => {
                    let show = |value: &Option<&String>| value.map(|v| format!("{v:?}")).unwrap_or_default();
                    self.value(Effect::NextRun, name, (&before, &after), show);
                }
            }
        }
    }

    fn files(&mut self, old: &BTreeMap<String, File>, new: &BTreeMap<String, File>) {
        for path in union(old, new).into_iter().filter(|path| *path != SETTINGS) {
            let text = match (old.get(path), new.get(path)) {
                (None, _) => format!("{path} is added"),
                (_, None) => format!("{path} is removed"),
                (Some(before), Some(after)) if before == after => continue,
                (Some(before), Some(after)) if before.bytes != after.bytes => format!("{path} is changed"),
                (Some(_), Some(after)) if after.executable => format!("{path} becomes executable"),
                (Some(_), Some(_)) => format!("{path} is no longer executable"),
            };
            self.add(Effect::NextRun, text);
        }
    }
}

fn union<'a, K: Ord, V>(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    old.keys().chain(new.keys()).collect()
}

fn modes(definition: &Definition) -> BTreeMap<VirtualIp, Mode> {
    definition.services.iter().map(|(service, mode)| (service.vip, *mode)).collect()
}

fn services(definition: &Definition) -> BTreeMap<(VirtualIp, Protocol, u16), (Criterion, Mode)> {
    let entry = |(service, mode): &(Service, Mode)| {
        ((service.vip, service.protocol, service.port), (service.criterion, *mode))
    };
    definition.services.iter().map(entry).collect()
}

fn or_nothing<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "not set".into(), ToString::to_string)
}

/// `command "nginx" of the module, at least 1, then restart`
fn process_text(process: &Process) -> String {
    let scope = |scope: &Scope| match scope {
        Scope::Module => "of the module",
        Scope::Host => "of the host",
    };
    let what = match &process.what {
        What::Command(command, at) => format!("command {command:?} {}", scope(at)),
        What::Regex(regex, at) => format!("regex {regex:?} {}", scope(at)),
        What::Unit(unit) => format!("unit {unit:?}"),
    };
    let most = process.at_most.map(|most| format!(", at most {most}")).unwrap_or_default();
    format!("{what}, at least {}{most}, otherwise {}", process.at_least, process.action.name())
}

/// `http://127.0.0.1:80/ every 1s, at most 1s, rise 1, fall 2, when up, otherwise stopstart`
fn check_text(check: &Check) -> String {
    let what = match &check.probe {
        Probe::Tcp(at) => format!("{}:{}", at.host, at.port),
        Probe::Http { at, path, status: (first, last), body } => {
            let body = body.as_ref().map(|body| format!(" with {body:?}")).unwrap_or_default();
            format!("http://{}:{}{path} {first}-{last}{body}", at.host, at.port)
        }
        Probe::Ping(ip) | Probe::Address(ip) => ip.to_string(),
        Probe::Interface(name) | Probe::Program(name) => name.clone(),
        Probe::Module(name) => name.to_string(),
    };
    let time = |time| humantime::format_duration(time);
    let when = check.when.name();
    let start = match check.when {
        When::Up => format!(", first good within {}", time(check.start_within)),
        When::Always => String::new(),
    };
    format!(
        "{what} every {}, at most {}, rise {}, fall {}, when {when}{start}, otherwise {}",
        time(check.interval),
        time(check.timeout),
        check.damping.rise,
        check.damping.fall,
        check.action.name()
    )
}

fn rule_text(rule: &Rule) -> String {
    format!("if {} then {}", rule.text, rule.action.name())
}

const fn kind_name(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Farm => "farm",
        ModuleKind::Light => "light",
    }
}

const fn boot_name(boot: Boot) -> &'static str {
    match boot {
        Boot::Auto => "auto",
        Boot::On => "on",
        Boot::Off => "off",
    }
}

const fn criterion_name(criterion: Criterion) -> &'static str {
    match criterion {
        Criterion::SourceAddress => "source-address",
        Criterion::SourcePort => "source-port",
        Criterion::SourceNetwork => "source-network",
    }
}
