//! Applications of modules on this node: one keeper each, which drives its life, runs its scripts and watches its
//! processes.
//!
//! Tasks owned: [`Modules::run`], and below it one keeper per module that has an application. They end with the member.
//! An application does not end with them: it is found again in its cgroup by the next run of the daemon.

mod home;
mod keeper;
mod memory;
mod readiness;
mod runs;
mod scripts;
mod supervision;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_core::life::{By, Request};
use farm_core::model::{Membership, Module, ModuleName, Node, Role};
use farm_core::time::UnixTime;
use farm_host::applog::{self, Cursor};
use farm_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

pub use home::Home;
use keeper::Keeper;
pub use runs::{Of, Runs};
pub use scripts::{LOG_LIMITS, Verb};

use crate::member::Member;
use crate::problem::Problem;

/// Calls that may wait for a keeper: it takes them between two steps of at most milliseconds.
const CALLS_MAX: usize = 32;

/// Pause before a keeper that panicked begins anew: one that does so at once must not spin.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// How long a module that has just been applied may take until it can be asked for something: less than who asks waits.
const KEPT_WITHIN: Duration = Duration::from_millis(1500);

/// What a keeper is asked. The answer comes when it has taken it up, before it is carried out.
pub enum Call {
    /// A person wants something of the module.
    Want(Want, oneshot::Sender<Result<(), Problem>>),
    /// A script of the module says something.
    Script(Verb, oneshot::Sender<v1::ScriptResponse>),
}

/// What a person may want of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Something of its life; by whom, as far as it matters.
    Life(Request, By),
    /// A stop, because the machine goes down.
    ShutDown,
    /// What a resource says counts for nothing, until then or without end.
    Off(String, Option<UnixTime>),
    /// It counts again.
    On(String),
    /// Its processes are to end as if they had failed.
    Kill,
}

impl Want {
    /// From the wire.
    ///
    /// # Errors
    /// `bad_request` for what is no action.
    fn parse(request: &v1::ControlRequest) -> Result<Self, Problem> {
        let by = if request.no_drain { By::Haste } else { By::Hand };
        let resource = || request.resource.clone();
        let until = (request.until_ms > 0).then_some(UnixTime(request.until_ms));
        Ok(match v1::ModuleAction::try_from(request.action) {
            Ok(v1::ModuleAction::Start) => Self::Life(Request::Start, by),
            Ok(v1::ModuleAction::Stop) => Self::Life(Request::Stop, by),
            Ok(v1::ModuleAction::Restart) => Self::Life(Request::Restart, by),
            Ok(v1::ModuleAction::Stopstart) => Self::Life(Request::StopStart, by),
            Ok(v1::ModuleAction::Shutdown) => Self::ShutDown,
            Ok(v1::ModuleAction::CheckOff) => Self::Off(resource(), until),
            Ok(v1::ModuleAction::CheckOn) => Self::On(resource()),
            Ok(v1::ModuleAction::Kill) => Self::Kill,
            Ok(v1::ModuleAction::Unspecified) | Err(_) => {
                let fact = format!("{} is no action of a module", request.action);
                return Err(Problem::new("bad_request", fact, "farmctl module --help"));
            }
        })
    }
}

/// Lines of a log that are read at once, at most: a log holds more than a person reads.
const LINES_MAX: u64 = 10_000;

/// The last lines of a module's application log on this node, or what follows a place in it.
///
/// # Errors
/// `log_unreadable`, with the file system's words.
pub async fn log(data_dir: &Path, request: v1::LogRequest) -> Result<v1::ModuleLogLines, Problem> {
    let v1::LogRequest { module, last, file, offset } = request;
    let directory = Home::of(data_dir, &ModuleName(module)).log();
    let lines = usize::try_from(last.min(LINES_MAX)).unwrap_or(usize::MAX);
    let shown = directory.display().to_string();
    let read = tokio::task::spawn_blocking(move || match file {
        0 if lines > 0 => applog::tail(&directory, lines),
        file => applog::since(&directory, Cursor { file, offset }),
    });
    let failed = |error: &dyn std::fmt::Display| {
        Problem::new("log_unreadable", format!("{shown}: {error}"), format!("df {shown}"))
    };
    let (lines, Cursor { file, offset }) = read.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
    Ok(v1::ModuleLogLines { lines, file, offset })
}

/// A script's proof that it is one of the module's.
pub type Token = [u8; 16];

/// The keepers of this node, from outside.
#[derive(Default)]
pub struct Modules {
    kept: Mutex<BTreeMap<ModuleName, Kept>>,
    /// How often keepers have come or gone.
    changes: watch::Sender<u64>,
    /// How long scripts took.
    pub runs: Arc<Runs>,
}

struct Kept {
    calls: mpsc::Sender<Call>,
    /// `None` until it is known.
    token: Option<Token>,
    life: v1::ModuleLife,
}

impl Modules {
    /// How the applications on this node are.
    #[must_use]
    pub fn lives(&self) -> Vec<v1::ModuleLife> {
        self.lock().values().map(|kept| kept.life.clone()).collect()
    }

    /// Where a module is on this node, as people read it, and whether it is there to stay.
    #[must_use]
    pub fn place(&self, name: &ModuleName) -> Option<(&'static str, bool)> {
        let kept = self.lock();
        let life = &kept.get(name)?.life;
        let place = match life.place() {
            v1::Place::Unspecified | v1::Place::Stop => "STOP",
            v1::Place::Wait => "WAIT",
            v1::Place::Up => "UP",
        };
        Some((place, life.status() == v1::LifeStatus::Ready))
    }

