//! Raft's messages survive the wire, in every shape that openraft makes.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::command::{Body, Command};
use farm_core::id::FeatureLevel;
use farm_core::model::Profile;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::codec::{transfer_from_wire, transfer_to_wire};
use super::types::{
    Endpoint, Entry, LeaderId, LogId, Members, Payload, Proposal, SnapshotMeta, StoredMembers, Types, Vote,
};
use crate::wire::{Wire, WireError};

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 3, node_id: 2 }, index)
}

fn vote(committed: bool) -> Vote {
    Vote { leader_id: LeaderId { term: 4, node_id: 5 }, committed }
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().expect("a sound endpoint")
}

/// Two voter sets and a learner, one member on two networks, one on IPv6.
fn joint() -> Members {
    let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 7])];
    let at = ["10.0.0.1:7601,10.1.0.1:7601", "[fd00::2]:7601", "10.0.0.7:7601", "10.0.0.9:7601"];
    let nodes: BTreeMap<u64, Endpoint> = [1, 2, 7, 9].into_iter().zip(at.map(endpoint)).collect();
    Members::new(configs, nodes).expect("every voter is a node")
}

fn entries() -> Vec<Entry> {
    let command = Command { level: FeatureLevel(1), base: None, body: Body::ProfileSet(Profile::Virtual) };
    let payloads = [Payload::Blank, Payload::Normal(Proposal(command)), Payload::Membership(joint())];
    (1..).zip(payloads).map(|(index, payload)| Entry { log_id: log_id(index), payload }).collect()
}

fn survives<T: Wire + PartialEq + std::fmt::Debug>(value: T) {
    assert_eq!(T::from_wire(value.to_wire()).as_ref(), Ok(&value));
}

#[test]
fn votes_members_and_entries_survive() {
    survives(vote(true));
    survives(vote(false));
    survives(log_id(0));
    survives(joint());
    survives(Members::default());
    entries().into_iter().for_each(survives);
    survives(SnapshotMeta::default());
    let last_membership = StoredMembers::new(Some(log_id(3)), joint());
    survives(SnapshotMeta { last_log_id: Some(log_id(8)), last_membership });
}

#[test]
fn requests_and_answers_survive() {
    survives(AppendEntriesResponse::<Types>::Success);
    survives(AppendEntriesResponse::<Types>::Conflict);
    survives(AppendEntriesResponse::<Types>::PartialSuccess(None));
    survives(AppendEntriesResponse::<Types>::PartialSuccess(Some(log_id(1))));
    survives(AppendEntriesResponse::<Types>::HigherVote(vote(true)));
    survives(SnapshotResponse::<Types>::new(vote(true)));
    for leadership_transfer in [false, true] {
        survives(VoteRequest::<Types> { vote: vote(false), last_log_id: None, leadership_transfer });
    }
    for granted in [false, true] {
        survives(VoteResponse::<Types>::new(vote(false), Some(log_id(2)), granted));
    }
}

/// openraft's own type cannot be compared, so its parts are.
#[test]
fn an_append_survives() {
    for (prev, commit) in [(None, None), (Some(log_id(0)), Some(log_id(1)))] {
        let sent = AppendEntriesRequest::<Types> {
            vote: vote(true),
            prev_log_id: prev,
            entries: entries(),
            leader_commit: commit,
        };
        let got = AppendEntriesRequest::<Types>::from_wire(sent.to_wire()).expect("sound");
        assert_eq!((got.vote, got.prev_log_id, got.leader_commit), (sent.vote, prev, commit));
        assert_eq!(got.entries, sent.entries);
    }
}

#[test]
fn a_transfer_and_its_refusals_survive() {
    let asked = TransferLeaderRequest::<Types>::new(vote(true), 7, Some(log_id(4)));
    survives(asked.clone());
    let behind = |actual| TransferLeaderError::LogNotFlushed { expected: Some(log_id(4)), actual };
    let changed = TransferLeaderError::VoteChanged { expected: vote(true), actual: vote(false) };
    for answer in [Ok(()), Err(changed), Err(behind(None)), Err(behind(Some(log_id(2))))] {
        assert_eq!(transfer_from_wire(transfer_to_wire(&answer), &asked), Ok(answer));
    }
}

#[test]
fn members_that_contradict_themselves_are_refused() {
    let mut stranger = joint().to_wire();
    stranger.configs[0].ids.push(99);
    let mut garbled = joint().to_wire();
    garbled.nodes[0].endpoint = "nowhere".into();
    for (proto, blamed) in [(stranger, "Membership.configs"), (garbled, "Members.endpoint")] {
        let refused = Members::from_wire(proto);
        assert!(matches!(&refused, Err(WireError::Invalid { field, .. }) if *field == blamed), "{refused:?}");
    }
}
