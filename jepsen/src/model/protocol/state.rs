//! One state of a search, and what can happen in it.

use core::fmt;

/// Most nodes of a configuration.
pub const NODES: usize = 4;
/// Entries of the longest log of any configuration.
pub const LOG: usize = 12;
/// No table, or no state.
pub const NONE: u16 = u16::MAX;

/// A node: its log, its daemon and its filter. Machines of the core, entries and replicated states stand here by number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// Its log; the first `len` count.
    pub log: [u16; LOG],
    /// Its elector.
    pub elector: u32,
    /// Its holder.
    pub holder: u32,
    /// What it was told as a leader, if it leads.
    pub reports: u32,
    /// The replicated state of its daemon.
    pub state: u16,
    /// The state whose table its filter works with.
    pub table: u16,
    /// The state whose table some packet may still go by.
    pub stale: u16,
    /// The state whose table is to be published.
    pub writing: u16,
    /// Entries of its log.
    pub len: u8,
    /// What it knows to be committed.
    pub commit: u8,
    /// What its daemon has applied.
    pub applied: u8,
    /// The newest term that it has seen.
    pub term: u8,
    /// Whether it believes to lead in that term.
    pub leads: bool,
}

impl Node {
    /// Its log.
    #[must_use]
    pub fn log(&self) -> &[u16] {
        &self.log[..usize::from(self.len)]
    }

    /// Up to which entry, counted, its log is that of `other`.
    #[must_use]
    pub fn common(&self, other: &Self) -> usize {
        self.log().iter().zip(other.log()).take_while(|(a, b)| a == b).count()
    }
}

/// A state of the whole model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The nodes; those beyond the configuration's stay as they are.
    pub nodes: [Node; NODES],
    /// Newest term of all.
    pub term: u8,
    /// Reboots so far.
    pub reboots: u8,
    /// Restarts so far.
    pub restarts: u8,
}

/// A step; nodes by position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Time passes.
    Tick,
    /// A node asks an elector for a lease and gets the answer.
    Renew(u8, u8),
    /// A node asks, and the question takes its time.
    Ask(u8, u8),
    /// It arrives.
    Hear(u8),
    /// The answer arrives.
    Answer(u8),
    /// A node is elected by the nodes of the bitmap.
    Elect(u8, u8),
    /// A leader appends a command.
    Propose(u8, u16),
    /// A leader appends another set of voters.
    Voters(u8, u8),
    /// A leader sends the next entry, and what is committed, to another node.
    Replicate(u8, u8),
    /// A node applies its next committed entry.
    Apply(u8),
    /// A node's filter is switched to a written table.
    Flip(u8),
    /// Packets that went by the table before are done.
    Grace(u8),
    /// An elector tells a leader when what it granted to a node before the fence of an entry runs out.
    Report(u8, u8, u8, u16),
    /// A daemon starts anew, with its disk and its filter.
    Restart(u8),
    /// A machine starts anew, with its disk alone.
    Reboot(u8),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |i: &u8| i + 1;
        match self {
            Self::Tick => write!(f, "tick"),
            Self::Renew(node, e) => write!(f, "n{} asks elector n{} and hears the answer", n(node), n(e)),
            Self::Ask(node, e) => write!(f, "n{} asks elector n{}", n(node), n(e)),
            Self::Hear(node) => write!(f, "the question of n{} arrives", n(node)),
            Self::Answer(node) => write!(f, "the answer to n{} arrives", n(node)),
            Self::Elect(node, by) => write!(f, "n{} is elected by {by:#b}", n(node)),
            Self::Propose(node, _) => write!(f, "n{} proposes", n(node)),
            Self::Voters(node, set) => write!(f, "n{} makes {set:#b} vote", n(node)),
            Self::Replicate(from, to) => write!(f, "n{} replicates to n{}", n(from), n(to)),
            Self::Apply(node) => write!(f, "n{} applies", n(node)),
            Self::Flip(node) => write!(f, "the filter of n{} is switched", n(node)),
            Self::Grace(node) => write!(f, "the grace period of n{} ends", n(node)),
            Self::Report(leader, elector, node, _) => {
                write!(f, "elector n{} reports on n{} to n{}", n(elector), n(node), n(leader))
            }
            Self::Restart(node) => write!(f, "the daemon of n{} restarts", n(node)),
            Self::Reboot(node) => write!(f, "n{} reboots", n(node)),
        }
    }
}
