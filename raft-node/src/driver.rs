//! The one caller of the core's controller: what is observed goes in, effects come out.
//!
//! Runs on every member; a controller exists only while this node leads. It is dropped with the
//! leadership, and all evidence with it. Tasks owned: none (effects are spawned by [`crate::effects`], and
//! their answers come back through the bounded `inputs` queue). Cancel-safe: every await is a receive.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use farm_core::command::{Body, Command};
use farm_core::controller::{Controller, DrainState, Effect, Input, Observed};
use farm_core::id::{Leadership, NodeId};
use farm_core::lease::Timing;
use farm_core::model::{ModuleName, Profile};
use farm_core::time::{BootTime, Span};
use farm_dataplane::clock::boot_now;
use tokio::sync::mpsc;

use crate::effects::Effects;
use crate::lease::Observation;
use crate::member::HeardBy;
use crate::raft::{Handle, Role, Snapshot};

/// Answers that may wait for the driver: expiry reports of five electors for a handful of entries, drains of all nodes.
pub const INPUTS_MAX: usize = 1024;

/// What reaches the driver besides state, role and observations.
#[derive(Debug)]
pub enum Feedback {
    /// An answer that the controller of this leadership asked for; it means nothing to another one.
    Core(Leadership, Input),
    /// A node's report of its sockets.
    Drain {
        /// The node.
        node: NodeId,
        /// The module.
        module: ModuleName,
        /// Its sockets.
        state: DrainState,
    },
}

/// The driver.
pub struct Driver {
    raft: Handle,
    effects: Effects,
    me: NodeId,
    observed: Observed,
    controller: Option<Controller>,
    /// Shared with the API.
    heard: HeardBy,
    /// Since when no observation can have been missed, and when the last one was taken in.
    listening: (BootTime, BootTime),
    /// A node heard again after this much silence is news: more than two renewals.
    news: Span,
}

impl Driver {
    /// Observes and acts for `me`.
    #[must_use]
    pub fn new(me: NodeId, raft: Handle, effects: Effects, heard: HeardBy) -> Self {
        let listening = (now(), now());
        Self {
            raft,
            effects,
            me,
            observed: Observed::default(),
            controller: None,
            heard,
            listening,
            news: news(Profile::Standard),
        }
    }

    /// Runs until the Raft handle goes away.
    pub async fn run(mut self, mut seen: mpsc::Receiver<Observation>, mut inputs: mpsc::Receiver<Feedback>) {
        let mut state = self.raft.state();
        let mut role = self.raft.role();
        loop {
            let wake = self.wake();
            let mut input = tokio::select! {
                Some(observation) = seen.recv() => self.heard(observation),
                Some(feedback) = inputs.recv() => self.feedback(feedback),
                changed = state.changed() => if changed.is_err() { return } else { Some(Input::Tick) },
                changed = role.changed() => if changed.is_err() { return } else { self.lead(&role.borrow_and_update().clone()); Some(Input::Tick) },
                () = tokio::time::sleep(wake) => Some(Input::Tick),
            };
            // What was heard meanwhile comes first: a driver that was not run for a while must not call anybody silent.
            while let Ok(observation) = seen.try_recv() {
                input = input.or(self.heard(observation));
            }
            let snapshot = state.borrow_and_update().clone();
            self.news = news(snapshot.state.profile);
            if let Some(input) = input {
                self.step(&snapshot, input);
            }
        }
    }

    fn wake(&self) -> Duration {
        /// Without a controller nothing is due; the sleep only bounds a select without other events.
        const IDLE: Duration = Duration::from_secs(3600);
        let at = self.controller.as_ref().and_then(Controller::wake_at);
        at.map_or(IDLE, |at| Duration::from_nanos(at.since(now()).0))
    }

    /// An elector hears at least its own node every renewal: a longer break means that nothing was taken in.
    fn listening_since(&self) -> BootTime {
        let (since, last) = self.listening;
        if now().since(last) < self.news { since } else { now() }
    }

    /// Takes what an elector heard; asks for a step only when it can matter.
    fn heard(&mut self, o: Observation) -> Option<Input> {
        self.listening = (self.listening_since(), now());
        // A panic elsewhere leaves the map whole: an insertion is one step.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(o.node, o.heard);
        let before = self.observed.heard.insert(o.node, o.heard);
        let news = before.is_none_or(|b| {
            b.applied != o.heard.applied
                || b.leased != o.heard.leased
                || b.incarnation != o.heard.incarnation
                || b.at + self.news < o.heard.at
        });
        news.then_some(Input::Tick)
    }

    fn feedback(&mut self, feedback: Feedback) -> Option<Input> {
        match feedback {
            Feedback::Core(leadership, input) => {
                let asked = self.controller.as_ref().is_some_and(|c| c.leadership() == leadership);
                asked.then_some(input)
            }
            Feedback::Drain { node, module, state } => {
                self.observed.drains.insert((node, module), state);
                Some(Input::Tick)
            }
        }
    }

    fn lead(&mut self, role: &Role) {
        self.observed.voters.clone_from(&role.voters);
        self.observed.learners.clone_from(&role.learners);
        self.observed.caught_up.clone_from(&role.caught_up);
        let wanted = role.leadership.filter(|l| l.leader == self.me);
        if self.controller.as_ref().map(Controller::leadership) == wanted {
            return;
        }
        self.observed.drains.clear();
        let since = self.listening_since();
        let controller =
            |leadership: Leadership| Controller::new(self.me, leadership, now()).having_listened_since(since);
        self.controller = wanted.map(controller);
    }

    fn step(&mut self, snapshot: &Arc<Snapshot>, input: Input) {
        let Some(controller) = &mut self.controller else { return };
        self.observed.last_applied = snapshot.last_applied;
        for effect in controller.step(now(), &snapshot.state, &self.observed, input) {
            let takes_over = takes_from(&effect).iter().any(|loser| !controller.serves(*loser));
            self.effects.execute(controller.leadership(), effect, takes_over);
        }
    }
}

fn takes_from(effect: &Effect) -> &[NodeId] {
    match effect {
        Effect::Propose(Command { body: Body::Move { losers, .. }, .. }) => losers,
        _ => &[],
    }
}

fn news(profile: Profile) -> Span {
    Span(Timing::of(profile).renewal.0 * 12 / 5)
}

fn now() -> BootTime {
    BootTime(boot_now())
}
