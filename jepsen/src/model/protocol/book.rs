//! Entries and replicated states by number, and what [`ClusterState::apply`] makes of the one with the other.

use std::collections::BTreeMap;

use farm_core::command::{Body, Command};
use farm_core::id::{EntryId, Epoch, Leadership, NodeId};
use farm_core::model::{Pending, Phase};
use farm_core::state::ClusterState;

use super::config::Config;
use super::menu;
use super::setup::Founded;
use super::store::Known;

/// What an entry says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Payload {
    /// Nothing: a new leader commits what it found.
    Blank,
    /// A command of the core, by its number.
    Command(u16),
    /// Who votes from here on: a bitmap.
    Voters(u8),
}

/// An entry of the log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Record {
    /// Which.
    pub id: EntryId,
    /// What.
    pub payload: Payload,
}

/// What applying came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The number of the state after it.
    pub state: u16,
    /// The command did something.
    pub applied: bool,
}

/// Everything that logs and states can say.
#[derive(Debug)]
pub struct Book {
    /// Index of the entry before the first of every log.
    pub base: u64,
    records: Vec<Record>,
    record_numbers: BTreeMap<Record, u16>,
    commands: Vec<Command>,
    command_numbers: BTreeMap<Command, u16>,
    states: Vec<ClusterState>,
    state_numbers: BTreeMap<ClusterState, u16>,
    steps: Known<u32>,
    /// Per state what may be proposed without evidence.
    menus: Vec<Option<Vec<u16>>>,
    /// Per state the losses that wait for evidence.
    losses: Vec<Option<Vec<Loss>>>,
}

/// An entry, and the position of a node against which it waits for evidence.
pub type Loss = (u16, u8);

fn short(n: usize) -> u16 {
    u16::try_from(n).expect("configurations are small")
}

impl Book {
    /// A book that knows the first state, as number 0.
    #[must_use]
    pub fn new(founded: Founded) -> Self {
        let mut book = Self {
            base: founded.last,
            records: Vec::new(),
            record_numbers: BTreeMap::new(),
            commands: Vec::new(),
            command_numbers: BTreeMap::new(),
            states: Vec::new(),
            state_numbers: BTreeMap::new(),
            steps: Known::default(),
            menus: Vec::new(),
            losses: Vec::new(),
        };
        book.state_number(founded.state);
        book
    }

    /// The state of that number.
    #[must_use]
    pub fn state(&self, number: u16) -> &ClusterState {
        &self.states[usize::from(number)]
    }

