//! P1: at most one node accepts new flows of a bucket. A SYN is led through all filters with the decision that the
//! kernel runs ([`crate::world::sim::walk`]), over every mixture of tables that packets may go by.

use farm_common::layout::Entry;
use farm_common::verdict::Mode;
use farm_core::id::NodeId;
use farm_core::table::render;

use super::book::Book;
use super::setup::BUCKETS;
use super::state::{NODES, NONE};
use super::store::Known;
use crate::world::sim::walk::walk;

/// Judges mixtures of tables; each once.
#[derive(Debug, Default)]
pub struct Judge {
    tables: Vec<Option<[Entry; BUCKETS]>>,
    fates: Known<u32>,
}

impl Judge {
    /// Which nodes accept new flows of some bucket that another one accepts too. `tables` are the states whose tables
    /// the open filters work with, [`NONE`] for a closed one.
    pub fn doubles(&mut self, tables: &[u16; NODES], book: &Book) -> Option<(usize, u32)> {
        let key = tables.iter().fold(0, |key, table| key << 16 | u64::from(*table));
        // All of them closed is no key, and no question.
        if *tables == [NONE; NODES] {
            return None;
        }
        let known = self.fates.get(key);
        let found = known.unwrap_or_else(|| {
            let found = self.walk(tables, book);
            self.fates.insert(key, found);
            found
        });
        (found != 0).then_some(((found >> 8) as usize, found & 0xff))
    }

    fn walk(&mut self, tables: &[u16; NODES], book: &Book) -> u32 {
        let rendered = tables.map(|t| (t != NONE).then(|| self.table(t, book)));
        for bucket in 0..BUCKETS {
            let entries = rendered.map(|t| t.map(|cells| cells[bucket]));
            let acceptors = walk(Mode::Directed, &entries).acceptors;
            if acceptors.count_ones() > 1 {
                return u32::from(u8::try_from(bucket).expect("few buckets")) << 8 | acceptors;
            }
        }
        0
    }

    fn table(&mut self, state: u16, book: &Book) -> [Entry; BUCKETS] {
        let place = usize::from(state);
        self.tables.resize(self.tables.len().max(place + 1), None);
        *self.tables[place].get_or_insert_with(|| cells(book, state))
    }
}

/// What the core renders; the buckets are the same on every node.
fn cells(book: &Book, state: u16) -> [Entry; BUCKETS] {
    let state = book.state(state);
    let image = render(state, NodeId(1)).expect("the first node is a member");
    let module = state.modules.values().next().expect("there is a module");
    let cells = &image.entries[usize::from(module.slot)];
    core::array::from_fn(|bucket| cells[bucket])
}
