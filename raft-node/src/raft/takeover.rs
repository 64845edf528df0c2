//! Going on without peers that do not answer (DESIGN §5).
//!
//! A survivor does not rewrite its log. It writes down whom it overrules and the generation that begins, and from then on
//! answers Raft's requests to them in their place: it votes for itself in their name, and counts what it keeps as kept by
//! them. Whatever was committed before is in its log (with two voters no majority exists without it), so nothing that was
//! acknowledged is lost; and nothing of theirs counts any more, for every message says its generation, and a lower one is
//! refused. Ids are never given again: what is overruled once stays overruled.
//!
//! ```text
//! record ─ durable ─▶ act: generation raised, votes cast ─▶ leader ─▶ TakeOver applied ─▶ voters {self}
//!   └─ withdraw: nothing was done by it                         (after a crash it goes on from the record)
//! ```

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use farm_core::command::{Body, Command};
use farm_core::id::{Generation, NodeId};
use farm_proto::v1;
use farm_store::{Done, LogStore};
use prost::Message;
use tokio::sync::watch;

use super::machine::Snapshot;
use super::store::{Log, durable};
use super::types::{Payload, Proposal};
use super::{Handle, ProposeError};
use crate::wire::{Wire, required};

/// Record: what this node has decided to do without others (`farm.v1.StoreTakeOver`).
const TAKE_OVER: &str = "take over";

/// A decision to go on without `overruled`, in `generation`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TakeOver {
    /// The generation that begins; it names this node.
    pub generation: Generation,
    /// For whom this node votes.
    pub overruled: BTreeSet<NodeId>,
}

impl TakeOver {
    /// What `disk` says.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn recorded(disk: &dyn LogStore) -> io::Result<Option<Self>> {
        let invalid = |e: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
        let Some(record) = disk.meta(TAKE_OVER).filter(|record| !record.is_empty()) else { return Ok(None) };
        let record = v1::StoreTakeOver::decode(record).map_err(|e| invalid(&e))?;
        let generation = required("StoreTakeOver.generation", record.generation).map_err(|e| invalid(&e))?;
        Ok(Some(Self { generation, overruled: record.overruled.into_iter().map(NodeId).collect() }))
    }

    /// Writes it down; `done` is told when it is durable.
    pub fn put(&self, disk: &dyn LogStore, done: Done) {
        let record = v1::StoreTakeOver {
            generation: Some(self.generation.to_wire()),
            overruled: self.overruled.iter().map(|id| id.0).collect(),
        };
        disk.put_meta(TAKE_OVER, record.encode_to_vec().into(), done);
    }
}

/// Takes a decision back by which nothing was done: the one before holds, if there was one.
async fn withdraw(disk: &dyn LogStore, before: Option<TakeOver>) -> io::Result<()> {
    match before {
        Some(before) => durable(|done| before.put(disk, done)).await,
        None => durable(|done| disk.put_meta(TAKE_OVER, prost::bytes::Bytes::new(), done)).await,
    }
}

/// For whom this node votes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Overruled(watch::Sender<BTreeSet<NodeId>>);

impl Overruled {
    pub(crate) fn new(all: BTreeSet<NodeId>) -> Self {
        Self(watch::Sender::new(all))
    }

    fn add(&self, more: &BTreeSet<NodeId>) {
        self.0.send_modify(|all| all.extend(more));
    }

    /// Returns when `node` is overruled, which may be never.
    pub(crate) async fn contains(&self, node: NodeId) {
        let mut all = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = all.wait_for(|all| all.contains(&node)).await;
    }
}

/// Why this node must not go on without its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ineligible {
    /// Others vote, or are about to.
    #[error("the voters are not exactly this node and its peer")]
    Voters,
    /// The electors are being changed, or are others than the voters.
    #[error("the electors are not exactly this node and its peer")]
    Electors,
    /// The log cannot be looked at.
    #[error("the log cannot be read")]
    Log,
}

