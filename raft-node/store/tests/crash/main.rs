//! The crash harness: nothing acknowledged may be missing after a crash, however it happened.
//!
//! Three kinds of crash points, plus flipped bits:
//! * **power**: a writer on an ext4 image is stopped, and the image is copied: what only the page cache had is lost.
//!   The copy is mounted (its journal is replayed) and opened. Needs root.
//! * **reorder**: at each sync the database as last synced is mixed with a random part of the 512-byte sectors
//!   written since: a disk that reorders and tears whatever was not synced.
//! * **kill**: the writer is killed with `SIGKILL` and started again on the same store, over and over.
//! * **flip**: one bit of a closed store is flipped; opening must show the acknowledged state, or refuse.
//!
//! The acknowledgements are kept outside the disk. After each crash the store must equal its model after some number
//! of requests that is not below the number of acknowledged ones.
//!
//! The first two also run with a planted bug each, where they must find violations, because a harness that cannot fail
//! proves nothing: acknowledging before the sync (reorder), and sled as documented, without `fdatasync` (power). A
//! killed process loses nothing that the kernel has, so there neither of them is a bug.
//!
//! `FARM_CRASH_POINTS` sets the number of crash points (400 if unset), `FARM_CRASH_SEED` repeats a run.

#[path = "../common/mod.rs"]
mod common;

mod flip;
mod kill;
mod power;
mod reorder;
mod verdict;
mod workload;

use std::time::Instant;

use anyhow::{Result, ensure};

/// The least number of crash points that counts as a proof.
const LEAST: usize = 300;

/// What one kind of crash came to.
#[derive(Default)]
pub struct Tally {
    /// Crash points judged.
    pub points: usize,
    /// Points where the store refused to open.
    pub refused: usize,
    /// Points where something acknowledged was missing or wrong, each with its story.
    pub violations: Vec<String>,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["writer", dir, seed, from, planted] => {
            workload::write(dir.as_ref(), seed.parse()?, from.parse()?, planted == "planted")
        }
        ["verify", dir, seed, acknowledged, snapshot] => {
            flip::verify(dir.as_ref(), seed.parse()?, acknowledged.parse()?, snapshot.parse()?)
        }
        // Whatever else the test runner passes (filters, --nocapture) changes nothing.
        _ => campaign(),
    }
}

fn campaign() -> Result<()> {
    let total: usize = number("FARM_CRASH_POINTS")?.unwrap_or(400) as usize;
    let seed = number("FARM_CRASH_SEED")?.unwrap_or_else(|| u64::from(std::process::id()));
    println!("crash harness: {total} points, FARM_CRASH_SEED={seed}");
    let (power, kill) = (total / 5, total / 5);
    let mut points = 0;
    points += sound("kill", || kill::run(seed, kill))?;
    points += sound("reorder", || reorder::run(seed, total - power - kill, false))?;
    points += sound("power", || power::run(seed, power, false))?;
    let flips = sound("flip", || flip::run(seed, total / 5))?;
    caught("reorder", || reorder::run(seed, 40, true))?;
    caught("power", || power::run(seed, 20, true))?;
    println!("{points} crash points and {flips} flipped bits: nothing acknowledged was lost");
    ensure!(points >= LEAST, "{points} crash points are too few, {LEAST} are the least");
    Ok(())
}

fn sound(kind: &str, run: impl FnOnce() -> Result<Tally>) -> Result<usize> {
    let started = Instant::now();
    let tally = run()?;
    let (points, refused, lost) = (tally.points, tally.refused, tally.violations.len());
    println!("{kind:8} {points:5} points {refused:4} refused {lost:3} violations {:6.1?}", started.elapsed());
    ensure!(tally.violations.is_empty(), "{kind}: {:#?}", tally.violations);
    Ok(points)
}

fn caught(kind: &str, run: impl FnOnce() -> Result<Tally>) -> Result<()> {
    let tally = run()?;
    let caught = tally.violations.len();
    println!("{kind:8} {:5} points {caught:4} catch the planted bug", tally.points);
    ensure!(caught > 0, "{kind} did not catch the planted bug in {} points", tally.points);
    Ok(())
}

fn number(name: &str) -> Result<Option<u64>> {
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?)
}
