//! A process that stands still for a while, as one on a machine that hangs does.

use std::io;
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal, raise};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// Stops every thread of this process, and returns when it goes on. The kernel's own timer ends it (`timer_create(2)`:
/// `SIGCONT` takes effect when it is sent, whether anybody runs or not), so nothing has to survive meanwhile that could
/// fail. Anybody may end it sooner with `SIGCONT`.
///
/// # Errors
/// The kernel has no timer left; then nothing stopped.
pub fn stand_still(length: Duration) -> io::Result<()> {
    let wake = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGCONT, si_value: 0 });
    // Also where the machine sleeps meanwhile.
    let mut timer = Timer::new(ClockId::CLOCK_BOOTTIME, wake)?;
    timer.set(Expiration::OneShot(length.into()), TimerSetTimeFlags::empty())?;
    // To this thread: one that is sent to the process may be taken by another, while this one runs on and drops the timer.
    raise(Signal::SIGSTOP)?;
    Ok(())
}
