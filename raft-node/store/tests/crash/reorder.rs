//! A disk that reorders and tears: whatever was written since the last sync may be there or not, sector by sector.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};
use farm_store::Store;
use farm_store::planted::Faults;

use crate::Tally;
use crate::common::options;
use crate::common::rng::Rng;
use crate::verdict::{Acknowledged, judge};
use crate::workload::{drive, note};

const SECTOR: usize = 512;
/// Requests between two openings of a store, and openings of one store.
const STRETCH: u64 = 120;
const OPENINGS: u64 = 4;

/// What a power cut would have left.
struct Image {
    files: Vec<(String, Vec<u8>)>,
    acknowledged: Acknowledged,
    seed: u64,
    story: String,
}

/// Sits between the store and its disk and builds an image at every sync, from the content that the last sync
/// covered and a part of what was written since.
struct Recorder {
    db: PathBuf,
    seed: u64,
    planted: bool,
    /// Off while a store opens: sled syncs its recovery itself, which cannot be seen from here.
    armed: AtomicBool,
    /// Nobody takes images any more.
    enough: AtomicBool,
    acknowledged: Arc<Mutex<Acknowledged>>,
    state: Mutex<State>,
    images: SyncSender<Image>,
}

struct State {
    synced: Vec<u8>,
    rng: Rng,
}

impl Faults for Recorder {
    fn sync(&self, db: &File) -> io::Result<()> {
        let now = fs::read(&self.db)?;
        let mut state = self.state.lock().expect("one writer");
        if self.armed.load(Ordering::SeqCst) {
            let image = self.image(&mut state, &now)?;
            self.enough.fetch_or(self.images.send(image).is_err(), Ordering::SeqCst);
        }
        db.sync_data()?;
        state.synced = now;
        Ok(())
    }

    fn acknowledge_early(&self) -> bool {
        self.planted && self.armed.load(Ordering::SeqCst)
    }
}

impl Recorder {
    fn image(&self, state: &mut State, now: &[u8]) -> io::Result<Image> {
        let acknowledged = *self.acknowledged.lock().expect("no panic under the lock");
        let (db, story) = mix(&state.synced, now, &mut state.rng);
        let mut files = vec![("db".to_owned(), db)];
        for file in fs::read_dir(self.db.parent().expect("in a directory"))? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            let kept = name == "conf" || name.starts_with("snap.");
            // The watermark is never synced while the store runs: half of the time it is lost.
            if kept || (name == "watermark" && state.rng.below(2) == 0) {
                files.push((name, fs::read(file.path())?));
            }
        }
        Ok(Image { files, acknowledged, seed: self.seed, story })
    }
}

/// The synced content with some of the sectors that differ now, in one of four manners of dying.
fn mix(synced: &[u8], now: &[u8], rng: &mut Rng) -> (Vec<u8>, String) {
    let sectors = now.len().div_ceil(SECTOR);
    let span = |sector: usize| sector * SECTOR..now.len().min((sector + 1) * SECTOR);
    let differs = |sector: &usize| synced.get(span(*sector)) != now.get(span(*sector));
    let changed: Vec<usize> = (0..sectors).filter(differs).collect();
    let cut = rng.below(changed.len() as u64 + 1) as usize;
    let (manner, present): (&str, Vec<usize>) = match rng.below(4) {
        0 => ("torn", changed[..cut].to_vec()),
        1 => ("reversed", changed[cut..].to_vec()),
        2 => (
            "one missing",
            changed.iter().enumerate().filter(|(at, _)| *at != cut).map(|(_, s)| *s).collect(),
        ),
        _ => ("scattered", changed.iter().filter(|_| rng.below(2) == 0).copied().collect()),
    };
    let mut db = synced.to_vec();
    // The size may have grown with or without the content.
    let grown = rng.below(2) == 0 || now.len() < db.len();
    db.resize(if grown { now.len() } else { db.len() }, 0);
    for sector in &present {
        let span = span(*sector);
        db.resize(db.len().max(span.end), 0);
        db[span.clone()].copy_from_slice(&now[span]);
    }
    (db, format!("{manner}: {} of {} changed sectors", present.len(), changed.len()))
}

/// Judges so many images.
pub fn run(seed: u64, points: usize, planted: bool) -> Result<Tally> {
    let (tx, images) = sync_channel(4);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut round = 0;
            while write(seed + round, planted, &tx)? {
                round += 1;
            }
            anyhow::Ok(())
        });
        let judged = judge_all(&mut tally, images, points);
        writer.join().expect("the writer does not panic")?;
        judged
    })?;
    Ok(tally)
}

/// One store, opened a few times. False when the judge has enough.
fn write(seed: u64, planted: bool, images: &SyncSender<Image>) -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let recorder = Arc::new(Recorder {
        db: dir.path().join("db"),
        seed,
        planted,
        armed: AtomicBool::new(false),
        enough: AtomicBool::new(false),
        acknowledged: acknowledged.clone(),
        state: Mutex::new(State { synced: Vec::new(), rng: Rng::new(seed, 2) }),
        images: images.clone(),
    });
    for opening in 0..OPENINGS {
        let (mut options, _) = options();
        options.faults = recorder.clone();
        let (store, _) = Store::open(dir.path(), &options)?;
        recorder.armed.store(true, Ordering::SeqCst);
        let acknowledged = acknowledged.clone();
        drive(store, seed, opening * STRETCH, (opening + 1) * STRETCH, move |kind, count| {
            note(&mut acknowledged.lock().expect("no panic under the lock"), kind, count);
        });
        recorder.armed.store(false, Ordering::SeqCst);
        if recorder.enough.load(Ordering::SeqCst) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn judge_all(tally: &mut Tally, images: Receiver<Image>, points: usize) -> Result<()> {
    while tally.points < points {
        let image = images.recv().context("the writer ended early")?;
        judge_image(tally, &image)?;
    }
    Ok(())
}

fn judge_image(tally: &mut Tally, image: &Image) -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("blobs"))?;
    for (name, bytes) in &image.files {
        fs::write(Path::new(dir.path()).join(name), bytes)?;
    }
    let story = format!("{}, seed {}, {:?}", image.story, image.seed, image.acknowledged);
    tally.count(&story, judge(dir.path(), &options().0, image.seed, image.acknowledged));
    Ok(())
}
