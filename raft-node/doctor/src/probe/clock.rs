//! The kernel's clock.

use std::fs;

use crate::{Looked, Slew};

const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Microseconds that a tick of this many adds to the clock as such.
const TICK: i64 = 10_000;
/// One more microsecond per tick, in millionths.
const PPM_PER_TICK: f64 = 100.0;
/// A millionth in the kernel's unit of frequencies (adjtimex(2)).
const PPM: f64 = 65_536.0;

pub(super) fn source() -> Looked<String> {
    let text = fs::read_to_string(SOURCE).map_err(|error| format!("{SOURCE}: {error}"))?;
    Ok(text.trim().to_owned())
}

/// Asks without setting anything.
pub(super) fn slew() -> Looked<Slew> {
    // SAFETY: all fields are integers, for which zero is a value; no mode means that nothing is set.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the struct, which lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    let (tick, frequency) = (timex.tick, timex.freq);
    #[allow(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    let ppm = (tick - TICK) as f64 * PPM_PER_TICK + frequency as f64 / PPM;
    Ok(Slew { ppm, synchronised: timex.status & libc::STA_UNSYNC == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_clock() {
        assert!(!source().unwrap().is_empty());
        let slew = slew().unwrap();
        assert!(slew.ppm.abs() < 100_000.0, "{slew:?}");
    }
}
