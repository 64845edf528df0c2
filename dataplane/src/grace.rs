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
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::bpf;
    use crate::clock::boot_now;

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

    /// Instants of the boot clock, in ns.
    #[derive(Clone, Copy)]
    struct Span {
        begin: u64,
        end: u64,
    }

    /// Grace periods that began while the program was in flight, and those of them that ended before it.
    fn trials(barrier: fn()) -> (usize, usize) {
        const IN_FLIGHT: usize = 25;
        let cpus = online().unwrap();
        assert!(cpus.len() > 1, "the program and the barrier need a CPU each");
        let (send, runs) = mpsc::channel();
        let last = *cpus.last().unwrap();
        let runner = thread::spawn(move || {
            visit(last).unwrap();
            let program = slow_program();
            while send.send(slow_run(&program)).is_ok() {}
        });
        visit(cpus[0]).unwrap();
        let (mut in_flight, mut early) = (0, 0);
        while in_flight < IN_FLIGHT {
            let begin = boot_now();
            barrier();
            let grace = Span { begin, end: boot_now() };
            // The first run that ended after the grace period began is the one that may have been in flight.
            let run = runs.iter().find(|run: &Span| run.end > grace.begin).unwrap();
            in_flight += usize::from(run.begin < grace.begin);
            early += usize::from(run.begin < grace.begin && run.end > grace.end);
        }
        drop(runs);
        runner.join().unwrap();
        (in_flight, early)
    }

    #[test]
    fn no_run_in_flight_outlives_the_grace_period() {
        assert_eq!(trials(|| wait().unwrap()), (25, 0));
        assert_eq!(trials(|| global_barrier().unwrap()), (25, 0));
        let (_, early) = trials(|| ());
        assert!(early > 12, "without a barrier the test must see runs that outlive it, but saw {early}");
    }

    /// Some ten milliseconds of reading the clock; writes its first and last reading into the frame.
    fn slow_program() -> OwnedFd {
        const ROUNDS: i32 = 200_000;
        bpf::load_xdp(&[
            bpf::insn(0xbf, 6, 1, 0, 0),       // r6 = context
            bpf::insn(0x85, 0, 0, 0, 125),     // r0 = bpf_ktime_get_boot_ns()
            bpf::insn(0xbf, 7, 0, 0, 0),       // r7 = r0
            bpf::insn(0xb7, 8, 0, 0, 0),       // r8 = 0
            bpf::insn(0x85, 0, 0, 0, 125),     // loop: r0 = bpf_ktime_get_boot_ns()
            bpf::insn(0x07, 8, 0, 0, 1),       // r8 += 1
            bpf::insn(0xa5, 8, 0, -3, ROUNDS), // if r8 < ROUNDS goto loop
            bpf::insn(0x61, 2, 6, 0, 0),       // r2 = data
            bpf::insn(0x61, 3, 6, 4, 0),       // r3 = data_end
            bpf::insn(0xbf, 4, 2, 0, 0),       // r4 = r2
            bpf::insn(0x07, 4, 0, 0, 16),      // r4 += 16
            bpf::insn(0x2d, 4, 3, 2, 0),       // if r4 > r3 skip the stores
            bpf::insn(0x7b, 2, 7, 0, 0),       // *(u64 *)r2 = r7
            bpf::insn(0x7b, 2, 0, 8, 0),       // *(u64 *)(r2 + 8) = r0
            bpf::insn(0xb7, 0, 0, 0, 2),       // r0 = XDP_PASS
            bpf::insn(0x95, 0, 0, 0, 0),       // exit
        ])
        .unwrap()
    }

    fn slow_run(program: &OwnedFd) -> Span {
        let mut frame = [0; 64];
        bpf::test_run(program, &mut frame).unwrap();
        let word = |at: usize| u64::from_ne_bytes(*frame[at..].first_chunk().unwrap());
        Span { begin: word(0), end: word(8) }
    }
}
