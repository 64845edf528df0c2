//! Breadth first over all states of a configuration.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::choices::Evidenced;
use super::config::Config;
use super::pool::Merge;
use super::reached::Tally;
use super::state::{Action, State};
use super::steps::{Broken, Protocol};
use super::store::{Known, fingerprint};

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Steps to the farthest of them.
    pub depth: usize,
    /// All states were met; else the search was cut.
    pub complete: bool,
    /// What was met on the way.
    pub tally: Tally,
    /// The shortest way to a broken promise.
    pub broken: Option<Trace>,
    /// How long it took.
    pub took: Duration,
    /// Machines: electors, holders, leaders.
    pub machines: [usize; 3],
    /// Replicated states.
    pub replicated: usize,
}

/// Steps to a broken promise.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The steps.
    pub actions: Vec<Action>,
    /// The fact.
    pub fact: Broken,
    /// Both in words.
    pub story: String,
}

/// Steps to a broken promise, and the fact.
type Way = (Vec<Action>, Broken);

/// Where a state came from.
type Origin = (u32, Action);

struct Search {
    protocol: Protocol,
    seen: Known<()>,
    origins: Vec<Origin>,
    evidenced: Evidenced,
}

/// Searches `config`.
#[must_use]
pub fn search(config: &Config) -> Found {
    search_merging(config, Merge::Views)
}

/// The same, and doubts that machines of one view are the same.
#[must_use]
pub fn search_doubting(config: &Config) -> Found {
    search_merging(config, Merge::Doubted)
}

fn search_merging(config: &Config, merge: Merge) -> Found {
    let began = Instant::now();
    let mut protocol = Protocol::new(*config, merge);
    let first = protocol.first();
    let mut search =
        Search { protocol, seen: Known::default(), origins: Vec::new(), evidenced: Evidenced::new() };
    search.seen.insert(fingerprint(&first), ());
    search.origins.push((0, Action::Tick));
    let (mut level, mut depth) = (vec![(0, first)], 0);
    let mut broken = None;
    while !level.is_empty() && search.seen.len() < config.states && broken.is_none() {
        match search.expand(&level) {
            Ok(next) => level = next,
            Err(trace) => broken = Some(trace),
        }
        depth += usize::from(!level.is_empty());
    }
    let broken = broken.map(|(actions, fact)| tell(&search.protocol, actions, &fact));
    Found {
        states: search.seen.len(),
        depth,
        complete: level.is_empty(),
        machines: search.protocol.leases.met(),
        replicated: search.protocol.book.states(),
        tally: search.protocol.tally,
        broken,
        took: began.elapsed(),
    }
}

impl Search {
    /// The states one step further that are new.
    fn expand(&mut self, level: &[(u32, State)]) -> Result<Vec<(u32, State)>, Way> {
        let mut next = Vec::new();
        for (place, state) in level {
            for action in self.protocol.choices(state, &mut self.evidenced) {
                match self.protocol.step(state, action) {
                    Ok(Some(after)) => self.meet(after, (*place, action), &mut next),
                    Ok(None) => {}
                    Err(fact) => return Err((self.way(*place, action), fact)),
                }
            }
        }
        Ok(next)
    }

    fn meet(&mut self, state: State, origin: Origin, next: &mut Vec<(u32, State)>) {
        if self.seen.insert(fingerprint(&state), ()) {
            let place = u32::try_from(self.origins.len()).expect("memory ends before");
            self.origins.push(origin);
            next.push((place, state));
        }
    }

    fn way(&self, mut place: u32, last: Action) -> Vec<Action> {
        let mut actions = vec![last];
        while place != 0 {
            let (before, action) = self.origins[place as usize];
            actions.push(action);
            place = before;
        }
        actions.reverse();
        actions
    }
}

/// Takes the steps again with machines of which none stands for another: the broken promise is no artefact of that.
fn tell(searched: &Protocol, actions: Vec<Action>, fact: &str) -> Trace {
    let mut protocol = Protocol::new(searched.config, Merge::Never);
    let mut state = protocol.first();
    let mut story = String::new();
    for (i, action) in actions.iter().enumerate() {
        let action = translate(searched, &mut protocol, *action);
        let _ = writeln!(story, "{:>3} {action}{}", i + 1, protocol.details(&state, action));
        match protocol.step(&state, action) {
            Ok(Some(after)) => state = after,
            Ok(None) => {}
            Err(fact) => {
                let _ = writeln!(story, "    {fact}");
                return Trace { actions, fact, story };
            }
        }
    }
    panic!("{fact}: but not when the steps are taken one by one\n{story}");
}

/// The numbers of commands and entries are each model's own.
fn translate(searched: &Protocol, protocol: &mut Protocol, action: Action) -> Action {
    match action {
        Action::Propose(leader, command) => {
            let command = searched.book.command(command).clone();
            Action::Propose(leader, protocol.book.command_number(command))
        }
        Action::Report(leader, elector, node, record) => {
            let entry = protocol.book.find(searched.book.record(record).id);
            Action::Report(leader, elector, node, entry.expect("it was appended before"))
        }
        other => other,
    }
}
