//! The shapes of `farmctl --json` and of what a browser is sent. Every object that is printed carries `schema`; every field has the name it has in
//! `farm/v1/*.proto` (a test compares them). Ids and counters are numbers; bytes are lower-case hexadecimal;
//! values of enumerations are the words that the command line takes (`source-address`, `tcp`, `fast`); what the
//! answering node cannot know is `null`.

#![forbid(unsafe_code)]

mod state;

use farm_proto::v1;
use serde::Serialize;

pub use state::{Level, NodeState, Open, State};

/// Buckets of a module: what shares are shares of.
pub const BUCKETS: u32 = 4096;

/// Version of these shapes; grows when a field changes its meaning or goes, not when one comes.
pub const SCHEMA: u32 = 1;

/// An object with the version of its shape in front.
#[derive(Serialize)]
pub struct Stamped<'a, T> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
}

impl<'a, T> Stamped<'a, T> {
    /// `body`, stamped.
    pub fn new(body: &'a T) -> Self {
        Self { schema: SCHEMA, body }
    }
}

/// The word for a value of an enumeration: its protobuf name without the prefix, in lower case with dashes.
macro_rules! words {
    ($($function:ident: $type:ident, $prefix:literal;)+) => { $(
        #[doc = concat!("The word for a [`v1::", stringify!($type), "`].")]
        #[must_use]
        pub fn $function(value: i32) -> String {
            match v1::$type::try_from(value) {
                Ok(known) => word(known.as_str_name(), $prefix),
                Err(_) => format!("unknown-{value}"),
            }
        }
    )+ };
}
words! {
    role: NodeRole, "NODE_ROLE_";
    node_phase: NodePhase, "NODE_PHASE_";
    kind: ModuleKind, "MODULE_KIND_";
    protocol: Protocol, "PROTOCOL_";
    criterion: Criterion, "CRITERION_";
    mode: Mode, "MODE_";
    profile: Profile, "PROFILE_";
    phase: Phase, "PHASE_";
    place: Place, "PLACE_";
    life_status: LifeStatus, "LIFE_STATUS_";
    resource_state: ResourceState, "RESOURCE_STATE_";
    readiness: Readiness, "READINESS_";
    effect: ChangeEffect, "CHANGE_EFFECT_";
    doctor_level: DoctorLevel, "DOCTOR_LEVEL_";
    tie_break_kind: TieBreakKind, "TIE_BREAK_KIND_";
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', "-")
}

/// A link address, as `ip` writes it.
#[must_use]
pub fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A serialisable struct with the fields of a message, and how each is made from the message `$m`.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident($message:ident as $m:ident) { $($field:ident: $type:ty = $value:expr,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Serialize)]
        pub struct $name { $(#[allow(missing_docs)] pub $field: $type,)+ }
        impl From<&v1::$message> for $name {
            fn from($m: &v1::$message) -> Self { Self { $($field: $value,)+ } }
        }
    };
}

fn each<'a, M: 'a, V: From<&'a M>>(messages: &'a [M]) -> Vec<V> {
    messages.iter().map(V::from).collect()
}

