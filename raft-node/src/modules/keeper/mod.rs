//! Keeps one module on this node: does the steps of its life, one after the other, and tells it what happens.

mod chatter;
mod program;
mod resume;
mod shown;

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farm_core::life::{By, Cause, Ended, Input, Life, Limit, Place, Request, Run, Script, State, Step};
use farm_core::model::{Membership, ModuleName, Readiness};
use farm_core::time::UnixTime;
use farm_host::cgroup::Cgroup;
use farm_module::Definition;
use farm_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::home::Home;
use super::memory::Memory;
use super::readiness::{self, Gate};
use super::scripts::{Stage, Verb};
use super::supervision::{Judged, Means, Supervision};
use super::{Call, Modules, Token, Want};
use crate::journal::now_ms;
use crate::member::Member;
use crate::problem::Problem;
use crate::raft::Snapshot;
use chatter::{Chatter, sentence};
use program::Program;

/// How long a drain may take where the definition says nothing: as long as the planner lets connections stay.
const DRAIN: Duration = Duration::from_secs(5 * 60);
/// More than the planner's own limit, which ends the drain of its buckets.
const DRAIN_SLACK: Duration = Duration::from_secs(5);
/// What an application gets of a processor that others want too; 100 is what everybody has.
const WEIGHT: u16 = 50;
/// How long killed processes may take to be gone: the kernel frees their memory first.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// Before the next try of what fails at once: nobody notices that a second later, and the machine has time for others.
const PAUSE: Duration = Duration::from_secs(1);

/// A step that is being done; what went wrong with it, in words.
type Work = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// See the module.
pub struct Keeper {
    member: Arc<Member>,
    modules: Arc<Modules>,
    name: ModuleName,
    home: Home,
}

/// What a keeper works with once its module can be had.
struct Ready {
    program: Program,
    group: Cgroup,
    log_group: Cgroup,
    check_group: Cgroup,
    token: Token,
    born: u64,
}

/// A keeper that knows what its module is.
struct Kept {
    keeper: Keeper,
    life: Life,
    /// What runs, or ran last, was started from.
    running: Program,
    /// What the next start is from.
    newest: Program,
    group: Cgroup,
    log_group: Cgroup,
    check_group: Cgroup,
    token: Token,
    born: u64,
    gate: Gate,
    supervision: Supervision,
    /// `start_both` has ended, and nothing was stopped since: what belongs to the application is watched.
    runs: bool,
    /// Nobody has to wait for the checks any more.
    well: watch::Sender<bool>,
    /// Nobody has to wait for connections any more.
    hurried: watch::Sender<bool>,
    remembered: Memory,
    chatter: Chatter,
    shown: (State, Option<Cause>),
    since_ms: u64,
    /// What the last failure was, in words.
    why: String,
    /// It has nothing to do on this node any more.
    gone: bool,
    /// It was to run when the machine began to go down.
    shut: bool,
}

impl Keeper {
    pub fn new(member: Arc<Member>, name: ModuleName, modules: Arc<Modules>) -> Self {
        let home = Home::of(&member.config.data_dir, &name);
        Self { member, modules, name, home }
    }

