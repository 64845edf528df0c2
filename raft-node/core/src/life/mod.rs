//! The life of a module on one node: which script runs when, when its traffic is open, and what comes of failures.
//!
//! ```text
//!         start            nothing blocks           start_both, checks
//!  STOP ─────────▶ WAIT ──────────────▶ UP ──────────────────────▶ UP
//!  NotReady        Transient            Transient                  Ready ──┐ restart: stop_both,
//!   ▲                │   ▲                │ ▲                        │ ▲   │ start_both in place
//!   │                │   │ nothing blocks │ └────────────────────────┼─┴───┘
//!   │                ▼   │ any more       │        stop, wait, failed│
//!   │              WAIT ─┘                ▼                          ▼
//!   │              NotReady ◀────────── stop_both, stop_both force, kill
//!   │    stop      (blocked)   wait       │
//!   └────────────────┴────────────────────┘ stop, stopstart: poststop
//! ```
//!
//! | way | scripts, in this order |
//! |---|---|
//! | STOP → WAIT | what is left of an earlier run is killed; `transition`, `prestart` |
//! | WAIT → UP | `transition`, `start_both`; when all checks pass, traffic opens |
//! | restart in UP | traffic closes; `stop_both`, `stop_both force`; everything left is killed; `start_both`; checks; traffic opens |
//! | UP → WAIT | traffic closes; `stop_both`, `transition`, `stop_both force`; everything left is killed |
//! | WAIT → STOP | `poststop`, `transition` |
//!
//! A request that comes while scripts run waits for the script that runs now, not for the whole way; whoever waits for
//! checks or pauses ([`Life::is_asked`]), or drains although somebody is in haste ([`Life::is_hurried`]), ends that at once.
//! Where something cannot even be killed, nothing is started: it ends in STOP.

mod loops;
mod steps;

use std::collections::VecDeque;

use crate::time::{Span, UnixTime};
pub use loops::{Limit, Loops};
pub use steps::{Action, Place, Run, Script, Step};

/// How a place is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// Nothing happens until somebody or something changes that: red.
    NotReady,
    /// On the way: orange.
    Transient,
    /// Serves: green.
    Ready,
}

/// What is shown: one of STOP NotReady, WAIT Transient, WAIT NotReady, UP Transient, UP Ready.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct State {
    /// Where.
    pub place: Place,
    /// How.
    pub status: Status,
}

impl State {
    /// Stopped.
    pub const STOP: Self = Self { place: Place::Stop, status: Status::NotReady };
    /// Kept from starting by a resource.
    pub const BLOCKED: Self = Self { place: Place::Wait, status: Status::NotReady };
    /// Starting before, or stopping after, the application runs.
    pub const WAIT: Self = Self { place: Place::Wait, status: Status::Transient };
    /// The application starts or stops.
    pub const STARTING: Self = Self { place: Place::Up, status: Status::Transient };
    /// The application runs, its traffic is open.
    pub const UP: Self = Self { place: Place::Up, status: Status::Ready };
}

/// What is asked of a module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Request {
    /// Start it; nothing where it runs or starts.
    Start,
    /// Stop and start the application in place.
    Restart,
    /// Stop the application until nothing blocks it any more.
    Wait,
    /// Stop it altogether, then start it.
    StopStart,
    /// Stop it.
    Stop,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum By {
    /// A person, or the start of the machine: forgets the automatic actions of before.
    Hand,
    /// A person who does not wait for connections that are open.
    Haste,
    /// A checker, a death, a rule, a script of the module: counts.
    Automatism,
}

/// How a script ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ended {
    /// With exit code 0, in time, or it does not exist.
    Well,
    /// Otherwise.
    Badly,
}

/// What happens to a module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Input {
    /// Somebody asks for something.
    Ask(Request, By),
    /// The step that was to be done is done; a script's end.
    Done(Ended),
    /// Whether resources let the module be started.
    Gate(Gate),
}

/// What resources say of a start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Gate {
    /// None is in its way.
    #[default]
    Open,
    /// One that could be is not known yet.
    Undecided,
    /// One keeps it from being started.
    Shut,
}

/// Why the module last changed its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// It was asked for.
    Asked(Request, By),
    /// One automatic action too many.
    TooOften,
    /// A script failed.
    Failed(Script),
    /// Something of it cannot be ended.
    Left,
}

