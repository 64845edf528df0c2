//! One thing that is watched: a process, which the kernel tells of, or a check, which is made again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farm_core::model::ModuleName;
use farm_core::resource::Verdict;
use farm_host::check::{self, AskOn, Finding, Program};
use farm_host::processes::{self, Scope, Spec, Watch};
use farm_module::{Check, Probe, Process, What, When};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{Judged, Means, Thing};
use crate::modules::Modules;

/// What may appear some time after the script that starts it has ended.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
/// Pause between two looks at what has just been started: clients wait for it.
const EAGER: Duration = Duration::from_millis(50);

/// Tells what is seen, until nobody listens any more.
pub(super) async fn watch(thing: Thing, round: u64, means: Means, tell: mpsc::Sender<Judged>) {
    let resource = thing.name();
    let teller = Teller { resource, round, tell };
    match thing {
        Thing::Process(process) => watch_process(&|| Watch::new(spec(&process, &means.group)), teller).await,
        Thing::Check(check) => watch_check(&check, Look::of(&check, means), teller).await,
    }
}

struct Teller {
    resource: String,
    round: u64,
    tell: mpsc::Sender<Judged>,
}

impl Teller {
    /// `None`: nobody listens.
    async fn tell(&self, verdict: Verdict, early: bool) -> Option<()> {
        let judged = Judged { resource: self.resource.clone(), round: self.round, verdict, early };
        self.tell.send(judged).await.ok()
    }
}

async fn watch_process(anew: &(dyn Fn() -> Watch + Sync), teller: Teller) {
    let mut watch = anew();
    let mut verdict = processes::Verdict::Down("it has not appeared".into());
    let appears = async {
        loop {
            verdict = watch.changed().await;
            if verdict == processes::Verdict::Up {
                return;
            }
            // The first look of a watch is at once, later ones are for what has been there for long.
            sleep(EAGER).await;
            watch = anew();
        }
    };
    // Whether it came in time or not, its verdict is told.
    let _ = timeout(APPEARS_WITHIN, appears).await;
    loop {
        let told = match verdict {
            processes::Verdict::Up => Verdict::Good,
            processes::Verdict::Down(why) => Verdict::Bad(why),
        };
        if teller.tell(told, false).await.is_none() {
            return;
        }
        verdict = watch.changed().await;
    }
}

async fn watch_check(check: &Check, look: Look, teller: Teller) {
    let begun = Instant::now();
    let grace = match check.when {
        When::Up => check.start_within,
        When::Always => Duration::ZERO,
    };
    let mut was_good = false;
    loop {
        let verdict = look.look(check.timeout).await;
        was_good |= verdict == Verdict::Good;
        let early = !was_good && begun.elapsed() < grace;
        if teller.tell(verdict, early).await.is_none() {
            return;
        }
        sleep(if early { check.interval.min(EAGER) } else { check.interval }).await;
    }
}

/// How a check is made.
enum Look {
    Host(check::Check),
    Module(Arc<Modules>, ModuleName),
}

impl Look {
    fn of(check: &Check, means: Means) -> Self {
        let target =
            |at: &farm_module::Target| check::Target { host: at.host.as_str().into(), port: at.port };
        Self::Host(match &check.probe {
            Probe::Tcp(at) => check::Check::Tcp { to: target(at) },
            Probe::Http { at, path, status: (first, last), body } => check::Check::Http {
                to: target(at),
                host: String::new(),
                path: path.clone(),
                status: *first..=*last,
                body: body.as_ref().map(|body| {
                    regex::bytes::Regex::new(body).expect("it was compiled when the definition was checked")
                }),
            },
            Probe::Ping(ip) => check::Check::Ping { to: *ip },
            Probe::Interface(name) => check::Check::Interface { name: name.clone(), address: None },
            Probe::Address(ip) => check::Check::Address { ip: *ip, unique: Some(AskOn::ItsLink) },
            Probe::Program(name) => check::Check::Program(program(name, check, means)),
            Probe::Module(name) => return Self::Module(means.modules, name.clone()),
        })
    }

    async fn look(&self, limit: Duration) -> Verdict {
        match self {
            Self::Host(check) => match check.run(limit).await {
                Finding::Good => Verdict::Good,
                Finding::Bad(why) => Verdict::Bad(why),
                Finding::Unknown(why) => Verdict::Unknown(why),
            },
            Self::Module(modules, name) => match modules.place(name) {
                Some(("UP", true)) => Verdict::Good,
                Some((place, _)) => Verdict::Bad(format!("{name} is in {place} on this node")),
                None => Verdict::Bad(format!("{name} is not on this node")),
            },
        }
    }
}

fn program(name: &str, check: &Check, means: Means) -> Program {
    Program {
        program: means.files.join("bin").join(name),
        arguments: Vec::new(),
        environment: means.environment,
        directory: means.files,
        cgroup: means.checks.join(&check.name),
    }
}

fn spec(process: &Process, group: &Path) -> Spec {
    let scope = |scope: &farm_module::Scope| match scope {
        farm_module::Scope::Module => Scope::Cgroup(group.to_owned()),
        farm_module::Scope::Host => Scope::Host,
    };
    let (what, scope) = match &process.what {
        What::Command(command, among) => (processes::What::Command(command.clone()), scope(among)),
        What::Regex(regex, among) => {
            let regex = regex::Regex::new(regex).expect("it was compiled when the definition was checked");
            (processes::What::CommandLine(regex), scope(among))
        }
        What::Unit(unit) => (processes::What::Unit(unit.clone()), Scope::Host),
    };
    Spec { what, scope, at_least: process.at_least, at_most: process.at_most }
}