    /// Keeps the module until it has nothing to do here any more, or Raft ends. What runs then goes on.
    pub async fn run(self, mut calls: mpsc::Receiver<Call>) {
        let mut states = self.member.states();
        let wanted = watch::channel(None).0;
        let gate = Gate { member: self.member.clone(), name: self.name.clone(), wanted };
        let publishing = readiness::publish(gate.member.clone(), gate.name.clone(), gate.wanted.subscribe());
        let _publisher = Publisher(tokio::spawn(publishing).abort_handle());
        let Some(ready) = self.prepare(&gate, &mut states, &mut calls).await else { return };
        let (mut kept, mut verdicts) = Kept::begin(self, gate, ready);
        let mut work: Option<Work> = None;
        loop {
            let due = kept.settle();
            if work.is_none() {
                work = kept.life.step().map(|step| kept.start(step));
            }
            kept.tell();
            if kept.is_over() {
                break;
            }
            tokio::select! {
                call = calls.recv() => match call {
                    Some(call) => kept.take(call),
                    None => break,
                },
                ended = finished(&mut work) => {
                    work = None;
                    kept.done(ended);
                }
                Some(judged) = verdicts.recv() => kept.judged(judged),
                () = until(due) => {}
                changed = states.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let snapshot = states.borrow_and_update().clone();
                    kept.follow(&snapshot);
                }
            }
        }
    }

    /// Returns what the module is, once it can be had; `None` when there is nothing to do with it. Until then no client
    /// is sent here, and whoever asks for something is told why.
    async fn prepare(
        &self,
        gate: &Gate,
        states: &mut watch::Receiver<Arc<Snapshot>>,
        calls: &mut mpsc::Receiver<Call>,
    ) -> Option<Ready> {
        let mut told = String::new();
        loop {
            let snapshot = states.borrow_and_update().clone();
            if !self.has_part(&snapshot) {
                return None;
            }
            let why = match self.provide(&snapshot) {
                Ok(ready) => return Some(ready),
                Err(why) => why,
            };
            gate.shut();
            self.modules.show(&self.name, shown::unusable(&self.name, self.member.me, &why));
            if why != told {
                self.note("module_unusable", &why);
            }
            told = why;
            tokio::select! {
                changed = states.changed() => changed.ok()?,
                call = calls.recv() => self.refuse(call?, &told),
                // A disk that was full may have room by now.
                () = sleep(PAUSE) => {}
            }
        }
    }

    fn refuse(&self, call: Call, why: &str) {
        if let Call::Want(_, answer) = call {
            let cure = format!("farmctl module applog {}", self.name);
            let _ = answer.send(Err(Problem::new("module_unusable", why.to_owned(), cure)));
        }
    }

    /// Whether this node has anything to do with the module.
    fn has_part(&self, snapshot: &Snapshot) -> bool {
        let has =
            snapshot.state.modules.get(&self.name).is_some_and(farm_core::model::Module::has_application);
        let me = snapshot.state.nodes.get(&self.member.me);
        has && me.is_some_and(|node| node.membership != Membership::Leaving)
    }

    fn note(&self, kind: &str, text: &str) {
        self.member.journal.note(self.member.me.0, kind, &self.name.0, text, "");
    }
}

