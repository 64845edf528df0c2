//! Whether this node serves a module, for load balancers that are not Farm.

use farm_core::id::NodeId;
use farm_core::model::{Module, ModuleKind, ModuleName, Phase, Readiness};
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;

use crate::member::Member;

/// What keeps a node from serving a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Idle {
    /// Nobody has made it.
    #[error("there is no such module")]
    Unknown,
    /// Its application is not up here, or clients are asked to leave.
    #[error("its application is not open on this node")]
    NotOpen,
    /// A weight of 0, maintenance, a node that has just come.
    #[error("this node owns none of its clients")]
    NoShare,
    /// Filter or guard is lost, or not attached.
    #[error("the filter or its guard is not in place on this node")]
    NoFilter,
    /// No majority of electors grants one.
    #[error("this node has no lease")]
    NoLease,
}

/// What only this node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Host {
    /// Filter and guard are in place.
    sound: bool,
    /// The lease has not run out.
    leased: bool,
}

/// Whether this node accepts clients of the module now.
///
/// # Errors
/// [`Idle`] when it does not, with the first reason.
pub fn serves(member: &Member, name: &ModuleName) -> Result<(), Idle> {
    let snapshot = member.snapshot();
    let host = Host {
        sound: member.host.attached() && member.host.sound(),
        leased: BootTime(member.lease.deadline()) > BootTime(boot_now()),
    };
    judge(snapshot.state.modules.get(name), member.me, host)
}

fn judge(module: Option<&Module>, me: NodeId, host: Host) -> Result<(), Idle> {
    let module = module.ok_or(Idle::Unknown)?;
    if module.readiness(me) != Readiness::Open {
        return Err(Idle::NotOpen);
    }
    if module.kind == ModuleKind::Light || module.services.is_empty() {
        // Nobody's frames are judged for it: where it is open, it serves.
        return Ok(());
    }
    let accepts = |phase: Phase, current: bool, previous: bool| match phase {
        Phase::Stable | Phase::Activate => current,
        // The previous owner accepts everything until the move.
        Phase::Prepare => previous,
        Phase::Move | Phase::MoveClosed => false,
    };
    let mine = |node: Option<NodeId>| node == Some(me);
    if !module.assignment.iter().any(|b| accepts(b.phase, mine(b.current), mine(b.previous))) {
        return Err(Idle::NoShare);
    }
    match host {
        Host { sound: false, .. } => Err(Idle::NoFilter),
        Host { leased: false, .. } => Err(Idle::NoLease),
        Host { sound: true, leased: true } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use farm_core::id::Epoch;
    use farm_core::model::{BucketState, Criterion, Definition, Protocol};

    use super::*;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));
    const ME: NodeId = NodeId(2);
    const OTHER: NodeId = NodeId(3);
    const WELL: Host = Host { sound: true, leased: true };

    fn module(current: NodeId, previous: Option<NodeId>, phase: Phase) -> Module {
        let bucket =
            BucketState { current: Some(current), previous, phase, changed: Epoch(1), pending: Vec::new() };
        Module {
            services: BTreeMap::from([((VIP.into(), Protocol::Tcp, 80), Criterion::SourceAddress)]),
            assignment: vec![bucket],
            ..Module::new(ModuleKind::Farm, 0, 1)
        }
    }

    #[test]
    fn who_accepts_new_clients_serves_and_nobody_else() {
        let judged = |current, previous, phase| judge(Some(&module(current, previous, phase)), ME, WELL);
        assert_eq!(judged(ME, None, Phase::Stable), Ok(()));
        assert_eq!(judged(ME, Some(OTHER), Phase::Activate), Ok(()));
        assert_eq!(judged(OTHER, Some(ME), Phase::Prepare), Ok(()));
        for phase in [Phase::Prepare, Phase::Move, Phase::MoveClosed] {
            assert_eq!(judged(ME, Some(OTHER), phase), Err(Idle::NoShare), "{phase:?}");
        }
        for phase in [Phase::Move, Phase::MoveClosed, Phase::Activate] {
            assert_eq!(judged(OTHER, Some(ME), phase), Err(Idle::NoShare), "{phase:?}");
        }
        assert_eq!(judge(None, ME, WELL), Err(Idle::Unknown));
    }

    #[test]
    fn a_node_without_lease_or_filter_serves_nobody() {
        let judged = |host| judge(Some(&module(ME, None, Phase::Stable)), ME, host);
        assert_eq!(judged(Host { leased: false, ..WELL }), Err(Idle::NoLease));
        assert_eq!(judged(Host { sound: false, ..WELL }), Err(Idle::NoFilter));
    }

    #[test]
    fn what_has_no_services_serves_where_it_is_open() {
        let module = Module { services: BTreeMap::new(), ..module(OTHER, None, Phase::Stable) };
        assert_eq!(judge(Some(&module), ME, Host { leased: false, sound: false }), Ok(()));
    }

    #[test]
    fn an_application_serves_where_it_is_open_and_not_while_it_closes() {
        let judged = |readiness| {
            let application = Some([(ME, readiness)].into());
            let definition = Some(Definition { revisions: Vec::new(), born: 1, application });
            judge(Some(&Module { definition, ..module(ME, None, Phase::Stable) }), ME, WELL)
        };
        assert_eq!(judged(Readiness::Open), Ok(()));
        assert_eq!(judged(Readiness::Closing), Err(Idle::NotOpen));
        assert_eq!(judged(Readiness::Closed), Err(Idle::NotOpen));
    }
}
