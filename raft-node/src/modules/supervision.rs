//! Watches the processes of an application while it is up, each by a task of its own.

use std::sync::Arc;
use std::time::Duration;

use farm_core::life::Request;
use farm_host::processes::{self, Scope, Spec, Verdict, Watch};
use farm_module::{Action, Definition, Process, What};
use farm_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::journal::now_ms;

/// What may appear some time after the script that starts it has ended.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
/// Verdicts that wait for the keeper.
const VERDICTS_MAX: usize = 64;

/// A verdict about one process.
pub struct Judged {
    /// When it was begun to be watched: what comes from before a restart is old.
    round: u64,
    process: usize,
    verdict: Verdict,
}

/// The processes of one module.
pub struct Supervision {
    group: std::path::PathBuf,
    round: u64,
    watched: Vec<Watched>,
    tasks: JoinSet<()>,
    tell: mpsc::Sender<Judged>,
}

struct Watched {
    name: String,
    action: Action,
    state: v1::ResourceState,
    since_ms: u64,
    detail: String,
}

impl Supervision {
    /// Watches nothing yet; verdicts come by the receiver. `group` is the cgroup of the module.
    pub fn new(group: std::path::PathBuf) -> (Self, mpsc::Receiver<Judged>) {
        let (tell, told) = mpsc::channel(VERDICTS_MAX);
        (Self { group, round: 0, watched: Vec::new(), tasks: JoinSet::new(), tell }, told)
    }

    /// The application has come up.
    pub fn start(&mut self, definition: &Arc<Definition>) {
        self.stop();
        self.watched = definition.processes.iter().map(Watched::new).collect();
        for (index, process) in definition.processes.iter().enumerate() {
            let watch = Watch::new(self.spec(process));
            self.tasks.spawn(watch_one(watch, self.round, index, self.tell.clone()));
        }
    }

    /// It is taken down: deaths are no news.
    pub fn stop(&mut self) {
        self.round += 1;
        self.tasks.abort_all();
        self.watched.iter_mut().for_each(|watched| watched.become_(v1::ResourceState::Init, String::new()));
    }

    /// Takes a verdict: what is to be done, and why.
    pub fn judged(&mut self, judged: Judged) -> Option<(Request, String)> {
        if judged.round != self.round {
            return None;
        }
        let watched = self.watched.get_mut(judged.process)?;
        match judged.verdict {
            Verdict::Up => {
                watched.become_(v1::ResourceState::Up, String::new());
                None
            }
            Verdict::Down(why) => {
                watched.become_(v1::ResourceState::Down, why.clone());
                request(watched.action).map(|request| (request, why))
            }
        }
    }

    /// For people.
    pub fn resources(&self) -> Vec<v1::Resource> {
        let shown = |watched: &Watched| v1::Resource {
            name: format!("proc.{}", watched.name),
            state: watched.state.into(),
            since_ms: watched.since_ms,
            detail: watched.detail.clone(),
        };
        self.watched.iter().map(shown).collect()
    }

    fn spec(&self, process: &Process) -> Spec {
        let scope = |scope: &farm_module::Scope| match scope {
            farm_module::Scope::Module => Scope::Cgroup(self.group.clone()),
            farm_module::Scope::Host => Scope::Host,
        };
        let (what, scope) = match &process.what {
            What::Command(command, among) => (processes::What::Command(command.clone()), scope(among)),
            What::Regex(regex, among) => {
                let regex =
                    regex::Regex::new(regex).expect("it was compiled when the definition was checked");
                (processes::What::CommandLine(regex), scope(among))
            }
            What::Unit(unit) => (processes::What::Unit(unit.clone()), Scope::Host),
        };
        Spec { what, scope, at_least: process.at_least, at_most: process.at_most }
    }
}

impl Watched {
    fn new(process: &Process) -> Self {
        let state = v1::ResourceState::Init;
        Self {
            name: process.name.clone(),
            action: process.action,
            state,
            since_ms: now_ms(),
            detail: String::new(),
        }
    }

    fn become_(&mut self, state: v1::ResourceState, detail: String) {
        if self.state != state {
            self.since_ms = now_ms();
        }
        (self.state, self.detail) = (state, detail);
    }
}

const fn request(action: Action) -> Option<Request> {
    match action {
        Action::Restart => Some(Request::Restart),
        Action::StopStart => Some(Request::StopStart),
        Action::Stop => Some(Request::Stop),
        Action::NoAction => None,
    }
}

async fn watch_one(mut watch: Watch, round: u64, process: usize, tell: mpsc::Sender<Judged>) {
    let mut verdict = Verdict::Down("it has not appeared".into());
    let appears = async {
        while verdict != Verdict::Up {
            verdict = watch.changed().await;
        }
    };
    // Whether it came in time or not, its verdict is told.
    let _ = timeout(APPEARS_WITHIN, appears).await;
    while tell.send(Judged { round, process, verdict }).await.is_ok() {
        verdict = watch.changed().await;
    }
}
