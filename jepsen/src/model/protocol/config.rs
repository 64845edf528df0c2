//! What a search may do, and how far it goes.

use super::setup::BUCKETS;

/// Something that leaders may want; nodes by position, buckets and sets of nodes as bitmaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Buckets are taken from whoever has them.
    Move(u8, u8),
    /// The same is announced.
    Prepare(u8, u8),
    /// A change is closed.
    Settle(u8),
    /// A Prepare is taken back.
    Cancel(u8),
    /// An epoch that changes nothing: somebody's command, which waits for no other.
    Touch,
    /// The electors change from one set to another.
    Electors(u8, u8),
    /// Such a change is taken back.
    ElectorsCancel,
}

/// One configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name.
    pub name: &'static str,
    /// Members.
    pub nodes: u8,
    /// Who votes: a bitmap.
    pub voters: u8,
    /// How many of the members, from the first, grant leases.
    pub electors: u8,
    /// Who owns which bucket.
    pub owners: [u8; BUCKETS],
    /// The nodes whose leases are followed: a bitmap. The others hold one at any time, which allows more than they can.
    pub leased: u8,
    /// Ticks of a lease.
    pub lease: u8,
    /// Who may lead: a bitmap.
    pub leaders: u8,
    /// What everybody has applied before the search begins, beyond the state that a restarted daemon starts from.
    pub history: &'static [Intent],
    /// Entries of the longest log.
    pub log: u8,
    /// Leaderships in all.
    pub terms: u8,
    /// New leaders append a blank entry.
    pub blank: bool,
    /// Machines that lose their memory, in all.
    pub reboots: u8,
    /// Daemons that are restarted, in all.
    pub restarts: u8,
    /// The nodes to which both happens: a bitmap.
    pub fragile: u8,
    /// The electors to and from which renewals and answers take their time, one of each node: a bitmap. With the others
    /// both are one step.
    pub slow: u8,
    /// A table is written, and its epoch counts only after a grace period.
    pub grace: bool,
    /// What leaders may want.
    pub intents: &'static [Intent],
    /// Who votes later, one after the other.
    pub voter_changes: &'static [u8],
    /// The search ends there.
    pub states: usize,
}

impl Config {
    /// Three nodes that vote and grant leases; the first owns everything.
    pub const THREE: Self = Self {
        name: "three",
        nodes: 3,
        voters: 0b111,
        electors: 3,
        owners: [0, 0],
        leased: 0b001,
        lease: 1,
        leaders: 0b111,
        history: &[],
        log: 3,
        terms: 2,
        blank: false,
        reboots: 0,
        restarts: 0,
        fragile: 0b111,
        slow: 0,
        grace: false,
        intents: &[Intent::Move(1, 1)],
        voter_changes: &[],
        states: 5_000_000,
    };
}