view! {
    /// `cluster status`, and each line of `watch`.
    Status(StatusResponse as m) {
        cluster: String = hex(&m.cluster),
        name: String = m.name.clone(),
        generation: Option<Generation> = m.generation.as_ref().map(Into::into),
        epoch: u64 = m.epoch,
        profile: String = profile(m.profile),
        feature_level: u32 = m.feature_level,
        term: u64 = m.term,
        leader: u64 = m.leader,
        answered_by: u64 = m.answered_by,
        commit_index: u64 = m.commit_index,
        nodes: Vec<NodeStatus> = each(&m.nodes),
        modules: Vec<ModuleStatus> = each(&m.modules),
        electors: Vec<u64> = m.electors.clone(),
        voters: Vec<u64> = m.voters.clone(),
        conditions: Vec<Condition> = each(&m.conditions),
        member: bool = m.member,
        tie_break: Option<TieBreak> = m.tie_break.as_ref().map(Into::into),
        contest: String = m.contest.clone(),
    }
}
view! {
    /// What decides when two voters have lost each other.
    TieBreak(TieBreak as m) {
        kind: String = tie_break_kind(m.kind),
        routers: Vec<Router> = each(&m.routers),
        address: String = m.address.clone(),
        rehearsed: Option<Rehearsal> = m.rehearsed.as_ref().map(Into::into),
    }
}
view! {
    /// A router that is asked.
    Router(Router as m) {
        ip: String = m.ip.clone(),
        mac: String = mac(&m.mac),
    }
}
view! {
    /// What a trial came to; without failure it would decide.
    Rehearsal(Rehearsal as m) {
        at_ms: u64 = m.at_ms,
        nodes: Vec<u64> = m.nodes.clone(),
        profile: String = profile(m.profile),
        failure: String = m.failure.clone(),
    }
}
view! {
    /// What is set, and tried.
    TieBreakSet(TieBreakResponse as m) {
        tie_break: Option<TieBreak> = m.tie_break.as_ref().map(Into::into),
    }
}
view! {
    /// Generation of the cluster.
    Generation(Generation as m) {
        number: u64 = m.number,
        survivor: u64 = m.survivor,
        // 64 random bits: more than a JSON number holds everywhere.
        nonce: String = format!("{:016x}", m.nonce),
    }
}
view! {
    /// A node and what the answering daemon knows of it.
    NodeStatus(NodeStatus as m) {
        node: Option<Node> = m.node.as_ref().map(Into::into),
        heard: bool = m.heard,
        applied: u64 = m.applied,
        voter: bool = m.voter,
        lease_left_ms: u64 = m.lease_left_ms,
        lease_known: bool = m.lease_known,
        filter_ok: Option<bool> = m.filter_ok,
        silent_ms: u64 = m.silent_ms,
        maintenance: Option<Maintenance> = m.maintenance.as_ref().map(Into::into),
        buckets: u32 = m.buckets,
        buckets_draining: u32 = m.buckets_draining,
        sockets_draining: Option<u64> = m.sockets_draining,
        feature_level: u32 = m.feature_level,
        version: String = m.version.clone(),
        run: String = hex(&m.run),
        restarting: bool = m.restarting,
    }
}
view! {
    /// A server that is kept free of clients.
    Maintenance(Maintenance as m) {
        node: u64 = m.node,
        since_ms: u64 = m.since_ms,
        until_ms: Option<u64> = m.until_ms,
        reason: String = m.reason.clone(),
    }
}
view! {
    /// A member.
    Node(Node as m) {
        id: u64 = m.id,
        name: String = m.name.clone(),
        role: String = role(m.role),
        phase: String = node_phase(m.phase),
        addresses: Vec<Address> = each(&m.addresses),
        links: Vec<Link> = each(&m.links),
        peer_port: u32 = m.peer_port,
        lease_port: u32 = m.lease_port,
        api_port: u32 = m.api_port,
        room: String = m.room.clone(),
    }
}
view! {
    /// An address of a node on one network.
    Address(Address as m) { network: String = m.network.clone(), ip: String = m.ip.clone(), }
}
view! {
    /// An interface that may carry virtual IPs.
    Link(Link as m) {
        name: String = m.name.clone(),
        mac: String = hex(&m.mac),
        addresses: Vec<String> = m.addresses.clone(),
        vlan: String = m.vlan.clone(),
    }
}
view! {
    /// A module and who serves which share of it.
    ModuleStatus(ModuleStatus as m) {
        module: Option<Module> = m.module.as_ref().map(Into::into),
        shares: Vec<Share> = each(&m.shares),
        open_changes: u32 = m.open_changes,
        sockets_draining: Option<u64> = m.sockets_draining,
        lives: Vec<ModuleLife> = each(&m.lives),
    }
}
view! {
    /// The application of a module on a node.
    ModuleLife(ModuleLife as m) {
        module: String = m.module.clone(),
        node: u64 = m.node,
        place: String = place(m.place),
        status: String = life_status(m.status),
        since_ms: u64 = m.since_ms,
        cause: String = m.cause.clone(),
        loops: u32 = m.loops,
        resources: Vec<Resource> = each(&m.resources),
        wanted: bool = m.wanted,
        revision: u64 = m.revision,
        failed: bool = m.failed,
        busy: bool = m.busy,
    }
}
view! {
    /// What a module depends on.
    Resource(Resource as m) {
        name: String = m.name.clone(),
        state: String = resource_state(m.state),
        since_ms: u64 = m.since_ms,
        detail: String = m.detail.clone(),
        action: String = m.action.clone(),
        off: bool = m.off,
        off_until_ms: u64 = m.off_until_ms,
        history: Vec<ResourceChange> = each(&m.history),
    }
}
view! {
    /// A change of such a thing.
    ResourceChange(ResourceChange as m) {
        at_ms: u64 = m.at_ms,
        to: String = resource_state(m.to),
        why: String = m.why.clone(),
    }
}
view! {
    /// What a module was made from.
    ModuleDefinition(ModuleDefinition as m) {
        revisions: Vec<Revision> = each(&m.revisions),
        application: bool = m.application,
        readiness: Vec<NodeReadiness> = each(&m.readiness),
        born: u64 = m.born,
    }
}
view! {
    /// One definition that is kept; its files are for `module export`.
    Revision(Revision as m) { number: u64 = m.number, }
}
view! {
    /// Whether clients may come to a node.
    NodeReadiness(NodeReadiness as m) { node: u64 = m.node, readiness: String = readiness(m.readiness), }
}
view! {
    /// `module apply`, `module rollback`.
    ModuleApplied(ModuleApplyResponse as m) {
        revision: u64 = m.revision,
        changes: Vec<ModuleChange> = each(&m.changes),
        findings: Vec<Finding> = each(&m.findings),
        epoch: u64 = m.epoch,
        index: u64 = m.index,
    }
}
view! {
    /// A difference to what there was.
    ModuleChange(ModuleChange as m) { text: String = m.text.clone(), effect: String = effect(m.effect), }
}
view! {
    /// What is wrong with a definition.
    Finding(Finding as m) {
        file: String = m.file.clone(),
        line: Option<u32> = m.line,
        fact: String = m.fact.clone(),
        remedy: String = m.remedy.clone(),
    }
}
view! {
    /// `module start` and its like.
    ModuleControlled(ModuleControlResponse as m) { nodes: Vec<NodeControlled> = each(&m.nodes), }
}
view! {
    /// What a node answered.
    NodeControlled(ModuleControlled as m) {
        node: u64 = m.node,
        name: String = m.name.clone(),
        failed: String = m.failed.clone(),
    }
}
view! {
    /// `module new`, `module export`: the files that were written.
    ModuleFiles(ModuleFiles as m) {
        module: String = m.module.clone(),
        revision: u64 = m.revision,
        files: Vec<ModuleFile> = each(&m.files),
    }
}
view! {
    /// One of them.
    ModuleFile(ModuleFile as m) { path: String = m.path.clone(), executable: bool = m.executable, }
}
view! {
    /// `module applog`.
    ModuleLogLines(ModuleLogLines as m) {
        lines: Vec<String> = m.lines.clone(),
        file: u64 = m.file,
        offset: u64 = m.offset,
    }
}
view! {
    /// `script incloop`, `script checkloop`.
    ScriptResponse(ScriptResponse as m) { limit_reached: bool = m.limit_reached, loops: u32 = m.loops, }
}
view! {
    /// A module. Who owns which bucket is not for clients: `shares` says how many.
    Module(Module as m) {
        name: String = m.name.clone(),
        kind: String = kind(m.kind),
        vips: Vec<VirtualIp> = each(&m.vips),
        services: Vec<Service> = each(&m.services),
        weights: Vec<NodeWeight> = each(&m.weights),
        slot: u32 = m.slot,
        drain_ms: Option<u64> = m.drain_ms,
        definition: Option<ModuleDefinition> = m.definition.as_ref().map(Into::into),
    }
}
view! {
    /// A virtual IP.
    VirtualIp(VirtualIp as m) {
        ip: String = m.ip.clone(),
        mode: String = mode(m.mode),
        vlan: String = m.vlan.clone(),
    }
}
view! {
    /// A service.
    Service(Service as m) {
        vip: String = m.vip.clone(),
        protocol: String = protocol(m.protocol),
        port: u32 = m.port,
        criterion: String = criterion(m.criterion),
        vlan: String = m.vlan.clone(),
    }
}
view! {
    /// A weight that was set.
    NodeWeight(NodeWeight as m) { node: u64 = m.node, weight: u32 = m.weight, }
}
view! {
    /// What a node owns of a module.
    Share(Share as m) { node: u64 = m.node, buckets: u32 = m.buckets, weight: u32 = m.weight, }
}
view! {
    /// A state that is not green.
    Condition(Condition as m) {
        code: String = m.code.clone(),
        resource: String = m.resource.clone(),
        since_ms: u64 = m.since_ms,
        cause: String = m.cause.clone(),
        next: String = m.next.clone(),
        passing: bool = m.passing,
    }
}
view! {
    /// `notify test`.
    NotifyTest(NotifyTestResponse as m) { ways: Vec<NotifyWay> = each(&m.ways), }
}
view! {
    /// What came of it in one way.
    NotifyWay(NotifyWay as m) { way: String = m.way.clone(), failed: String = m.failed.clone(), }
}
view! {
    /// `why`.
    Why(WhyResponse as m) {
        lines: Vec<String> = m.lines.clone(),
        next: String = m.next.clone(),
        events: Vec<Event> = each(&m.events),
        silent: Vec<String> = m.silent.clone(),
    }
}
view! {
    /// `doctor`, the worst first.
    Doctor(DoctorResponse as m) {
        findings: Vec<DoctorFinding> = each(&m.findings),
    }
}
view! {
    /// What losses would do.
    ClusterCheck(ClusterCheckResponse as m) {
        losses: Vec<Loss> = each(&m.losses),
        notes: Vec<String> = m.notes.clone(),
    }
}
view! {
    /// A node, or all nodes of a room. No reasons: the service goes on.
    Loss(Loss as m) {
        node: String = m.node.clone(),
        room: String = m.room.clone(),
        gone: bool = m.gone,
        reasons: Vec<String> = m.reasons.clone(),
        cure: String = m.cure.clone(),
    }
}
view! {
    /// What was found, and what mends it.
    DoctorFinding(DoctorFinding as m) {
        check: String = m.check.clone(),
        level: String = doctor_level(m.level),
        node: String = m.node.clone(),
        resource: String = m.resource.clone(),
        fact: String = m.fact.clone(),
        remedy: String = m.remedy.clone(),
    }
}
view! {
    /// `explain`.
    Explain(ExplainResponse as m) {
        module: String = m.module.clone(),
        bucket: u32 = m.bucket,
        owner: u64 = m.owner,
        previous: u64 = m.previous,
        phase: String = phase(m.phase),
        epoch: u64 = m.epoch,
        decided: Option<String> = m.decided.clone(),
        program: Option<String> = m.program.clone(),
        agree: Option<bool> = m.agree,
        why: String = m.why.clone(),
        answered_by: u64 = m.answered_by,
    }
}
view! {
    /// `node counters`.
    Counters(CountersResponse as m) {
        answered_by: u64 = m.answered_by,
        attached: bool = m.attached,
        counters: Vec<Counter> = each(&m.counters),
    }
}
view! {
    /// One reason, and how many frames had it.
    Counter(Counter as m) {
        verdict: String = m.verdict.clone(),
        reason: String = m.reason.clone(),
        meaning: String = m.meaning.clone(),
        packets: u64 = m.packets,
    }
}
view! {
    /// Each line of `events`.
    Event(Event as m) {
        id: String = m.id.clone(),
        time_unix_ms: u64 = m.time_unix_ms,
        node: u64 = m.node,
        kind: String = m.kind.clone(),
        text: String = m.text.clone(),
        cause: String = m.cause.clone(),
        index: u64 = m.index,
        epoch: u64 = m.epoch,
        resource: String = m.resource.clone(),
        clock_ahead_ms: i64 = m.clock_ahead_ms,
    }
}
view! {
    /// `cluster init`.
    Init(InitResponse as m) {
        cluster: String = hex(&m.cluster),
        node: u64 = m.node,
        profile: String = profile(m.profile),
        reasons: Vec<String> = m.reasons.clone(),
    }
}
view! {
    /// `node join`.
    Join(JoinClusterResponse as m) {
        node: u64 = m.node,
        cluster: String = hex(&m.cluster),
        name: String = m.name.clone(),
    }
}
view! {
    /// Every other change: the epoch after it.
    Done(Done as m) { epoch: u64 = m.epoch, index: u64 = m.index, }
}

