//! The contract of the store, on a healthy disk and on one that says no.

mod common;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::model::{self, Model};
use common::{cause, options};
use farm_store::planted::Faults;
use farm_store::{
    Done, LogStore, OpenError, OpenOptions, Rewrite, Snapshot, Store, WriteError, export, import, quarantine,
    wait,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("scratch directory")
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &options().0).expect("sound store").0
}

fn entries(range: std::ops::Range<u64>) -> Vec<(u64, Bytes)> {
    range.map(|index| (index, Bytes::from(format!("entry {index}")))).collect()
}

fn append(store: &Store, range: std::ops::Range<u64>) {
    wait(|done| store.append(entries(range), done)).expect("durable");
}

fn ignore() -> Done {
    Box::new(|_| {})
}

/// A disk whose syncs wait for the test.
struct Gate {
    closed: AtomicBool,
    arrived: SyncSender<()>,
    pass: Mutex<Receiver<io::Result<()>>>,
}

impl Faults for Gate {
    fn sync(&self, db: &File) -> io::Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            self.arrived.send(()).expect("the test listens");
            self.pass.lock().expect("one writer").recv().expect("the test answers")?;
        }
        db.sync_data()
    }
}

struct Gated {
    gate: Arc<Gate>,
    arrived: Receiver<()>,
    pass: std::sync::mpsc::Sender<io::Result<()>>,
}

fn gated(options: &mut OpenOptions) -> Gated {
    let (arrived_tx, arrived) = sync_channel(64);
    let (pass, pass_rx) = channel();
    let gate = Gate { closed: AtomicBool::new(false), arrived: arrived_tx, pass: Mutex::new(pass_rx) };
    let gate = Arc::new(gate);
    options.faults = gate.clone();
    Gated { gate, arrived, pass }
}

#[test]
fn entries_are_readable_before_they_are_durable_and_acknowledged_after() {
    let dir = scratch();
    let (mut options, _) = options();
    let disk = gated(&mut options);
    let (store, recovered) = Store::open(dir.path(), &options).expect("new store");
    assert!(recovered.created);
    disk.gate.closed.store(true, Ordering::SeqCst);

    let (tx, acknowledged) = channel();
    let done = |name: &'static str| -> Done {
        let tx = tx.clone();
        Box::new(move |result| tx.send((name, result.is_ok())).expect("the test listens"))
    };
    store.append(entries(0..3), done("first"));
    disk.arrived.recv().expect("the writer syncs");
    store.append(entries(3..5), done("second"));
    store.truncate_after(Some(3), done("third"));
    store.append(vec![(4, Bytes::from_static(b"other"))], done("fourth"));

    let read = store.read(0..10).expect("readable");
    assert_eq!(read[..4], entries(0..4));
    assert_eq!(read[4], (4, Bytes::from_static(b"other")));
    assert!(acknowledged.try_recv().is_err(), "nothing is durable yet");

    disk.gate.closed.store(false, Ordering::SeqCst);
    disk.pass.send(Ok(())).expect("the writer waits");
    let order: Vec<_> = acknowledged.iter().take(4).collect();
    assert_eq!(order, [("first", true), ("second", true), ("third", true), ("fourth", true)]);
    assert_eq!(store.read(0..10).expect("readable"), read);
    drop(store);
    assert_eq!(open(dir.path()).read(0..10).expect("readable"), read);
}

