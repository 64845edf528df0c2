//! The data plane in memory, for the simulator and for tests of the daemon: same table rules, same decision, no
//! kernel.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farm_common::decide::Env;
use farm_common::fragment::Fragments;
use farm_common::image::Image;
use farm_common::judge::{Ingress, judge};
use farm_common::layout::Slot;
use farm_common::parse::Ethernet;
use farm_common::verdict::Verdict;

use crate::sink::{GraceError, PublishRefused, TableSink, Version};

struct State {
    slots: [Image; 2],
    in_force: usize,
    spare_is_clean: bool,
}

/// A filter in memory. Clones share the table; the one writer is [`FakeFilter::writer`].
#[derive(Clone)]
pub struct FakeFilter(Arc<Mutex<State>>);

/// The writer of a [`FakeFilter`]. A restart of the daemon is a new writer of the same filter.
pub struct FakeWriter(FakeFilter);

impl Default for FakeFilter {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeFilter {
    /// An empty, closed filter.
    #[must_use]
    pub fn new() -> Self {
        let slots = [Image::empty(), Image::empty()];
        Self(Arc::new(Mutex::new(State { slots, in_force: 0, spare_is_clean: false })))
    }

    /// Takes the table up, as a daemon does at its start: the spare slot counts as read until a grace period ended.
    #[must_use]
    pub fn writer(&self) -> FakeWriter {
        self.state().spare_is_clean = false;
        FakeWriter(self.clone())
    }

    /// What the program would decide about `frame`, which came in on `ingress`.
    pub fn judge(&self, ingress: &Ingress<'_>, frame: &[u8], env: &(impl Env + Fragments)) -> Verdict {
        let Some(ethernet) = Ethernet::parse(frame) else { return Verdict::Pass };
        let state = self.state();
        judge(&state.slots[state.in_force], ingress, &ethernet, frame, env)
    }

    /// Looks into the table in force.
    pub fn inspect<T>(&self, look: impl FnOnce(&Slot) -> T) -> T {
        let state = self.state();
        look(&state.slots[state.in_force])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method leaves the state half-changed when it panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TableSink for FakeWriter {
    fn pinned(&self) -> Version {
        self.0.inspect(Version::of)
    }

    fn publish(&mut self, image: &Slot) -> Result<(), PublishRefused> {
        let (pinned, offered, deadline) = (self.pinned(), Version::of(image), self.deadline());
        if offered <= pinned {
            return Err(PublishRefused::NotNewer { pinned, offered });
        }
        let mut state = self.0.state();
        if !std::mem::take(&mut state.spare_is_clean) {
            return Err(PublishRefused::GraceMissing);
        }
        let spare = state.in_force ^ 1;
        state.slots[spare].copy_from(image);
        state.slots[spare].head.deadline = deadline;
        state.in_force = spare;
        Ok(())
    }

    fn grace(&mut self) -> Result<(), GraceError> {
        self.0.state().spare_is_clean = true;
        Ok(())
    }

    fn set_deadline(&self, boot_ns: u64) {
        let mut state = self.0.state();
        let in_force = state.in_force;
        state.slots[in_force].head.deadline = boot_ns;
    }

    fn deadline(&self) -> u64 {
        self.0.inspect(|slot| slot.head.deadline)
    }

    fn close(&self) {
        self.0.state().slots.iter_mut().for_each(|slot| slot.head.deadline = 0);
    }
}
