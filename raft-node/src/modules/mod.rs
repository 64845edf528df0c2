//! Applications of modules on this node: one keeper each, which drives its life, runs its scripts and watches its
//! processes.
//!
//! Tasks owned: [`Modules::run`], and below it one keeper per module that has an application. They end with the member.
//! An application does not end with them: it is found again in its cgroup by the next run of the daemon.

mod home;
mod keeper;
mod memory;
mod readiness;
mod scripts;
mod supervision;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_core::life::Request;
use farm_core::model::{Module, ModuleName};
use farm_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

pub use home::Home;
use keeper::Keeper;
pub use scripts::{LOG_LIMITS, Verb};

use crate::member::Member;
use crate::problem::Problem;

/// Calls that may wait for a keeper: it takes them between two steps of at most milliseconds.
const CALLS_MAX: usize = 32;

/// Pause before a keeper that panicked begins anew: one that does so at once must not spin.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// What a keeper is asked.
pub enum Call {
    /// A person wants something of the module.
    Ask(Request),
    /// It is stopped because the machine goes down.
    ShutDown,
    /// A script of the module says something.
    Script(Verb, oneshot::Sender<v1::ScriptResponse>),
}

/// Lines of a log that are read at once, at most: a log holds more than a person reads.
const LINES_MAX: u64 = 10_000;

/// The last lines of a module's log on this node.
///
/// # Errors
/// `log_unreadable`, with the file system's words.
pub async fn log(data_dir: &Path, name: &ModuleName, last: u64) -> Result<Vec<String>, Problem> {
    let directory = Home::of(data_dir, name).log();
    let lines = usize::try_from(last.min(LINES_MAX)).unwrap_or(usize::MAX);
    let shown = directory.display().to_string();
    let read = tokio::task::spawn_blocking(move || farm_host::applog::tail(&directory, lines)).await;
    let failed = |error: &dyn std::fmt::Display| {
        Problem::new("log_unreadable", format!("{shown}: {error}"), format!("df {shown}"))
    };
    read.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

/// A script's proof that it is one of the module's.
pub type Token = [u8; 16];

/// The keepers of this node, from outside.
#[derive(Default)]
pub struct Modules {
    kept: Mutex<BTreeMap<ModuleName, Kept>>,
}

struct Kept {
    calls: mpsc::Sender<Call>,
    token: Token,
    life: v1::ModuleLife,
}

impl Modules {
    /// How the applications on this node are.
    #[must_use]
    pub fn lives(&self) -> Vec<v1::ModuleLife> {
        self.lock().values().map(|kept| kept.life.clone()).collect()
    }

    /// Asks for something.
    ///
    /// # Errors
    /// `no_application` when nothing of that name can be started here, `node_busy` when its keeper does not answer.
    pub async fn ask(&self, name: &ModuleName, call: Call) -> Result<(), Problem> {
        let calls = self.lock().get(name).map(|kept| kept.calls.clone());
        let calls = calls.ok_or_else(|| {
            let fact = format!("{name} has no scripts: there is nothing to start or stop");
            Problem::new("no_application", fact, format!("farmctl module show {name}"))
        })?;
        calls.send(call).await.map_err(|_| {
            let fact = format!("the keeper of {name} has ended");
            Problem::new("module_gone", fact, format!("farmctl module show {name}"))
        })
    }

    /// The same, as it comes over the wire.
    ///
    /// # Errors
    /// As [`Modules::ask`]; `bad_request` for what is no action.
    pub async fn control(&self, name: &ModuleName, action: i32) -> Result<(), Problem> {
        let call = match v1::ModuleAction::try_from(action) {
            Ok(v1::ModuleAction::Start) => Call::Ask(Request::Start),
            Ok(v1::ModuleAction::Stop) => Call::Ask(Request::Stop),
            Ok(v1::ModuleAction::Restart) => Call::Ask(Request::Restart),
            Ok(v1::ModuleAction::Stopstart) => Call::Ask(Request::StopStart),
            Ok(v1::ModuleAction::Shutdown) => Call::ShutDown,
            Ok(v1::ModuleAction::Unspecified) | Err(_) => {
                let fact = format!("{action} is no action of a module");
                return Err(Problem::new("bad_request", fact, "farmctl module --help"));
            }
        };
        self.ask(name, call).await
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
        let calls = self.lock().values().find(|kept| kept.token == token).map(|kept| kept.calls.clone());
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
                let known = snapshot.state.nodes.contains_key(&member.me);
                let has =
                    |module: &Module| module.definition.as_ref().is_some_and(|d| d.application.is_some());
                let modules = snapshot.state.modules.iter().filter(|(_, module)| known && has(module));
                modules.map(|(name, _)| name.clone()).collect()
            };
            for name in wanted {
                if self.lock().contains_key(&name) {
                    continue;
                }
                if let Some(keeper) = self.keeper(&member, &name) {
                    let id = keepers.spawn(async move {
                        tokio::time::sleep(pause).await;
                        keeper.await;
                    });
                    names.insert(id.id(), name);
                }
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
                    }
                }
            }
        }
    }

    /// What keeps the module; `None` where the machine gives no random numbers.
    fn keeper(
        self: &Arc<Self>,
        member: &Arc<Member>,
        name: &ModuleName,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let mut token = Token::default();
        if let Err(error) = getrandom::fill(&mut token) {
            tracing::error!(%error, %name, "no token for scripts");
            return None;
        }
        let (calls, called) = mpsc::channel(CALLS_MAX);
        let life = v1::ModuleLife { module: name.0.clone(), node: member.me.0, ..v1::ModuleLife::default() };
        self.lock().insert(name.clone(), Kept { calls, token, life });
        Some(Keeper::new(member.clone(), name.clone(), token, self.clone()).run(called))
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
