//! Takes up what runs, or what is to run, when the daemon or the machine has been started.

use farm_core::life::{By, Input, Life, Limit, Loops, Request};
use farm_core::time::UnixTime;
use farm_module::{Boot, Definition, What};
use tokio::sync::{mpsc, watch};

use super::{Chatter, Keeper, Kept, Ready, first_readiness, limit};
use crate::journal::now_ms;
use crate::modules::memory::Memory;
use crate::modules::readiness::Gate;
use crate::modules::supervision::{Judged, Supervision};

impl Kept {
    /// Takes up what runs, or what is to run.
    pub(super) fn begin(keeper: Keeper, gate: Gate, ready: Ready) -> (Self, mpsc::Receiver<Judged>) {
        let Ready { program: newest, group, log_group, check_group, token, born } = ready;
        let mut memory = Memory::load(&keeper.home.memory());
        if memory.born != born {
            // It is of another module, which had this name before.
            memory = Memory::default();
        }
        let limit = limit(&newest.definition);
        let life = if memory.rebooted() {
            reborn(&newest.definition, &memory)
        } else {
            let in_unit = newest.definition.processes.iter().any(|p| matches!(p.what, What::Unit(_)));
            resumed(&memory, limit, in_unit || group.is_populated().unwrap_or(false))
        };
        gate.wanted.send_replace(Some(first_readiness(&life)));
        let running = keeper.program_of_run(&keeper.member.snapshot(), &memory, &newest);
        let off = memory.off.iter().map(|(name, until)| (name.clone(), until.map(UnixTime))).collect();
        let (mut supervision, verdicts) = Supervision::new(off);
        supervision.define(&newest.definition);
        let shown = (life.state(), life.cause());
        let kept = Self {
            keeper,
            life,
            running,
            newest,
            group,
            log_group,
            check_group,
            token,
            born,
            gate,
            supervision,
            runs: false,
            well: watch::channel(false).0,
            hurried: watch::channel(false).0,
            why: memory.failed.clone().unwrap_or_default(),
            remembered: memory,
            shown,
            since_ms: now_ms(),
            gone: false,
            shut: false,
            chatter: Chatter::default(),
        };
        (kept, verdicts)
    }
}

fn asked(mut life: Life, request: Request, by: By) -> Life {
    life.handle(Input::Ask(request, by), UnixTime(now_ms()));
    life
}

/// After a start of the machine nothing of it runs.
fn reborn(definition: &Definition, memory: &Memory) -> Life {
    let life = Life::new(limit(definition), Loops::default());
    let starts = match definition.boot {
        Boot::On => true,
        Boot::Off => false,
        Boot::Auto => memory.wanted,
    };
    if starts { asked(life, Request::Start, By::Hand) } else { life }
}

/// After a start of the daemon it may run, and is not started twice; what has ended meanwhile is started as after a
/// failure; a stop that was begun goes on.
fn resumed(memory: &Memory, limit: Limit, runs: bool) -> Life {
    let stopped = || Life::new(limit, memory.loops());
    let found = || Life::found_running(limit, memory.loops(), memory.up);
    match (memory.wanted, memory.busy) {
        (false, false) => stopped(),
        (false, true) => asked(found(), Request::Stop, By::Hand),
        (true, _) if memory.waits && !runs => asked(stopped(), Request::Start, By::Hand),
        (true, _) if memory.up && runs => found(),
        (true, _) => asked(found(), Request::StopStart, By::Automatism),
    }
}

#[cfg(test)]
mod tests {
    use farm_core::life::{State, Step};
    use farm_module::Files;

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
        let stopping = Memory { wanted: false, busy: true, ..Memory::default() };
        let starts = |boot: &str, memory: &Memory| reborn(&definition(boot), memory).step().is_some();
        let cases = [
            ("auto", &ran, true),
            ("auto", &Memory::default(), false),
            ("auto", &stopping, false),
            ("on", &Memory::default(), true),
            ("off", &ran, false),
        ];
        for (boot, memory, expected) in cases {
            assert_eq!(starts(boot, memory), expected, "{boot} {memory:?}");
        }
        assert_eq!(reborn(&definition("auto"), &ran).loops().noted().1, 0, "what was before counts no more");
    }

    #[test]
    fn after_a_start_of_the_daemon_what_runs_is_not_started_twice() {
        let up = Memory { wanted: true, up: true, busy: true, ..Memory::default() };
        let limit = Limit::default();
        let runs = resumed(&up, limit, true);
        assert_eq!((runs.step(), runs.loops().noted().1), (Some(Step::Check), 0));
        assert!(runs.is_open(), "it keeps its clients");
        let died = resumed(&up, limit, false);
        assert_eq!(died.loops().noted().1, 1, "it counts as a failure");
        let stopped = resumed(&Memory::default(), limit, false);
        assert_eq!((stopped.state(), stopped.step()), (State::STOP, None));
        let half = resumed(&Memory { up: false, ..up.clone() }, limit, true);
        assert_eq!(half.loops().noted().1, 1, "it was on its way: it begins anew");
        let waiting = resumed(&Memory { up: false, waits: true, ..up }, limit, false);
        assert_eq!(waiting.loops().noted().1, 0, "what only waited has not failed");
        assert!(waiting.is_wanted() && waiting.step().is_some());
    }

    #[test]
    fn a_stop_that_a_restart_of_the_daemon_interrupts_goes_on() {
        let stopping = Memory { wanted: false, busy: true, ..Memory::default() };
        let mut life = resumed(&stopping, Limit::default(), true);
        assert!(life.is_asked() && !life.is_wanted());
        while life.step().is_some() {
            life.handle(Input::Done(farm_core::life::Ended::Well), UnixTime(0));
        }
        assert_eq!(life.state(), State::STOP);
    }
}
