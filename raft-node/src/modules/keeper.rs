//! Keeps one module on this node: does the steps of its life, one after the other, and tells it what happens.

use std::future::pending;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farm_core::life::{By, Cause, Ended, Input, Life, Limit, Loops, Place, Request, State, Status, Step};
use farm_core::model::{ModuleName, Readiness};
use farm_core::time::UnixTime;
use farm_host::cgroup::Cgroup;
use farm_module::{Boot, Definition, Files, What};
use farm_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::home::Home;
use super::memory::Memory;
use super::readiness::{self, Gate};
use super::scripts::{Stage, Verb};
use super::supervision::Supervision;
use super::{Call, Modules, Token};
use crate::journal::now_ms;
use crate::member::Member;
use crate::raft::Snapshot;

/// How long a drain may take where the definition says nothing: as long as the planner lets connections stay.
const DRAIN: Duration = Duration::from_secs(5 * 60);
/// More than the planner's own limit, which ends the drain of its buckets.
const DRAIN_SLACK: Duration = Duration::from_secs(5);
/// What an application gets of a processor that others want too; 100 is what everybody has.
const WEIGHT: u16 = 50;
/// How long killed processes may take to be gone: the kernel frees their memory first.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// A step that is being done; what went wrong with it, in words.
type Work = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// See the module.
pub struct Keeper {
    member: Arc<Member>,
    modules: Arc<Modules>,
    name: ModuleName,
    home: Home,
    token: Token,
}

/// A keeper that knows what its module is.
struct Kept {
    keeper: Keeper,
    life: Life,
    program: Program,
    group: Cgroup,
    log_group: Cgroup,
    gate: Gate,
    supervision: Supervision,
    remembered: Memory,
    shown: (State, Option<Cause>),
    since_ms: u64,
    /// What the last failure was, in words.
    why: String,
    /// The cluster has it no more.
    gone: bool,
    /// It was to run when the machine began to go down.
    shut: bool,
}

/// What scripts are run from.
#[derive(Clone)]
struct Program {
    revision: u64,
    definition: Arc<Definition>,
    files: PathBuf,
}

impl Keeper {
    pub fn new(member: Arc<Member>, name: ModuleName, token: Token, modules: Arc<Modules>) -> Self {
        let home = Home::of(&member.config.data_dir, &name);
        Self { member, modules, name, home, token }
    }

    /// Keeps the module until the cluster has it no more, or Raft ends. What runs then goes on.
    pub async fn run(self, mut calls: mpsc::Receiver<Call>) {
        let mut states = self.member.states();
        let Some((program, group, log_group)) = self.prepare(&mut states).await else { return };
        let (supervision, mut verdicts) = Supervision::new(group.path().to_owned());
        let mut kept = Kept::begin(self, program, group, log_group, supervision);
        let publisher = kept.publish();
        let mut work: Option<Work> = None;
        loop {
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
                changed = states.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let snapshot = states.borrow_and_update().clone();
                    kept.follow(&snapshot);
                }
            }
        }
        publisher.abort();
    }

    /// Returns what the module is, once it can be had; `None` when Raft ends.
    async fn prepare(
        &self,
        states: &mut watch::Receiver<Arc<Snapshot>>,
    ) -> Option<(Program, Cgroup, Cgroup)> {
        loop {
            let snapshot = states.borrow_and_update().clone();
            match self.provide(&snapshot) {
                Ok(Some(ready)) => return Some(ready),
                Ok(None) => {}
                Err(why) => self.note("module_unusable", &why),
            }
            states.changed().await.ok()?;
        }
    }

    fn provide(&self, snapshot: &Snapshot) -> Result<Option<(Program, Cgroup, Cgroup)>, String> {
        let Some(program) = self.program(snapshot, 0)? else { return Ok(None) };
        let failed = |error: std::io::Error| format!("{}: {error}", self.name);
        self.home.make().map_err(failed)?;
        let root = &self.member.config.cgroup;
        let group = Cgroup::open(&format!("{root}/modules/{}", self.name)).map_err(failed)?;
        let log_group = Cgroup::open(&format!("{root}/logs")).map_err(failed)?;
        // The lease thread goes before everybody anyway; this is for the rest of the daemon.
        if !group.set_weight(WEIGHT).map_err(failed)? {
            tracing::debug!(module = %self.name, "the processor is not shared out by cgroup2 groups here");
        }
        Ok(Some((program, group, log_group)))
    }

    /// The newest revision, written out, where it is not `known`.
    fn program(&self, snapshot: &Snapshot, known: u64) -> Result<Option<Program>, String> {
        let module = snapshot.state.modules.get(&self.name);
        let Some(revision) = module.and_then(|m| m.definition.as_ref()).and_then(|d| d.revisions.last())
        else {
            return Ok(None);
        };
        if revision.number == known {
            return Ok(None);
        }
        let number = revision.number;
        let failed = |why: &dyn std::fmt::Display| format!("revision {number} of {}: {why}", self.name);
        let files = Files::unpack(&revision.content).map_err(|e| failed(&e))?;
        let definition = Definition::parse(&self.name.0, files).map_err(|found| {
            let first = found.first().map(ToString::to_string).unwrap_or_default();
            failed(&first)
        })?;
        let at = self.home.write(number, &definition.files).map_err(|e| failed(&e))?;
        Ok(Some(Program { revision: number, definition: Arc::new(definition), files: at }))
    }

    fn note(&self, kind: &str, text: &str) {
        self.member.journal.note(self.member.me.0, kind, &self.name.0, text, "");
    }
}

