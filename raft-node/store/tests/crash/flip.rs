//! One flipped bit in a closed store: the acknowledged state, or a refusal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use farm_store::Store;

use crate::Tally;
use crate::common::options;
use crate::common::rng::Rng;
use crate::verdict::{Acknowledged, Verdict, judge};
use crate::workload::{drive, note};

const REQUESTS: u64 = 250;
/// Exit codes of the judging process. It is one of its own, because sled may loop for ever.
const SOUND: i32 = 0;
const REFUSED: i32 = 10;
const VIOLATION: i32 = 11;

/// Judges so many flips.
pub fn run(seed: u64, points: usize) -> Result<Tally> {
    let original = tempfile::tempdir()?;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let noted = acknowledged.clone();
    let (store, _) = Store::open(original.path(), &options().0)?;
    drive(store, seed, 0, REQUESTS, move |kind, count| {
        note(&mut noted.lock().expect("no panic under the lock"), kind, count);
    });
    // Opened once more, so that sled's index is there too.
    drop(Store::open(original.path(), &options().0)?);
    let acknowledged = *acknowledged.lock().expect("no panic under the lock");
    let mut rng = Rng::new(seed, 4);
    let mut tally = Tally::default();
    for _ in 0..points {
        flip(&mut tally, &mut rng, original.path(), seed, acknowledged)?;
    }
    Ok(tally)
}

fn flip(
    tally: &mut Tally,
    rng: &mut Rng,
    original: &Path,
    seed: u64,
    acknowledged: Acknowledged,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    copy(original, dir.path())?;
    let victim = victim(rng, dir.path())?;
    let mut bytes = fs::read(&victim)?;
    let bit = rng.below(bytes.len() as u64 * 8) as usize;
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(&victim, bytes)?;
    let Acknowledged { requests, snapshot } = acknowledged;
    let status = Command::new("timeout")
        .args(["--signal=KILL", "60"])
        .arg(std::env::current_exe()?)
        .arg("verify")
        .arg(dir.path())
        .args([seed.to_string(), requests.to_string(), snapshot.to_string()])
        // sled's panics are what is expected here.
        .stderr(Stdio::null())
        .status()?;
    tally.points += 1;
    match status.code() {
        Some(SOUND) => {}
        Some(REFUSED) => tally.refused += 1,
        other => tally.violations.push(format!("bit {bit} of {}, seed {seed}: {other:?}", victim.display())),
    }
    Ok(())
}

/// Mostly the database, now and then one of the small files beside it.
fn victim(rng: &mut Rng, dir: &Path) -> Result<PathBuf> {
    let mut small = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name == "conf" || name == "watermark" || name.starts_with("snap.") {
            small.push(path);
        }
    }
    match rng.below(5) {
        0 if !small.is_empty() => Ok(small.swap_remove(rng.below(small.len() as u64) as usize)),
        _ => Ok(dir.join("db")),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to.join("blobs"))?;
    for file in fs::read_dir(from)? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

/// The judging process.
pub fn verify(dir: &Path, seed: u64, requests: u64, snapshot: u64) -> Result<()> {
    let (mut options, _) = options();
    options.watchdog = Duration::from_secs(20);
    let code = match judge(dir, &options, seed, Acknowledged { requests, snapshot }) {
        Verdict::Sound(found) if found.requests == requests && found.snapshot == snapshot => SOUND,
        Verdict::Sound(found) => bail!("{found:?} instead of requests {requests}, snapshot {snapshot}"),
        Verdict::Refused(_) => REFUSED,
        Verdict::Violation(what) => {
            println!("violation: {what}");
            VIOLATION
        }
    };
    // Not by returning: a thread that hangs in sled must not keep the process.
    std::process::exit(code)
}
