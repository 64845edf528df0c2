//! Watches what an application depends on, each thing by a task of its own, and finds what follows from it.

mod watcher;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use farm_core::life::{Gate, Request};
use farm_core::resource::{Change, Damping, Health, Resource, Verdict};
use farm_core::rule::{Healths, Rules};
use farm_core::time::UnixTime;
use farm_module::{Action, Check, Definition, Process, When};
use farm_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Modules;
use crate::journal::now_ms;

/// Verdicts that wait for the keeper.
const VERDICTS_MAX: usize = 64;

/// What one look at one thing has shown.
pub struct Judged {
    resource: String,
    /// When it was begun to be watched: what comes from before a restart is old.
    round: u64,
    verdict: Verdict,
    /// It has only just been started: what is bad is not held against it yet.
    early: bool,
}

/// What those who watch need of the node.
#[derive(Clone)]
pub struct Means {
    /// Cgroup of the module.
    pub group: PathBuf,
    /// Cgroup for the programs that check; each has one of its own below.
    pub checks: PathBuf,
    /// The environment of these programs.
    pub environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Files of the module's newest revision.
    pub files: PathBuf,
    /// The modules of this node.
    pub modules: Arc<Modules>,
}

/// What is watched for one module.
pub struct Supervision {
    tell: mpsc::Sender<Judged>,
    round: u64,
    watched: BTreeMap<String, Watched>,
    rules: Rules,
    /// What counts for nothing now, and until when.
    off: BTreeMap<String, Option<UnixTime>>,
}

/// A thing as the definition has it.
#[derive(Clone, PartialEq, Eq)]
enum Thing {
    Process(Process),
    Check(Check),
}

struct Watched {
    thing: Thing,
    resource: Resource,
    round: u64,
    /// Ends with the value.
    task: Option<Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A rule that has come to hold.
pub struct Begun {
    /// What it asks for.
    pub request: Option<Request>,
    /// Why it holds, in words.
    pub why: String,
}

/// A thing that has changed.
pub struct Changed {
    /// Kind of the event.
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

impl Thing {
    fn name(&self) -> String {
        match self {
            Self::Process(process) => process.resource(),
            Self::Check(check) => check.resource(),
        }
    }

    fn when(&self) -> When {
        match self {
            Self::Process(_) => When::Up,
            Self::Check(check) => check.when,
        }
    }

    fn action(&self) -> Action {
        match self {
            Self::Process(process) => process.action,
            Self::Check(check) => check.action,
        }
    }

    /// The kernel tells of processes: there is nothing to damp.
    fn damping(&self) -> Damping {
        match self {
            Self::Process(_) => Damping::NONE,
            Self::Check(check) => check.damping,
        }
    }
}

impl Supervision {
    /// Watches nothing yet; verdicts come by the receiver. `off`: what somebody took out before.
    pub fn new(off: BTreeMap<String, Option<UnixTime>>) -> (Self, mpsc::Receiver<Judged>) {
        let (tell, told) = mpsc::channel(VERDICTS_MAX);
        let rules = Rules::default();
        (Self { tell, round: 0, watched: BTreeMap::new(), rules, off }, told)
    }

    /// From now on what this definition says is watched; what stays the same goes on.
    pub fn define(&mut self, definition: &Definition) {
        let processes = definition.processes.iter().cloned().map(Thing::Process);
        let things = processes.chain(definition.checks.iter().cloned().map(Thing::Check));
        let mut before = std::mem::take(&mut self.watched);
        for thing in things {
            let name = thing.name();
            let same = before.remove(&name).filter(|watched| watched.thing == thing);
            let resource = Resource::new(UnixTime(now_ms()));
            let watched = same.unwrap_or(Watched { thing, resource, round: 0, task: None });
            self.watched.insert(name, watched);
        }
        let rules = definition.all_rules();
        if self.rules.all() != rules {
            self.rules = Rules::new(rules);
        }
        self.off.retain(|name, _| self.watched.contains_key(name));
    }

    /// Programs that check are from now on run from other files.
    pub fn renew_programs(&mut self) {
        let programs = |w: &&mut Watched| matches!(&w.thing, Thing::Check(c) if c.probe.kind() == "program");
        self.watched.values_mut().filter(programs).for_each(|watched| watched.task = None);
    }

    /// Watches what is to be watched now: `wanted`, the module is not stopped; `runs`, its application is there.
    pub fn attend(&mut self, wanted: bool, runs: bool, means: &dyn Fn() -> Means) {
        let now = UnixTime(now_ms());
        for watched in self.watched.values_mut() {
            let attended = match watched.thing.when() {
                When::Up => runs,
                When::Always => wanted,
            };
            match (attended, watched.task.is_some()) {
                (true, false) => {
                    self.round += 1;
                    watched.round = self.round;
                    watched.resource.forget(now);
                    let looking =
                        watcher::watch(watched.thing.clone(), self.round, means(), self.tell.clone());
                    watched.task = Some(Task(tokio::spawn(looking)));
                }
                (false, true) => {
                    watched.task = None;
                    watched.resource.forget(now);
                }
                (true, true) | (false, false) => {}
            }
        }
    }

