//! The network between machines: delay, loss, duplication, reordering (by delay), and cuts per direction and kind.

use std::collections::BTreeMap;

use farm_core::id::NodeId;
use farm_core::lease::{Ask, Expiry, Grant, Renewal};
use farm_core::time::Span;

use super::raft::RaftMessage;
use crate::nemesis::Traffic;

/// A message between machines.
#[derive(Clone, Debug)]
pub enum Message {
    /// A lease is asked for.
    Renewal(Renewal),
    /// A lease is granted.
    Grant(Grant),
    /// Between logs.
    Raft(RaftMessage),
    /// The leader asks an elector.
    Ask {
        /// What.
        ask: Ask,
        /// The leader.
        from: NodeId,
    },
    /// It answers.
    Answer {
        /// Who.
        elector: NodeId,
        /// What was asked.
        ask: Ask,
        /// The answer.
        expiry: Expiry,
    },
}

impl Message {
    /// On which sockets it travels.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match self {
            Self::Renewal(_) => Traffic::Renewals,
            Self::Grant(_) => Traffic::Grants,
            Self::Raft(_) => Traffic::Log,
            Self::Ask { .. } | Self::Answer { .. } => Traffic::Questions,
        }
    }
}

/// What the network does to every message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Shortest way.
    pub delay_min: Span,
    /// Longest way.
    pub delay_max: Span,
    /// Of a hundred messages so many are lost.
    pub loss: u8,
    /// Of a hundred messages so many come twice.
    pub twice: u8,
}

impl Weather {
    /// An ordinary day.
    pub const FAIR: Self =
        Self { delay_min: Span::micros(100), delay_max: Span::micros(900), loss: 0, twice: 0 };
}

/// The network.
pub struct Network {
    /// What is in force for all.
    pub weather: Weather,
    /// How often each direction is cut, per kind of traffic.
    cuts: BTreeMap<(usize, usize, Traffic), u32>,
    /// How much longer a direction takes, per kind of traffic.
    slow: BTreeMap<(usize, usize, Traffic), Span>,
}

impl Default for Network {
    fn default() -> Self {
        Self { weather: Weather::FAIR, cuts: BTreeMap::new(), slow: BTreeMap::new() }
    }
}

impl Network {
    /// Whether a message gets from `from` to `to` now.
    #[must_use]
    pub fn connects(&self, from: usize, to: usize, traffic: Traffic) -> bool {
        from == to || !self.cuts.contains_key(&(from, to, traffic))
    }

    /// Cuts a direction. Cuts add up.
    pub fn cut(&mut self, from: usize, to: usize, traffic: Traffic) {
        *self.cuts.entry((from, to, traffic)).or_default() += 1;
    }

    /// Takes one cut back.
    pub fn heal(&mut self, from: usize, to: usize, traffic: Traffic) {
        if let Some(count) = self.cuts.get_mut(&(from, to, traffic)) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&(from, to, traffic));
            }
        }
    }

    /// Makes a direction slower by `extra`, or as fast as before.
    pub fn slow(&mut self, from: usize, to: usize, traffic: Traffic, extra: Option<Span>) {
        match extra {
            Some(extra) => drop(self.slow.insert((from, to, traffic), extra)),
            None => drop(self.slow.remove(&(from, to, traffic))),
        }
    }

    /// How long each copy of a message is under way; nothing: it is lost.
    pub fn copies(
        &self,
        rng: &mut fastrand::Rng,
        from: usize,
        to: usize,
        traffic: Traffic,
    ) -> [Option<Span>; 2] {
        if from == to {
            return [Some(Span::micros(20)), None];
        }
        let Weather { delay_min, delay_max, loss, twice } = self.weather;
        let extra = self.slow.get(&(from, to, traffic)).copied().unwrap_or_default();
        let delay = |rng: &mut fastrand::Rng| Span(rng.u64(delay_min.0..=delay_max.0)) + extra;
        let lost = loss > 0 && rng.u8(0..100) < loss;
        let first = (!lost && self.connects(from, to, traffic)).then(|| delay(rng));
        let again = first.is_some() && twice > 0 && rng.u8(0..100) < twice;
        [first, again.then(|| delay(rng))]
    }
}
