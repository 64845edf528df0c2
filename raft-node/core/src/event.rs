//! What happened, in the words that CLI, log, console and mail all show.

use crate::id::{EntryId, Epoch, FeatureLevel, NodeId};
use crate::model::{Mode, ModuleName, Profile, Protocol, VirtualIp, Weight};
use crate::tiebreak::TieBreak;
use crate::time::{Span, UnixTime};

/// Something that happened by an entry of the log. Every member sees the same events in the same order; the id of
/// an event is its entry's index and its position in that entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// The entry whose event made this one happen, if it was not a person.
    pub cause: Option<EntryId>,
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "each variant is spelt out by `text`")]
pub enum Kind {
    ClusterFounded { name: String },
    ClusterRenamed { name: String },
    NodeJoined { node: NodeId, name: String },
    NodeUpdated { name: String },
    NodeAway { name: String },
    NodeBack { name: String },
    NodeLeaving { name: String },
    NodeRemoved { node: NodeId, name: String },
    NodeOverruled { name: String },
    TakenOver { name: String, overruled: Vec<String>, generation: u64 },
    ModuleCreated { module: ModuleName },
    ModuleApplied { module: ModuleName, revision: u64 },
    ModuleOpened { module: ModuleName, name: String },
    ModuleClosing { module: ModuleName, name: String },
    ModuleClosed { module: ModuleName, name: String },
    ModuleRemoved { module: ModuleName },
    ServiceAdded { module: ModuleName, vip: VirtualIp, protocol: Protocol, port: u16, mode: Mode },
    ServiceRemoved { module: ModuleName, vip: VirtualIp, protocol: Protocol, port: u16 },
    WeightSet { module: ModuleName, name: String, weight: Weight },
    DrainSet { module: ModuleName, limit: Span },
    MaintenanceOn { name: String, until: Option<UnixTime>, reason: String },
    MaintenanceOff { name: String, due: bool },
    RestartBegun { name: String },
    RestartEnded { name: String },
    TieBreakSet { to: Option<TieBreak> },
    TieBreakRehearsed { failure: String },
    ProfileSet { profile: Profile },
    LevelFinalized { level: FeatureLevel },
    Assigned { module: ModuleName, buckets: usize },
    Prepared { module: ModuleName, buckets: usize, epoch: Epoch },
    Moved { losers: Vec<String>, buckets: usize, epoch: Epoch },
    Activated { buckets: usize, epoch: Epoch },
    Settled { buckets: usize, epoch: Epoch },
    Cancelled { buckets: usize, epoch: Epoch },
    ElectorsJoint { from: Vec<String>, to: Vec<String> },
    ElectorsSealed,
    ElectorsChanged { electors: Vec<String> },
    ElectorsKept { electors: Vec<String> },
}

