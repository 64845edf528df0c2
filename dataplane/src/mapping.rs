//! Shared memory of an mmap-able BPF array.

use std::io;
use std::mem::{align_of, size_of};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use farm_common::layout::{Head, Slot};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A readable and writable mapping, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the value alone and is not tied to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a map with `BPF_F_MMAPABLE`.
    pub(crate) fn shared(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { base: base.cast(), len })
    }

    fn at<T>(&self, offset: usize, size: usize) -> NonNull<T> {
        assert!(offset.checked_add(size).is_some_and(|end| end <= self.len), "inside the mapping");
        assert!(offset.is_multiple_of(align_of::<T>()), "aligned");
        // SAFETY: the offset lies inside the mapping (checked above).
        unsafe { self.base.add(offset) }.cast()
    }

    /// The 8-byte word at `offset`, which the program reads at the same time.
    pub(crate) fn atomic(&self, offset: usize) -> &AtomicU64 {
        let word = self.at::<u64>(offset, size_of::<u64>());
        // SAFETY: inside the mapping and aligned; the mapping lives as long as `self`; the word is accessed
        // atomically only (`write_after` and `read_head` leave it out or only read).
        unsafe { AtomicU64::from_ptr(word.as_ptr()) }
    }

    /// Copies `image` without its first `skip` bytes to `offset`. Nobody else may read or write there meanwhile.
    pub(crate) fn write_after(&mut self, offset: usize, image: &Slot, skip: usize) {
        let rest = size_of::<Slot>().checked_sub(skip).expect("less than a slot is skipped");
        let target = self.at::<u8>(offset, rest);
        // SAFETY: both ranges are in bounds and cannot overlap; a slot has no padding (proven in `layout`).
        unsafe {
            let source = std::ptr::from_ref(image).cast::<u8>().add(skip);
            std::ptr::copy_nonoverlapping(source, target.as_ptr(), rest);
        }
    }

    /// The head of the slot at `offset`.
    pub(crate) fn read_head(&self, offset: usize) -> Head {
        let head = self.at::<Head>(offset, size_of::<Head>());
        // SAFETY: in bounds and aligned; every bit pattern is a `Head`; only this process writes it, from the
        // one thread that owns the writer.
        unsafe { head.read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped, and no reference into it outlives `self`.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            tracing::warn!(%error, "a map could not be unmapped");
        }
    }
}
