//! From what the store holds to a running Raft.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use farm_core::id::{ClusterId, Generation, NodeId};
use farm_core::model::Profile;
use farm_proto::v1;
use farm_store::LogStore;
use openraft::{Config, SnapshotPolicy};
use prost::Message;
use tokio::sync::{Mutex, watch};

use super::gate::Gate;
use super::machine::{GENERATION, Machine, Published};
use super::network::{Matched, Network};
use super::role::{self, Role};
use super::runs::Runs;
use super::store::{Log, durable, tell};
use super::takeover::{self, Overruled};
use super::timing::{Timing, profile_of};
use super::types::{Entry, Payload, Proposal};
use super::{
    ENTRIES_KEPT, ENTRIES_PER_APPEND, Inner, Options, RaftOf, SNAPSHOT_EVERY, SNAPSHOT_TIMEOUT_MS,
    StartError, Threads,
};
use crate::wire::{decode, encode};

/// Record: whose store this is (`farm.v1.StoreOwner`).
const OWNER: &str = "owner";

/// Everything but the runtime, which the caller owns.
pub(super) async fn take_up(options: Options) -> Result<Inner, StartError> {
    let disk = options.store.clone();
    claim(&disk, options.me, options.cluster).await?;
    let decided = takeover::decided(&disk)?;
    let generation = highest_generation(&disk, options.generation).await?;
    let generation = decided.as_ref().map_or(generation, |d| newer(d.generation, generation));
    let runs = Runs::begin(options.me, &disk).await?;
    tokio::spawn(runs.clone().remember(disk.clone()));
    let (cluster, proof) = (options.cluster, options.proof.clone());
    let gate = Gate::new(options.me, cluster, options.level, proof, generation, runs);
    let published = Published::new();
    let machine = Machine::recover(disk.clone(), options.watch.clone(), gate.clone(), published.clone())?;
    let log = Log::new(disk.clone(), options.watch.clone());
    let entries = log.entries()?;
    tell(&*options.watch, &entries);
    let timing = options.timing.unwrap_or_else(|| Timing::of(profile(&published, &entries)));
    drop(entries);

    let overruled = Overruled::new(decided.as_ref().map(|d| d.overruled.clone()).unwrap_or_default());
    let network = Network {
        me: options.me.0,
        gate: gate.clone(),
        append_timeout: timing.election_max,
        published: published.clone(),
        overruled: overruled.clone(),
        matched: Matched::default(),
    };
    let config = config(options.cluster, timing)?;
    let raft = RaftOf::new(options.me.0, Arc::new(config), network, log, machine).await;
    let raft = raft.map_err(|e| StartError::Raft(e.to_string()))?;
    let stopping = Arc::new(AtomicBool::new(false));
    let (told, role) = watch::channel(Role::default());
    tokio::spawn(role::follow(raft.clone(), told, stopping.clone(), options.fatal.clone()));
    Ok(Inner {
        me: options.me,
        raft,
        gate,
        timing,
        disk: Arc::downgrade(&disk),
        overruled,
        decided: watch::Sender::new(decided),
        published,
        role,
        membership: Mutex::new(()),
        stopping,
        threads: std::sync::Mutex::new(Threads(None)),
    })
}

fn newer(one: Generation, other: Generation) -> Generation {
    if one.number > other.number { one } else { other }
}

/// Whose store this is, once it has been used.
#[must_use]
pub fn owner(store: &dyn LogStore) -> Option<(NodeId, ClusterId)> {
    let record = v1::StoreOwner::decode(store.meta(OWNER)?).ok()?;
    Some((NodeId(record.node), ClusterId(record.cluster.as_ref().try_into().ok()?)))
}

/// A store belongs to one member of one cluster for ever: under another id its votes and entries would be lies.
async fn claim(disk: &Arc<dyn LogStore>, me: NodeId, cluster: ClusterId) -> Result<(), StartError> {
    if disk.meta(OWNER).is_none() {
        let record = v1::StoreOwner { cluster: cluster.0.to_vec().into(), node: me.0 };
        return Ok(durable(|done| disk.put_meta(OWNER, record.encode_to_vec().into(), done)).await?);
    }
    match owner(&**disk) {
        Some((node, theirs)) if theirs == cluster && node == me => Ok(()),
        Some((recorded, theirs)) if theirs == cluster => Err(StartError::OtherNode { recorded, given: me }),
        Some(_) => Err(StartError::OtherCluster),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "its owner record is not readable").into()),
    }
}

/// The generation that was recorded last.
pub(super) fn recorded_generation(disk: &dyn LogStore) -> io::Result<Option<Generation>> {
    let recorded = disk.meta(GENERATION).map(|record| decode::<Generation>(&record)).transpose();
    recorded.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// The highest generation seen, durable before anybody hears of it.
async fn highest_generation(disk: &Arc<dyn LogStore>, given: Generation) -> Result<Generation, StartError> {
    match recorded_generation(&**disk)? {
        Some(recorded) if recorded.number >= given.number => Ok(recorded),
        Some(_) | None => {
            durable(|done| disk.put_meta(GENERATION, encode(&given).into(), done)).await?;
            Ok(given)
        }
    }
}

/// The newest profile that this node's log knows, committed or not: it only sets how long this node waits.
fn profile(published: &Published, entries: &[Entry]) -> Profile {
    let newest = entries.iter().rev().find_map(|entry| match &entry.payload {
        Payload::Normal(Proposal(command)) => profile_of(&command.body),
        Payload::Blank | Payload::Membership(_) => None,
    });
    let snapshot = published.state.borrow();
    let founded = snapshot.last_applied.index != 0;
    newest.unwrap_or(if founded { snapshot.state.profile } else { Profile::Standard })
}

fn config(cluster: ClusterId, timing: Timing) -> Result<Config, StartError> {
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).expect("seconds at most");
    let config = Config {
        cluster_name: format!("{cluster:?}"),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        // A node that was cut off must not depose a leader that a majority hears.
        enable_pre_vote: Some(true),
        // A leader without a majority falls silent, so that those who hear only it can elect another.
        quorum_loss_probe_interval: Some(millis(timing.election_max * 2)),
        // The state is not durable as such: a leader that restarts must be elected again.
        enable_leader_restore: Some(false),
        max_payload_entries: ENTRIES_PER_APPEND,
        // Only the blocking form of add_learner uses it, which we do not; 5000 would call an empty log caught up.
        replication_lag_threshold: ENTRIES_PER_APPEND,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        ..Config::default()
    };
    config.validate().map_err(|e| StartError::Raft(e.to_string()))
}
