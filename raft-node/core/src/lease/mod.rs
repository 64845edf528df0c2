//! Leases: a node's right to accept, granted by a majority of electors (DESIGN §4, L1–L8).
//!
//! [`holder::Holder`] runs on every node, [`elector::Elector`] on every node that may grant. Both belong to the
//! real-time thread; both are plain machines that are told the time.

pub mod elector;
pub mod holder;
pub mod timing;

use crate::id::{Epoch, Generation, Incarnation, NodeId, Seq};
use crate::time::Span;

pub use elector::{AppliedFences, Ask, Elector, Expiry, Heard, Refused};
pub use holder::Holder;
pub use timing::Timing;

/// A node asks to go on accepting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Renewal {
    /// The sender's view of the generation.
    pub generation: Generation,
    /// Who asks.
    pub node: NodeId,
    /// Which run of its daemon.
    pub incarnation: Incarnation,
    /// Number within that run.
    pub seq: Seq,
    /// Epoch its filter works with, after the flip and its grace period.
    pub applied: Epoch,
    /// Whether it held a lease when it sent this. One that asks without ever holding any does not serve: no answer
    /// reaches it, or too few electors do.
    pub leased: bool,
    /// Length of the lease that it asks for.
    pub lease: Span,
}

/// An elector's answer to exactly one renewal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Grant {
    /// The elector's view of the generation.
    pub generation: Generation,
    /// Who grants.
    pub elector: NodeId,
    /// To whom.
    pub node: NodeId,
    /// The run of the renewal that is answered.
    pub incarnation: Incarnation,
    /// The renewal that is answered.
    pub seq: Seq,
    /// Length of the lease, counted from the *sending* of that renewal.
    pub lease: Span,
    /// Highest epoch that the elector has seen applied: a hint for a node that lags.
    pub epoch: Epoch,
}
