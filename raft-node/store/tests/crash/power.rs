//! Power cuts: the image of a mounted file system is copied while its writer stands still. What was in the page cache
//! only, or in an open transaction of the journal, is lost.

use std::fs;
use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::Tally;
use crate::common::disk::{Mount, make_ext4};
use crate::common::options;
use crate::common::rng::Rng;
use crate::verdict::{Acknowledged, judge};
use crate::workload::Writer;

const IMAGE_BYTES: u64 = 64 << 20;
/// Cuts on one file system, and how many of them fall into the creation of the store.
const CUTS: usize = 16;
const EARLY_CUTS: usize = 3;

/// Judges so many power cuts.
pub fn run(seed: u64, points: usize, planted: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut rng = Rng::new(seed, 3);
    let mut round = 0;
    while tally.points < points {
        round += 1;
        let cuts = CUTS.min(points - tally.points);
        file_system(&mut tally, &mut rng, seed + round, cuts, planted)?;
    }
    Ok(tally)
}

fn file_system(tally: &mut Tally, rng: &mut Rng, seed: u64, cuts: usize, planted: bool) -> Result<()> {
    let dir = scratch()?;
    let image = dir.path().join("disk");
    make_ext4(&image, IMAGE_BYTES)?;
    let mount = Mount::image(&image, &dir.path().join("mnt"))?;
    let mut writer = Writer::start(&mount.path.join("store"), seed, Acknowledged::default(), planted)?;
    for number in 0..cuts {
        if number >= EARLY_CUTS {
            writer.until(writer.acknowledged.requests + 1 + rng.below(60))?;
        }
        writer.freeze()?;
        let copy = dir.path().join(format!("copy{number}"));
        copy_still(&mount, &image, &copy)?;
        writer.thaw()?;
        let story = format!("cut {number}, seed {seed}, {:?}", writer.acknowledged);
        judge_copy(tally, &story, &copy, seed, writer.acknowledged)?;
    }
    writer.kill()?;
    Ok(())
}

/// In memory if possible: only the loop device decides what is lost, and memory is fast to copy.
fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}

/// Copies the image as it was at one moment: again, if the kernel wrote to it meanwhile.
fn copy_still(mount: &Mount, image: &Path, copy: &Path) -> Result<()> {
    loop {
        let before = mount.writes()?;
        fs::copy(image, copy)?;
        if before.1 == 0 && mount.writes()? == before {
            return Ok(());
        }
    }
}

fn judge_copy(
    tally: &mut Tally,
    story: &str,
    copy: &Path,
    seed: u64,
    acknowledged: Acknowledged,
) -> Result<()> {
    {
        let mount = Mount::image(copy, &copy.with_extension("mnt"))?;
        tally.count(story, judge(&mount.path.join("store"), &options().0, seed, acknowledged));
    }
    fs::remove_file(copy)?;
    Ok(())
}
