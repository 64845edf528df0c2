//! Real-time scheduling and locked memory for the lease thread.

use std::fmt;
use std::io;

use nix::sys::mman::{MlockAllFlags, mlockall};

/// What could not be had. The daemon runs on, with thinner margins: a lease may lapse when the machine is busy.
#[derive(Debug)]
pub enum Degraded {
    /// The thread stays in the ordinary scheduling class.
    Scheduling(io::Error),
    /// Memory of the process may be paged out.
    Memory(io::Error),
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduling(error) => write!(
                f,
                "no real-time scheduling for the lease thread ({error}); give farmd CAP_SYS_NICE or LimitRTPRIO=99"
            ),
            Self::Memory(error) => write!(
                f,
                "memory is not locked, the lease thread may wait for the disk ({error}); give farmd CAP_IPC_LOCK or LimitMEMLOCK=infinity"
            ),
        }
    }
}

/// Puts the calling thread into `SCHED_RR` at `priority` (1–99) and locks the memory of the whole process, now and
/// in future. Threads that the caller starts afterwards are ordinary again (`SCHED_RESET_ON_FORK`).
///
/// Returns what could not be had, empty when all is well.
pub fn become_realtime(priority: u8) -> Vec<Degraded> {
    let scheduling = round_robin(priority).err().map(Degraded::Scheduling);
    let memory = lock_memory().err().map(Degraded::Memory);
    scheduling.into_iter().chain(memory).collect()
}

/// Everything mapped now is read in and kept. What is mapped later is kept once it was touched: stacks and arenas of
/// other threads would otherwise be filled in full.
fn lock_memory() -> io::Result<()> {
    let later = MlockAllFlags::MCL_FUTURE | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT)?;
    Ok(mlockall(later)?)
}

/// Puts the calling thread into `SCHED_RR` at `priority`, and leaves memory as it is.
///
/// # Errors
/// What the kernel says against it.
pub fn round_robin(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: i32::from(priority) };
    // SAFETY: the parameters outlive the call, which only reads them; 0 is the calling thread.
    let code =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_priority_is_reported_and_harmless() {
        let degraded = std::thread::spawn(|| become_realtime(200)).join().unwrap();
        assert!(matches!(degraded[..], [Degraded::Scheduling(_), ..]), "{degraded:?}");
    }

    #[test]
    fn the_thread_becomes_round_robin_but_its_children_do_not() {
        let (own, child) = std::thread::spawn(|| {
            let degraded = become_realtime(10);
            assert!(degraded.is_empty(), "{degraded:?}");
            (policy(), std::thread::spawn(policy).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(own & !libc::SCHED_RESET_ON_FORK, libc::SCHED_RR);
        assert_eq!(child, libc::SCHED_OTHER);
    }

    fn policy() -> i32 {
        // SAFETY: takes and returns integers; 0 is the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }
}
