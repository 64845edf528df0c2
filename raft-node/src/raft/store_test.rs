//! openraft's own suite for log storage and state machine, on the real store; and the promise to the [`LogWatch`].

use std::sync::{Arc, Mutex};

use farm_core::command::{Body, Command};
use farm_core::id::{ClusterId, EntryId, FeatureLevel, Generation, NodeId};
use farm_core::model::Profile;
use farm_store::{OpenOptions, Store};
use futures::FutureExt;
use openraft::StorageError;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;

use super::gate::Gate;
use super::hooks::LogWatch;
use super::machine::{Machine, Published, Snapshot};
use super::runs::Runs;
use super::store::Log;
use super::types::{Entry, LeaderId, LogId, Payload, Proposal, Types};

/// Remembers what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().expect("no test panics with it").push(note);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no test panics with it"))
    }
}

impl LogWatch for Notes {
    fn appended(&self, entry: EntryId, _: &Command) {
        self.add(format!("appended {}", entry.index));
    }

    fn truncated(&self, after: Option<u64>) {
        self.add(format!("truncated {after:?}"));
    }

    fn installed(&self, snapshot: &Snapshot) {
        self.add(format!("installed {}", snapshot.last_applied.index));
    }
}

fn open(dir: &TempDir) -> Arc<Store> {
    let mut options = OpenOptions::new(Arc::new(|reason| panic!("the store failed: {reason}")));
    options.allow_volatile = true;
    options.ballast = 0;
    Arc::new(Store::open(dir.path(), &options).expect("a fresh store opens").0)
}

fn gate() -> Gate {
    Gate::new(
        NodeId(1),
        ClusterId([7; 16]),
        FeatureLevel(1),
        "proof".into(),
        Generation::default(),
        Runs::default(),
    )
}

struct Builder;

impl StoreBuilder<Types, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let store = open(&dir);
        let notes = Arc::new(Notes::default());
        let machine = Machine::recover(store.clone(), notes.clone(), gate(), Published::new());
        Ok((dir, Log::new(store, notes), machine.expect("a fresh machine")))
    }
}

#[test]
fn the_store_passes_openrafts_suite() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime
        .block_on(Suite::<Types, Log, Machine, Builder, TempDir>::test_all(Builder))
        .expect("the whole suite");
}

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

fn entry(index: u64) -> Entry {
    let command = Command { level: FeatureLevel(1), base: None, body: Body::ProfileSet(Profile::Fast) };
    Entry { log_id: log_id(index), payload: Payload::Normal(Proposal(command)) }
}

#[tokio::test]
async fn whatever_changes_the_log_is_told_in_order() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let notes = Arc::new(Notes::default());
    let mut log = Log::new(open(&dir), notes.clone());
    log.blocking_append([entry(0), entry(1), entry(2)]).await.expect("appended");
    log.truncate_after(Some(log_id(0))).await.expect("truncated");
    log.blocking_append([Entry { log_id: log_id(1), payload: Payload::Blank }, entry(2)])
        .await
        .expect("appended");
    log.truncate_after(None).await.expect("truncated");
    let told =
        ["appended 0", "appended 1", "appended 2", "truncated Some(0)", "appended 2", "truncated None"];
    assert_eq!(notes.take(), told);
}

/// Holds every append until it is let go.
struct Slow {
    entered: tokio::sync::mpsc::UnboundedSender<u64>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl LogWatch for Slow {
    fn appended(&self, entry: EntryId, _: &Command) {
        self.entered.send(entry.index).expect("the test listens");
        self.go_on.lock().expect("no test panics with it").recv().expect("the test lets go");
    }

    fn truncated(&self, _: Option<u64>) {}

    fn installed(&self, _: &Snapshot) {}
}

/// The fence of an entry holds before the entry is acknowledged: while the watch is being told, openraft is not.
#[tokio::test]
async fn an_append_is_acknowledged_only_after_the_watch_was_told() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (entered, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (let_go, go_on) = std::sync::mpsc::channel();
    let mut log = Log::new(open(&dir), Arc::new(Slow { entered, go_on: Mutex::new(go_on) }));
    // Dropped before the log: a failed assertion must not leave its writer waiting.
    let let_go = let_go;
    let (acknowledge, mut acknowledged) = Types::oneshot();
    log.append([entry(0), entry(1)], IOFlushed::signal(acknowledge)).await.expect("accepted");
    for index in [0, 1] {
        assert_eq!(told.recv().await, Some(index));
        assert!((&mut acknowledged).now_or_never().is_none(), "acknowledged while the watch is being told");
        let_go.send(()).expect("the watch waits");
    }
    acknowledged.await.expect("acknowledged").expect("without an error");
}
