//! What a store holds, for who decides about it while no daemon runs.

use std::collections::BTreeSet;
use std::io;

use farm_core::id::{ClusterId, EntryId, Generation, NodeId};
use farm_core::state::ClusterState;
use farm_store::LogStore;

use super::start::{owner, recorded_generation};
use super::store::{Log, committed};
use super::takeover::TakeOver;
use super::types::{LogId, Members, Payload, Proposal, SnapshotMeta, entry_id};
use crate::wire::decode;

/// The last word of a store about everything, whether it was agreed on or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Whose store it is.
    pub me: NodeId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The state, with the whole log applied.
    pub state: ClusterState,
    /// Last entry.
    pub last: EntryId,
    /// Index of the last entry that this node knows to be agreed on.
    pub agreed: u64,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// The highest generation that this node knows.
    pub generation: Generation,
    /// For whom it votes already.
    pub overruled: BTreeSet<NodeId>,
}

impl Held {
    /// Reads all of `disk`; `None` where it belongs to nobody yet.
    ///
    /// # Errors
    /// What cannot be read, or is of a newer version.
    pub fn read(disk: &dyn LogStore) -> io::Result<Option<Self>> {
        let Some((me, cluster)) = owner(disk) else { return Ok(None) };
        let decided = TakeOver::recorded(disk)?.unwrap_or_default();
        let (mut state, mut last, mut members) = match disk.snapshot()? {
            Some(stored) => {
                let meta: SnapshotMeta = decode(&stored.meta).map_err(invalid)?;
                let members = meta.last_membership.membership().clone();
                (decode(&stored.data).map_err(invalid)?, meta.last_log_id, members)
            }
            None => (ClusterState::default(), None, Members::default()),
        };
        for entry in Log::read_from(disk, index(last) + 1..u64::MAX)? {
            match entry.payload {
                Payload::Blank => {}
                Payload::Normal(Proposal(command)) => {
                    state.apply(&command, entry_id(&entry.log_id)).map_err(invalid)?;
                }
                Payload::Membership(new) => members = new,
            }
            last = Some(entry.log_id);
        }
        let known = [state.generation, decided.generation, recorded_generation(disk)?.unwrap_or_default()];
        let generation = known.into_iter().max_by_key(|g| g.number).unwrap_or_default();
        Ok(Some(Self {
            me,
            cluster,
            state,
            last: last.as_ref().map(entry_id).unwrap_or_default(),
            agreed: index(committed(disk)?),
            voters: members.voter_ids().map(NodeId).collect(),
            generation,
            overruled: decided.overruled,
        }))
    }

    /// The decision of this node to go on alone. `nonce` tells it from others of that number.
    #[must_use]
    pub fn alone(&self, nonce: u64) -> TakeOver {
        let generation = Generation { number: self.generation.number + 1, survivor: self.me, nonce };
        let others = self.voters.iter().chain(&self.overruled).copied().chain(self.state.electors.all());
        TakeOver { generation, overruled: others.filter(|id| *id != self.me).collect() }
    }
}

fn index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
