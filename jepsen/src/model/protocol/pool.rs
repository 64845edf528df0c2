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
    /// What it may be after one more step, and what it answered.
    fn futures(&self) -> Vec<(Self::View, u16)>;
}

/// Which machines get one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// None: for a single trace.
    Never,
    /// Those of one view.
    Views,
    /// The same, and it is tried whether they behave the same in the next step. That holds for every step if it holds for
    /// all that were met.
    Doubted,
}

/// All machines of one kind that were met.
#[derive(Debug)]
pub struct Pool<U: Unit> {
    units: Vec<U>,
    numbers: BTreeMap<U::View, u32>,
    merge: Merge,
}

impl<U: Unit> Pool<U> {
    /// An empty pool.
    #[must_use]
    pub fn new(merge: Merge) -> Self {
        Self { units: Vec::new(), numbers: BTreeMap::new(), merge }
    }

    /// The number of `unit`.
    ///
    /// # Panics
    /// When a doubt was right.
    pub fn number(&mut self, unit: U) -> u32 {
        let next = u32::try_from(self.units.len()).expect("memory ends before");
        if self.merge == Merge::Never {
            self.units.push(unit);
            return next;
        }
        let number = *self.numbers.entry(unit.view()).or_insert(next);
        if number == next {
            self.units.push(unit);
        } else if self.merge == Merge::Doubted {
            let same = self.get(number).futures() == unit.futures();
            assert!(same, "two machines of one view differ in what they do next");
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
