//! `counters`: what the filter of this node did with the frames it saw, and why.

use farm_common::verdict::Reason;
use farm_proto::v1;
use tonic::Status;

use super::refuse::invalid;
use crate::member::Member;

/// Every counter of this node's filter.
pub(super) fn counters(member: &Member) -> Result<v1::CountersResponse, Status> {
    let read = member.host.counters().map_err(|e| {
        invalid("counters_unread", format!("the filter's counters cannot be read: {e}"), "farmctl events")
    })?;
    let counter = |reason: &Reason| v1::Counter {
        verdict: verdict(*reason).into(),
        reason: reason.name().into(),
        meaning: reason.sentence().into(),
        packets: read.as_ref().and_then(|read| read.get(reason.name()).copied()).unwrap_or(0),
    };
    let all = read.is_some().then(|| Reason::ALL.iter().map(counter).collect());
    Ok(v1::CountersResponse {
        answered_by: member.me.0,
        attached: read.is_some(),
        counters: all.unwrap_or_default(),
    })
}

/// What was done with the frame, in one word.
#[must_use]
pub fn verdict(reason: Reason) -> &'static str {
    match reason {
        Reason::Passed => "pass",
        Reason::AcceptOwner | Reason::AcceptSocket | Reason::AcceptNew | Reason::AcceptFragment => "accept",
        Reason::ForwardOwner | Reason::ForwardPrevious | Reason::ForwardBounce | Reason::ForwardArp => {
            "forward"
        }
        Reason::ArpAnswered => "answer",
        Reason::Malformed
        | Reason::Extensions
        | Reason::Protocol
        | Reason::FragmentedSyn
        | Reason::NoService
        | Reason::WrongMac
        | Reason::BadTable
        | Reason::NoOwner
        | Reason::NotOwner
        | Reason::FromNode
        | Reason::ChangeClosed
        | Reason::NoSocket
        | Reason::Duplicate
        | Reason::NoPeer
        | Reason::LeaseExpired
        | Reason::HopLimit => "drop",
    }
}
