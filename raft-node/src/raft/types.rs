//! openraft with our types filled in.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use farm_core::command::Command;
use farm_core::id::{EntryId, Leadership, NodeId};
use farm_core::model::Node;
use openraft::type_config::alias;

/// What goes through the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal(pub Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.body)
    }
}

/// Where a member's peer API is: one address per cluster network, best first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Endpoint(pub Vec<SocketAddr>);

impl Endpoint {
    /// Where `node` is.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        node.addresses.values().map(|ip| SocketAddr::new(*ip, node.peer_port)).collect()
    }

    /// These addresses, and behind them those of `other` that are not among them.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        let more: Vec<SocketAddr> = other.0.iter().filter(|a| !self.0.contains(a)).copied().collect();
        self.0.extend(more);
        self
    }
}

impl FromIterator<SocketAddr> for Endpoint {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for address in &self.0 {
            write!(f, "{comma}{address}")?;
            comma = ",";
        }
        Ok(())
    }
}

impl FromStr for Endpoint {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').filter(|part| !part.is_empty()).map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

openraft::declare_raft_types!(
    /// The Raft types of Farm. A leader is (term, node): a term may have had several.
    pub Types:
        D = Proposal,
        R = super::machine::Reply,
        NodeId = u64,
        Node = Endpoint,
);

pub(crate) type LogId = alias::LogIdOf<Types>;
pub(crate) type LeaderId = alias::LeaderIdOf<Types>;
pub(crate) type Vote = alias::VoteOf<Types>;
pub(crate) type Entry = alias::EntryOf<Types>;
pub(crate) type Payload = alias::PayloadOf<Types>;
pub(crate) type Members = openraft::Membership<u64, Endpoint>;
pub(crate) type StoredMembers = alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub(crate) type RaftSnapshot = alias::SnapshotOf<Types, Vec<u8>>;

/// openraft's name of an entry.
pub(crate) fn log_id(entry: EntryId) -> LogId {
    LogId::new(LeaderId { term: entry.by.term, node_id: entry.by.leader.0 }, entry.index)
}

/// The core's name of an entry.
pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId { by: leadership(id.committed_leader_id()), index: id.index() }
}

/// The core's name of a leadership.
pub(crate) fn leadership(id: &LeaderId) -> Leadership {
    Leadership { term: id.term, leader: NodeId(id.node_id) }
}
