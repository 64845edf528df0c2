//! Which sockets of moved buckets are left on this node; told to the leader while a change is open.

use std::collections::BTreeSet;

use farm_common::memory::Stage;
use farm_core::controller::DrainState;
use farm_core::id::{Epoch, NodeId};
use farm_core::model::{BUCKETS, BucketSet, BucketState, Module, ModuleName, Phase};
use farm_core::state::ClusterState;
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use farm_dataplane::memory::Remembered;
use farm_host::sockets::{SockDiag, Socket, State};

use super::census;

/// Modules in which `me` is the previous owner of an open change.
#[must_use]
pub fn draining(state: &ClusterState, me: NodeId) -> Vec<&ModuleName> {
    let drains = |m: &Module| m.assignment.iter().any(|bucket| leaves(bucket, me));
    state.modules.iter().filter(|(_, m)| drains(m)).map(|(name, _)| name).collect()
}

/// Whether `me` still holds connections of a bucket that is another's.
#[must_use]
pub fn leaves(bucket: &BucketState, me: NodeId) -> bool {
    let moved = matches!(bucket.phase, Phase::Move | Phase::MoveClosed | Phase::Activate);
    moved && bucket.previous == Some(me)
}

/// What the survey goes by, besides the sockets.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// This node.
    pub me: NodeId,
    /// In force in its filter before anything is counted.
    pub epoch: Epoch,
    /// Flows that the filter remembers in place of sockets.
    pub flows: &'a BTreeSet<Remembered>,
}

/// Counts the sockets, and what stands in for them, in the buckets of `name` that leave this node.
///
/// # Errors
/// When the kernel cannot list its sockets.
pub async fn survey(
    diag: &mut SockDiag,
    here: &Here<'_>,
    state: &ClusterState,
    name: &ModuleName,
) -> Result<DrainState, farm_host::Error> {
    let Here { me, epoch, flows } = *here;
    let at = BootTime(boot_now());
    let none = BucketSet::empty(BUCKETS);
    let mut left = DrainState {
        epoch,
        requests: none.clone(),
        datagrams: none.clone(),
        established: none,
        sockets: 0,
        at,
    };
    let Some(module) = state.modules.get(name) else { return Ok(left) };
    for (socket, bucket) in tcp(diag, me, state, module).await? {
        left.sockets += 1;
        match socket.state {
            State::SynReceived => left.requests.insert(bucket),
            State::SynSent
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::LastAck
            | State::Closing => left.established.insert(bucket),
        }
    }
    for bucket in udp(diag, me, state, module).await? {
        left.sockets += 1;
        left.datagrams.insert(bucket);
    }
    for (udp, stage, bucket) in remembered(flows, me, state, module) {
        left.sockets += 1;
        match stage {
            _ if udp => left.datagrams.insert(bucket),
            Stage::Opening => left.requests.insert(bucket),
            Stage::Open | Stage::Closing => left.established.insert(bucket),
        }
    }
    Ok(left)
}

/// Of the remembered flows those that this node still holds: whether it is one of datagrams, how far it is, its bucket.
fn remembered(
    flows: &BTreeSet<Remembered>,
    me: NodeId,
    state: &ClusterState,
    module: &Module,
) -> Vec<(bool, Stage, usize)> {
    let held = |(udp, _, bucket): &(bool, Stage, usize)| {
        let bucket = &module.assignment[*bucket];
        leaves(bucket, me) && (!udp || reaches(bucket))
    };
    census::remembered(flows, state, module).into_iter().filter(held).collect()
}

/// Do datagrams of a bucket still reach its previous owner?
fn reaches(bucket: &BucketState) -> bool {
    matches!(bucket.phase, Phase::Move | Phase::MoveClosed)
}

async fn tcp(
    diag: &mut SockDiag,
    me: NodeId,
    state: &ClusterState,
    module: &Module,
) -> Result<Vec<(Socket, usize)>, farm_host::Error> {
    let mut sockets = census::tcp(diag, state, module).await?;
    sockets.retain(|(_, bucket)| leaves(&module.assignment[*bucket], me));
    Ok(sockets)
}

/// Buckets of the connected sockets that still get their datagrams: up to Activate.
async fn udp(
    diag: &mut SockDiag,
    me: NodeId,
    state: &ClusterState,
    module: &Module,
) -> Result<Vec<usize>, farm_host::Error> {
    let sockets = census::udp(diag, state, module).await?;
    let reached = |b: &usize| {
        let bucket = &module.assignment[*b];
        leaves(bucket, me) && reaches(bucket)
    };
    Ok(sockets.into_iter().map(|(_, bucket)| bucket).filter(reached).collect())
}
