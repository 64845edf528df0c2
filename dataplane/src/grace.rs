//! The grace period after a flip: returns when no run of the program that began before can still be in flight.
//!
//! A softirq runs to its end before a task runs on that CPU, so a thread that has visited every CPU knows that
//! every earlier run has ended. That takes 0.1 ms from a real-time thread, against 6–18 ms for `membarrier`
//! GLOBAL, which is the fallback. `membarrier` PRIVATE_EXPEDITED is no barrier here: it does not wait for softirqs.
//!
//! The barrier covers frames *in the program*, not those that passed it and wait in a queue of the stack; such a
//! frame was accepted under the older table at the instant its clock was read.

use std::{fs, io};

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::sink::GraceError;

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// "1" on PREEMPT_RT, where softirqs are preemptible and the tour proves nothing.
const REALTIME: &str = "/sys/kernel/realtime";

/// Waits for a grace period.
///
/// # Errors
/// [`GraceError`] when neither way worked.
pub fn wait() -> Result<(), GraceError> {
    match tour() {
        Ok(_) => Ok(()),
        Err(tour) => {
            tracing::debug!(%tour, "grace period by membarrier");
            global_barrier().map_err(|barrier| GraceError::NoBarrier { tour: tour.to_string(), barrier })
        }
    }
}

/// Visits every online CPU and restores the affinity of the calling thread. Returns the CPUs in order.
///
/// # Errors
/// Where a CPU cannot be visited (a cpuset), where the set of online CPUs changed meanwhile, or on PREEMPT_RT.
pub fn tour() -> io::Result<Vec<usize>> {
    if fs::read(REALTIME).is_ok_and(|value| value.starts_with(b"1")) {
        return Err(io::Error::other("softirqs are preemptible on PREEMPT_RT"));
    }
    let before = online()?;
    let home = Home(sched_getaffinity(SELF)?);
    before.iter().try_for_each(|cpu| visit(*cpu))?;
    drop(home);
    if online()? == before { Ok(before) } else { Err(io::Error::other("the set of online CPUs changed")) }
}

/// Restores the affinity, also after an error half-way.
struct Home(CpuSet);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(SELF, &self.0) {
            tracing::warn!(%error, "the CPU affinity of the real-time thread could not be restored");
        }
    }
}

fn visit(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(SELF, &only)?;
    let here = sched_getcpu()?;
    if here == cpu { Ok(()) } else { Err(io::Error::other(format!("on CPU {here} instead of {cpu}"))) }
}

fn online() -> io::Result<Vec<usize>> {
    let list = fs::read_to_string(ONLINE)?;
    parse_list(list.trim()).ok_or_else(|| io::Error::other(format!("{ONLINE} says {list:?}")))
}

/// Parses a list of the kernel such as `0-3,8`.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

fn global_barrier() -> io::Result<()> {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-2,8"), Some(vec![0, 1, 2, 8]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("0-x"), None);
    }

    #[test]
    fn the_tour_visits_every_online_cpu_and_restores_the_mask() {
        let first = online().unwrap()[0];
        let mut narrow = CpuSet::new();
        narrow.set(first).unwrap();
        sched_setaffinity(SELF, &narrow).unwrap();
        assert_eq!(tour().unwrap(), online().unwrap());
        assert_eq!(sched_getaffinity(SELF).unwrap(), narrow);
    }

    #[test]
    fn the_fallback_works_on_this_kernel() {
        global_barrier().unwrap();
    }
}
