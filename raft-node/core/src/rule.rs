//! What follows from how the watched things are: conditions over them, and what is asked of the module when one holds.
//!
//! Total: every condition has a value for every state of the things that it names, and needs no more time than it has
//! words.

use std::collections::BTreeMap;

use crate::life::{Gate, Request};
use crate::resource::Health;

/// The watched things of a module on a node, by name (`tcp.web`).
pub type Healths = BTreeMap<String, Health>;

/// Which things: one, or all whose name begins so.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Selector {
    /// This one.
    One(String),
    /// `ping.*`: those of a kind; what stands before the star.
    Every(String),
}

impl Selector {
    /// Whether it means the thing of this name.
    #[must_use]
    pub fn selects(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Every(start) => name.starts_with(start),
        }
    }
}

/// Something that holds or does not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Condition {
    /// At least so many of the things are as said.
    AtLeast(usize, Selector, Health),
    /// All of the things are, and there is one.
    All(Selector, Health),
    /// It does not hold.
    Not(Box<Condition>),
    /// Both hold.
    And(Box<Condition>, Box<Condition>),
    /// One of them holds.
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    /// One thing is as said.
    #[must_use]
    pub fn is(name: &str, health: Health) -> Self {
        Self::All(Selector::One(name.to_owned()), health)
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self, healths: &Healths) -> bool {
        let found = |selector: &Selector| -> Vec<Health> {
            healths.iter().filter(|(name, _)| selector.selects(name)).map(|(_, health)| *health).collect()
        };
        match self {
            Self::AtLeast(count, selector, health) => {
                found(selector).iter().filter(|h| *h == health).count() >= *count
            }
            Self::All(selector, health) => {
                let all = found(selector);
                !all.is_empty() && all.iter().all(|h| h == health)
            }
            Self::Not(inner) => !inner.holds(healths),
            Self::And(one, other) => one.holds(healths) && other.holds(healths),
            Self::Or(one, other) => one.holds(healths) || other.holds(healths),
        }
    }

    /// Which things it is about.
    pub fn selectors(&self) -> Vec<&Selector> {
        match self {
            Self::AtLeast(_, selector, _) | Self::All(selector, _) => vec![selector],
            Self::Not(inner) => inner.selectors(),
            Self::And(one, other) | Self::Or(one, other) => [one.selectors(), other.selectors()].concat(),
        }
    }
}

/// What happens when a condition comes to hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rule {
    /// Its name; of a check's own rule the name of the thing.
    pub name: String,
    /// When.
    pub condition: Condition,
    /// What is asked of the module; `None`: nothing, it is only told.
    pub request: Option<Request>,
}

impl Rule {
    /// While it holds the module does not start.
    fn blocks(&self) -> bool {
        self.request == Some(Request::Wait)
    }
}

/// What the rules say now.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Assessment {
    /// Rules, by their place, that have come to hold since they were last assessed.
    pub begun: Vec<usize>,
    /// Whether the module may start.
    pub gate: Gate,
}

/// The rules of a module on a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Which held when they were last assessed.
    held: Vec<bool>,
}

impl Rules {
    /// None holds yet.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { held: vec![false; rules.len()], rules }
    }

    /// Which they are.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// Looks at all of them.
    pub fn assess(&mut self, healths: &Healths) -> Assessment {
        let holds: Vec<bool> = self.rules.iter().map(|rule| rule.condition.holds(healths)).collect();
        let before = std::mem::replace(&mut self.held, holds);
        let begun = (0..self.rules.len()).filter(|at| self.held[*at] && !before[*at]).collect();
        Assessment { begun, gate: self.gate(healths) }
    }

    /// The application is up again: what still holds is as if it had just begun.
    pub fn rearm(&mut self) {
        self.held.fill(false);
    }

    fn gate(&self, healths: &Healths) -> Gate {
        let blocking = || self.rules.iter().zip(&self.held).filter(|(rule, _)| rule.blocks());
        if blocking().any(|(_, holds)| *holds) {
            return Gate::Shut;
        }
        let open_question = |rule: &Rule| {
            let selectors = rule.condition.selectors();
            let named = |name: &str| selectors.iter().any(|s| s.selects(name));
            healths.iter().any(|(name, health)| *health == Health::Init && named(name))
        };
        if blocking().any(|(rule, _)| open_question(rule)) { Gate::Undecided } else { Gate::Open }
    }
}
