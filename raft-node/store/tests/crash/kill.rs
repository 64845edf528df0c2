//! `kill -9`, over and over, on one store.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::Tally;
use crate::common::options;
use crate::common::rng::Rng;
use crate::verdict::{Acknowledged, judge};
use crate::workload::Writer;

/// Kills that one store lives through before a new one is taken.
const LIVES: usize = 25;

/// Judges so many kills.
pub fn run(seed: u64, points: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut rng = Rng::new(seed, 1);
    let mut round = 0;
    while tally.points < points {
        let dir = tempfile::tempdir()?;
        round += 1;
        let kills = LIVES.min(points - tally.points);
        live(&mut tally, &mut rng, dir.path(), seed + round, kills)?;
    }
    Ok(tally)
}

fn live(tally: &mut Tally, rng: &mut Rng, dir: &std::path::Path, seed: u64, kills: usize) -> Result<()> {
    let mut found = Acknowledged::default();
    for number in 0..kills {
        let mut writer = Writer::start(dir, seed, found, false)?;
        if rng.below(3) == 0 {
            // While it opens. A random moment is meant here, there is no event to wait for.
            thread::sleep(Duration::from_micros(rng.below(40_000)));
        } else {
            writer.until(found.requests + 1 + rng.below(60))?;
        }
        let acknowledged = writer.kill()?;
        let story = format!("kill {number}, seed {seed}, {acknowledged:?}");
        match tally.count(&story, judge(dir, &options().0, seed, acknowledged)) {
            Some(state) => found = state,
            None => break,
        }
    }
    Ok(())
}
