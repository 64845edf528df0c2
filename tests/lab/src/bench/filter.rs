//! A node's filter seen from outside: epoch and deadline of the table in force, read from the memory that the XDP
//! program itself reads. The daemon is not asked and not delayed.
#![expect(unsafe_code, reason = "BPF_OBJ_GET and mappings have no safe wrapper")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::mem::{offset_of, size_of};
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use farm_common::layout::{Head, MAP_TABLE, MAP_WORD, Slot, Word};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::lab::Lab;
use crate::names::Place;
use crate::witness::BootTime;

/// What the filter of a node works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    /// Epoch of the table.
    pub(super) epoch: u64,
    /// Until when it accepts.
    pub(super) deadline: BootTime,
}

/// The pinned maps of one node.
struct Filter {
    table: Memory,
    word: Memory,
}

impl Filter {
    fn open(pins: &Path) -> Result<Self> {
        let table = Memory::of_pin(&pins.join(MAP_TABLE), 2 * size_of::<Slot>())?;
        Ok(Self { table, word: Memory::of_pin(&pins.join(MAP_WORD), size_of::<Word>())? })
    }

    /// Read again if the word was flipped meanwhile: then the other slot is in force.
    fn in_force(&self) -> InForce {
        loop {
            let word = self.word.load(0);
            let slot = (word & 1) as usize * size_of::<Slot>() + offset_of!(Slot, head);
            let epoch = self.table.load(slot + offset_of!(Head, epoch));
            let deadline = BootTime(self.table.load(slot + offset_of!(Head, deadline)));
            if self.word.load(0) == word {
                return InForce { epoch, deadline };
            }
        }
    }
}

/// A thread that looks at the filters of all nodes all the time.
pub(super) struct Watch<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Watch<T> {
    /// Looks every `interval` and folds what it sees into `state`.
    ///
    /// # Errors
    /// A node has no filter.
    pub(super) fn start(
        lab: &Lab,
        interval: Duration,
        mut state: T,
        mut see: impl FnMut(&mut T, Place, BootTime, InForce) + Send + 'static,
    ) -> Result<Self> {
        let filters = lab.nodes().map(|node| {
            let filter = Filter::open(&lab.spec().pin_dir(node));
            Ok((node, filter.with_context(|| format!("the filter of {node}"))?))
        });
        let filters: BTreeMap<Place, Filter> = filters.collect::<Result<_>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let look = move || {
            while !stopped.load(Ordering::Relaxed) {
                for (node, filter) in &filters {
                    // The deadline first: one that is extended later cannot seem to have passed.
                    let at = BootTime::now();
                    see(&mut state, *node, at, filter.in_force());
                }
                std::thread::sleep(interval);
            }
            state
        };
        let thread = std::thread::Builder::new().name("filters".into()).spawn(look)?;
        Ok(Self { stop, thread })
    }

    /// Ends the watch with what it saw.
    pub(super) fn stop(self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A read-only mapping of an mmap-able array.
struct Memory {
    base: NonNull<u64>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the value alone and is not tied to the thread that made it.
unsafe impl Send for Memory {}

impl Memory {
    fn of_pin(pin: &Path, bytes: usize) -> Result<Self> {
        let map = open_pin(pin).with_context(|| pin.display().to_string())?;
        let length = NonZeroUsize::new(bytes).context("an empty map")?;
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
        let base = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &map, 0) };
        let base = base.with_context(|| format!("mapping {}", pin.display()))?;
        Ok(Self { base: base.cast(), bytes })
    }

    /// The 8-byte word at `offset`, which the daemon may be writing.
    fn load(&self, offset: usize) -> u64 {
        assert!(
            offset.is_multiple_of(size_of::<u64>()) && offset < self.bytes,
            "inside the mapping, aligned"
        );
        // SAFETY: inside the mapping and aligned (checked above); atomic, since others write it.
        unsafe { AtomicU64::from_ptr(self.base.add(offset / size_of::<u64>()).as_ptr()) }
            .load(Ordering::Acquire)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped; no reference into it is ever handed out.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "a map could not be unmapped");
        }
    }
}

/// `bpf(BPF_OBJ_GET)`, see bpf(2).
fn open_pin(pin: &Path) -> Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_int = 7;
    #[repr(C)]
    struct Attributes {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = Attributes { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the kernel reads the attributes and the path, which live until the call returns.
    let opened =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attributes, size_of::<Attributes>()) };
    let raw = i32::try_from(Errno::result(opened)?)?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