/// What a step comes to; never, while none is being done.
async fn finished(work: &mut Option<Work>) -> Result<(), String> {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

impl Kept {
    /// Takes up what runs, or what is to run.
    fn begin(
        keeper: Keeper,
        program: Program,
        group: Cgroup,
        log_group: Cgroup,
        supervision: Supervision,
    ) -> Self {
        let memory = Memory::load(&keeper.home.memory());
        let limit = limit(&program.definition);
        let life = if memory.rebooted() {
            reborn(&program.definition, &memory)
        } else {
            let in_unit = program.definition.processes.iter().any(|p| matches!(p.what, What::Unit(_)));
            let runs = in_unit || group.is_populated().unwrap_or(false);
            resumed(&memory, limit, runs)
        };
        let readiness = if life.state() == State::STARTING { Readiness::Open } else { Readiness::Closed };
        let wanted = watch::channel(readiness).0;
        let gate = Gate { member: keeper.member.clone(), name: keeper.name.clone(), wanted };
        let shown = (life.state(), life.cause());
        let (since_ms, why, gone, shut) = (now_ms(), String::new(), false, false);
        let remembered = memory;
        Self {
            keeper,
            life,
            program,
            group,
            log_group,
            gate,
            supervision,
            remembered,
            shown,
            since_ms,
            why,
            gone,
            shut,
        }
    }

    fn publish(&self) -> AbortHandle {
        let Keeper { member, name, .. } = &self.keeper;
        let publishing = readiness::publish(member.clone(), name.clone(), self.gate.wanted.subscribe());
        tokio::spawn(publishing).abort_handle()
    }

    fn start(&mut self, step: Step) -> Work {
        let (stage, gate) = (self.stage(), self.gate.clone());
        let definition = self.program.definition.clone();
        match step {
            Step::Run(run) => Box::pin(async move { stage.run(run, &definition).await }),
            Step::Open => Box::pin(async move {
                gate.open().await;
                Ok(())
            }),
            Step::Close { drain } => {
                self.supervision.stop();
                let limit =
                    definition.drain.map_or(DRAIN, |limit| Duration::from_nanos(limit.0)) + DRAIN_SLACK;
                Box::pin(async move {
                    gate.close(drain.then_some(limit)).await;
                    Ok(())
                })
            }
            Step::Kill => Box::pin(stage.kill(KILLED_WITHIN)),
            // The life does these by itself.
            Step::Gate | Step::Enter(_) => Box::pin(async { Ok(()) }),
        }
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
            self.supervision.start(&self.program.definition);
        }
    }

    fn handle(&mut self, input: Input) {
        self.life.handle(input, UnixTime(now_ms()));
    }

    fn take(&mut self, call: Call) {
        match call {
            Call::Ask(request) => {
                self.shut = false;
                self.handle(Input::Ask(request, By::Hand));
            }
            Call::ShutDown => {
                self.shut = self.remembered.wanted;
                self.handle(Input::Ask(Request::Stop, By::Hand));
            }
            Call::Script(verb, answer) => self.said(verb, answer),
        }
    }

    fn said(&mut self, verb: Verb, answer: oneshot::Sender<v1::ScriptResponse>) {
        match verb {
            Verb::Log(text) => self.stage().log_line(&text),
            Verb::Error(text) => {
                self.stage().log_line(&text);
                self.keeper.note("script_error", &text);
            }
            Verb::Ask(request) => self.handle(Input::Ask(request, By::Automatism)),
            Verb::CountLoop => {
                self.life.count_loop(UnixTime(now_ms()));
            }
            Verb::CheckLoop => {}
            Verb::ResetLoop => self.life.reset_loops(),
        }
        let (_, loops) = self.life.loops().noted();
        let limit_reached = loops >= self.program.definition.maxloop;
        // The script may have ended meanwhile.
        let _ = answer.send(v1::ScriptResponse { limit_reached, loops });
    }

    fn judged(&mut self, judged: super::supervision::Judged) {
        let Some((request, why)) = self.supervision.judged(judged) else { return };
        self.keeper.note("process_down", &why);
        self.why = why;
        self.handle(Input::Ask(request, By::Automatism));
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        let module = snapshot.state.modules.get(&self.keeper.name);
        let definition = module.and_then(|m| m.definition.as_ref());
        let Some(definition) = definition.filter(|d| d.application.is_some()) else {
            if !std::mem::replace(&mut self.gone, true) {
                self.handle(Input::Ask(Request::Stop, By::Hand));
            }
            return;
        };
        match self.keeper.program(snapshot, self.program.revision) {
            Ok(None) => {}
            Ok(Some(program)) => {
                self.life.set_limit(limit(&program.definition));
                let keep: Vec<u64> = definition.revisions.iter().map(|r| r.number).collect();
                self.keeper.home.tidy(&keep);
                let before = std::mem::replace(&mut self.program, program);
                // Others are watched at once, unless it is being taken down.
                if before.definition.processes != self.program.definition.processes && self.life.is_open() {
                    self.supervision.start(&self.program.definition);
                }
            }
            Err(why) => self.keeper.note("module_unusable", &why),
        }
    }

    /// The cluster has it no more, and nothing of it runs.
    fn is_over(&self) -> bool {
        let over = self.gone && self.life.state() == State::STOP && self.life.step().is_none();
        if over {
            self.keeper.home.forget();
            // Somebody may have put processes of his own into it.
            let _ = self.group.remove();
        }
        over
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
        let rests = self.life.state() == State::STOP && self.life.step().is_none();
        let memory = Memory::now(!rests || self.shut, self.life.is_open(), self.life.loops());
        if memory != self.remembered {
            if let Err(error) = memory.save(&self.keeper.home.memory()) {
                self.keeper
                    .note("module_forgetful", &format!("what must be remembered cannot be written: {error}"));
            }
            self.remembered = memory;
        }
        self.keeper.modules.show(&self.keeper.name, self.shown_life());
    }

    fn sentence(&self) -> String {
        let State { place, status } = self.life.state();
        let status = match status {
            Status::NotReady => "not ready",
            Status::Transient => "on its way",
            Status::Ready => "ready",
        };
        let cause = self.cause();
        let because = if cause.is_empty() { String::new() } else { format!(": {cause}") };
        format!("{} is in {} ({status}){because}", self.keeper.name, place.name())
    }

    fn cause(&self) -> String {
        let asked = |request: Request| match request {
            Request::Start => "start",
            Request::Restart => "restart",
            Request::Wait => "wait",
            Request::StopStart => "stopstart",
            Request::Stop => "stop",
        };
        match self.life.cause() {
            None => String::new(),
            Some(Cause::Asked(request, By::Hand)) => format!("{} was asked for", asked(request)),
            Some(Cause::Asked(request, By::Automatism)) => format!("{} because {}", asked(request), self.why),
            Some(Cause::TooOften) => {
                let max = self.program.definition.maxloop;
                format!("it had to be helped more than {max} times; last: {}", self.why)
            }
            Some(Cause::Failed(_)) => self.why.clone(),
        }
    }

    fn shown_life(&self) -> v1::ModuleLife {
        let State { place, status } = self.life.state();
        v1::ModuleLife {
            module: self.keeper.name.0.clone(),
            node: self.keeper.member.me.0,
            place: match place {
                Place::Stop => v1::Place::Stop,
                Place::Wait => v1::Place::Wait,
                Place::Up => v1::Place::Up,
            }
            .into(),
            status: match status {
                Status::NotReady => v1::LifeStatus::NotReady,
                Status::Transient => v1::LifeStatus::Transient,
                Status::Ready => v1::LifeStatus::Ready,
            }
            .into(),
            since_ms: self.since_ms,
            cause: self.cause(),
            loops: self.life.loops().noted().1,
            resources: self.supervision.resources(),
            wanted: self.remembered.wanted,
            revision: self.program.revision,
            failed: self.life.state() == State::STOP
                && !matches!(self.life.cause(), None | Some(Cause::Asked(_, By::Hand))),
        }
    }

    fn stage(&self) -> Stage {
        let Keeper { member, name, home, token, .. } = &self.keeper;
        Stage {
            module: name.0.clone(),
            node: member.config.name.clone(),
            files: self.program.files.clone(),
            var: home.var(),
            log: home.log(),
            cgroup: self.group.path().to_owned(),
            log_cgroup: self.log_group.path().to_owned(),
            socket: member.config.socket.clone(),
            token: token.iter().map(|byte| format!("{byte:02x}")).collect(),
            program: member.program.clone(),
        }
    }
}