    /// How many states there are.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states.len()
    }

    /// The entry of that number.
    #[must_use]
    pub fn record(&self, number: u16) -> &Record {
        &self.records[usize::from(number)]
    }

    /// The number of the entry with this id.
    #[must_use]
    pub fn find(&self, id: EntryId) -> Option<u16> {
        self.records.iter().position(|r| r.id == id).map(short)
    }

    /// Its command, if it has one.
    #[must_use]
    pub fn command_of(&self, record: u16) -> Option<&Command> {
        match self.record(record).payload {
            Payload::Command(number) => Some(self.command(number)),
            Payload::Blank | Payload::Voters(_) => None,
        }
    }

    /// The command of that number.
    #[must_use]
    pub fn command(&self, number: u16) -> &Command {
        &self.commands[usize::from(number)]
    }

    /// The number of `command`.
    pub fn command_number(&mut self, command: Command) -> u16 {
        let next = short(self.commands.len());
        let number = *self.command_numbers.entry(command.clone()).or_insert(next);
        if number == next {
            self.commands.push(command);
        }
        number
    }

    /// The number of the entry that `leader` appends behind `before` others.
    pub fn append(&mut self, by: Leadership, before: usize, payload: Payload) -> u16 {
        let index = self.base + u64::from(short(before)) + 1;
        let record = Record { id: EntryId { by, index }, payload };
        let next = short(self.records.len());
        let number = *self.record_numbers.entry(record.clone()).or_insert(next);
        if number == next {
            self.records.push(record);
        }
        number
    }

    /// Whom the entry fences.
    #[must_use]
    pub fn fences(&self, record: u16) -> Vec<(NodeId, Epoch)> {
        self.command_of(record).map(Command::fences).unwrap_or_default()
    }

    /// Applies the entry to the state.
    ///
    /// # Errors
    /// The fact, when the epoch does what it must not do.
    pub fn apply(&mut self, state: u16, record: u16) -> Result<Step, String> {
        let key = u64::from(state) << 16 | u64::from(record);
        if let Some(known) = self.steps.get(key) {
            return Ok(Step { state: short((known >> 1) as usize), applied: known & 1 == 1 });
        }
        let Some(command) = self.command_of(record).cloned() else {
            return Ok(Step { state, applied: false });
        };
        let (before, mut after) = (self.state(state).epoch, self.state(state).clone());
        let outcome = after.apply(&command, self.record(record).id).expect("of the first level");
        let grown = outcome.is_applied() && command.makes_epoch();
        let right = if grown { before.next() } else { before };
        if after.epoch != right {
            return Err(format!("{:?} takes epoch {before} to {}", command.body, after.epoch));
        }
        let step = Step { state: self.state_number(after), applied: outcome.is_applied() };
        self.steps.insert(key, u32::from(step.state) << 1 | u32::from(step.applied));
        Ok(step)
    }

    fn state_number(&mut self, state: ClusterState) -> u16 {
        let next = short(self.states.len());
        let number = *self.state_numbers.entry(state.clone()).or_insert(next);
        if number == next {
            self.states.push(state);
            self.menus.push(None);
            self.losses.push(None);
        }
        number
    }

    /// What a leader with this state may propose without evidence: commands that would do something.
    pub fn menu(&mut self, state: u16, config: &Config) -> Vec<u16> {
        if let Some(menu) = &self.menus[usize::from(state)] {
            return menu.clone();
        }
        let does = |c: &Command| {
            let mut after = self.state(state).clone();
            after.apply(c, EntryId::default()).is_ok_and(|o| o.is_applied())
        };
        let commands: Vec<Command> =
            menu::commands(self.state(state), config).into_iter().filter(does).collect();
        let menu: Vec<u16> = commands.into_iter().map(|c| self.command_number(c)).collect();
        self.menus[usize::from(state)] = Some(menu.clone());
        menu
    }

    /// The losses of the state that wait for evidence.
    pub fn losses(&mut self, state: u16) -> Vec<Loss> {
        let place = usize::from(state);
        if self.losses[place].is_none() {
            let node = |p: &Pending| u8::try_from(p.node.0 - 1).expect("few nodes");
            let pending = self.states[place].pending();
            let found = pending.iter().filter_map(|p| Some((self.find(p.entry)?, node(p)))).collect();
            self.losses[place] = Some(found);
        }
        self.losses[place].clone().unwrap_or_default()
    }

    /// The entry of the log in words.
    #[must_use]
    pub fn describe(&self, record: u16) -> String {
        let Record { id, payload } = self.record(record);
        let what = match payload {
            Payload::Blank => "Blank".to_owned(),
            Payload::Voters(mask) => format!("Voters {mask:#b}"),
            Payload::Command(number) => describe(self.command(*number)),
        };
        format!("{what} (entry {} of term {})", id.index, id.by.term)
    }
}

/// A command in words.
#[must_use]
pub fn describe(command: &Command) -> String {
    let body = match &command.body {
        Body::Prepare(t) | Body::Move { transfers: t, .. } => {
            let what = if matches!(command.body, Body::Prepare(_)) { "Prepare" } else { "Move" };
            let to: Vec<String> = t
                .iter()
                .map(|t| format!("{:?} to n{}", t.buckets.iter().collect::<Vec<_>>(), t.to))
                .collect();
            format!("{what} {}", to.join(", "))
        }
        Body::Activate { evidence, .. } => format!("Activate by {evidence:?}"),
        Body::Settle(_) => "Settle".to_owned(),
        Body::Cancel(_) => "Cancel".to_owned(),
        Body::NodeUpdate(_) => "Touch".to_owned(),
        other => format!("{other:?}"),
    };
    format!("{body} at base {}", command.base.unwrap_or_default())
}

/// Losses of buckets whose evidence an Activate of them would need; in Move or MoveClosed.
#[must_use]
pub fn moving(state: &ClusterState) -> Vec<(usize, &[Pending])> {
    let assignment = state.modules.values().flat_map(|m| m.assignment.iter().enumerate());
    let open = assignment.filter(|(_, b)| matches!(b.phase, Phase::Move | Phase::MoveClosed));
    open.map(|(bucket, b)| (bucket, b.pending.as_slice())).collect()
}