impl Kind {
    /// Stable code for scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ClusterFounded { .. } => "cluster_founded",
            Self::ClusterRenamed { .. } => "cluster_renamed",
            Self::NodeJoined { .. } => "node_joined",
            Self::NodeUpdated { .. } => "node_updated",
            Self::NodeAway { .. } => "node_away",
            Self::NodeBack { .. } => "node_back",
            Self::NodeLeaving { .. } => "node_leaving",
            Self::NodeRemoved { .. } => "node_removed",
            Self::NodeOverruled { .. } => "node_overruled",
            Self::TakenOver { .. } => "taken_over",
            Self::ModuleCreated { .. } => "module_created",
            Self::ModuleApplied { .. } => "module_applied",
            Self::ModuleOpened { .. } => "module_opened",
            Self::ModuleClosing { .. } => "module_closing",
            Self::ModuleClosed { .. } => "module_closed",
            Self::ModuleRemoved { .. } => "module_removed",
            Self::ServiceAdded { .. } => "service_added",
            Self::ServiceRemoved { .. } => "service_removed",
            Self::WeightSet { .. } => "weight_set",
            Self::DrainSet { .. } => "drain_set",
            Self::MaintenanceOn { .. } => "maintenance_on",
            Self::MaintenanceOff { .. } => "maintenance_off",
            Self::RestartBegun { .. } => "restart_begun",
            Self::RestartEnded { .. } => "restart_ended",
            Self::TieBreakSet { .. } => "tie_break_set",
            Self::TieBreakRehearsed { .. } => "tie_break_rehearsed",
            Self::ProfileSet { .. } => "profile_set",
            Self::LevelFinalized { .. } => "level_finalized",
            Self::Assigned { .. } => "buckets_assigned",
            Self::Prepared { .. } => "buckets_prepared",
            Self::Moved { .. } => "buckets_moved",
            Self::Activated { .. } => "buckets_activated",
            Self::Settled { .. } => "buckets_settled",
            Self::Cancelled { .. } => "buckets_kept",
            Self::ElectorsJoint { .. } => "electors_joint",
            Self::ElectorsSealed => "electors_sealed",
            Self::ElectorsChanged { .. } => "electors_changed",
            Self::ElectorsKept { .. } => "electors_kept",
        }
    }

    /// What it is about: `cluster`, `electors`, a node or a module by name.
    #[must_use]
    pub fn resource(&self) -> String {
        match self {
            Self::ClusterFounded { .. }
            | Self::ClusterRenamed { .. }
            | Self::ProfileSet { .. }
            | Self::TieBreakSet { .. }
            | Self::TieBreakRehearsed { .. }
            | Self::TakenOver { .. }
            | Self::LevelFinalized { .. } => "cluster".into(),
            Self::NodeJoined { name, .. }
            | Self::NodeUpdated { name }
            | Self::NodeAway { name }
            | Self::NodeBack { name }
            | Self::NodeLeaving { name }
            | Self::NodeOverruled { name }
            | Self::RestartBegun { name }
            | Self::RestartEnded { name }
            | Self::MaintenanceOn { name, .. }
            | Self::MaintenanceOff { name, .. }
            | Self::NodeRemoved { name, .. } => name.clone(),
            Self::ModuleCreated { module }
            | Self::ModuleApplied { module, .. }
            | Self::ModuleOpened { module, .. }
            | Self::ModuleClosing { module, .. }
            | Self::ModuleClosed { module, .. }
            | Self::ModuleRemoved { module }
            | Self::ServiceAdded { module, .. }
            | Self::ServiceRemoved { module, .. }
            | Self::WeightSet { module, .. }
            | Self::DrainSet { module, .. }
            | Self::Assigned { module, .. }
            | Self::Prepared { module, .. } => module.0.clone(),
            Self::Moved { losers, .. } => losers.join(","),
            Self::Activated { .. } | Self::Settled { .. } | Self::Cancelled { .. } => "buckets".into(),
            Self::ElectorsJoint { .. }
            | Self::ElectorsSealed
            | Self::ElectorsChanged { .. }
            | Self::ElectorsKept { .. } => "electors".into(),
        }
    }

    /// The sentence.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::ClusterRenamed { name } => format!("the cluster is called {name}"),
            Self::ClusterFounded { name } => format!("cluster {name} was founded"),
            Self::NodeJoined { node, name } => format!("{name} joined as node {node}"),
            Self::NodeUpdated { name } => format!("{name} has new addresses or links"),
            Self::NodeAway { name } => format!("{name} goes away for a while"),
            Self::NodeBack { name } => format!("{name} is back"),
            Self::NodeLeaving { name } => format!("{name} leaves: its buckets are handed over"),
            Self::NodeRemoved { name, node } => format!("{name} (node {node}) is no longer a member"),
            Self::NodeOverruled { name } => format!("{name} is overruled: it lost its store, and joins anew"),
            Self::TakenOver { name, overruled, generation } => went_on(name, overruled, *generation),
            Self::ModuleCreated { module } => format!("module {module} was created"),
            Self::ModuleApplied { module, revision } => {
                format!("module {module} is what revision {revision} says")
            }
            Self::ModuleOpened { module, name } => format!("{module} is up on {name}: clients may come"),
            Self::ModuleClosing { module, name } => {
                format!("{module} is about to stop on {name}: its clients go elsewhere")
            }
            Self::ModuleClosed { module, name } => format!("{module} serves nobody on {name}"),
            Self::ModuleRemoved { module } => format!("module {module} and its services were removed"),
            Self::ServiceAdded { module, vip, protocol, port, mode } => {
                comes(module, vip, (*protocol, *port), *mode)
            }
            Self::ServiceRemoved { module, vip, protocol, port } => gone(module, vip, *protocol, *port),
            Self::WeightSet { module, name, weight } => {
                format!("weight of {name} for {module} is {}", weight.0)
            }
            Self::DrainSet { module, limit } => {
                format!("connections of {module} may stay with their previous node for {limit}")
            }
            Self::MaintenanceOn { name, until, reason } => {
                format!("{name} goes into maintenance{}", maintenance_text(*until, reason))
            }
            Self::MaintenanceOff { name, due } => {
                format!("the maintenance of {name} {}", if *due { "ended as planned" } else { "was ended" })
            }
            Self::RestartBegun { name } => format!("the daemon of {name} restarts; its filter goes on"),
            Self::RestartEnded { name } => format!("the restart of the daemon of {name} is over"),
            Self::TieBreakSet { to } => tie_break(to.as_ref()),
            Self::TieBreakRehearsed { failure } => rehearsed(failure),
            Self::ProfileSet { profile } => format!("timing profile is {}", profile_name(*profile)),
            Self::LevelFinalized { level } => format!("members use feature level {level}"),
            Self::Assigned { module, buckets } => {
                format!("{buckets} buckets of {module} got their first owners")
            }
            Self::Prepared { module, buckets, epoch } => {
                format!("{buckets} buckets of {module} are about to move (epoch {epoch})")
            }
            Self::Moved { losers, buckets, epoch } => {
                format!("{} lost {buckets} buckets (epoch {epoch})", losers.join(", "))
            }
            Self::Activated { buckets, epoch } => {
                format!("new owners accept for {buckets} buckets (epoch {epoch})")
            }
            Self::Settled { buckets, epoch } => format!("{buckets} buckets are settled (epoch {epoch})"),
            Self::Cancelled { buckets, epoch } => {
                format!("{buckets} buckets stay where they are (epoch {epoch})")
            }
            Self::ElectorsJoint { from, to } => {
                format!("electors change from {} to {}", from.join(", "), to.join(", "))
            }
            Self::ElectorsSealed => "the change of electors is sealed".into(),
            Self::ElectorsChanged { electors } => format!("electors are {}", electors.join(", ")),
            Self::ElectorsKept { electors } => {
                format!("electors stay {}: of the new ones no majority is heard", electors.join(", "))
            }
        }
    }
}

