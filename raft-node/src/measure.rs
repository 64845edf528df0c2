//! What this machine can promise: scheduling stalls, durable writes, the clock source. `cluster init` proposes
//! a timing profile from it, with its reasons.

use std::path::Path;
use std::time::Duration;

use farm_core::lease::Timing;
use farm_core::model::Profile;
use farm_doctor::measure::{durable_writes, longest_stall};

/// How long stalls are looked for.
const STALL_WATCH: Duration = Duration::from_secs(2);
/// Durable writes tried.
const WRITES: usize = 50;
/// A stall or write beyond this share of a profile's lease would cost renewals: three may be lost, so a quarter.
const SHARE_OF_LEASE: u32 = 4;
/// The profiles that ask something of the machine, the most demanding first.
const DEMANDING: [Profile; 2] = [Profile::Fast, Profile::Standard];

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Longest time by which a sleeping thread woke late.
    pub stall: Duration,
    /// Slowest of some durable writes.
    pub sync: Duration,
    /// The kernel's clock source.
    pub clock: String,
}

/// Measures for a few seconds; `dir` is where the log will live. Blocks.
///
/// # Errors
/// When `dir` cannot be written.
pub fn measure(dir: &Path) -> std::io::Result<Measured> {
    let stall = std::thread::spawn(|| longest_stall(STALL_WATCH));
    std::fs::create_dir_all(dir)?;
    let sync = durable_writes(dir, WRITES)?.slowest;
    let clock = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    Ok(Measured {
        // A thread that panicked measured nothing: the safest reading.
        stall: stall.join().unwrap_or(Duration::MAX),
        sync,
        clock: clock.map_or_else(|_| "unknown".into(), |c| c.trim().into()),
    })
}

impl Measured {
    /// The fastest profile that this machine can keep, and why.
    #[must_use]
    pub fn propose(&self) -> (Profile, Vec<String>) {
        let mut reasons = vec![
            format!("longest scheduling stall {:.1} ms", ms(self.stall)),
            format!("slowest durable write {:.1} ms", ms(self.sync)),
            format!("clock source {}", self.clock),
        ];
        // A paused guest whose clock hides the pause would resume with a lease that looks valid; short leases bound that.
        if self.clock.contains("kvm-clock") || self.clock.contains("hyperv") {
            reasons.push("this clock may hide a pause of the virtual machine: keep leases short".into());
        }
        let worst = self.stall.max(self.sync);
        let lease = |profile: Profile| Duration::from_nanos(Timing::of(profile).lease.0);
        let fits = DEMANDING.into_iter().find(|profile| worst * SHARE_OF_LEASE <= lease(*profile));
        (fits.unwrap_or(Profile::Virtual), reasons)
    }
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(stall_ms: u64, sync_ms: u64) -> Profile {
        let measured = Measured {
            stall: Duration::from_millis(stall_ms),
            sync: Duration::from_millis(sync_ms),
            clock: "tsc".into(),
        };
        measured.propose().0
    }

    #[test]
    fn the_slower_of_stall_and_disk_decides() {
        assert_eq!(proposed(2, 3), Profile::Fast);
        assert_eq!(proposed(2, 60), Profile::Standard);
        assert_eq!(proposed(60, 2), Profile::Standard);
        assert_eq!(proposed(400, 2), Profile::Virtual);
    }
}
