//! The life of a module, exhaustively: every state that any sequence of inputs reaches.

use std::collections::{BTreeSet, VecDeque};

use farm_core::life::{
    Action, By, Cause, Ended, Gate, Input, Life, Limit, Loops, Place, Request, Run, Script, State, Step,
};
use farm_core::time::UnixTime;

const NOW: UnixTime = UnixTime(0);
const REQUESTS: [Request; 5] =
    [Request::Start, Request::Restart, Request::Wait, Request::StopStart, Request::Stop];
/// The longest way is a restart from scratch.
const STEPS: usize = 16;

fn stopped() -> Life {
    Life::new(Limit::default(), Loops::default())
}

fn inputs() -> impl Iterator<Item = Input> {
    let all = [By::Hand, By::Haste, By::Automatism];
    let asked = REQUESTS.into_iter().flat_map(move |r| all.map(|by| Input::Ask(r, by)));
    let gates = [Gate::Open, Gate::Undecided, Gate::Shut].map(Input::Gate);
    let others = [Input::Done(Ended::Well), Input::Done(Ended::Badly)].into_iter().chain(gates);
    asked.chain(others)
}

/// The machine, and what the world looks like by what was done in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct World {
    life: Life,
    /// `start_both` was begun, and nothing was killed since.
    runs: bool,
    /// The last kill failed.
    left: bool,
}

impl World {
    fn after(&self, input: Input) -> Self {
        let mut next = self.clone();
        if let (Input::Done(ended), Some(Step::Kill)) = (input, self.life.step()) {
            next.runs &= ended == Ended::Badly;
            next.left = next.runs;
        }
        let before = self.life.step();
        next.life.handle(input, NOW);
        let begins = next.life.step() != before || matches!(input, Input::Done(_));
        if begins && script(&next.life) == Some(Script::StartBoth) {
            assert!(!next.runs, "started twice: {self:?} after {input:?}");
            next.runs = true;
        }
        next
    }

    fn check(&self) {
        let Self { life, runs, left } = self;
        let state = life.state();
        // WAIT: for what is not known yet.
        let rests = [State::STOP, State::WAIT, State::BLOCKED, State::UP].contains(&state);
        assert!(life.step().is_some() || rests, "neither at rest nor busy: {life:?}");
        assert!(
            !life.is_open() || (state.place == Place::Up && *runs),
            "open without its application: {life:?}"
        );
        assert!(state != State::UP || life.is_open() || life.step().is_some(), "serves nobody: {life:?}");
        assert!(state != State::STOP || !runs || *left, "stopped, but something of it runs: {life:?}");
        let rests = life.step().is_none();
        assert!(!rests || (life.is_wanted() == (state != State::STOP)), "wanted at rest: {life:?}");
        assert!(!rests || !life.is_asked(), "nobody takes up what is asked: {life:?}");
    }
}

fn script(life: &Life) -> Option<Script> {
    match life.step() {
        Some(Step::Run(Run { script, .. })) => Some(script),
        _ => None,
    }
}

/// Lets everything succeed until nothing is to be done; panics if there is no end.
fn finish(mut life: Life, ended: Ended) -> Life {
    for _ in 0..STEPS * 6 {
        if life.step().is_none() {
            return life;
        }
        life.handle(Input::Done(ended), NOW);
    }
    panic!("no end: {life:?}");
}