/// Of a service.
fn comes(module: &ModuleName, vip: &VirtualIp, at: (Protocol, u16), mode: Mode) -> String {
    let (protocol, mode) = (protocol_name(at.0), mode_name(mode));
    format!("{module} serves {vip} {protocol} port {} ({mode} delivery)", at.1)
}

/// Of a service.
fn gone(module: &ModuleName, vip: &VirtualIp, protocol: Protocol, port: u16) -> String {
    format!("{module} no longer serves {vip} {} port {port}", protocol_name(protocol))
}

/// Of a survivor.
fn went_on(name: &str, overruled: &[String], generation: u64) -> String {
    format!("{name} goes on without {}: generation {generation} has begun", overruled.join(" and "))
}

fn tie_break(to: Option<&TieBreak>) -> String {
    let Some(to) = to else { return "nothing decides any more when two voters lose each other".into() };
    let routers: Vec<String> = to.routers.keys().map(ToString::to_string).collect();
    let how = to.address.map_or("answers".to_owned(), |address| format!("answers {address}"));
    format!("when two voters lose each other, the one goes on that {} {how}", routers.join(", "))
}

fn rehearsed(failure: &str) -> String {
    if failure.is_empty() {
        return "the tie-break was rehearsed: routers answer only the last one that claimed the address"
            .into();
    }
    format!("the tie-break was rehearsed and would not decide: {failure}")
}

/// Until when and why, as it follows "in maintenance".
#[must_use]
pub fn maintenance_text(until: Option<UnixTime>, reason: &str) -> String {
    let until = until.map(|u| format!(" until {u}")).unwrap_or_default();
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    until + &reason
}

/// Name of a protocol in commands and texts.
#[must_use]
pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Name of a delivery mode in commands and texts.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Directed => "directed",
        Mode::Flood => "flood",
    }
}

/// Name of a profile in commands and texts.
#[must_use]
pub const fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Fast => "fast",
        Profile::Standard => "standard",
        Profile::Virtual => "virtual",
    }
}
