//! Newtypes for every identity the core handles, so that none can be taken for another.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!($prefix, "{}"), self.0) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
    };
}

number!(
    /// A member of the cluster: its Raft id, the log index of the entry that admitted it, never reused.
    NodeId(u64), "n"
);
number!(
    /// Number of one committed assignment of the whole cluster; only grows.
    Epoch(u64), "e"
);
number!(
    /// Hash class of clients, `0..BUCKETS`.
    Bucket(u16), "b"
);
number!(
    /// Counter of renewals within one incarnation of a daemon.
    Seq(u64), "s"
);
number!(
    /// Version of the rules that the members share.
    FeatureLevel(u32), "f"
);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 epochs are never reached"))
    }
}

/// Identity of the cluster, drawn at `cluster init`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClusterId(pub [u8; 16]);

/// One run of a daemon on a node; a restart draws a new one, so that answers to an older run are dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub [u8; 16]);

/// Grows when a survivor took over without a majority; equal number with another survivor or nonce is a conflict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation {
    /// Grows by one at each take-over.
    pub number: u64,
    /// Who took over.
    pub survivor: NodeId,
    /// Tells two take-overs by the same node apart.
    pub nonce: u64,
}

/// A leadership: a Raft term and who leads in it (a term alone may have had several leaders in openraft).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Leadership {
    /// Raft term.
    pub term: u64,
    /// The leader.
    pub leader: NodeId,
}

/// One entry of the replicated log: evidence names exactly the entry, never only its epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EntryId {
    /// The leadership that appended it.
    pub by: Leadership,
    /// Its index.
    pub index: u64,
}