    /// Returns when nothing of any module is kept any more: this node has left, and all its applications are stopped.
    pub async fn rested(&self) {
        let mut changes = self.changes.subscribe();
        while !self.lock().is_empty() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks for something, and returns when that is taken up.
    ///
    /// # Errors
    /// `no_application` when nothing of that name can be started here, the keeper's own refusal, `module_gone` when it
    /// ends meanwhile, `bad_request` for what is no action.
    pub async fn control(&self, request: &v1::ControlRequest) -> Result<(), Problem> {
        let name = ModuleName(request.module.clone());
        let want = Want::parse(request)?;
        let calls = self.calls(&name).await.ok_or_else(|| {
            let fact = format!("{name} has no scripts: there is nothing to start or stop");
            Problem::new("no_application", fact, format!("farmctl module show {name}"))
        })?;
        let gone = || {
            let fact = format!("the keeper of {name} has ended");
            Problem::new("module_gone", fact, format!("farmctl module show {name}"))
        };
        let (answer, answered) = oneshot::channel();
        calls.send(Call::Want(want, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// The way to a keeper; one that has just been applied elsewhere is waited for.
    async fn calls(&self, name: &ModuleName) -> Option<mpsc::Sender<Call>> {
        let mut changes = self.changes.subscribe();
        let found = async {
            loop {
                if let Some(kept) = self.lock().get(name) {
                    return Some(kept.calls.clone());
                }
                changes.changed().await.ok()?;
            }
        };
        timeout(KEPT_WITHIN, found).await.ok().flatten()
    }

    /// Takes what a script says.
    ///
    /// # Errors
    /// `bad_token` when no module gave it to a script.
    pub async fn said(&self, token: &[u8], verb: Verb) -> Result<v1::ScriptResponse, Problem> {
        let refused = || {
            let fact = "FARM_TOKEN names no script that this daemon runs";
            Problem::new("bad_token", fact, "farmctl script --help")
        };
        let calls = self
            .lock()
            .values()
            .find(|kept| kept.token.as_ref().is_some_and(|t| t == token))
            .map(|kept| kept.calls.clone());
        let (answer, answered) = oneshot::channel();
        calls.ok_or_else(refused)?.send(Call::Script(verb, answer)).await.map_err(|_| refused())?;
        answered.await.map_err(|_| refused())
    }

    /// Keeps a module for as long as the state has it, with its application.
    pub async fn run(self: Arc<Self>, member: Arc<Member>) {
        let mut states = member.states();
        let (mut keepers, mut names) = (JoinSet::new(), BTreeMap::new());
        let mut pause = Duration::ZERO;
        loop {
            let wanted: Vec<ModuleName> = {
                let snapshot = states.borrow_and_update().clone();
                // Who leaves stops what it has, and takes up nothing.
                let me = snapshot.state.nodes.get(&member.me);
                let runs = |node: &Node| node.role == Role::Server && node.membership != Membership::Leaving;
                let known = me.is_some_and(runs);
                let has =
                    |module: &Module| module.definition.as_ref().is_some_and(|d| d.application.is_some());
                let modules = snapshot.state.modules.iter().filter(|(_, module)| known && has(module));
                modules.map(|(name, _)| name.clone()).collect()
            };
            for name in wanted {
                if self.lock().contains_key(&name) {
                    continue;
                }
                let keeper = self.keeper(&member, &name);
                let id = keepers.spawn(async move {
                    tokio::time::sleep(pause).await;
                    keeper.await;
                });
                names.insert(id.id(), name);
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                Some(ended) = keepers.join_next_with_id() => {
                    let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
                    // One that panicked leaves its application alone, and the next finds it.
                    pause = if ended.is_ok() { Duration::ZERO } else { AFTER_PANIC };
                    if let Some(name) = names.remove(&id) {
                        if let Err(error) = ended {
                            let fact = format!("the keeper of {name} failed, and begins anew: {error}");
                            member.journal.note(member.me.0, "keeper_failed", &name.0, fact, "");
                        }
                        self.lock().remove(&name);
                        self.runs.forget(&name);
                        self.changed();
                    }
                }
            }
        }
    }

    /// What keeps the module.
    fn keeper(self: &Arc<Self>, member: &Arc<Member>, name: &ModuleName) -> impl Future<Output = ()> + use<> {
        let (calls, called) = mpsc::channel(CALLS_MAX);
        let life = v1::ModuleLife { module: name.0.clone(), node: member.me.0, ..v1::ModuleLife::default() };
        self.lock().insert(name.clone(), Kept { calls, token: None, life });
        self.changed();
        Keeper::new(member.clone(), name.clone(), self.clone()).run(called)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// From now on scripts of the module show this.
    fn give_token(&self, name: &ModuleName, token: Token) {
        if let Some(kept) = self.lock().get_mut(name) {
            kept.token = Some(token);
        }
    }

    fn show(&self, name: &ModuleName, life: v1::ModuleLife) {
        if let Some(kept) = self.lock().get_mut(name) {
            kept.life = life;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ModuleName, Kept>> {
        // Every change of the map is one step: a panic elsewhere leaves it whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
