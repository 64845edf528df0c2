//! The two table slots and the word, through the mapped memory of the pinned maps.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use farm_common::layout::{Slot, Word};

use crate::grace;
use crate::mapping::Mapping;
use crate::sink::{GraceError, PublishRefused, TableSink, Version};

/// Slots in the table map.
const SLOTS: usize = 2;

/// Whether the slot that is not in force may be written (see the diagram at [`TableSink`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spare {
    /// A program run may still read it.
    Dirty,
    /// Nobody reads it.
    Clean,
}

/// The only writer of the pinned table; lives on the real-time thread.
///
/// It can be sent to another thread but not shared: every store below relies on being the only one.
#[derive(Debug)]
pub struct TableWriter {
    table: Mapping,
    word: Mapping,
    spare: Spare,
    /// `Cell` is `Send` and not `Sync`.
    not_shared: PhantomData<std::cell::Cell<()>>,
}

impl TableWriter {
    /// Maps the table and the word. Keeps no file descriptor.
    pub(crate) fn map(table: BorrowedFd<'_>, word: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            table: Mapping::shared(table, SLOTS * size_of::<Slot>())?,
            word: Mapping::shared(word, size_of::<Word>())?,
            spare: Spare::Dirty,
            not_shared: PhantomData,
        })
    }

    fn word(&self) -> &AtomicU64 {
        self.word.atomic(0)
    }

    fn in_force(&self) -> usize {
        (self.word().load(Ordering::Acquire) & 1) as usize
    }

    fn deadline_of(&self, slot: usize) -> &AtomicU64 {
        self.table.atomic(slot * size_of::<Slot>())
    }

    /// Writes all of `image` but its deadline into a slot that is not in force and that nobody reads.
    fn write_spare(&mut self, slot: usize, image: &Slot) {
        self.deadline_of(slot).store(0, Ordering::Release);
        self.table.write_after(slot * size_of::<Slot>() + size_of::<u64>(), image, size_of::<u64>());
    }

    fn flip(&self) {
        let old = self.word().load(Ordering::Acquire);
        let flips = (old >> 1).wrapping_add(1);
        self.word().store((flips << 1) | ((old & 1) ^ 1), Ordering::Release);
    }

    fn check(&self, offered: Version) -> Result<(), PublishRefused> {
        let pinned = self.pinned();
        match (offered > pinned, self.spare) {
            (false, Spare::Clean | Spare::Dirty) => Err(PublishRefused::NotNewer { pinned, offered }),
            (true, Spare::Dirty) => Err(PublishRefused::GraceMissing),
            (true, Spare::Clean) => Ok(()),
        }
    }
}

impl TableSink for TableWriter {
    fn pinned(&self) -> Version {
        let head = self.table.read_head(self.in_force() * size_of::<Slot>());
        Version { generation: head.generation, epoch: head.epoch }
    }

    fn publish(&mut self, image: &Slot) -> Result<(), PublishRefused> {
        self.check(Version::of(image))?;
        let spare = self.in_force() ^ 1;
        self.write_spare(spare, image);
        // The old slot keeps its deadline and is never written again before the next grace period: a run that
        // read the old word can only see the lease it had.
        self.deadline_of(spare).store(self.deadline(), Ordering::Release);
        self.spare = Spare::Dirty;
        self.flip();
        Ok(())
    }

    fn grace(&mut self) -> Result<(), GraceError> {
        grace::wait()?;
        self.spare = Spare::Clean;
        Ok(())
    }

    fn set_deadline(&self, boot_ns: u64) {
        self.deadline_of(self.in_force()).store(boot_ns, Ordering::Release);
    }

    fn deadline(&self) -> u64 {
        self.deadline_of(self.in_force()).load(Ordering::Acquire)
    }

    fn close(&self) {
        for slot in 0..SLOTS {
            self.deadline_of(slot).store(0, Ordering::Release);
        }
    }
}

/// Closes a table of any layout: in every one the deadline is the first word of a slot.
///
/// `slots` is the number of elements of the map, `size` the size of one.
pub(crate) fn close_foreign(table: BorrowedFd<'_>, slots: usize, size: usize) -> io::Result<()> {
    let stride = size.next_multiple_of(size_of::<u64>());
    let mapping = Mapping::shared(table, slots * stride)?;
    for slot in 0..slots {
        mapping.atomic(slot * stride).store(0, Ordering::Release);
    }
    Ok(())
}
