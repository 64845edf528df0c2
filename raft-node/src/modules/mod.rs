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

use farm_core::life::{By, Request};
use farm_core::model::{Module, ModuleName};
use farm_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use home::Home;
use keeper::Keeper;
pub use scripts::{LOG_LIMITS, Verb};

use crate::member::Member;
use crate::problem::Problem;

/// Calls that may wait for a keeper: it takes them between two steps of at most milliseconds.
const CALLS_MAX: usize = 32;

/// What a keeper is asked.
pub enum Call {
    /// Somebody wants something of the module.
    Ask(Request, By),
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

    /// Asks for something by hand.
    ///
    /// # Errors
    /// `no_application` when nothing of that name can be started here, `node_busy` when its keeper does not answer.
    pub async fn ask(&self, name: &ModuleName, request: Request) -> Result<(), Problem> {
        let calls = self.lock().get(name).map(|kept| kept.calls.clone());
        let calls = calls.ok_or_else(|| {
            let fact = format!("{name} has no scripts: there is nothing to start or stop");
            Problem::new("no_application", fact, format!("farmctl module show {name}"))
        })?;
        calls.send(Call::Ask(request, By::Hand)).await.map_err(|_| {
            let fact = format!("the keeper of {name} has ended");
            Problem::new("module_gone", fact, format!("farmctl module show {name}"))
        })
    }

    /// The same, as it comes over the wire.
    ///
    /// # Errors
    /// As [`Modules::ask`]; `bad_request` for what is no action.
    pub async fn control(&self, name: &ModuleName, action: i32) -> Result<(), Problem> {
        let request = match v1::ModuleAction::try_from(action) {
            Ok(v1::ModuleAction::Start) => Request::Start,
            Ok(v1::ModuleAction::Stop) => Request::Stop,
            Ok(v1::ModuleAction::Restart) => Request::Restart,
            Ok(v1::ModuleAction::Stopstart) => Request::StopStart,
            Ok(v1::ModuleAction::Unspecified) | Err(_) => {
                let fact = format!("{action} is no action of a module");
                return Err(Problem::new("bad_request", fact, "farmctl module --help"));
            }
        };
        self.ask(name, request).await
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
        let mut keepers = JoinSet::new();
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
                if !self.lock().contains_key(&name) {
                    self.keep(&member, name, &mut keepers);
                }
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                Some(ended) = keepers.join_next() => match ended {
                    Ok(name) => drop(self.lock().remove(&name)),
                    // A keeper that panicked leaves its application alone; a new one would find it.
                    Err(error) => tracing::error!(%error, "a keeper ended"),
                },
            }
        }
    }

    fn keep(self: &Arc<Self>, member: &Arc<Member>, name: ModuleName, keepers: &mut JoinSet<ModuleName>) {
        let mut token = Token::default();
        if let Err(error) = getrandom::fill(&mut token) {
            tracing::error!(%error, %name, "no token for scripts");
            return;
        }
        let (calls, called) = mpsc::channel(CALLS_MAX);
        let life = v1::ModuleLife { module: name.0.clone(), node: member.me.0, ..v1::ModuleLife::default() };
        self.lock().insert(name.clone(), Kept { calls, token, life });
        let (modules, member) = (self.clone(), member.clone());
        keepers.spawn(async move {
            Keeper::new(member, name.clone(), token, modules).run(called).await;
            name
        });
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
