//! A fake filter: two slots, a deadline in each, one word that flips them. It is the machine's, not the daemon's.

use farm_common::layout::Entry;
use farm_common::verdict::Mode;
use farm_core::id::{Epoch, NodeId};
use farm_core::state::ClusterState;
use farm_core::table::render;
use farm_core::time::BootTime;

/// One bucket of one module.
pub type Cell = (Mode, Entry);

/// One published table; nodes are numbered by machine, from 1.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its epoch.
    pub epoch: Epoch,
    /// Until when it accepts; 0 = closed.
    pub deadline: BootTime,
    /// All buckets of all modules, in the order of their names.
    pub cells: Vec<Cell>,
}

impl Table {
    const EMPTY: Self = Self { epoch: Epoch(0), deadline: BootTime(0), cells: Vec::new() };

    /// What the core renders for `me`, if it is a member. `number` gives the machine of a node.
    pub fn render(state: &ClusterState, me: NodeId, number: impl Fn(NodeId) -> u8) -> Option<Self> {
        let image = render(state, me).ok()?;
        let numbers: Vec<u8> = std::iter::once(0).chain(state.nodes.keys().map(|n| number(*n))).collect();
        let by_machine = |entry: &Entry| Entry {
            current: numbers[usize::from(entry.current)],
            previous: numbers[usize::from(entry.previous)],
            ..*entry
        };
        let mut cells = Vec::new();
        for module in state.modules.values() {
            let mode = match module.vips.values().next()? {
                farm_core::model::Mode::Directed => Mode::Directed,
                farm_core::model::Mode::Flood => Mode::Flood,
            };
            let entries = &image.entries[usize::from(module.slot)][..state.buckets];
            cells.extend(entries.iter().map(|e| (mode, by_machine(e))));
        }
        Some(Self { epoch: state.epoch, deadline: BootTime(0), cells })
    }

    /// Whether it accepts when the clock shows `now`.
    #[must_use]
    pub fn is_open(&self, now: BootTime) -> bool {
        now < self.deadline
    }
}

/// The filter of one machine.
#[derive(Clone, Debug)]
pub struct Filter {
    slots: [Table; 2],
    in_force: usize,
    /// The word was flipped and no grace period ended since: some packet may still read the other slot.
    stale: bool,
    /// Counts changes.
    pub version: u64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { slots: [Table::EMPTY, Table::EMPTY], in_force: 0, stale: false, version: 0 }
    }
}

impl Filter {
    /// The table that new packets read.
    #[must_use]
    pub fn in_force(&self) -> &Table {
        &self.slots[self.in_force]
    }

    /// The table that old packets may still read.
    #[must_use]
    pub fn stale(&self) -> Option<&Table> {
        self.stale.then(|| &self.slots[self.in_force ^ 1])
    }

    /// Writes the free slot and flips. The lease goes on in the new table.
    ///
    /// # Panics
    /// When no grace period ended since the flip before: the free slot is not free.
    pub fn flip(&mut self, table: Table) {
        assert!(!self.stale, "a table is written while packets may read it");
        let deadline = self.in_force().deadline;
        self.in_force ^= 1;
        self.slots[self.in_force] = Table { deadline, ..table };
        self.stale = true;
        self.version += 1;
    }

    /// A grace period ended: every packet that read the old word is done.
    pub fn grace(&mut self) {
        self.stale = false;
        self.version += 1;
    }

    /// Writes the deadline of the table in force.
    pub fn set_deadline(&mut self, deadline: BootTime) {
        let slot = &mut self.slots[self.in_force];
        if slot.deadline != deadline {
            slot.deadline = deadline;
            self.version += 1;
        }
    }
}