/// The machine. Pure: whoever drives it does [`Life::step`] and says when it is done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Life {
    state: State,
    /// What is being done.
    step: Option<Step>,
    /// What comes after it.
    way: VecDeque<Step>,
    heading: Heading,
    pending: Option<Pending>,
    open: bool,
    gate: Gate,
    /// A start waits a moment first: it would be the next of many.
    pauses: bool,
    loops: Loops,
    limit: Limit,
    cause: Option<Cause>,
}

/// Where the way leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Heading {
    /// Nowhere: it stays as it is.
    Rest,
    /// To UP, also out of it and back.
    Up,
    /// To STOP.
    Stop,
    /// To STOP and back.
    Back,
}

/// What is taken up after the present step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Pending {
    request: Request,
    by: By,
    cause: Cause,
}

impl Pending {
    /// Whether it stays although `later` is asked for: a person has the last word, but who asks for a start does not
    /// mean that what leads there by way of a stop is not needed.
    fn outweighs(&self, later: &Self) -> bool {
        match later.by {
            By::Automatism => self.request >= later.request,
            By::Hand | By::Haste => match later.request {
                Request::Start => self.request != Request::Stop,
                Request::Wait => true,
                Request::Restart | Request::StopStart | Request::Stop => false,
            },
        }
    }
}

impl Life {
    /// A stopped module.
    #[must_use]
    pub fn new(limit: Limit, loops: Loops) -> Self {
        Self {
            state: State::STOP,
            step: None,
            way: VecDeque::new(),
            heading: Heading::Rest,
            pending: None,
            open: false,
            gate: Gate::Open,
            pauses: false,
            loops,
            limit,
            cause: None,
        }
    }

    /// One whose application was found running by a daemon that has just started: it is not started twice. `open`: its
    /// clients were let in, and stay unless the checks say otherwise.
    #[must_use]
    pub fn found_running(limit: Limit, loops: Loops, open: bool) -> Self {
        let mut life = Self { state: State::STARTING, heading: Heading::Up, open, ..Self::new(limit, loops) };
        life.way = VecDeque::from([Step::Check, Step::Open, Step::Enter(State::UP)]);
        life.settle();
        life
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether clients may come to this node.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// What is to be done now, the same until [`Input::Done`]; `None` while nothing is.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        self.step
    }

