//! What must hold, one file a property. Each judge keeps what it has to remember and is told what happens; it knows
//! real time and every node at once, which no node does.

mod agreement;
mod bound;
mod epochs;
mod exclusive;
mod live;
pub mod minimal;

pub use agreement::Agreement;
pub use bound::Bound;
pub use epochs::Epochs;
pub use exclusive::{Exclusive, View};
pub use live::unserved;

use core::fmt;

use crate::world::sim::clock::RealTime;

/// A property.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Property {
    /// P1: at most one node accepts new flows of a bucket.
    Exclusive,
    /// P3: the epoch of a filter only grows, and is reported only when the filter works with it.
    Epochs,
    /// P3: the same entry and the same state at the same index, everywhere.
    Agreement,
    /// L3: no lease outlives what a majority of electors believes.
    Bound,
    /// P4: no bucket moves without a reason.
    Minimal,
    /// P5: every bucket has an owner again.
    Live,
}

/// A property that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// When.
    pub at: RealTime,
    /// What was seen.
    pub fact: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} violated at {:?}: {}", self.property, self.at, self.fact)
    }
}
