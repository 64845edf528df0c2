//! What may go wrong: one vocabulary for every world.

use core::fmt;

use farm_core::time::Span;

pub mod directed;

/// Kinds of messages, which can be cut one by one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Traffic {
    /// Lease datagrams from a node to its electors.
    Renewals,
    /// Lease datagrams from electors to a node.
    Grants,
    /// The log, over TCP.
    Log,
    /// Questions about expiry and their answers, over TCP.
    Questions,
}

impl Traffic {
    /// Everything.
    pub const ALL: &'static [Self] = &[Self::Renewals, Self::Grants, Self::Log, Self::Questions];
    /// Both directions of leases.
    pub const LEASES: &'static [Self] = &[Self::Renewals, Self::Grants];
    /// The log alone.
    pub const LOG: &'static [Self] = &[Self::Log];
    /// Everything over TCP.
    pub const TCP: &'static [Self] = &[Self::Log, Self::Questions];
    /// Renewals alone.
    pub const RENEWALS: &'static [Self] = &[Self::Renewals];
    /// Grants alone.
    pub const GRANTS: &'static [Self] = &[Self::Grants];
}

/// Whom a fault strikes; machines are numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// This machine.
    Machine(usize),
    /// Who leads in the highest term when it strikes.
    Leader,
}

/// Which of a daemon's threads stand still. Its filter and its clock never do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// The whole daemon (SIGSTOP, swapped out).
    All,
    /// The real-time thread.
    Lease,
    /// Everything else.
    Driver,
}

/// One fault. Those with a duration end by themselves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Threads stand still.
    Pause(Target, Threads, Span),
    /// A direction is cut for some traffic.
    Cut {
        /// From here,
        from: Target,
        /// to there.
        to: Target,
        /// What is cut.
        traffic: &'static [Traffic],
        /// For so long.
        lasts: Span,
    },
    /// Nothing gets in or out.
    Isolate(Target, Span),
    /// Machines with different bits do not reach each other.
    Split(u32, Span),
    /// The network loses, doubles and reorders (delays by up to the span) for a while.
    Noise {
        /// Of a hundred messages.
        loss: u8,
        /// Of a hundred messages.
        twice: u8,
        /// Longest extra delay.
        jitter: Span,
        /// For so long.
        lasts: Span,
    },
    /// A direction gets slower for some traffic.
    Slow {
        /// From here,
        from: Target,
        /// to there.
        to: Target,
        /// What gets slower.
        traffic: &'static [Traffic],
        /// By so much.
        extra: Span,
        /// For so long.
        lasts: Span,
    },
    /// The daemon dies (pins survive) and starts again after the span.
    Restart(Target, Span),
    /// The machine dies (pins do not survive) and its daemon starts again after the span.
    Reboot(Target, Span),
    /// A sync of the log takes so long.
    SlowDisk(Target, Span, Span),
    /// The real-time thread takes so long from the order to publish until the flip.
    SlowFlip(Target, Span, Span),
    /// The leader hands over.
    Transfer(Target),
    /// The node writes a snapshot: what it replays from after a restart.
    Snapshot(Target),
    /// Somebody changes a weight.
    Weight(Target, u16),
    /// A daemon is about to be restarted: its filter is to go on under a longer lease.
    BeginRestart(Target),
    /// Its restart is over.
    EndRestart(Target),
    /// Somebody adds or removes a service: an epoch that moves nothing.
    Touch,
    /// A node is told to leave.
    Leave(Target),
    /// A spare machine joins.
    Join(usize),
}

impl Fault {
    /// Whether it is load rather than a fault.
    #[must_use]
    pub fn is_load(&self) -> bool {
        matches!(
            self,
            Self::Weight(..)
                | Self::BeginRestart(_)
                | Self::EndRestart(_)
                | Self::Touch
                | Self::Leave(_)
                | Self::Join(_)
                | Self::Snapshot(_)
        )
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(m) => write!(f, "m{m}"),
            Self::Leader => f.write_str("leader"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(t, threads, s) => write!(f, "pause {threads:?} of {t} for {s:?}"),
            Self::Cut { from, to, traffic, lasts } => {
                write!(f, "cut {from} -> {to} {traffic:?} for {lasts:?}")
            }
            Self::Isolate(t, s) => write!(f, "isolate {t} for {s:?}"),
            Self::Split(mask, s) => write!(f, "split {mask:#b} from the rest for {s:?}"),
            Self::Noise { loss, twice, jitter, lasts } => {
                write!(f, "noise: {loss} % lost, {twice} % twice, up to {jitter:?} late, for {lasts:?}")
            }
            Self::Slow { from, to, traffic, extra, lasts } => {
                write!(f, "slow {from} -> {to} {traffic:?} by {extra:?} for {lasts:?}")
            }
            Self::Restart(t, s) => write!(f, "restart the daemon of {t} after {s:?}"),
            Self::Reboot(t, s) => write!(f, "reboot {t} within {s:?}"),
            Self::SlowDisk(t, by, s) => write!(f, "disk of {t} takes {by:?} for {s:?}"),
            Self::SlowFlip(t, by, s) => write!(f, "flips of {t} take {by:?} for {s:?}"),
            Self::Transfer(t) => write!(f, "the leader hands over to {t}"),
            Self::Snapshot(t) => write!(f, "snapshot at {t}"),
            Self::BeginRestart(t) => write!(f, "the daemon of {t} is about to be restarted"),
            Self::EndRestart(t) => write!(f, "the restart of the daemon of {t} is over"),
            Self::Weight(t, w) => write!(f, "weight of {t} becomes {w}"),
            Self::Touch => f.write_str("a service comes or goes"),
            Self::Leave(t) => write!(f, "{t} is told to leave"),
            Self::Join(m) => write!(f, "m{m} joins"),
        }
    }
}