impl Handle {
    /// Whether exactly this node and `peer` vote and grant, by the last word of the own log, committed or not. To be asked
    /// after the last answer to the peer has left ([`super::Gate::hush`]): what it may count as kept here is then in that
    /// log.
    ///
    /// # Errors
    /// [`Ineligible`].
    pub async fn eligible(&self, peer: NodeId) -> Result<(), Ineligible> {
        let pair = BTreeSet::from([self.me().0, peer.0]);
        let last = self.raft().with_raft_state(|state| {
            let effective = state.membership_state.effective();
            let configs = effective.membership().get_joint_config().clone();
            (configs, state.log_ids.last().map(|id| id.index))
        });
        let (configs, last) = last.await.map_err(|_| Ineligible::Log)?;
        if configs != [pair] {
            return Err(Ineligible::Voters);
        }
        let snapshot = self.state().borrow().clone();
        let electors = &snapshot.state.electors;
        let settled = electors.change.is_none() && electors.current == BTreeSet::from([self.me(), peer]);
        let ahead = self.unapplied(&snapshot, last.unwrap_or(0)).map_err(|_| Ineligible::Log)?;
        if settled && !ahead.iter().any(changes_electors) { Ok(()) } else { Err(Ineligible::Electors) }
    }

    fn unapplied(&self, snapshot: &Snapshot, last: u64) -> io::Result<Vec<Command>> {
        let entries = Log::read_from(&*self.inner.disk()?, snapshot.last_applied.index + 1..last + 1)?;
        Ok(entries.into_iter().filter_map(|entry| command(entry.payload)).collect())
    }

    /// Writes the decision down. Nothing is done by it yet.
    ///
    /// # Errors
    /// The store's.
    pub async fn record(&self, decision: &TakeOver) -> io::Result<()> {
        let disk = self.inner.disk()?;
        durable(|done| decision.put(&*disk, done)).await
    }

    /// Takes back a decision by which nothing was done.
    ///
    /// # Errors
    /// The store's.
    pub async fn withdraw(&self) -> io::Result<()> {
        let before = self.inner.decided.borrow().clone();
        withdraw(&*self.inner.disk()?, before).await
    }

    /// Acts by a decision that is durable: speaks for its generation, votes for whom it overrules, and leads as soon as
    /// it can.
    ///
    /// # Errors
    /// That Raft has stopped.
    pub async fn act(&self, decision: TakeOver) -> Result<(), ProposeError> {
        self.gate().raise(decision.generation);
        self.inner.overruled.add(&decision.overruled);
        self.inner.decided.send_replace(Some(decision));
        let stopped = |e: &dyn std::fmt::Display| ProposeError::Stopped(e.to_string());
        // The others cannot be asked whether they hear a leader; one that leads already has a majority again at once.
        self.raft().trigger().elect(false).await.map_err(|e| stopped(&e))?;
        self.raft().trigger().heartbeat().await.map_err(|e| stopped(&e))
    }

    /// What this node has decided, each time it acts by something new.
    #[must_use]
    pub fn decisions(&self) -> watch::Receiver<Option<TakeOver>> {
        self.inner.decided.subscribe()
    }

    /// What this node has decided and the state does not say yet, as the command that says it.
    #[must_use]
    pub fn unsaid(&self) -> Option<Command> {
        let decided = self.inner.decided.borrow().clone()?;
        let said = self.state().borrow().state.generation.number >= decided.generation.number;
        let TakeOver { generation, overruled } = decided;
        let body = Body::TakeOver { generation, overruled: overruled.into_iter().collect() };
        (!said).then(|| Command::any(body))
    }
}

fn command(payload: Payload) -> Option<Command> {
    match payload {
        Payload::Normal(Proposal(command)) => Some(command),
        Payload::Blank | Payload::Membership(_) => None,
    }
}

fn changes_electors(command: &Command) -> bool {
    matches!(
        command.body,
        Body::ElectorsJoint(_)
            | Body::ElectorsSeal { .. }
            | Body::ElectorsFinal(_)
            | Body::ElectorsCancel
            | Body::TakeOver { .. }
    )
}

/// The decision that `disk` holds, for who takes its log up.
pub(super) fn decided(disk: &Arc<dyn LogStore>) -> io::Result<Option<TakeOver>> {
    TakeOver::recorded(&**disk)
}
