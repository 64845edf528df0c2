//! The ways between the places of a module's life, as steps.

use std::collections::VecDeque;

use super::State;

/// Where a module is on a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// Nothing of it runs.
    Stop,
    /// It passes through start or stop, or waits for a resource.
    Wait,
    /// Its application runs, starts or stops.
    Up,
}

impl Place {
    /// As scripts and people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
            Self::Up => "UP",
        }
    }
}

/// A script of a module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Script {
    /// Before every major change of state.
    Transition,
    /// Before the first start: makes sure that the application does not run.
    Prestart,
    /// Starts the application.
    StartBoth,
    /// Stops it.
    StopBoth,
    /// At the end of a stop.
    Poststop,
}

impl Script {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Transition, Self::Prestart, Self::StartBoth, Self::StopBoth, Self::Poststop];

    /// Its file in `bin/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::Prestart => "prestart",
            Self::StartBoth => "start_both",
            Self::StopBoth => "stop_both",
            Self::Poststop => "poststop",
        }
    }
}

/// What scripts are told is going on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// A start.
    Start,
    /// A stop.
    Stop,
    /// The application is stopped and started in place.
    Restart,
    /// A stop that a start follows.
    StopStart,
    /// A stop until a resource is there again.
    StopWait,
}

impl Action {
    /// The third argument of scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::StopStart => "stopstart",
            Self::StopWait => "stopwait",
        }
    }
}

/// One run of a script.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run {
    /// Which.
    pub script: Script,
    /// Whether `force` stands before the other arguments.
    pub force: bool,
    /// First argument: where the module is.
    pub from: Place,
    /// Second: where it goes.
    pub to: Place,
    /// Third.
    pub action: Action,
}

impl Run {
    /// The arguments, in order.
    pub fn arguments(&self) -> impl Iterator<Item = &'static str> {
        let force = self.force.then_some("force");
        force.into_iter().chain([self.from.name(), self.to.name(), self.action.name()])
    }
}

/// Something to be done on a way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// Run a script.
    Run(Run),
    /// Wait until all checks of the application pass.
    Check,
    /// Let clients in.
    Open,
    /// Let no new clients in; done when they are with other nodes.
    Close {
        /// And when the connections that are open have ended, or were waited for long enough.
        drain: bool,
    },
    /// End all that the module's scripts left running.
    Kill,
    /// Wait a moment: what fails at once must not cost a processor.
    Pause,
    /// Go on when nothing keeps the module from starting.
    Gate,
    /// Be there.
    Enter(State),
}

impl Step {
    /// Whether it takes the application down.
    pub(super) const fn stops(&self) -> bool {
        match self {
            Self::Run(run) => matches!(run.script, Script::StopBoth | Script::Poststop),
            Self::Close { .. } | Self::Kill => true,
            Self::Check | Self::Open | Self::Pause | Self::Gate | Self::Enter(_) => false,
        }
    }
}

const fn run(script: Script, from: Place, to: Place, action: Action) -> Step {
    Step::Run(Run { script, force: false, from, to, action })
}

const fn force(from: Place, to: Place, action: Action) -> Step {
    Step::Run(Run { script: Script::StopBoth, force: true, from, to, action })
}

/// STOP → UP.
pub(super) fn start(action: Action, pause: bool) -> VecDeque<Step> {
    let begin = [
        // Of an earlier run, or of a daemon's before it.
        Step::Kill,
        run(Script::Transition, Place::Stop, Place::Wait, action),
        run(Script::Prestart, Place::Stop, Place::Wait, action),
    ];
    enter(State::WAIT, pause).chain(begin).chain(go_up(action)).collect()
}

fn enter(state: State, pause: bool) -> impl Iterator<Item = Step> {
    [Step::Enter(state)].into_iter().chain(pause.then_some(Step::Pause))
}

/// WAIT → UP, as soon as nothing blocks.
fn go_up(action: Action) -> impl Iterator<Item = Step> {
    [
        Step::Gate,
        Step::Enter(State::STARTING),
        run(Script::Transition, Place::Wait, Place::Up, action),
        run(Script::StartBoth, Place::Wait, Place::Up, action),
        Step::Check,
        Step::Open,
        Step::Enter(State::UP),
    ]
    .into_iter()
}

/// UP → UP.
pub(super) fn restart(drain: bool, pause: bool) -> VecDeque<Step> {
    let (up, action) = (Place::Up, Action::Restart);
    let down = [
        Step::Enter(State::STARTING),
        Step::Close { drain },
        run(Script::StopBoth, up, up, action),
        force(up, up, action),
        Step::Kill,
    ];
    let again = [run(Script::StartBoth, up, up, action), Step::Check, Step::Open, Step::Enter(State::UP)];
    down.into_iter().chain(pause.then_some(Step::Pause)).chain(again).collect()
}

/// UP → WAIT → UP, as soon as nothing blocks.
pub(super) fn wait() -> VecDeque<Step> {
    leave_up(Action::StopWait, false).chain(go_up(Action::Start)).collect()
}

fn leave_up(action: Action, drain: bool) -> impl Iterator<Item = Step> {
    [
        Step::Enter(State::STARTING),
        Step::Close { drain },
        run(Script::StopBoth, Place::Up, Place::Wait, action),
        run(Script::Transition, Place::Up, Place::Wait, action),
        Step::Enter(State::WAIT),
        force(Place::Up, Place::Wait, action),
        Step::Kill,
    ]
    .into_iter()
}

/// UP → STOP, or WAIT → STOP.
pub(super) fn stop(from: Place, action: Action, drain: bool) -> VecDeque<Step> {
    let end = [
        run(Script::Poststop, Place::Wait, Place::Stop, action),
        run(Script::Transition, Place::Wait, Place::Stop, action),
        Step::Enter(State::STOP),
    ];
    let first: Vec<Step> = match from {
        Place::Up => leave_up(action, drain).collect(),
        Place::Wait => {
            vec![Step::Enter(State::WAIT), force(Place::Wait, Place::Stop, action), Step::Kill]
        }
        Place::Stop => return VecDeque::new(),
    };
    first.into_iter().chain(end).collect()
}
