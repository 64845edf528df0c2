//! The faults of the demo: what happens to whom, and how it is mended.

use anyhow::Result;

use crate::lab::Lab;
use crate::names::Place;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// A node's network cable is pulled.
    Cut,
    /// A daemon is stopped with SIGSTOP, past its lease.
    Freeze,
    /// The node of the Raft leader loses power.
    LeaderDies,
    /// A daemon is killed with SIGKILL.
    Kill,
}

impl Scene {
    /// In the order of the demo.
    pub(super) const ALL: [Self; 4] = [Self::Cut, Self::Freeze, Self::LeaderDies, Self::Kill];

    /// Whom it hits: the leader only where that is the point.
    pub(super) fn victim(self, nodes: &[Place], leader: Place) -> Place {
        let mut followers = nodes.iter().copied().filter(|node| *node != leader);
        match self {
            Self::LeaderDies => leader,
            Self::Cut | Self::Kill => followers.next_back().unwrap_or(leader),
            Self::Freeze => followers.next().unwrap_or(leader),
        }
    }

    pub(super) fn strike(self, lab: &Lab, victim: Place) -> Result<()> {
        match self {
            Self::Cut => lab.cut(victim),
            Self::Freeze => lab.freeze(victim),
            Self::LeaderDies => lab.power_off(victim),
            Self::Kill => lab.kill_farmd(victim),
        }
    }

    pub(super) fn mend(self, lab: &Lab, victim: Place) -> Result<()> {
        match self {
            Self::Cut => lab.heal(victim),
            Self::Freeze => lab.thaw(victim),
            Self::LeaderDies => lab.power_on(victim),
            Self::Kill => lab.start_farmd(victim).map(drop),
        }
    }

    pub(super) fn strike_text(self, victim: Place) -> String {
        match self {
            Self::Cut => format!("{victim} is cut off"),
            Self::Freeze => format!("the daemon of {victim} is frozen past its lease"),
            Self::LeaderDies => format!("{victim}, the leader's node, dies"),
            Self::Kill => format!("the daemon of {victim} is killed"),
        }
    }

    pub(super) fn mend_text(self, victim: Place) -> String {
        match self {
            Self::Cut => format!("{victim} returns"),
            Self::Freeze => format!("the daemon of {victim} is thawed"),
            Self::LeaderDies => format!("{victim} boots again"),
            Self::Kill => format!("the daemon of {victim} is restarted"),
        }
    }
}