/// `node list`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Nodes {
    /// As in `cluster status`.
    pub nodes: Vec<NodeStatus>,
}

/// `module list`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Modules {
    /// As in `cluster status`.
    pub modules: Vec<ModuleStatus>,
}

/// `service list`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Services {
    /// One per virtual IP, protocol and port.
    pub services: Vec<ServiceRow>,
}

/// A service with what its module adds to it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ServiceRow {
    /// Its module.
    pub module: String,
    /// The service.
    #[serde(flatten)]
    pub service: Service,
    /// Delivery mode of its virtual IP.
    pub mode: String,
}

impl From<&v1::StatusResponse> for Services {
    fn from(status: &v1::StatusResponse) -> Self {
        let modules = status.modules.iter().filter_map(|m| m.module.as_ref());
        Self { services: modules.flat_map(rows).collect() }
    }
}

/// What the page is sent: `cluster status`, and what is made of it once for all who show it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Live {
    /// The status.
    #[serde(flatten)]
    pub status: Status,
    /// Each node, in words.
    pub states: Vec<NodeState>,
    /// What is not green.
    pub open: Vec<Open>,
    /// Buckets of a module.
    pub buckets: u32,
}

impl From<&v1::StatusResponse> for Live {
    fn from(status: &v1::StatusResponse) -> Self {
        let (states, open) = (NodeState::all(status), Open::all(status));
        Self { status: status.into(), states, open, buckets: BUCKETS }
    }
}

/// The virtual IP of a service of `module`.
#[must_use]
pub fn vip_of<'a>(module: &'a v1::Module, service: &v1::Service) -> Option<&'a v1::VirtualIp> {
    module.vips.iter().find(|vip| (&vip.ip, &vip.vlan) == (&service.vip, &service.vlan))
}

fn rows(module: &v1::Module) -> impl Iterator<Item = ServiceRow> + '_ {
    module.services.iter().map(|service| ServiceRow {
        module: module.name.clone(),
        service: service.into(),
        mode: mode(vip_of(module, service).map_or(0, |v| v.mode)),
    })
}
