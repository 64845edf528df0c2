//! What the numbers are made from, read at once: nothing here asks another node, the lease thread or a disk.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use farm_core::id::NodeId;
use farm_core::model::{Module, ModuleName, Phase};
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;
use farm_proto::v1;

use crate::api::{counters, status};
use crate::http::ready;
use crate::member::Member;
use crate::modules::Of;
use crate::node::Spread;
use crate::tally::Tally;

/// This node at one moment.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Its name, or none before it is a member.
    pub node: String,
    /// What a member knows.
    pub seen: Option<Seen>,
}

/// What a member knows of itself, and of the cluster.
#[derive(Debug)]
pub(super) struct Seen {
    /// The filter's counters; none without a filter.
    pub packets: Vec<v1::Counter>,
    /// Whether a filter is attached.
    pub attached: bool,
    /// Whether filter and guard are in place, or not needed.
    pub sound: bool,
    /// The lease.
    pub lease: Lease,
    /// Epoch of the state, and of the filter.
    pub epochs: (u64, u64),
    /// All modules.
    pub modules: Vec<Part>,
    /// Applications on this node.
    pub lives: Vec<v1::ModuleLife>,
    /// Runs of scripts on this node.
    pub runs: Vec<(Of, Tally)>,
    /// From the request to append to the log until it was durable.
    pub flushes: Tally,
    /// Raft.
    pub raft: Raft,
    /// How many states are not green, by code and whether they end by themselves.
    pub conditions: BTreeMap<(String, bool), u64>,
}

/// This node's lease.
#[derive(Debug)]
pub(super) struct Lease {
    /// Until it runs out, in seconds.
    pub left: f64,
    /// What was left each time it was extended.
    pub margins: Tally,
    /// How often electors granted it.
    pub grants: u64,
    /// How often it had run out when it was granted.
    pub lapses: u64,
    /// Datagrams that were refused.
    pub refused: u64,
}

/// This node's part of a module.
#[derive(Debug)]
pub(super) struct Part {
    /// Its name.
    pub module: String,
    /// Buckets that it owns, or is to own when the open change is done.
    pub owned: usize,
    /// Buckets that it has lost, and whose connections it may still have.
    pub leaving: usize,
    /// Buckets, of any node, whose change is open.
    pub open: usize,
    /// Buckets that nobody owns: their clients are served by nobody.
    pub unowned: usize,
    /// Connections that are to leave this node.
    pub draining: u64,
    /// Connections in the buckets that it owns; none before they were counted.
    pub spread: Option<Spread>,
    /// Whether it accepts clients.
    pub ready: bool,
}

/// Raft as this node knows it.
#[derive(Debug)]
pub(super) struct Raft {
    /// Highest term seen.
    pub term: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Id of the leader; 0 for none.
    pub leader: u64,
    /// Whether this node leads.
    pub leads: bool,
    /// Whether this node votes.
    pub votes: bool,
}

impl Sample {
    /// Reads everything.
    pub(super) fn of(member: Option<&Member>) -> Self {
        let node = member.map(|m| m.config.name.clone()).unwrap_or_default();
        Self { node, seen: member.map(Seen::of) }
    }
}

impl Seen {
    fn of(member: &Member) -> Self {
        let snapshot = member.snapshot();
        let (state, look, role) = (&snapshot.state, member.look_here(), member.role());
        // What cannot be read now is missing from this answer, as it is from `node counters`.
        let packets = counters::of(&member.host).ok().flatten().unwrap_or_default();
        let mut conditions = BTreeMap::new();
        for condition in member.conditions().into_iter().chain(status::applications(state, look.lives.iter()))
        {
            *conditions.entry((condition.code, condition.passing)).or_default() += 1;
        }
        Self {
            packets,
            attached: member.host.attached(),
            sound: member.host.sound(),
            lease: Lease::of(member),
            epochs: (state.epoch.0, look.applied),
            modules: state.modules.iter().map(|(name, m)| Part::of(member, name, m, &look)).collect(),
            lives: look.lives.clone(),
            runs: member.modules.runs.read(),
            flushes: member.flushes.read(),
            raft: Raft {
                term: role.term,
                applied: snapshot.last_applied.index,
                leader: role.leader.map_or(0, |leader| leader.0),
                leads: role.leader == Some(member.me),
                votes: role.voters.contains(&member.me),
            },
            conditions,
        }
    }
}

impl Lease {
    fn of(member: &Member) -> Self {
        let readings = &member.lease.readings;
        let left = BootTime(member.lease.deadline()).since(BootTime(boot_now()));
        Self {
            left: std::time::Duration::from_nanos(left.0).as_secs_f64(),
            margins: readings.margins.read(),
            grants: readings.grants.load(Ordering::Relaxed),
            lapses: readings.lapses.load(Ordering::Relaxed),
            refused: readings.refused.load(Ordering::Relaxed),
        }
    }
}

impl Part {
    fn of(member: &Member, name: &ModuleName, module: &Module, look: &v1::LookResponse) -> Self {
        let mine = |node: Option<NodeId>| node == Some(member.me);
        let draining = look.draining.iter().find(|sockets| sockets.module == name.0);
        Self {
            module: name.0.clone(),
            owned: module.assignment.iter().filter(|b| mine(b.current)).count(),
            leaving: module.assignment.iter().filter(|b| mine(b.previous)).count(),
            open: module.assignment.iter().filter(|b| b.phase != Phase::Stable).count(),
            unowned: module.assignment.iter().filter(|b| b.current.is_none()).count(),
            draining: draining.map_or(0, |sockets| sockets.sockets),
            spread: member.spread(name),
            ready: ready::serves(member, name).is_ok(),
        }
    }
}