#[test]
fn a_failed_sync_fails_everybody_for_good_and_calls_the_hook_once() {
    let dir = scratch();
    let (mut options, fatal) = options();
    let disk = gated(&mut options);
    let (store, _) = Store::open(dir.path(), &options).expect("new store");
    append(&store, 0..2);
    disk.gate.closed.store(true, Ordering::SeqCst);

    let (tx, results) = channel();
    let done = || -> Done {
        let tx = tx.clone();
        Box::new(move |result| tx.send(result).expect("the test listens"))
    };
    store.append(entries(2..3), done());
    disk.arrived.recv().expect("the writer syncs");
    store.save_vote(Bytes::from_static(b"vote"), done());
    store.put_snapshot(Snapshot { meta: Bytes::new(), data: Bytes::from_static(b"state") }, done());
    disk.pass.send(Err(io::Error::from_raw_os_error(5))).expect("the writer waits");

    for result in results.iter().take(3) {
        let error = result.expect_err("not durable");
        assert!(matches!(cause(&error), Some(WriteError::Poisoned { .. })), "{error}");
    }
    assert_eq!(fatal.load(Ordering::SeqCst), 1);
    let late = wait(|done| store.append(entries(3..4), done)).expect_err("the store has failed");
    assert!(late.to_string().contains("os error 5"), "{late}");
    assert!(store.read(0..3).is_err(), "entries that never became durable may not be read either");
    assert_eq!(disk.arrived.try_iter().count(), 0, "no second attempt");
    drop(store);
    assert_eq!(open(dir.path()).read(0..2).expect("acknowledged before"), entries(0..2));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let dir = scratch();
    let store = open(dir.path());
    append(&store, 5..8);
    let refused = |result: io::Result<()>| cause(&result.expect_err("refused")).cloned();
    assert_eq!(
        refused(wait(|done| store.append(entries(9..10), done))),
        Some(WriteError::Gap { expected: 8, found: 9 })
    );
    let large = vec![(8, Bytes::from(vec![0; farm_store::MAX_ENTRY + 1]))];
    let vote = Bytes::from(vec![0; farm_store::MAX_SMALL + 1]);
    let meta = Bytes::from(vec![0; farm_store::MAX_META]);
    for result in [
        refused(wait(|done| store.append(large, done))),
        refused(wait(|done| store.save_vote(vote, done))),
        refused(wait(|done| store.put_meta("key", meta, done))),
        refused(wait(|done| store.put_meta(&"k".repeat(65), Bytes::new(), done))),
    ] {
        assert!(matches!(result, Some(WriteError::TooLarge { .. })), "{result:?}");
    }
    assert_eq!(store.read(0..20).expect("unchanged"), entries(5..8));
    assert_eq!((store.vote(), store.metas().len()), (None, 0));
    append(&store, 8..9);
}

#[test]
fn the_largest_of_everything_fits_together() {
    let dir = scratch();
    let store = open(dir.path());
    let small = Bytes::from(vec![1; farm_store::MAX_SMALL]);
    let meta = Bytes::from(vec![2; farm_store::MAX_META - 6 - 3]);
    let entry = Bytes::from(vec![3; farm_store::MAX_ENTRY]);
    wait(|done| store.save_vote(small.clone(), done)).expect("vote");
    wait(|done| store.purge(0, small.clone(), done)).expect("marker");
    wait(|done| store.put_meta("key", meta.clone(), done)).expect("meta");
    wait(|done| store.put_snapshot(model::snapshot(1, 1), done)).expect("snapshot");
    wait(|done| store.append(vec![(1, entry.clone())], done)).expect("entry");
    drop(store);
    let store = open(dir.path());
    assert_eq!((store.vote(), store.meta("key")), (Some(small), Some(meta)));
    assert_eq!(store.read(0..9).expect("readable"), [(1, entry)]);
    assert_eq!(store.snapshot().expect("readable"), Some(model::snapshot(1, 1)));
}

#[test]
fn a_read_stops_at_its_limit_but_not_before_the_first_entry() {
    let dir = scratch();
    let store = open(dir.path());
    append(&store, 0..5);
    let lens = |max| store.read_limited(1..4, max).expect("readable").len();
    assert_eq!((lens(0), lens(15), lens(16), lens(usize::MAX)), (1, 2, 2, 3));
}

#[test]
fn a_take_over_fences_every_other_handle() {
    let dir = scratch();
    let old = open(dir.path());
    append(&old, 0..3);
    let vote = Bytes::from_static(b"term 1001");
    let meta = [("generation".to_owned(), Bytes::from_static(b"2"))].into();
    let gap = Rewrite { vote: vote.clone(), entries: entries(4..5), meta };
    let error = old.rewrite(gap.clone()).err().expect("a gap");
    assert_eq!(cause(&error), Some(&WriteError::Gap { expected: 3, found: 4 }));
    append(&old, 3..4);

    let new = old.rewrite(gap).expect("durable");
    let refused = |result: io::Result<()>| cause(&result.expect_err("fenced")).cloned();
    assert_eq!(refused(wait(|done| old.append(entries(5..6), done))), Some(WriteError::Fenced));
    assert_eq!(refused(wait(|done| old.save_vote(Bytes::new(), done))), Some(WriteError::Fenced));
    assert_eq!(refused(wait(|done| old.put_snapshot(model::snapshot(1, 1), done))), Some(WriteError::Fenced));
    assert_eq!(old.read(0..9).expect("reads go on"), entries(0..5));
    append(&new, 5..6);
    drop((old, new));
    let store = open(dir.path());
    assert_eq!((store.vote(), store.meta("generation")), (Some(vote), Some(Bytes::from_static(b"2"))));
    assert_eq!(store.read(0..9).expect("readable"), entries(0..6));
}

