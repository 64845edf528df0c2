//! The groups of figures: what is measured together, by one command.

use std::fmt;

use super::fault::Fault;
use super::{flips, flows, frames, http, idle, margins, scale, verdict, vrrp};
use crate::lab::Mode;

/// Figures that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// What a fault does to the clients.
    Failover(Mode, Fault),
    /// From the commit of an epoch to the filters.
    CommitToFlip,
    /// What a daemon costs at rest.
    Idle,
    /// Nanoseconds per verdict.
    Verdict,
    /// Frames per second of a core, against others.
    LiveFrames,
    /// What grows with the cluster.
    Scale,
    /// Failover against keepalived.
    Vrrp(vrrp::Rival),
    /// Requests to one web server, by several ways.
    Http,
    /// Long-lived connections through changes.
    Flows,
    /// Lease margins with every core busy.
    BusyCores,
}

impl Group {
    /// All of them in the order of a run: what has a budget first, what strains the machine last.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let modes = [Mode::Directed, Mode::Flood].into_iter();
        let failovers = modes.flat_map(|mode| Fault::ALL.map(|fault| Self::Failover(mode, fault)));
        let alone = [Self::CommitToFlip, Self::Idle, Self::Verdict, Self::LiveFrames, Self::Scale];
        let rivals = vrrp::Rival::ALL.map(Self::Vrrp);
        failovers.chain(alone).chain(rivals).chain([Self::Http, Self::Flows, Self::BusyCores])
    }

    /// The mode of the lab. What does not depend on the mode is measured in the default one.
    pub(super) fn mode(self) -> Mode {
        match self {
            Self::Failover(mode, _) => mode,
            Self::CommitToFlip
            | Self::Idle
            | Self::Verdict
            | Self::LiveFrames
            | Self::Scale
            | Self::Vrrp(_)
            | Self::Http
            | Self::Flows
            | Self::BusyCores => Mode::Directed,
        }
    }

    /// The command that measures it.
    pub(super) fn command(self) -> String {
        format!("farm-lab bench --only {self}")
    }

    /// Does `only` ask for it: a part of its name, or one of its figures?
    pub(super) fn is_meant_by(self, only: &str) -> bool {
        let name = self.to_string();
        name.contains(only) || only.strip_prefix(&name).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failover(mode, fault) => write!(f, "failover/{}/{}", mode.name(), fault.name()),
            Self::CommitToFlip => f.write_str(flips::NAME),
            Self::Idle => f.write_str(idle::NAME),
            Self::Verdict => f.write_str(verdict::NAME),
            Self::LiveFrames => f.write_str(frames::NAME),
            Self::Scale => f.write_str(scale::NAME),
            Self::Vrrp(rival) => write!(f, "{}/{}", vrrp::NAME, rival.name()),
            Self::Http => f.write_str(http::NAME),
            Self::Flows => f.write_str(flows::NAME),
            Self::BusyCores => f.write_str(margins::NAME),
        }
    }
}

/// The command of every group, as its figures name it.
#[must_use]
pub fn commands() -> Vec<String> {
    Group::all().map(Group::command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant_by(only: &str) -> Vec<Group> {
        Group::all().filter(|group| group.is_meant_by(only)).collect()
    }

    #[test]
    fn the_name_of_a_group_means_only_itself() {
        for group in Group::all() {
            assert_eq!(meant_by(&group.to_string()), [group]);
            assert_eq!(meant_by(&format!("{group}/client/gap")), [group]);
        }
    }

    #[test]
    fn a_part_of_a_name_means_all_that_have_it() {
        assert_eq!(meant_by("leader").len(), 3);
        assert_eq!(meant_by("flood").len(), Fault::ALL.len());
        assert_eq!(meant_by("nonsense"), []);
    }
}