fn reachable() -> BTreeSet<World> {
    let first = World { life: stopped(), runs: false, left: false };
    let (mut seen, mut queue) = (BTreeSet::from([first.clone()]), VecDeque::from([first]));
    while let Some(world) = queue.pop_front() {
        for input in inputs() {
            let next = world.after(input);
            next.check();
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    seen
}

#[test]
fn whatever_happens_the_rules_hold_and_every_way_has_an_end() {
    let all = reachable();
    assert!(all.len() > 1_000, "only {} states", all.len());
    for World { life, .. } in &all {
        let mut free = life.clone();
        free.handle(Input::Gate(Gate::Open), NOW);
        let rest = finish(free.clone(), Ended::Well).state();
        assert!([State::STOP, State::UP].contains(&rest), "{free:?} ends at {rest:?}");

        for ended in [Ended::Well, Ended::Badly] {
            let mut asked = free.clone();
            asked.handle(Input::Ask(Request::Stop, By::Hand), NOW);
            assert_eq!(
                finish(asked, ended).state(),
                State::STOP,
                "a stop ends there, also if scripts fail: {life:?}"
            );
        }
        let mut asked = free;
        asked.handle(Input::Ask(Request::Start, By::Hand), NOW);
        let ends = finish(asked, Ended::Well).state();
        // Only what was given up a moment ago and is stopping for it goes on to its end.
        assert_eq!(ends, State::UP, "a start ends there: {life:?}");
    }
}

/// The scripts of a way, with their arguments.
fn ran(life: &mut Life, input: Input) -> Vec<String> {
    let mut ran = Vec::new();
    life.handle(input, NOW);
    while let Some(step) = life.step() {
        ran.push(match step {
            Step::Run(run) => {
                [run.script.name()].into_iter().chain(run.arguments()).collect::<Vec<_>>().join(" ")
            }
            Step::Open => "open".into(),
            Step::Close { drain: true } => "close, drain".into(),
            Step::Close { drain: false } => "close".into(),
            Step::Kill => "kill".into(),
            Step::Check => "check".into(),
            Step::Pause => "pause".into(),
            Step::Gate | Step::Enter(_) => panic!("{step:?} is nobody's to do"),
        });
        life.handle(Input::Done(Ended::Well), NOW);
    }
    ran
}

#[test]
fn the_scripts_run_in_their_order() {
    let mut life = stopped();
    assert_eq!(
        ran(&mut life, Input::Ask(Request::Start, By::Hand)),
        [
            "kill",
            "transition STOP WAIT start",
            "prestart STOP WAIT start",
            "transition WAIT UP start",
            "start_both WAIT UP start",
            "check",
            "open"
        ]
    );
    assert_eq!(
        ran(&mut life, Input::Ask(Request::Restart, By::Automatism)),
        [
            "close",
            "stop_both UP UP restart",
            "stop_both force UP UP restart",
            "kill",
            "start_both UP UP restart",
            "check",
            "open"
        ]
    );
    assert_eq!(
        ran(&mut life, Input::Ask(Request::Stop, By::Hand)),
        [
            "close, drain",
            "stop_both UP WAIT stop",
            "transition UP WAIT stop",
            "stop_both force UP WAIT stop",
            "kill",
            "poststop WAIT STOP stop",
            "transition WAIT STOP stop"
        ]
    );
}

#[test]
fn it_waits_for_a_resource_and_goes_on_by_itself() {
    let mut life = stopped();
    life.handle(Input::Gate(Gate::Undecided), NOW);
    ran(&mut life, Input::Ask(Request::Start, By::Hand));
    assert_eq!(life.state(), State::WAIT, "what is not known yet is no obstacle yet");
    life.handle(Input::Gate(Gate::Shut), NOW);
    assert_eq!(life.state(), State::BLOCKED);
    assert_eq!(ran(&mut life, Input::Gate(Gate::Open)).last().unwrap(), "open");
    life.handle(Input::Gate(Gate::Shut), NOW);
    assert_eq!(life.state(), State::UP, "what runs is stopped by an action, not by the resource itself");
    assert!(ran(&mut life, Input::Ask(Request::Wait, By::Automatism)).contains(&"kill".to_owned()));
    assert_eq!(life.state(), State::BLOCKED);
}

#[test]
fn the_fourth_automatic_action_stops_it_and_a_hand_resets_the_count() {
    let mut life = stopped();
    ran(&mut life, Input::Ask(Request::Start, By::Hand));
    for _ in 0..3 {
        ran(&mut life, Input::Ask(Request::Restart, By::Automatism));
        assert_eq!(life.state(), State::UP);
    }
    ran(&mut life, Input::Ask(Request::Restart, By::Automatism));
    assert_eq!((life.state(), life.cause()), (State::STOP, Some(Cause::TooOften)));
    ran(&mut life, Input::Ask(Request::Start, By::Hand));
    ran(&mut life, Input::Ask(Request::Restart, By::Automatism));
    assert_eq!(life.state(), State::UP);
}

#[test]
fn what_does_not_start_is_tried_again_and_then_given_up() {
    let mut life = stopped();
    life.handle(Input::Ask(Request::Start, By::Hand), NOW);
    let (mut starts, mut pauses) = (0, 0);
    while let Some(step) = life.step() {
        let starting = matches!(step, Step::Run(Run { script: Script::StartBoth, .. }));
        starts += usize::from(starting);
        pauses += usize::from(step == Step::Pause);
        life.handle(Input::Done(if starting { Ended::Badly } else { Ended::Well }), NOW);
    }
    assert_eq!((starts, pauses), (4, 3), "with a pause before each");
    assert_eq!((life.state(), life.cause()), (State::STOP, Some(Cause::TooOften)));
}

#[test]
fn a_stop_asked_for_by_the_starting_script_waits_for_its_end() {
    let mut life = stopped();
    life.handle(Input::Ask(Request::Start, By::Hand), NOW);
    while script(&life) != Some(Script::StartBoth) {
        life.handle(Input::Done(Ended::Well), NOW);
    }
    life.handle(Input::Ask(Request::Stop, By::Automatism), NOW);
    assert_eq!(script(&life), Some(Script::StartBoth));
    let rest = ran(&mut life, Input::Done(Ended::Well));
    assert!(!rest.contains(&"open".to_owned()), "{rest:?}");
    assert_eq!(life.state(), State::STOP);
}

#[test]
fn what_dies_while_it_is_taken_down_counts_for_nothing() {
    let mut life = stopped();
    ran(&mut life, Input::Ask(Request::Start, By::Hand));
    life.handle(Input::Ask(Request::Restart, By::Hand), NOW);
    for _ in 0..10 {
        life.handle(Input::Ask(Request::Restart, By::Automatism), NOW);
    }
    assert_eq!(finish(life.clone(), Ended::Well).state(), State::UP);
    assert_eq!(life.loops().noted(), (None, 0));
}

#[test]
fn an_application_that_was_found_is_not_started_twice() {
    let mut life = Life::found_running(Limit::default(), Loops::default(), true);
    let mut died = life.clone();
    died.handle(Input::Ask(Request::StopStart, By::Automatism), NOW);
    died.handle(Input::Done(Ended::Well), NOW);
    assert_eq!(died.step(), Some(Step::Close { drain: false }), "its clients go first");
    assert_eq!((life.step(), life.state()), (Some(Step::Check), State::STARTING));
    assert_eq!(ran(&mut life, Input::Done(Ended::Well)), ["open"]);
    assert_eq!((life.step(), life.state(), life.is_open()), (None, State::UP, true));
    let action = Action::StopStart.name();
    assert!(
        ran(&mut life, Input::Ask(Request::StopStart, By::Automatism)).iter().any(|s| s.ends_with(action))
    );
    assert_eq!(life.state(), State::UP);
}

/// A started one that does `until` now.
fn doing(until: Step) -> Life {
    let mut life = stopped();
    life.handle(Input::Ask(Request::Start, By::Hand), NOW);
    while life.step() != Some(until) {
        life.handle(Input::Done(Ended::Well), NOW);
    }
    life
}

#[test]
fn who_waits_learns_that_something_else_is_wanted() {
    let mut life = doing(Step::Check);
    assert!(!life.is_asked());
    life.handle(Input::Ask(Request::Stop, By::Hand), NOW);
    assert!(life.is_asked() && !life.is_hurried() && !life.is_wanted());
    let rest = ran(&mut life, Input::Done(Ended::Well));
    assert!(!rest.contains(&"open".to_owned()), "{rest:?}");

    let mut life = doing(Step::Open);
    life.handle(Input::Done(Ended::Well), NOW);
    life.handle(Input::Ask(Request::Stop, By::Hand), NOW);
    assert_eq!((life.step(), life.state()), (Some(Step::Close { drain: true }), State::STARTING));
    assert!(!life.is_open() && !life.is_wanted(), "a restart of the daemon goes on with the stop");
    life.handle(Input::Ask(Request::Stop, By::Haste), NOW);
    assert!(life.is_hurried());
    assert_eq!(finish(life, Ended::Well).state(), State::STOP);

    let mut life = doing(Step::Open);
    life.handle(Input::Done(Ended::Well), NOW);
    life.handle(Input::Ask(Request::Stop, By::Haste), NOW);
    assert_eq!(life.step(), Some(Step::Close { drain: false }));
}

#[test]
fn what_cannot_be_killed_is_not_started_again() {
    let mut life = doing(Step::Open);
    life.handle(Input::Done(Ended::Well), NOW);
    life.handle(Input::Ask(Request::Restart, By::Automatism), NOW);
    while let Some(step) = life.step() {
        assert_ne!(script(&life), Some(Script::StartBoth));
        life.handle(Input::Done(if step == Step::Kill { Ended::Badly } else { Ended::Well }), NOW);
    }
    assert_eq!((life.state(), life.cause()), (State::STOP, Some(Cause::Left)));
}

#[test]
fn a_script_that_asks_and_fails_counts_once_and_may_say_that_nothing_comes_back() {
    let mut life = stopped();
    life.handle(Input::Ask(Request::Start, By::Hand), NOW);
    while script(&life) != Some(Script::StartBoth) {
        life.handle(Input::Done(Ended::Well), NOW);
    }
    life.handle(Input::Ask(Request::StopStart, By::Automatism), NOW);
    life.handle(Input::Done(Ended::Badly), NOW);
    assert_eq!(life.loops().noted().1, 1);

    let mut life = finish(life, Ended::Well);
    assert_eq!(life.state(), State::UP);
    life.handle(Input::Ask(Request::Restart, By::Hand), NOW);
    while script(&life) != Some(Script::StopBoth) {
        life.handle(Input::Done(Ended::Well), NOW);
    }
    life.handle(Input::Ask(Request::Stop, By::Automatism), NOW);
    assert_eq!(finish(life, Ended::Well).state(), State::STOP);
}
