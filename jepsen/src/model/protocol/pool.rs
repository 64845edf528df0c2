//! Machines by number.
//!
//! A machine of the core is a plain value with instants of its own clock and counters in it that only grow. Two of them
//! that will behave the same from now on get the same number: they are told apart by their *view*, which holds what is
//! left of their time instead of instants. The first machine of a view stands for all of it, and each step of the core is
//! taken once per number and input.

use std::collections::BTreeMap;

/// A machine, its clock, and what tells it apart.
pub trait Unit: Clone {
    /// Everything about it that its future depends on.
    type View: Ord + Clone;
    /// Its view.
    fn view(&self) -> Self::View;
}

/// All machines of one kind that were met.
#[derive(Debug)]
pub struct Pool<U: Unit> {
    units: Vec<U>,
    numbers: BTreeMap<U::View, u32>,
    /// Every machine gets a number of its own, also where its view is known.
    apart: bool,
}

impl<U: Unit> Pool<U> {
    /// An empty pool; where machines are kept `apart`, views merge nothing.
    #[must_use]
    pub fn new(apart: bool) -> Self {
        Self { units: Vec::new(), numbers: BTreeMap::new(), apart }
    }

    /// The number of `unit`.
    pub fn number(&mut self, unit: U) -> u32 {
        let next = u32::try_from(self.units.len()).expect("memory ends before");
        if self.apart {
            self.units.push(unit);
            return next;
        }
        let number = *self.numbers.entry(unit.view()).or_insert(next);
        if number == next {
            self.units.push(unit);
        }
        number
    }

    /// The machine that stands for `number`.
    #[must_use]
    pub fn get(&self, number: u32) -> &U {
        &self.units[number as usize]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }
}