    /// Whether somebody asks for something while a step is being done: waiting for checks, or pausing, is in vain.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether somebody does not wait for connections that are open.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.pending.is_some_and(|pending| pending.by == By::Haste)
    }

    /// Whether it is to run, or to come back by itself: what a restart of the daemon or of the machine takes up.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        match (self.pending.map(|pending| pending.request), self.heading) {
            (Some(Request::Stop), _) => false,
            (Some(Request::Start | Request::Restart | Request::StopStart), _) => true,
            (Some(Request::Wait) | None, Heading::Up | Heading::Back) => true,
            (Some(Request::Wait) | None, Heading::Stop) => false,
            (Some(Request::Wait) | None, Heading::Rest) => self.state != State::STOP,
        }
    }

    /// Why it is on its way, or where it is.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Its automatic actions.
    #[must_use]
    pub fn loops(&self) -> &Loops {
        &self.loops
    }

    /// A script counts an action of its own; too many of them stop nothing by themselves.
    pub fn count_loop(&mut self, now: UnixTime) -> bool {
        self.loops.count(self.limit, now)
    }

    /// A script forgets the automatic actions.
    pub fn reset_loops(&mut self) {
        self.loops.reset();
    }

    /// Other limits hold from the next automatic action on.
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// Goes on. `now` dates automatic actions.
    pub fn handle(&mut self, input: Input, now: UnixTime) {
        match input {
            Input::Ask(request, by) => self.ask(request, by, Cause::Asked(request, by), now),
            Input::Done(ended) => self.done(ended, now),
            Input::Gate(gate) => self.gate = gate,
        }
        self.settle();
    }

    fn ask(&mut self, request: Request, by: By, cause: Cause, now: UnixTime) {
        match by {
            By::Hand | By::Haste => self.loops.reset(),
            // What was stopped stays so.
            By::Automatism if self.state == State::STOP => return,
            // What is being taken down dies, which is no news. A script may say that it is not to come back.
            By::Automatism if self.is_going_down() && request != Request::Stop => return,
            By::Automatism => {}
        }
        // What stops has nothing to wait for.
        if request == Request::Wait && matches!(self.heading, Heading::Stop | Heading::Back) {
            return;
        }
        // One action is taken, whoever else asks for one meanwhile.
        let taken = self.pending.is_some_and(|before| before.by == By::Automatism);
        let counts = by == By::Automatism && request != Request::Stop && !taken;
        let wanted = if counts && self.loops.count(self.limit, now) {
            Pending { request: Request::Stop, by, cause: Cause::TooOften }
        } else {
            Pending { request, by, cause }
        };
        if !self.pending.is_some_and(|before| before.outweighs(&wanted)) {
            self.pending = Some(wanted);
        }
    }

    fn is_going_down(&self) -> bool {
        self.step.iter().chain(&self.way).any(Step::stops)
    }

    fn done(&mut self, ended: Ended, now: UnixTime) {
        let Some(step) = self.step.take() else { return };
        match step {
            Step::Open => self.open = true,
            Step::Run(Run { script, .. }) if ended == Ended::Badly => self.failed(script, now),
            Step::Kill if ended == Ended::Badly => {
                self.pending =
                    Some(Pending { request: Request::Stop, by: By::Automatism, cause: Cause::Left });
            }
            Step::Run(_)
            | Step::Close { .. }
            | Step::Kill
            | Step::Check
            | Step::Pause
            | Step::Enter(_)
            | Step::Gate => {}
        }
    }

    /// What does not start is stopped altogether and tried again, as often as the limit allows. What does not stop is
    /// killed anyway.
    fn failed(&mut self, script: Script, now: UnixTime) {
        match script {
            Script::Prestart | Script::StartBoth => {
                self.ask(Request::StopStart, By::Automatism, Cause::Failed(script), now);
            }
            Script::Transition | Script::StopBoth | Script::Poststop => {}
        }
    }

    /// Goes on until somebody has to do something.
    fn settle(&mut self) {
        while self.step.is_none() {
            if let Some(pending) = self.pending.take() {
                self.turn(pending);
            }
            match self.way.pop_front() {
                Some(Step::Enter(state)) => self.state = state,
                Some(Step::Gate) => match self.gate {
                    Gate::Open => {}
                    shut @ (Gate::Undecided | Gate::Shut) => {
                        self.way.push_front(Step::Gate);
                        self.state = if shut == Gate::Shut { State::BLOCKED } else { State::WAIT };
                        return;
                    }
                },
                // Nobody new from now on, however long it takes until nobody is there.
                Some(step @ Step::Close { .. }) => self.step = std::mem::take(&mut self.open).then_some(step),
                Some(step @ (Step::Run(_) | Step::Open | Step::Kill | Step::Check | Step::Pause)) => {
                    self.step = Some(step);
                }
                None if self.heading == Heading::Back => {
                    self.go(Heading::Up, steps::start(Action::StopStart, self.pauses));
                }
                None => {
                    self.heading = Heading::Rest;
                    return;
                }
            }
        }
    }

    fn go(&mut self, heading: Heading, way: VecDeque<Step>) {
        (self.heading, self.way) = (heading, way);
    }

    /// Takes the way that was asked for, from wherever the last step has left it.
    fn turn(&mut self, pending: Pending) {
        let Pending { request, by, cause } = pending;
        let drain = by == By::Hand;
        let failed = matches!(cause, Cause::Failed(_)) || self.limit.interval == Span::ZERO;
        self.pauses = by == By::Automatism && failed;
        let (stopped, place) = (self.state == State::STOP, self.state.place);
        match (request, self.heading) {
            (Request::Stop, Heading::Rest) | (Request::Wait, _) if stopped => return,
            (Request::Start | Request::Restart | Request::StopStart, Heading::Rest) if stopped => {
                self.go(Heading::Up, steps::start(Action::Start, false));
            }
            (Request::Start, Heading::Rest | Heading::Up | Heading::Back) => return,
            // It is stopped to the end first.
            (Request::Start | Request::Restart | Request::StopStart, Heading::Stop | Heading::Back) => {
                self.heading = Heading::Back;
            }
            (Request::Restart, Heading::Rest | Heading::Up) if place == Place::Up => {
                self.go(Heading::Up, steps::restart(drain, self.pauses));
            }
            (Request::Wait, Heading::Rest | Heading::Up) if place == Place::Up => {
                self.go(Heading::Up, steps::wait());
            }
            // It is about to start, or waits already.
            (Request::Restart | Request::Wait, _) => return,
            (Request::StopStart, Heading::Rest | Heading::Up) => {
                self.go(Heading::Back, steps::stop(place, Action::StopStart, drain));
            }
            (Request::Stop, Heading::Stop | Heading::Back) => self.heading = Heading::Stop,
            (Request::Stop, Heading::Rest | Heading::Up) => {
                self.go(Heading::Stop, steps::stop(place, Action::Stop, drain));
            }
        }
        self.cause = Some(cause);
    }
}
