//! The faults that are measured: whom they hit, how they begin and how they are mended.

use anyhow::Result;

use super::figure::Budget;
use crate::lab::Lab;
use crate::names::Place;
use crate::{WEB_MODULE, app};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The cable of a follower is pulled.
    FollowerCut,
    /// The cable of the Raft leader is pulled.
    LeaderCut,
    /// The daemon of a follower is stopped with SIGSTOP.
    Frozen,
    /// The daemon of a follower is killed with SIGKILL.
    Killed,
    /// The daemon of a follower gets SIGTERM and hands its buckets over.
    Leave,
    /// The application on a follower is killed with SIGKILL.
    ApplicationKilled,
}

impl Fault {
    pub(super) const ALL: [Self; 6] = [
        Self::FollowerCut,
        Self::LeaderCut,
        Self::Frozen,
        Self::Killed,
        Self::Leave,
        Self::ApplicationKilled,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FollowerCut => "follower-cut",
            Self::LeaderCut => "leader-cut",
            Self::Frozen => "daemon-frozen",
            Self::Killed => "daemon-killed",
            Self::Leave => "graceful-leave",
            Self::ApplicationKilled => "application-killed",
        }
    }

    /// For the buckets of the victim.
    pub(super) fn budget(self) -> Option<Budget> {
        match self {
            Self::FollowerCut => Some(Budget::mean_p99(150.0, 200.0)),
            Self::LeaderCut => Some(Budget::mean_p99(300.0, 400.0)),
            Self::ApplicationKilled => Some(Budget::p99(50.0)),
            Self::Frozen | Self::Killed | Self::Leave => None,
        }
    }

    /// Followers take turns from run to run.
    pub(super) fn victim(self, nodes: &[Place], leader: Place, run: usize) -> Place {
        let followers: Vec<Place> = nodes.iter().copied().filter(|node| *node != leader).collect();
        match self {
            Self::LeaderCut => leader,
            Self::FollowerCut | Self::Frozen | Self::Killed | Self::Leave | Self::ApplicationKilled => {
                // By pairs of runs: the entry node alternates within each.
                followers.get(run / 2 % followers.len().max(1)).copied().unwrap_or(leader)
            }
        }
    }

    /// Does it take an application that the farm has in its care?
    pub(super) fn is_of_application(self) -> bool {
        self == Self::ApplicationKilled
    }

    /// Does it end every frame on the victim's cable?
    pub(super) fn cuts(self) -> bool {
        match self {
            Self::FollowerCut | Self::LeaderCut => true,
            Self::Frozen | Self::Killed | Self::Leave | Self::ApplicationKilled => false,
        }
    }

    pub(super) fn strike(self, lab: &Lab, victim: Place) -> Result<()> {
        match self {
            Self::FollowerCut | Self::LeaderCut => lab.cut(victim),
            Self::Frozen => lab.freeze(victim),
            Self::Killed => lab.kill_farmd(victim),
            Self::Leave => lab.terminate_farmd(victim),
            Self::ApplicationKilled => app::die(lab, WEB_MODULE, victim),
        }
    }

    pub(super) fn mend(self, lab: &Lab, victim: Place) -> Result<()> {
        match self {
            Self::FollowerCut | Self::LeaderCut => lab.heal(victim),
            Self::Frozen => lab.thaw(victim),
            Self::Killed | Self::Leave => lab.start_farmd(victim).map(drop),
            // Its node starts it again.
            Self::ApplicationKilled => Ok(()),
        }
    }
}
