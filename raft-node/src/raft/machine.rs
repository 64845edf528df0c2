//! openraft's state machine over the core's replicated state. The state lives in memory; what is durable is the log and
//! the last snapshot.

use std::io;
use std::sync::Arc;

use farm_core::apply::Outcome;
use farm_core::event::Event;
use farm_core::id::EntryId;
use farm_core::state::ClusterState;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::{broadcast, watch};

use super::codec::bytes;
use super::gate::Gate;
use super::hooks::LogWatch;
use super::store::durable;
use super::types::{LogId, Payload, Proposal, RaftSnapshot, SnapshotMeta, StoredMembers, Types, entry_id};
use crate::wire::{decode, encode};

/// Record of the highest generation this node has seen.
pub(crate) const GENERATION: &str = "generation";
/// Events that a slow subscriber may be behind before it misses some (it is told how many). A failover makes a few dozen.
const EVENTS_MAX: usize = 4096;

/// The replicated state after an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The state.
    pub state: ClusterState,
    /// The entry; the default before the first one.
    pub last_applied: EntryId,
}

/// What applying an entry gives its proposer; `None` for entries of Raft itself.
pub type Reply = Option<Outcome>;

/// An event of the log. Every member sees the same ones, in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happened {
    /// The entry that made it.
    pub entry: EntryId,
    /// Its position among the events of that entry.
    pub position: usize,
    /// What.
    pub event: Event,
}

/// Where others follow the state.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) state: watch::Sender<Arc<Snapshot>>,
    pub(crate) events: broadcast::Sender<Happened>,
}

impl Published {
    pub(crate) fn new() -> Self {
        let nothing = Snapshot { state: ClusterState::default(), last_applied: EntryId::default() };
        Self { state: watch::Sender::new(Arc::new(nothing)), events: broadcast::Sender::new(EVENTS_MAX) }
    }
}

/// The state machine.
pub(crate) struct Machine {
    disk: Arc<dyn farm_store::LogStore>,
    watch: Arc<dyn LogWatch>,
    gate: Gate,
    published: Published,
    state: ClusterState,
    last: Option<LogId>,
    members: StoredMembers,
    kept: Kept,
}

/// Up to where the snapshot on the disk reaches. openraft builds one while it installs another: the older of the two
/// must not come last, for the log is purged up to the newer one.
type Kept = Arc<tokio::sync::Mutex<Option<LogId>>>;

impl Machine {
    /// The machine as the last snapshot left it. `watch` has been told of it.
    ///
    /// # Errors
    /// A snapshot that cannot be read.
    pub(crate) fn recover(
        disk: Arc<dyn farm_store::LogStore>,
        watch: Arc<dyn LogWatch>,
        gate: Gate,
        published: Published,
    ) -> io::Result<Self> {
        let (state, last, members) = (ClusterState::default(), None, StoredMembers::default());
        let mut machine = Self { disk, watch, gate, published, state, last, members, kept: Kept::default() };
        if let Some(snapshot) = machine.disk.snapshot()? {
            let meta = read_meta(&snapshot.meta)?;
            machine.replace(&meta, &snapshot.data)?;
            machine.kept = Arc::new(tokio::sync::Mutex::new(meta.last_log_id));
        }
        Ok(machine)
    }

    fn replace(&mut self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
        self.state = decode(data).map_err(invalid)?;
        self.last = meta.last_log_id;
        self.members = meta.last_membership.clone();
        let snapshot = self.snapshot();
        self.watch.installed(&snapshot);
        self.published.state.send_replace(Arc::new(snapshot));
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state.clone(),
            last_applied: self.last.as_ref().map(entry_id).unwrap_or_default(),
        }
    }

    fn apply_one(&mut self, id: LogId, payload: Payload) -> io::Result<Reply> {
        let reply = match payload {
            Payload::Blank => None,
            Payload::Normal(Proposal(command)) => {
                let entry = entry_id(&id);
                let outcome = self.state.apply(&command, entry).map_err(invalid)?;
                for (position, event) in outcome.events.iter().enumerate() {
                    // Nobody may be listening.
                    let _ = self.published.events.send(Happened { entry, position, event: event.clone() });
                }
                Some(outcome)
            }
            Payload::Membership(members) => {
                self.members = StoredMembers::new(Some(id), members);
                None
            }
        };
        self.last = Some(id);
        Ok(reply)
    }

    /// Peers hear of a higher generation only when it is durable here.
    async fn keep_generation(&self) -> io::Result<()> {
        let generation = self.state.generation;
        if generation.number > self.gate.generation().number {
            durable(|done| self.disk.put_meta(GENERATION, encode(&generation).into(), done)).await?;
            self.gate.raise(generation);
        }
        Ok(())
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn read_meta(bytes: &[u8]) -> io::Result<SnapshotMeta> {
    decode(bytes).map_err(invalid)
}

/// Keeps the snapshot, unless a newer one is kept already.
async fn store(
    disk: &Arc<dyn farm_store::LogStore>,
    kept: &Kept,
    meta: &SnapshotMeta,
    data: Vec<u8>,
) -> io::Result<()> {
    let mut kept = kept.lock().await;
    if *kept > meta.last_log_id {
        return Ok(());
    }
    let snapshot = farm_store::Snapshot { meta: bytes(meta).into(), data: data.into() };
    durable(|done| disk.put_snapshot(snapshot, done)).await?;
    *kept = meta.last_log_id;
    Ok(())
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembers)> {
        Ok((self.last, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        let mut replies = Vec::new();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let reply = self.apply_one(entry.log_id, entry.payload)?;
            replies.extend(responder.map(|responder| (responder, reply)));
        }
        self.keep_generation().await?;
        // Who gets a reply finds its effect in the published state.
        self.published.state.send_replace(Arc::new(self.snapshot()));
        for (responder, reply) in replies {
            responder.send(reply);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta = SnapshotMeta { last_log_id: self.last, last_membership: self.members.clone() };
        Builder { disk: self.disk.clone(), kept: self.kept.clone(), meta, state: self.state.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        // Parsed before it is stored: what cannot be read must not become this node's past.
        decode::<ClusterState>(&data).map_err(invalid)?;
        store(&self.disk, &self.kept, meta, data.clone()).await?;
        self.replace(meta, &data)?;
        self.keep_generation().await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let Some(stored) = self.disk.snapshot()? else { return Ok(None) };
        Ok(Some(RaftSnapshot { meta: read_meta(&stored.meta)?, snapshot: stored.data.to_vec() }))
    }
}

/// Writes the state of one moment as a snapshot, while the machine goes on.
pub(crate) struct Builder {
    disk: Arc<dyn farm_store::LogStore>,
    kept: Kept,
    meta: SnapshotMeta,
    state: ClusterState,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let data = encode(&self.state);
        store(&self.disk, &self.kept, &self.meta, data.clone()).await?;
        Ok(RaftSnapshot { meta: self.meta.clone(), snapshot: data })
    }
}