#[test]
fn a_snapshot_replaces_the_last_one_while_entries_go_on() {
    let dir = scratch();
    let store = open(dir.path());
    wait(|done| store.put_snapshot(model::snapshot(7, 1), done)).expect("published");
    let big = Snapshot { meta: Bytes::from_static(b"m"), data: Bytes::from(vec![9; 3 << 20]) };
    let (tx, order) = channel();
    let log = tx.clone();
    store.put_snapshot(
        big.clone(),
        Box::new(move |result| tx.send(("snapshot", result.is_ok())).expect("open")),
    );
    store.append(entries(0..1), Box::new(move |result| log.send(("append", result.is_ok())).expect("open")));
    assert_eq!(order.iter().collect::<Vec<_>>(), [("append", true), ("snapshot", true)]);
    assert_eq!(store.snapshot().expect("readable"), Some(big.clone()));
    drop(store);
    let (store, recovered) = Store::open(dir.path(), &options().0).expect("sound");
    assert_eq!((store.snapshot().expect("readable"), recovered.leftovers), (Some(big), 0));
    wait(|done| store.put_snapshot(model::snapshot(7, 2), done)).expect("published");
    assert_eq!(store.snapshot().expect("readable"), Some(model::snapshot(7, 2)));
}

#[test]
fn a_log_moves_to_another_store_whole() {
    let (from, to) = (scratch(), scratch());
    let old = open(from.path());
    let mut model = Model::default();
    let mut writer = old.clone();
    for number in 0..120 {
        let op = model::op(3, number);
        wait(|done| model.request(&mut writer, &op, done)).expect("durable");
        model.apply(&op);
    }
    wait(|done| writer.put_snapshot(model::snapshot(3, 1), done)).expect("published");
    let new = open(to.path());
    import(&new, export(&writer)).expect("imported");
    drop(new);
    let new = open(to.path());
    assert_eq!(model.differs(&new), None);
    assert_eq!(new.snapshot().expect("readable"), Some(model::snapshot(3, 1)));
}

#[test]
fn one_process_at_a_time() {
    let dir = scratch();
    let store = open(dir.path());
    let second = Store::open(dir.path(), &options().0).err().expect("locked");
    assert_eq!((second.code(), second.is_bad_store()), ("store_locked", false));
    assert_eq!(quarantine(dir.path()).expect_err("in use").kind(), io::ErrorKind::WouldBlock);
    drop(store);
    open(dir.path());
}

#[test]
fn a_volatile_file_system_is_refused_unless_asked_for() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("tmpfs");
    let (mut options, _) = options();
    options.allow_volatile = false;
    let error = Store::open(dir.path(), &options).err().expect("refused");
    assert_eq!(error.code(), "store_filesystem");
    assert!(error.to_string().contains("tmpfs") && error.to_string().contains("ext4"), "{error}");
    let proc = Store::open(Path::new("/proc/self"), &options).err().expect("refused");
    assert_eq!(proc.code(), "store_filesystem");
}

#[test]
fn an_opening_that_never_ends_is_named_and_the_store_is_bad() {
    let dir = scratch();
    let (mut options, _) = options();
    let disk = gated(&mut options);
    disk.gate.closed.store(true, Ordering::SeqCst);
    options.watchdog = Duration::from_millis(200);
    let error = Store::open(dir.path(), &options).err().expect("hung");
    assert_eq!((error.code(), error.is_bad_store()), ("store_hung", true));
    disk.pass.send(Ok(())).expect("the thread still waits");
}

