//! No frame ever meets half a table, while tables are published as fast as the writer can. Needs root.

mod attach_support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use attach_support::*;
use aya::Pod;
use aya::maps::{Array, Map, MapData};
use farm_common::image::Image;
use farm_common::layout::{BUCKETS, Entry, MAP_TABLE, MAP_WORD, Node, Slot, Word};
use farm_common::verdict::Phase;
use farm_dataplane::attach::Filter;
use farm_dataplane::clock::boot_now;
use farm_dataplane::sink::TableSink;

const MINUTE: u64 = 60_000_000_000;
const FRAMES: usize = 8_000;
const OWNERS: [u8; 2] = [OTHER, OTHER + 1];
/// What a node is called in a table in which it owns nothing.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0xff];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);

// SAFETY: `repr(C)`, integers only, no padding (proven in `layout`); every bit pattern is valid.
unsafe impl Pod for Raw<Slot> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Word> {}

fn raw(slot: &Slot) -> &Raw<Slot> {
    // SAFETY: `Raw` is a transparent wrapper.
    unsafe { &*std::ptr::from_ref(slot).cast() }
}

fn mac(owner: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, owner]
}

/// Says in two places, far from each other, who owns every bucket: the entries, and which node has an address.
fn table(epoch: u64) -> Image {
    let owner = OWNERS[(epoch % 2) as usize];
    let mut table = image(epoch, owner);
    for node in OWNERS {
        let mac = if node == owner { mac(node) } else { NOBODY };
        table.nodes[0][usize::from(node)] = Node { address4: [10, 77, 0, node], mac, ..Node::default() };
    }
    let entry = Entry { current: owner, previous: 0, phase: Phase::Stable.into(), reserved: 0 };
    table.entries[0] = [entry; BUCKETS];
    table.head.deadline = boot_now() + MINUTE;
    table
}

/// Where [`FRAMES`] frames go that are judged while `write` writes one table after the other.
fn seen_while(wire: &Wire, filter: &Filter, mut write: impl FnMut(u64) + Send) -> BTreeSet<[u8; 6]> {
    let frame = syn();
    let judged = || filter.explain(0, &frame).unwrap().frame[..6].try_into().unwrap();
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let (started, first) = mpsc::channel();
        let enough = &enough;
        scope.spawn(move || {
            (1..).take_while(|_| !enough.load(Ordering::Acquire)).for_each(|epoch| {
                write(epoch);
                let _ = started.send(());
            });
        });
        first.recv().unwrap();
        wire.inside(|| {
            let seen = (0..FRAMES).map(|_| judged()).collect();
            enough.store(true, Ordering::Release);
            seen
        })
    })
}

#[test]
fn every_frame_meets_a_whole_table() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    let mut writer = filter.writer().unwrap();
    let seen = seen_while(&wire, &filter, |epoch| {
        writer.grace().unwrap();
        writer.publish(&table(epoch)).unwrap();
        writer.set_deadline(boot_now() + MINUTE);
    });
    assert_eq!(seen, OWNERS.map(mac).into(), "both owners, and nothing between them");
}

/// The planted mistake: entries are written where the program reads them.
#[test]
fn a_table_written_in_place_is_found() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    let pinned = |name| Map::from_map_data(MapData::from_pin(wire.pin_dir.join(name)).unwrap()).unwrap();
    let word = Array::<_, Raw<Word>>::try_from(pinned(MAP_WORD)).unwrap().get(&0, 0).unwrap().0;
    let mut slots = Array::<_, Raw<Slot>>::try_from(pinned(MAP_TABLE)).unwrap();
    let write = |epoch| slots.set((word.word & 1) as u32, raw(&table(epoch)), 0).unwrap();
    let seen = seen_while(&wire, &filter, write);
    assert!(seen.contains(&NOBODY), "only {seen:?}");
}