/// Ends with the keeper, also when that panics.
struct Publisher(AbortHandle);

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a step comes to; never, while none is being done.
async fn finished(work: &mut Option<Work>) -> Result<(), String> {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

async fn until(due: Option<UnixTime>) {
    match due {
        Some(due) => sleep(Duration::from_millis(due.0.saturating_sub(now_ms()).max(1))).await,
        None => pending().await,
    }
}

impl Kept {
    fn start(&mut self, step: Step) -> Work {
        if let Step::Run(run) = step
            && begins(run)
        {
            self.running = self.newest.clone();
        }
        self.runs = match step {
            Step::Check => true,
            Step::Open | Step::Pause | Step::Gate | Step::Enter(_) => self.runs,
            // What is taken down may die.
            Step::Run(_) | Step::Close { .. } | Step::Kill => false,
        };
        self.attend();
        let (stage, gate) = (self.stage(), self.gate.clone());
        let definition = self.running.definition.clone();
        match step {
            Step::Run(run) => Box::pin(async move { stage.run(run, &definition).await }),
            Step::Open => Box::pin(async move {
                gate.open().await;
                Ok(())
            }),
            Step::Close { drain } => {
                let limit = self.newest.definition.drain.map_or(DRAIN, |limit| Duration::from_nanos(limit.0));
                let (drain, hurried) = (drain.then_some(limit + DRAIN_SLACK), self.hurried.subscribe());
                Box::pin(async move {
                    gate.close(drain, hurried).await;
                    Ok(())
                })
            }
            Step::Kill => Box::pin(stage.kill(KILLED_WITHIN)),
            Step::Check => Box::pin(self.wait(None)),
            Step::Pause => Box::pin(self.wait(Some(PAUSE))),
            // The life does these by itself.
            Step::Gate | Step::Enter(_) => Box::pin(async { Ok(()) }),
        }
    }

    /// Until all is well, or somebody asks for something else, at most so long.
    fn wait(&self, limit: Option<Duration>) -> impl Future<Output = Result<(), String>> + Send + use<> {
        self.well.send_replace(match limit {
            None => self.supervision.is_well(),
            Some(_) => false,
        });
        let mut well = self.well.subscribe();
        async move {
            let enough = well.wait_for(|well| *well);
            match limit {
                None => drop(enough.await),
                Some(limit) => drop(timeout(limit, enough).await),
            }
            Ok(())
        }
    }

    /// Finds what follows from what is watched, and from whom is asked; when something that is off is due.
    fn settle(&mut self) -> Option<UnixTime> {
        let due = self.supervision.expire(UnixTime(now_ms()));
        self.attend();
        let (gate, begun) = self.supervision.assess();
        self.handle(Input::Gate(gate));
        for begun in begun {
            // Before it is up nothing can be done about it, and afterwards it is found again.
            let Some(request) = begun.request.filter(|_| self.life.state().place == Place::Up) else {
                continue;
            };
            self.why = begun.why;
            self.handle(Input::Ask(request, By::Automatism));
        }
        let well = match self.life.step() {
            Some(Step::Check) => self.supervision.is_well(),
            _ => false,
        };
        self.well.send_replace(well || self.life.is_asked());
        self.hurried.send_replace(self.life.is_hurried());
        due
    }

    /// Watches what is to be watched now.
    fn attend(&mut self) {
        let wanted = self.life.state() != State::STOP || self.life.step().is_some();
        let keeper = &self.keeper;
        let (files, environment) = (self.newest.files.clone(), self.stage_of(&self.newest));
        let definition = self.newest.definition.clone();
        let (group, checks) = (self.group.path().to_owned(), self.check_group.path().to_owned());
        let means = || Means {
            group: group.clone(),
            checks: checks.clone(),
            environment: environment.environment(&definition),
            files: files.clone(),
            modules: keeper.modules.clone(),
        };
        self.supervision.attend(wanted, self.runs, &means);
    }

    fn done(&mut self, ended: Result<(), String>) {
        let was = self.life.step();
        let ended = match ended {
            Ok(()) => Ended::Well,
            Err(why) => {
                self.keeper.note("script_failed", &why);
                self.why = why;
                Ended::Badly
            }
        };
        self.handle(Input::Done(ended));
        if was == Some(Step::Open) && self.life.is_open() {
            self.supervision.rearm();
        }
    }

    fn handle(&mut self, input: Input) {
        self.life.handle(input, UnixTime(now_ms()));
    }

    fn take(&mut self, call: Call) {
        match call {
            Call::Want(want, answer) => {
                let taken = self.want(want);
                // Who asks looks at once, and is to see it on its way.
                let _ = self.settle();
                self.show();
                // Whoever asked may have gone.
                let _ = answer.send(taken);
            }
            Call::Script(verb, answer) => self.said(verb, answer),
        }
    }

    fn want(&mut self, want: Want) -> Result<(), Problem> {
        match want {
            Want::Life(request, by) => {
                self.shut = false;
                self.handle(Input::Ask(request, by));
                Ok(())
            }
            Want::ShutDown => {
                // Said twice, it is on its way down the second time.
                self.shut |= self.life.is_wanted();
                self.handle(Input::Ask(Request::Stop, By::Hand));
                Ok(())
            }
            Want::Off(resource, until) => {
                let known = self.supervision.switch_off(&resource, until);
                self.switched(&resource, known, "check_off", "what it says counts for nothing")
            }
            Want::On(resource) => {
                let known = self.supervision.switch_on(&resource);
                self.switched(&resource, known, "check_on", "what it says counts again")
            }
            Want::Kill => self.kill_as_a_failure_would(),
        }
    }

    /// A rehearsal: what watches the processes finds them gone.
    fn kill_as_a_failure_would(&self) -> Result<(), Problem> {
        let name = &self.keeper.name;
        let refused =
            |fact: String| Problem::new("nothing_to_kill", fact, format!("farmctl module show {name}"));
        let failed =
            |error: std::io::Error| refused(format!("the processes of {name} cannot be ended: {error}"));
        if !self.group.is_populated().map_err(failed)? {
            return Err(refused(format!(
                "{name} runs nothing in its own control group: its processes are another manager's"
            )));
        }
        self.keeper.note("drill_began", &format!("a rehearsal: the processes of {name} are killed"));
        self.group.kill().map_err(failed)
    }

    fn switched(&self, resource: &str, known: bool, kind: &str, text: &str) -> Result<(), Problem> {
        if known {
            self.keeper.note(kind, &format!("{resource}: {text}"));
            return Ok(());
        }
        let names: Vec<&str> = self.supervision.names().collect();
        let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
        let name = &self.keeper.name;
        let fact = format!("{name} has no resource {resource:?}; it watches {names}");
        Err(Problem::new("unknown_resource", fact, format!("farmctl module show {name}")))
    }

    fn said(&mut self, verb: Verb, answer: oneshot::Sender<v1::ScriptResponse>) {
        match verb {
            Verb::Log(text) => {
                self.stage().log_line(&text, &self.running.definition);
                if self.chatter.allows(UnixTime(now_ms())) {
                    self.keeper.note("script_log", &sentence(&text));
                }
            }
            Verb::Error(text) => {
                self.stage().log_line(&text, &self.running.definition);
                self.keeper.note("script_error", &sentence(&text));
            }
            Verb::Ask(request) => {
                self.why = format!("a script of {} asked for it", self.keeper.name);
                self.handle(Input::Ask(request, By::Automatism));
            }
            Verb::CountLoop => {
                self.life.count_loop(UnixTime(now_ms()));
            }
            Verb::CheckLoop => {}
            Verb::ResetLoop => self.life.reset_loops(),
        }
        let loops = self.life.loops().counted(limit(&self.newest.definition), UnixTime(now_ms()));
        let limit_reached = loops >= self.newest.definition.maxloop;
        // The script may have ended meanwhile.
        let _ = answer.send(v1::ScriptResponse { limit_reached, loops });
    }

    fn judged(&mut self, judged: Judged) {
        if let Some(changed) = self.supervision.judged(judged) {
            self.keeper.note(changed.kind, &changed.text);
        }
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        if !self.keeper.has_part(snapshot) {
            if !std::mem::replace(&mut self.gone, true) {
                self.handle(Input::Ask(Request::Stop, By::Hand));
            }
            return;
        }
        match self.keeper.program(snapshot, self.newest.revision) {
            Ok(None) => {}
            Ok(Some(program)) => {
                self.life.set_limit(limit(&program.definition));
                self.newest = program;
                self.supervision.define(&self.newest.definition);
                self.supervision.renew_programs();
                let kept = self.keeper.revisions(snapshot).map(|r| r.number);
                let keep: Vec<u64> = kept.chain([self.running.revision]).collect();
                self.keeper.home.tidy(&keep);
            }
            Err(why) => self.keeper.note("module_unusable", &why),
        }
    }

    /// There is nothing to do here any more, and nothing of it runs.
    fn is_over(&self) -> bool {
        let over = self.gone && self.rests();
        if over {
            self.keeper.home.forget();
            // Somebody may have put processes of his own into it.
            let _ = self.group.remove();
            let _ = self.check_group.remove();
        }
        over
    }

    /// It is stopped, and stays so.
    fn rests(&self) -> bool {
        self.life.state() == State::STOP && self.life.step().is_none()
    }

    /// Shows how it is, tells what is new, and remembers what must survive.
    fn tell(&mut self) {
        let now = (self.life.state(), self.life.cause());
        if now != self.shown {
            if now.0 != self.shown.0 {
                self.since_ms = now_ms();
                self.keeper.note("module_state", &self.sentence());
            }
            self.shown = now;
        }
        let memory = self.memory();
        if memory != self.remembered {
            if let Err(error) = memory.save(&self.keeper.home.memory()) {
                self.keeper
                    .note("module_forgetful", &format!("what must be remembered cannot be written: {error}"));
            }
            self.remembered = memory;
        }
        self.show();
    }

    fn show(&self) {
        self.keeper.modules.show(&self.keeper.name, self.shown_life());
    }

    fn memory(&self) -> Memory {
        let off = self.supervision.off().iter().map(|(name, until)| (name.clone(), until.map(|t| t.0)));
        let memory = Memory {
            wanted: self.life.is_wanted() || self.shut,
            up: self.life.is_open(),
            busy: !self.rests(),
            waits: self.life.state().place == Place::Wait && self.life.step().is_none(),
            revision: self.running.revision,
            born: self.born,
            failed: self.failure(),
            off: off.collect(),
            ..Memory::default()
        };
        memory.now(self.life.loops())
    }

    fn stage(&self) -> Stage {
        self.stage_of(&self.running)
    }

    fn stage_of(&self, program: &Program) -> Stage {
        let Keeper { member, name, home, .. } = &self.keeper;
        Stage {
            module: name.0.clone(),
            node: member.config.name.clone(),
            files: program.files.clone(),
            var: home.var(),
            log: home.log(),
            cgroup: self.group.path().to_owned(),
            log_cgroup: self.log_group.path().to_owned(),
            socket: member.config.socket.clone(),
            token: self.token.iter().map(|byte| format!("{byte:02x}")).collect(),
            program: member.program.clone(),
            runs: self.keeper.modules.runs.clone(),
        }
    }
}

/// Whether a script is on a way up: from then on it is those of the newest revision.
fn begins(run: Run) -> bool {
    match run.script {
        Script::Prestart | Script::StartBoth => true,
        Script::Transition => run.to > run.from,
        Script::StopBoth | Script::Poststop => false,
    }
}

fn limit(definition: &Definition) -> Limit {
    Limit { max: definition.maxloop, interval: definition.loop_interval }
}

/// What is published when the keeper begins: what runs keeps its clients until it is known to be bad.
fn first_readiness(life: &Life) -> Readiness {
    if life.is_open() { Readiness::Open } else { Readiness::Closed }
}
