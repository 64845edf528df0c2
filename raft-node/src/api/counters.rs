//! `counters`: what the filter of this node did with the frames it saw, and why.

use std::collections::BTreeMap;

use farm_common::verdict::Reason;
use farm_proto::v1;
use tonic::Status;

use super::refuse::invalid;
use crate::member::Member;
use crate::node::HostView;

/// Every counter of this node's filter; `None` without one.
///
/// # Errors
/// Where the kernel refuses to read the map.
pub(crate) fn of(host: &HostView) -> std::io::Result<Option<Vec<v1::Counter>>> {
    let counter = |reason: &Reason, read: &BTreeMap<&str, u64>| v1::Counter {
        verdict: verdict(*reason).into(),
        reason: reason.name().into(),
        meaning: reason.sentence().into(),
        packets: read.get(reason.name()).copied().unwrap_or(0),
    };
    let read = host.counters()?;
    Ok(read.map(|read| Reason::ALL.iter().map(|reason| counter(reason, &read)).collect()))
}

/// The same for clients.
pub(super) fn counters(member: &Member) -> Result<v1::CountersResponse, Status> {
    let read = of(&member.host).map_err(|e| {
        invalid("counters_unread", format!("the filter's counters cannot be read: {e}"), "farmctl events")
    })?;
    Ok(v1::CountersResponse {
        answered_by: member.me.0,
        attached: read.is_some(),
        counters: read.unwrap_or_default(),
    })
}

/// What was done with the frame, in one word.
fn verdict(reason: Reason) -> &'static str {
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
