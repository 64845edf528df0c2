//! Measures the store on the disk of a directory: `cargo run -p farm-store --release --example append -- DIR`.
//!
//! Prints latencies of a bare `fdatasync`, of single appends (256 bytes, each durable before the next), of appends with 16 under way, and
//! the size of a store that keeps the last 5000 entries of a long run.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use farm_store::{LogStore, OpenOptions, Store, wait};

const SINGLES: u64 = 3000;
const PIPELINED: u64 = 20_000;
const DEPTH: usize = 16;
const KEPT: u64 = 5000;
const BATCHES: u64 = 12_500;
const BATCH: u64 = 16;

fn main() -> Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).context("usage: append DIR")?);
    let dir = dir.join(format!("farm-store-bench-{}", std::process::id()));
    bare(&dir)?;
    let (store, _) = Store::open(&dir, &OpenOptions::new(Arc::new(|reason| panic!("{reason}"))))?;
    singles(&store)?;
    pipelined(&store)?;
    long_run(&store)?;
    drop(store);
    println!("on disk          {:.1} MiB (database)", size(&dir)? as f64 / f64::from(1 << 20));
    let (_store, recovered) = Store::open(&dir, &OpenOptions::new(Arc::new(|reason| panic!("{reason}"))))?;
    println!("open and prove   {:?}", recovered.took);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn entries(from: u64, count: u64) -> Vec<(u64, Bytes)> {
    (from..from + count).map(|index| (index, Bytes::from(vec![index as u8; 256]))).collect()
}

fn next(store: &Store) -> u64 {
    store.bounds().last.map_or(0, |last| last + 1)
}

/// The same without a store, to tell the disk and the machine from it.
fn bare(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut file = File::create(dir.join("bare"))?;
    let mut took = Vec::new();
    for _ in 0..SINGLES {
        let started = Instant::now();
        file.write_all(&[7; 256])?;
        file.sync_data()?;
        took.push(started.elapsed());
    }
    report("bare fdatasync", took);
    Ok(())
}

fn singles(store: &Store) -> Result<()> {
    let mut took = Vec::new();
    for index in next(store)..next(store) + SINGLES {
        let started = Instant::now();
        wait(|done| store.append(entries(index, 1), done))?;
        took.push(started.elapsed());
    }
    report("single append", took);
    Ok(())
}

fn pipelined(store: &Store) -> Result<()> {
    let took = Arc::new(Mutex::new(Vec::new()));
    let (enter, leave) = sync_channel(DEPTH);
    let leave = Arc::new(Mutex::new(leave));
    let begun = Instant::now();
    for index in next(store)..next(store) + PIPELINED {
        enter.send(())?;
        let (started, took, leave) = (Instant::now(), took.clone(), leave.clone());
        let done = move |result: std::io::Result<()>| {
            result.expect("durable");
            took.lock().expect("no panic under the lock").push(started.elapsed());
            leave.lock().expect("no panic under the lock").recv().expect("entered before");
        };
        store.append(entries(index, 1), Box::new(done));
    }
    wait(|done| store.append(Vec::new(), done))?;
    println!("16 under way     {:.0} appends/s", PIPELINED as f64 / begun.elapsed().as_secs_f64());
    report("16 under way", std::mem::take(&mut *took.lock().expect("no panic under the lock")));
    Ok(())
}

fn long_run(store: &Store) -> Result<()> {
    let (mut appends, mut purges) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        let from = next(store);
        let started = Instant::now();
        wait(|done| store.append(entries(from, BATCH), done))?;
        appends.push(started.elapsed());
        if batch % 100 == 0 && from > KEPT {
            let started = Instant::now();
            wait(|done| store.purge(from - KEPT, Bytes::new(), done))?;
            purges.push(started.elapsed());
        }
    }
    report("batch of 16", appends);
    report("purge of 1600", purges);
    Ok(())
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!("{what:16} p50 {:?}  p99 {:?}  max {:?}  n {}", at(50), at(99), at(100), took.len());
}

fn size(dir: &Path) -> Result<u64> {
    Ok(std::fs::metadata(dir.join("db"))?.len())
}
