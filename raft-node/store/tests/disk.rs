//! Disks that are full or fail, for real: small file systems of the test's own. Needs root.

mod common;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::disk::{Mount, make_ext4};
use common::{cause, options};
use farm_store::{DiskPressure, LogStore, OpenOptions, Store, WriteError, wait};
use nix::sys::statvfs::statvfs;

const MIB: u64 = 1 << 20;
/// Smaller than in production, so that a small disk can be filled.
const BALLAST: u64 = 16 * MIB;

fn small_options() -> (OpenOptions, Arc<AtomicUsize>) {
    let (mut options, calls) = options();
    (options.ballast, options.low_water) = (BALLAST, 4 * MIB);
    (options, calls)
}

fn free(dir: &Path) -> u64 {
    let stat = statvfs(dir).expect("mounted");
    stat.blocks_available() * stat.fragment_size()
}

/// Somebody else's file that takes all the space there is.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("create");
    let block = vec![0xaa; 64 << 10];
    let full = loop {
        if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
            break error;
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
}

fn append(store: &Store, index: u64) -> io::Result<()> {
    wait(|done| store.append(vec![(index, Bytes::from(vec![index as u8; 2000]))], done))
}

/// Appends until the store fails; the number of entries acknowledged, and the pressures seen on the way.
fn append_until_failure(store: &Store) -> (u64, Vec<DiskPressure>, io::Error) {
    let mut pressures = vec![store.pressure().expect("mounted")];
    for index in 0.. {
        if let Err(error) = append(store, index) {
            return (index, pressures, error);
        }
        let pressure = store.pressure().expect("mounted");
        if pressures.last() != Some(&pressure) {
            pressures.push(pressure);
        }
    }
    unreachable!("the disk is finite")
}

/// The whole life of a disk that fills up.
fn a_full_disk(mount: &Path) {
    let dir = mount.join("store");
    let (options, fatal) = small_options();
    let (store, _) = Store::open(&dir, &options).expect("new store");
    assert_eq!(store.pressure().expect("mounted"), DiskPressure::Ok);
    fill(&mount.join("filler"));

    let (acknowledged, pressures, error) = append_until_failure(&store);
    assert_eq!(pressures, [DiskPressure::LogsOnly, DiskPressure::CommandsRefused]);
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(matches!(cause(&error), Some(WriteError::Poisoned { .. })), "{error}");
    assert_eq!(fatal.load(Ordering::SeqCst), 1);
    assert!(acknowledged * 2000 > BALLAST / 8, "{acknowledged} entries came out of the ballast");
    drop(store);

    // Full: refused, and said so. With room: everything is there, and the ballast grows back.
    fill(&mount.join("more"));
    let error = Store::open(&dir, &options).err().expect("no room");
    assert_eq!((error.code(), error.is_bad_store()), ("store_disk_full", false));
    fs::remove_file(mount.join("filler")).expect("remove");
    fs::remove_file(mount.join("more")).expect("remove");
    let (store, recovered) = Store::open(&dir, &options).expect("room again");
    assert_eq!(recovered.bounds.last, Some(acknowledged - 1));
    assert_eq!(fs::metadata(dir.join("ballast")).expect("ballast").len(), BALLAST);
    append(&store, acknowledged).expect("works again");
}

#[test]
fn a_full_ext4_degrades_in_steps_and_loses_nothing() {
    let scratch = tempfile::tempdir().expect("scratch");
    let image = scratch.path().join("disk");
    make_ext4(&image, 64 * MIB).expect("image");
    let mount = Mount::image(&image, &scratch.path().join("mnt")).expect("mounted");
    a_full_disk(&mount.path);
}

#[test]
fn a_full_tmpfs_degrades_in_steps_and_loses_nothing() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mount = Mount::tmpfs(&scratch.path().join("mnt"), 64 * MIB).expect("mounted");
    a_full_disk(&mount.path);
}

#[test]
fn the_ballast_grows_back_while_the_store_runs() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mount = Mount::tmpfs(&scratch.path().join("mnt"), 64 * MIB).expect("mounted");
    let dir = mount.path.join("store");
    let (store, _) = Store::open(&dir, &small_options().0).expect("new store");
    fill(&mount.path.join("filler"));
    let ballast = || fs::metadata(dir.join("ballast")).expect("ballast").len();
    let mut next = 0;
    while ballast() == BALLAST {
        append(&store, next).expect("the ballast helps");
        next += 1;
    }
    fs::remove_file(mount.path.join("filler")).expect("remove");
    append(&store, next).expect("durable");
    assert_eq!((ballast(), store.pressure().expect("mounted")), (BALLAST, DiskPressure::Ok));
}

/// The disk below the file system runs out: the kernel takes the write, and the sync tells that it was lost.
#[test]
fn a_failing_disk_ends_the_store_and_keeps_what_was_acknowledged() {
    let scratch = tempfile::tempdir().expect("scratch");
    let below = Mount::tmpfs(&scratch.path().join("below"), 24 * MIB).expect("mounted");
    let image = below.path.join("disk");
    make_ext4(&image, 256 * MIB).expect("image");
    let mount = Mount::image(&image, &scratch.path().join("mnt")).expect("mounted");
    let (mut options, fatal) = options();
    options.ballast = 0;
    let dir = mount.path.join("store");
    let (store, _) = Store::open(&dir, &options).expect("new store");
    assert!(free(&mount.path) > 100 * MIB, "the file system believes in its size");
    let (acknowledged, _, error) = append_until_failure(&store);
    assert!(acknowledged > 0);
    assert!(matches!(cause(&error), Some(WriteError::Poisoned { .. })), "{error}");
    assert_ne!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(fatal.load(Ordering::SeqCst), 1);
    assert!(append(&store, acknowledged).is_err(), "no second attempt");
}
