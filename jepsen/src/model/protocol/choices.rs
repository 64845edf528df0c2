//! What can happen next.

use std::collections::BTreeMap;

use farm_core::id::NodeId;

use super::book::{Payload, describe};
use super::state::{Action, NONE, Node, State};
use super::steps::Protocol;

/// Commands that a leader can base on evidence, per what it was told, its elector and its state.
pub type Evidenced = BTreeMap<(u32, u32, u16), Vec<u16>>;

fn at(node: u8) -> usize {
    usize::from(node)
}

impl Protocol {
    /// Everything that may happen in `state`; some of it comes to nothing.
    pub fn choices(&mut self, state: &State, evidenced: &mut Evidenced) -> Vec<Action> {
        let mut actions = vec![Action::Tick];
        for node in 0..self.config.nodes {
            self.daemon(state, node, &mut actions);
            self.exchanges(node, &mut actions);
            if state.nodes[at(node)].leads {
                self.leader(state, node, evidenced, &mut actions);
            } else {
                self.elections(state, node, &mut actions);
            }
        }
        actions
    }

    /// What a step is about, beyond what it says itself.
    #[must_use]
    pub fn details(&self, state: &State, action: Action) -> String {
        match action {
            Action::Propose(_, command) => format!(": {}", describe(self.book.command(command))),
            Action::Report(_, _, _, record) => format!(": {}", self.book.describe(record)),
            Action::Replicate(from, to) => {
                let (leader, other) = (&state.nodes[at(from)], &state.nodes[at(to)]);
                let next = leader.log().get(leader.common(other));
                next.map_or_else(
                    || ": what is committed".to_owned(),
                    |r| format!(": {}", self.book.describe(*r)),
                )
            }
            Action::Apply(node) => {
                let node = &state.nodes[at(node)];
                format!(": {}", self.book.describe(node.log[usize::from(node.applied)]))
            }
            _ => String::new(),
        }
    }

    fn daemon(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        let machine = &state.nodes[at(node)];
        if machine.applied < machine.commit {
            actions.push(Action::Apply(node));
        }
        if machine.writing != NONE {
            actions.push(Action::Flip(node));
        }
        if machine.stale != NONE {
            actions.push(Action::Grace(node));
        }
        if self.config.fragile & (1 << node) == 0 {
            return;
        }
        if state.restarts < self.config.restarts {
            actions.push(Action::Restart(node));
        }
        if state.reboots < self.config.reboots {
            actions.push(Action::Reboot(node));
        }
    }

    fn exchanges(&self, node: u8, actions: &mut Vec<Action>) {
        if self.config.leased & (1 << node) == 0 {
            return;
        }
        let is_slow = |e: &u8| self.config.slow & (1 << e) != 0;
        actions.extend((0..self.config.nodes).filter(|e| !is_slow(e)).map(|e| Action::Renew(node, e)));
        actions.extend((0..self.config.nodes).filter(is_slow).map(|e| Action::Ask(node, e)));
        if self.config.slow != 0 {
            actions.extend([Action::Hear(node), Action::Answer(node)]);
        }
    }

    /// Smallest majorities only: whoever else votes could do less afterwards, and nothing more.
    fn elections(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        if state.term > self.config.terms || self.config.leaders & (1 << node) == 0 {
            return;
        }
        let by = (0..1_u8 << self.config.nodes).filter(|by| by & (1 << node) == 0);
        let minimal = by.filter(|by| {
            let votes = by | 1 << node;
            self.is_majority(state, node, votes)
                && (0..self.config.nodes)
                    .filter(|n| by & (1 << n) != 0)
                    .all(|n| !self.is_majority(state, node, votes & !(1 << n)))
        });
        actions.extend(minimal.map(|by| Action::Elect(node, by)));
    }

    fn is_majority(&self, state: &State, node: u8, votes: u8) -> bool {
        let voters = self.voters(&state.nodes[at(node)]);
        votes & !voters == 0 && votes.count_ones() * 2 > voters.count_ones()
    }

    fn leader(&mut self, state: &State, node: u8, evidenced: &mut Evidenced, actions: &mut Vec<Action>) {
        let leader = state.nodes[at(node)];
        let others = (0..self.config.nodes).filter(|n| *n != node);
        actions.extend(others.map(|other| Action::Replicate(node, other)));
        self.reports(&leader, node, actions);
        if leader.len >= self.config.log {
            return;
        }
        let in_flight = self.is_in_flight(&leader);
        let mut commands = self.book.menu(leader.state, &self.config);
        commands.retain(|c| !in_flight || self.book.command(*c).base.is_none());
        if !in_flight {
            commands.extend(self.evidenced(&leader, evidenced));
            self.voter_changes(&leader, node, actions);
        }
        actions.extend(commands.into_iter().map(|c| Action::Propose(node, c)));
    }

    /// The controller proposes one thing at a time.
    fn is_in_flight(&self, leader: &Node) -> bool {
        leader.log()[usize::from(leader.applied)..].iter().any(|r| {
            let waits = match self.book.record(*r).payload {
                Payload::Blank => false,
                Payload::Command(command) => self.book.command(command).base.is_some(),
                Payload::Voters(_) => true,
            };
            waits && self.book.record(*r).id.by.term == u64::from(leader.term)
        })
    }

    fn reports(&mut self, leader: &Node, node: u8, actions: &mut Vec<Action>) {
        for (record, loser) in self.book.losses(leader.state) {
            let id = self.book.record(record).id;
            let electors = &self.book.state(leader.state).electors;
            if self.config.leased & (1 << loser) == 0 {
                continue;
            }
            for elector in 0..self.config.nodes {
                let (of, by) = (NodeId(u64::from(loser) + 1), NodeId(u64::from(elector) + 1));
                let asked = self.leases.has_reported(leader.reports, id, of, by);
                if !asked && electors.all().contains(&by) {
                    actions.push(Action::Report(node, elector, loser, record));
                }
            }
        }
    }

    fn evidenced(&mut self, leader: &Node, known: &mut Evidenced) -> Vec<u16> {
        let key = (leader.reports, leader.elector, leader.state);
        if let Some(commands) = known.get(&key) {
            return commands.clone();
        }
        let found =
            self.leases.evidenced(leader.reports, leader.elector, leader.state, &self.book, &self.config);
        let commands: Vec<u16> = found.into_iter().map(|c| self.book.command_number(c)).collect();
        known.insert(key, commands.clone());
        commands
    }

    /// One node at a time, after an entry of its own term, and while no change of electors is open. Who goes grants no
    /// leases any more; who comes grants them already, or both sets are the same: as the controller asks for it.
    fn voter_changes(&self, leader: &Node, node: u8, actions: &mut Vec<Action>) {
        let (voters, electors) = (self.voters(leader), &self.book.state(leader.state).electors);
        let own = leader.log()[..usize::from(leader.commit)]
            .iter()
            .any(|r| self.book.record(*r).id.by.term == u64::from(leader.term));
        let rests =
            electors.change.is_none() && leader.applied == leader.len && (own || self.config.terms == 1);
        if !rests {
            return;
        }
        let granting = electors.current.iter().fold(0_u8, |set, n| set | 1 << (n.0 - 1));
        let next = self.config.voter_changes.iter().filter(|set| {
            let node = **set ^ voters;
            let goes = voters & node != 0;
            let right = if goes { granting & node == 0 } else { granting & node != 0 || granting == voters };
            node.count_ones() == 1 && right
        });
        actions.extend(next.map(|set| Action::Voters(node, *set)));
    }
}
