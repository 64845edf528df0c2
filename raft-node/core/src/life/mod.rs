//! The life of a module on one node: which script runs when, when its traffic is open, and what comes of failures.
//!
//! ```text
//!         start            nothing blocks           start_both succeeded
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
//! | STOP → WAIT | `transition`, `prestart` |
//! | WAIT → UP | `transition`, `start_both`; then traffic opens |
//! | restart in UP | traffic closes; `stop_both`, `stop_both force`; everything left is killed; `start_both`; traffic opens |
//! | UP → WAIT | traffic closes; `stop_both`, `transition`, `stop_both force`; everything left is killed |
//! | WAIT → STOP | `poststop`, `transition` |
//!
//! A request that comes while scripts run waits for the script that runs now, not for the whole way.

mod loops;
mod steps;

use std::collections::VecDeque;

use crate::time::UnixTime;
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
    /// A resource keeps the module from being started, or none does any more.
    Blocked(bool),
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
    blocked: bool,
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
            By::Hand => match later.request {
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
            blocked: false,
            loops,
            limit,
            cause: None,
        }
    }

    /// One whose application was found running by a daemon that has just started: it is not started twice.
    #[must_use]
    pub fn found_running(limit: Limit, loops: Loops) -> Self {
        let mut life = Self { state: State::STARTING, heading: Heading::Up, ..Self::new(limit, loops) };
        life.way = VecDeque::from([Step::Open, Step::Enter(State::UP)]);
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
            Input::Blocked(blocked) => self.blocked = blocked,
        }
        self.settle();
    }

    fn ask(&mut self, request: Request, by: By, cause: Cause, now: UnixTime) {
        match by {
            By::Hand => self.loops.reset(),
            // What is being taken down dies, which is no news; and what was stopped stays so.
            By::Automatism if self.state == State::STOP || self.is_going_down() => return,
            By::Automatism => {}
        }
        // What stops has nothing to wait for.
        if request == Request::Wait && matches!(self.heading, Heading::Stop | Heading::Back) {
            return;
        }
        let counts = by == By::Automatism && request != Request::Stop;
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
            Step::Run(_) | Step::Close { .. } | Step::Kill | Step::Enter(_) | Step::Gate => {}
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
                Some(Step::Gate) if self.blocked => {
                    self.way.push_front(Step::Gate);
                    self.state = State::BLOCKED;
                    return;
                }
                Some(Step::Gate) => {}
                // Nobody new from now on, however long it takes until nobody is there.
                Some(step @ Step::Close { .. }) => self.step = std::mem::take(&mut self.open).then_some(step),
                Some(step @ (Step::Run(_) | Step::Open | Step::Kill)) => self.step = Some(step),
                None if self.heading == Heading::Back => {
                    self.go(Heading::Up, steps::start(Action::StopStart))
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
        let (stopped, place) = (self.state == State::STOP, self.state.place);
        match (request, self.heading) {
            (Request::Stop, Heading::Rest) | (Request::Wait, _) if stopped => return,
            (Request::Start | Request::Restart | Request::StopStart, Heading::Rest) if stopped => {
                self.go(Heading::Up, steps::start(Action::Start));
            }
            (Request::Start, Heading::Rest | Heading::Up | Heading::Back) => return,
            // It is stopped to the end first.
            (Request::Start | Request::Restart | Request::StopStart, Heading::Stop | Heading::Back) => {
                self.heading = Heading::Back;
            }
            (Request::Restart, Heading::Rest | Heading::Up) if place == Place::Up => {
                self.go(Heading::Up, steps::restart(drain));
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