    /// Takes a verdict; what has changed by it, where that is worth telling.
    pub fn judged(&mut self, judged: Judged) -> Option<Changed> {
        let watched = self.watched.get_mut(&judged.resource)?;
        if watched.task.is_none() || watched.round != judged.round {
            return None;
        }
        if let (true, Verdict::Bad(why) | Verdict::Unknown(why)) = (judged.early, &judged.verdict) {
            watched.resource.excuse(why.clone());
            return None;
        }
        let before = watched.resource.health();
        let changed = watched.resource.judge(judged.verdict, watched.thing.damping(), UnixTime(now_ms()));
        let name = &judged.resource;
        let why = watched.resource.why();
        let process = matches!(watched.thing, Thing::Process(_));
        let (kind, text) = match watched.resource.health() {
            Health::Down if process => ("process_down", why.to_owned()),
            Health::Down => ("check_down", format!("{name} is down: {why}")),
            Health::Unknown => ("check_unknown", format!("{name} cannot be checked: {why}")),
            Health::Up if before == Health::Init => return None,
            Health::Up => ("check_up", format!("{name} is up again")),
            Health::Init => return None,
        };
        changed.then_some(Changed { kind, text })
    }

    /// Finds what follows from how everything is.
    pub fn assess(&mut self) -> (Gate, Vec<Begun>) {
        let assessment = self.rules.assess(&self.healths());
        let begun = assessment.begun.iter().map(|at| {
            let rule = &self.rules.all()[*at];
            let watched = self.watched.get(&rule.name);
            let why = match watched {
                Some(Watched { thing: Thing::Process(_), resource, .. }) => resource.why().to_owned(),
                Some(Watched { resource, .. }) => format!("{} is down: {}", rule.name, resource.why()),
                None => format!("rule {} holds", rule.name),
            };
            Begun { request: rule.request, why }
        });
        (assessment.gate, begun.collect())
    }

    /// The application is up again: what is still bad is as bad as new.
    pub fn rearm(&mut self) {
        self.rules.rearm();
    }

    /// Whether clients may come: everything that belongs to the application, and leads to an action, is good; what
    /// cannot be found out is no obstacle.
    pub fn is_well(&self) -> bool {
        let counts = |(name, watched): &(&String, &Watched)| {
            watched.thing.when() == When::Up
                && watched.thing.action() != Action::NoAction
                && !self.off.contains_key(*name)
        };
        let bad =
            |(_, watched): (_, &Watched)| matches!(watched.resource.health(), Health::Init | Health::Down);
        !self.watched.iter().filter(counts).any(bad)
    }

    /// Lets a thing count for nothing, until then or, with `None`, until it is told otherwise; `false` where there is no
    /// such thing.
    pub fn switch_off(&mut self, name: &str, until: Option<UnixTime>) -> bool {
        let known = self.watched.contains_key(name);
        if known {
            self.off.insert(name.to_owned(), until);
        }
        known
    }

    /// Lets it count again; `false` where there is no such thing.
    pub fn switch_on(&mut self, name: &str) -> bool {
        self.off.remove(name);
        self.watched.contains_key(name)
    }

    /// What counts for nothing now.
    pub fn off(&self) -> &BTreeMap<String, Option<UnixTime>> {
        &self.off
    }

    /// Lets count again what was off until now. When the next one is due.
    pub fn expire(&mut self, now: UnixTime) -> Option<UnixTime> {
        self.off.retain(|_, until| until.is_none_or(|until| until > now));
        self.off.values().flatten().min().copied()
    }

    /// The things that there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.watched.keys().map(String::as_str)
    }

    /// For people.
    pub fn resources(&self) -> Vec<v1::Resource> {
        self.watched.iter().map(|(name, watched)| self.shown(name, watched)).collect()
    }

    fn shown(&self, name: &str, watched: &Watched) -> v1::Resource {
        let change = |change: &Change| v1::ResourceChange {
            at_ms: change.at.0,
            to: state(change.to).into(),
            why: change.why.clone(),
        };
        let resource = &watched.resource;
        v1::Resource {
            name: name.to_owned(),
            state: state(resource.health()).into(),
            since_ms: resource.since().0,
            detail: resource.why().to_owned(),
            action: watched.thing.action().name().to_owned(),
            off: self.off.contains_key(name),
            off_until_ms: self.off.get(name).copied().flatten().map_or(0, |until| until.0),
            history: resource.history().map(change).collect(),
        }
    }

    fn healths(&self) -> Healths {
        let health = |(name, watched): (&String, &Watched)| {
            let off = self.off.contains_key(name);
            (name.clone(), if off { Health::Up } else { watched.resource.health() })
        };
        self.watched.iter().map(health).collect()
    }
}

const fn state(health: Health) -> v1::ResourceState {
    match health {
        Health::Init => v1::ResourceState::Init,
        Health::Up => v1::ResourceState::Up,
        Health::Down => v1::ResourceState::Down,
        Health::Unknown => v1::ResourceState::Unknown,
    }
}
