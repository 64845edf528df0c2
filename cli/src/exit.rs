//! What `farmctl` tells the shell.

use std::process::ExitCode;

/// Exit codes; stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Done. Also when the reader of the output went away (`farmctl … | head`).
    Done,
    /// The cluster refused; nothing was changed.
    Refused,
    /// The command line is wrong; nothing was sent.
    Usage,
    /// No daemon answers at the socket or address, or it went away during a stream.
    Unreachable,
    /// No leader, no quorum, or no answer in time: the outcome is unknown.
    Unknown,
    /// The daemon belongs to no cluster yet.
    NotMember,
    /// Something on this machine: a program is not installed, the output cannot be written.
    Local,
    /// `explain`: the loaded program and the pure function disagree.
    Disagree,
    /// `doctor`: something does not work. `cluster check`: a loss that would end the service. `notify test`: nobody was told. `drill`: clients could not connect, or the farm was not back in time.
    Failed,
}

/// The table for `--help`; a test compares it with [`Exit`].
pub const HELP: &str = "\
Exit codes:
  0  done
  1  the cluster refused; nothing was changed
  2  the command line is wrong; nothing was sent
  3  no daemon answers at the socket or address, or it went away during a stream
  4  no leader, no quorum, or no answer in time: the outcome of a change is unknown
  5  this node belongs to no cluster yet
  6  something on this machine: a program is not installed, the output cannot be written
  7  explain: the loaded program and the pure function disagree
  8  doctor: a fault; cluster check: a loss that ends the service; notify test: nobody was told;
     drill: clients failed, or it is not over
`lab` and `demo` end with the exit code of farm-lab.";

impl Exit {
    /// Every code.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Refused,
        Self::Usage,
        Self::Unreachable,
        Self::Unknown,
        Self::NotMember,
        Self::Local,
        Self::Disagree,
        Self::Failed,
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Unknown => 4,
            Self::NotMember => 5,
            Self::Local => 6,
            Self::Disagree => 7,
            Self::Failed => 8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_exactly_the_codes() {
        let listed: Vec<u8> =
            HELP.lines().filter_map(|l| l.trim().split("  ").next()?.parse().ok()).collect();
        assert_eq!(listed, Exit::ALL.map(Exit::code));
    }
}