#[test]
fn rests_of_an_interrupted_opening_do_no_harm() {
    let dir = scratch();
    append(&open(dir.path()), 0..50);
    fs::write(dir.path().join("snap.00000000000FFFFF.generating"), b"half a snapshot").expect("write");
    assert_eq!(open(dir.path()).read(0..99).expect("readable"), entries(0..50));
}

#[test]
fn a_damaged_index_of_sled_is_rebuilt_from_the_data() {
    let dir = scratch();
    append(&open(dir.path()), 0..50);
    drop(open(dir.path()));
    let is_index =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap."));
    let files = fs::read_dir(dir.path()).expect("listing").map(|file| file.expect("file").path());
    let index = files.into_iter().find(|path| is_index(path)).expect("sled writes one when it opens");
    let mut bytes = fs::read(&index).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&index, bytes).expect("write");
    let (store, recovered) = Store::open(dir.path(), &options().0).expect("sound");
    assert!(recovered.index_rebuilt);
    assert_eq!(store.read(0..99).expect("readable"), entries(0..50));
}

#[test]
fn an_older_database_is_told_from_the_acknowledged_one() {
    let (dir, old) = (scratch(), scratch());
    append(&open(dir.path()), 0..5);
    copy(dir.path(), old.path());
    append(&open(dir.path()), 5..9);
    fs::copy(dir.path().join("watermark"), old.path().join("watermark")).expect("copy");
    let error = Store::open(old.path(), &options().0).err().expect("refused");
    assert!(
        matches!(error, OpenError::LostWrites { found, acknowledged, .. } if found < acknowledged),
        "{error}"
    );
    assert!(error.is_bad_store());
}

#[test]
fn a_bad_store_is_moved_aside_and_the_name_is_free() {
    let parent = scratch();
    let dir = parent.path().join("log");
    append(&open(&dir), 0..5);
    let db = fs::OpenOptions::new().write(true).open(dir.join("db")).expect("database");
    db.set_len(100).expect("cut");
    let error = Store::open(&dir, &options().0).err().expect("refused");
    assert!(error.is_bad_store(), "{error}");
    let aside = quarantine(&dir).expect("moved");
    assert!(aside.join("db").exists() && !aside.join("ballast").exists() && !dir.exists());
    assert!(aside.file_name().expect("name").to_string_lossy().starts_with("log.bad-"));
    assert_eq!(open(&dir).bounds(), farm_store::Bounds::default());
}

#[test]
fn readers_never_see_a_torn_entry_while_the_log_is_rewritten() {
    let dir = scratch();
    let store = open(dir.path());
    let stop = AtomicBool::new(false);
    // Entries of several records, all bytes equal: a mixture of two would show.
    let whole = |bytes: &Bytes| bytes.iter().all(|byte| *byte == bytes[0]);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::SeqCst) {
                let read = store.read(0..4).expect("readable");
                assert!(read.iter().all(|(_, bytes)| whole(bytes)));
                reads += read.len();
            }
            reads
        });
        for round in 0..150u8 {
            let fresh = (0..4).map(|index| (index, Bytes::from(vec![round; 9000]))).collect();
            store.truncate_after(None, ignore());
            wait(|done| store.append(fresh, done)).expect("durable");
        }
        stop.store(true, Ordering::SeqCst);
        assert!(reader.join().expect("reader") > 0, "the reader saw entries");
    });
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).expect("listing") {
        let file = file.expect("file");
        if file.file_type().expect("type").is_file() {
            fs::copy(file.path(), to.join(file.file_name())).expect("copy");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sequence of requests, with the store closed and opened in between, reads as the model says.
    #[test]
    fn the_store_is_its_model(seed in any::<u64>(), parts in proptest::collection::vec(0u64..40, 1..5)) {
        let dir = scratch();
        let mut model = Model::default();
        let mut number = 0;
        for part in parts {
            let mut store = open(dir.path());
            prop_assert_eq!(model.differs(&store), None);
            for _ in 0..part {
                let op = model::op(seed, number);
                model.request(&mut store, &op, ignore());
                model.apply(&op);
                number += 1;
                prop_assert_eq!(model.differs(&store), None, "request {} {:?}", number, op);
            }
        }
        prop_assert_eq!(model.differs(&open(dir.path())), None);
    }
}
