//! The boot clock, and proof that the program reads the same one.

use std::os::fd::OwnedFd;
use std::{fs, io};

use nix::time::{ClockId, clock_gettime};
use thiserror::Error;

use crate::bpf;

/// Now, in nanoseconds of `CLOCK_BOOTTIME`: the clock of `bpf_ktime_get_boot_ns`.
#[must_use]
pub fn boot_now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists since Linux 2.6.39");
    let seconds = u64::try_from(now.tv_sec()).expect("the boot clock starts at zero");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).expect("nanoseconds are never negative")
}

/// Why deadlines written by this process would mean another instant to the program.
#[derive(Debug, Error)]
pub enum ClockError {
    /// The process lives in a time namespace.
    #[error(
        "this process runs in a time namespace (boot clock shifted by {offset}); start farmd outside of it"
    )]
    TimeNamespace {
        /// The offset as the kernel prints it.
        offset: String,
    },
    /// The program read an instant outside the interval in which it was called.
    #[error(
        "the kernel program reads {program} ns where this process reads {before}..{after} ns: the clocks differ; start farmd outside of any time namespace"
    )]
    Differs {
        /// Read before the call, ns.
        before: u64,
        /// Read by the program, ns.
        program: u64,
        /// Read after the call, ns.
        after: u64,
    },
    /// The question could not be asked.
    #[error("cannot compare the clocks: {0} (farmd needs CAP_BPF and CAP_NET_ADMIN)")]
    Unknown(#[from] io::Error),
}

/// Refuses a process whose boot clock is not the kernel's: by its time namespace, then by asking a program.
///
/// # Errors
/// [`ClockError`].
pub fn refuse_time_namespace() -> Result<(), ClockError> {
    if let Some(offset) = boot_offset()? {
        return Err(ClockError::TimeNamespace { offset });
    }
    let clock = load_clock()?;
    let before = boot_now();
    let program = read_clock(&clock)?;
    let after = boot_now();
    if (before..=after).contains(&program) {
        Ok(())
    } else {
        Err(ClockError::Differs { before, program, after })
    }
}

/// The offset of the boot clock in this time namespace unless it is zero.
fn boot_offset() -> io::Result<Option<String>> {
    let offsets = match fs::read_to_string("/proc/self/timens_offsets") {
        Ok(offsets) => offsets,
        // A kernel without CONFIG_TIME_NS has no such file, and no such namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(offsets.lines().find_map(shifted_boot))
}

/// `Some("5 s 0 ns")` for the line of a shifted boot clock.
fn shifted_boot(line: &str) -> Option<String> {
    let mut fields = line.split_whitespace();
    let (clock, seconds, nanos) = (fields.next()?, fields.next()?, fields.next()?);
    let boot = clock == "boottime" || clock == "7";
    (boot && (seconds, nanos) != ("0", "0")).then(|| format!("{seconds} s {nanos} ns"))
}

/// Frame handed to the clock program: the shortest one the kernel accepts, with room for the answer.
const FRAME: usize = 64;

/// Loads an XDP program that writes the boot clock into the first eight bytes of its frame.
fn load_clock() -> io::Result<OwnedFd> {
    const XDP_PASS: i32 = 2;
    const KTIME_GET_BOOT_NS: i32 = 125;
    let program = [
        bpf::insn(0xbf, 6, 1, 0, 0),                 // r6 = context
        bpf::insn(0x85, 0, 0, 0, KTIME_GET_BOOT_NS), // r0 = bpf_ktime_get_boot_ns()
        bpf::insn(0x61, 2, 6, 0, 0),                 // r2 = data
        bpf::insn(0x61, 3, 6, 4, 0),                 // r3 = data_end
        bpf::insn(0xbf, 4, 2, 0, 0),                 // r4 = r2
        bpf::insn(0x07, 4, 0, 0, 8),                 // r4 += 8
        bpf::insn(0x2d, 4, 3, 1, 0),                 // if r4 > r3 skip the store
        bpf::insn(0x7b, 2, 0, 0, 0),                 // *(u64 *)r2 = r0
        bpf::insn(0xb7, 0, 0, 0, XDP_PASS),          // r0 = XDP_PASS
        bpf::insn(0x95, 0, 0, 0, 0),                 // exit
    ];
    bpf::load_xdp(&program)
}

fn read_clock(program: &OwnedFd) -> io::Result<u64> {
    let mut frame = [0; FRAME];
    bpf::test_run(program, &mut frame)?;
    let (clock, _) = frame.split_first_chunk().expect("a frame is longer than a clock reading");
    Ok(u64::from_ne_bytes(*clock))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_host_has_one_clock() {
        let verdict = refuse_time_namespace();
        assert!(verdict.is_ok(), "{verdict:?}");
    }

    #[test]
    fn the_program_reads_this_clock() {
        let clock = load_clock().unwrap();
        let before = boot_now();
        let program = read_clock(&clock).unwrap();
        assert!((before..=boot_now()).contains(&program), "program {program}, process {before}");
    }

    /// Runs one of the tests above again, in a time namespace, where it must fail.
    fn in_time_namespace(test: &str) -> String {
        let output = Command::new("unshare")
            .args(["--time", "--boottime", "1000", "--fork", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("clock::tests::{test}"), "--nocapture"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && text.contains("1 failed"), "{text}");
        text
    }

    #[test]
    fn a_time_namespace_is_refused_by_its_offset() {
        let text = in_time_namespace("the_host_has_one_clock");
        assert!(text.contains("TimeNamespace { offset: \"1000 s 0 ns\" }"), "{text}");
    }

    #[test]
    fn a_time_namespace_is_seen_by_asking_the_program() {
        in_time_namespace("the_program_reads_this_clock");
    }

    #[test]
    fn offsets_as_the_kernel_prints_them() {
        assert_eq!(shifted_boot("boottime           0         0"), None);
        assert_eq!(shifted_boot("monotonic          5         0"), None);
        assert_eq!(shifted_boot("boottime          -5         7"), Some("-5 s 7 ns".to_owned()));
    }
}