fn limit(definition: &Definition) -> Limit {
    Limit { max: definition.maxloop, interval: definition.loop_interval }
}

/// After a start of the machine nothing of it runs.
fn reborn(definition: &Definition, memory: &Memory) -> Life {
    let mut life = Life::new(limit(definition), Loops::default());
    let starts = match definition.boot {
        Boot::On => true,
        Boot::Off => false,
        Boot::Auto => memory.wanted,
    };
    if starts {
        life.handle(Input::Ask(Request::Start, By::Hand), UnixTime(now_ms()));
    }
    life
}

/// After a start of the daemon it may run, and is not started twice; what has ended meanwhile is started as after a
/// failure.
fn resumed(memory: &Memory, limit: Limit, runs: bool) -> Life {
    if !memory.wanted {
        return Life::new(limit, memory.loops());
    }
    let mut life = Life::found_running(limit, memory.loops());
    if !(memory.up && runs) {
        life.handle(Input::Ask(Request::StopStart, By::Automatism), UnixTime(now_ms()));
    }
    life
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(boot: &str) -> Definition {
        let text = format!("kind = \"light\"\nboot = \"{boot}\"\n");
        let file = farm_module::File { bytes: text.into_bytes(), executable: false };
        let files = Files([("module.toml".to_owned(), file)].into());
        Definition::parse("web", files).expect("a module")
    }

    #[test]
    fn after_a_start_of_the_machine_it_is_as_boot_says() {
        let ran = Memory { wanted: true, up: true, loops: 3, loops_since: Some(1), ..Memory::default() };
        let starts = |boot: &str, memory: &Memory| reborn(&definition(boot), memory).step().is_some();
        let cases = [("auto", &ran), ("auto", &Memory::default()), ("on", &Memory::default()), ("off", &ran)];
        assert_eq!(cases.map(|(boot, memory)| starts(boot, memory)), [true, false, true, false]);
        assert_eq!(reborn(&definition("auto"), &ran).loops().noted().1, 0, "what was before counts no more");
    }

    #[test]
    fn after_a_start_of_the_daemon_what_runs_is_not_started_twice() {
        let up = Memory { wanted: true, up: true, ..Memory::default() };
        let limit = Limit::default();
        let runs = resumed(&up, limit, true);
        assert_eq!((runs.step(), runs.loops().noted().1), (Some(Step::Open), 0));
        let died = resumed(&up, limit, false);
        assert_eq!(died.loops().noted().1, 1, "it counts as a failure");
        let stopped = resumed(&Memory::default(), limit, false);
        assert_eq!((stopped.state(), stopped.step()), (State::STOP, None));
        let half = resumed(&Memory { up: false, ..up }, limit, true);
        assert_eq!(half.loops().noted().1, 1, "it was on its way: it begins anew");
    }
}
