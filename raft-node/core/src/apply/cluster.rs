//! Commands about the cluster as a whole.

use std::collections::BTreeSet;

use super::{Done, Refusal, ensure, happened};
use crate::electors::Electors;
use crate::event::Kind;
use crate::id::{ClusterId, EntryId, FeatureLevel, Generation, NodeId};
use crate::lease::Timing;
use crate::model::{HashKey, Membership, Node, Profile, Role};
use crate::state::ClusterState;

/// Identity of a new cluster.
pub(super) struct Founding<'a> {
    pub cluster: ClusterId,
    pub name: &'a str,
    pub hash_key: HashKey,
    pub nonce: u64,
    /// Of the command: the level of the founder's build.
    pub level: FeatureLevel,
}

impl ClusterState {
    pub(super) fn found(
        &mut self,
        founding: &Founding<'_>,
        profile: Profile,
        node: &Node,
        entry: EntryId,
    ) -> Done {
        ensure(!self.is_founded(), || {
            let fact = format!("this node is already part of cluster {}", self.name);
            Refusal::new("already_founded", fact, "farmctl cluster status")
        })?;
        super::nodes::check_name("cluster", founding.name)?;
        ensure(node.role == Role::Server, || {
            let fact = format!("{} is a witness: it votes in a cluster that servers have founded", node.name);
            Refusal::new("witness", fact, "farmctl node join PEER")
        })?;
        // The founder's Raft id was needed before there was a log; later ids are log indexes and thus higher.
        let id = if node.id == NodeId(0) { NodeId(entry.index) } else { node.id };
        ensure(id.0 > 0 && id.0 <= entry.index, || {
            let fact =
                format!("node id {id} could be given again: it is above the log index {}", entry.index);
            Refusal::new("bad_node_id", fact, "farmctl cluster init")
        })?;
        let founder = Node { id, membership: Membership::Member, ..node.clone() };
        self.check_node(&founder)?;
        self.cluster = founding.cluster;
        self.name = founding.name.to_owned();
        self.hash_key = founding.hash_key;
        self.generation = Generation { number: 1, survivor: id, nonce: founding.nonce };
        self.level = founding.level;
        self.profile = profile;
        self.lease_bound = Timing::of(profile).lease;
        self.electors = Electors::new(BTreeSet::from([id]));
        self.nodes.insert(id, founder);
        let (events, _) = happened(Kind::ClusterFounded { name: self.name.clone() })?;
        Ok((events, Some(id)))
    }

    pub(super) fn profile_set(&mut self, profile: Profile) -> Done {
        self.profile = profile;
        self.lease_bound = self.lease_bound.max(Timing::of(profile).lease);
        happened(Kind::ProfileSet { profile })
    }

    #[cfg(feature = "next")]
    pub(super) fn cluster_rename(&mut self, name: &str) -> Done {
        super::nodes::check_name("cluster", name)?;
        self.name = name.to_owned();
        happened(Kind::ClusterRenamed { name: name.to_owned() })
    }

    pub(super) fn finalize_level(&mut self, level: FeatureLevel) -> Done {
        ensure(level > self.level, || {
            let fact = format!("feature level {level} is not above {}, which all members share", self.level);
            Refusal::new("bad_level", fact, "farmctl cluster status")
        })?;
        self.level = level;
        happened(Kind::LevelFinalized { level })
    }
}
