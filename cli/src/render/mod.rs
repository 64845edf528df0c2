//! What people read: plain aligned text. Colour only repeats what a word says, and whatever is not green ends
//! with what to do next.

mod changes;
mod counters;
mod explain;
pub mod live;
mod losses;
mod module;
mod screen;
mod state;
mod status;
mod table;
mod tiebreak;

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use farm_proto::v1;

pub use changes::changes;
pub use counters::counters;
pub use explain::explain;
pub use losses::losses;
pub use module::{applied, controlled, life, module, module_list};
pub use screen::screen;
pub use status::{node_list, status};
pub use tiebreak::tie_break;

use crate::view::{self, BUCKETS};

/// By how many ms a clock may be off before that is said.
const CLOCK_OFF: u64 = 1_000;

/// Names of the nodes by id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names(BTreeMap<u64, String>);

impl Names {
    /// The names in a status.
    #[must_use]
    pub fn of(status: &v1::StatusResponse) -> Self {
        let nodes = status.nodes.iter().filter_map(|n| n.node.as_ref());
        Self(nodes.map(|n| (n.id, n.name.clone())).collect())
    }

    /// What to call a node; id 0 is nobody.
    #[must_use]
    pub fn name(&self, id: u64) -> String {
        match (id, self.0.get(&id)) {
            (0, _) => "nobody".into(),
            (_, Some(name)) => name.clone(),
            (_, None) => format!("node {id}"),
        }
    }
}

/// A service as people write it: `10.0.0.100:80/tcp`, `10.0.0.100:80/tcp vlan 30`.
#[must_use]
pub fn service(service: &v1::Service) -> String {
    at(&view::Service::from(service))
}

fn at(service: &view::Service) -> String {
    let view::Service { vip, port, protocol, vlan, .. } = service;
    let ip = if vip.contains(':') { format!("[{vip}]") } else { vip.clone() };
    format!("{ip}:{port}/{protocol}{}", in_vlan(vlan))
}

/// ` vlan 30`; nothing without one.
#[must_use]
pub fn in_vlan(vlan: &str) -> String {
    if vlan.is_empty() { String::new() } else { format!(" vlan {vlan}") }
}

/// The services as a table.
#[must_use]
pub fn services(status: &v1::StatusResponse, list: &view::Services) -> String {
    if !status.member {
        return NO_CLUSTER.into();
    }
    if list.services.is_empty() {
        return NO_SERVICE.into();
    }
    let mut table = table::Table::new(&["MODULE", "SERVICE", "CRITERION", "MODE"]);
    for row in &list.services {
        let at = at(&row.service);
        table.row([&row.module, &at, &row.service.criterion, &row.mode].map(|t| table::Text::plain(t)));
    }
    table.draw(false)
}

/// What a daemon without a cluster is told to do.
const NO_CLUSTER: &str = "\
This node belongs to no cluster yet. On the first node found one:
  next: farmctl cluster init
On every other node join it:
  next: farmctl node join PEER
";

/// What to say when there is no service.
const NO_SERVICE: &str = "No service yet.\n  next: farmctl service add --help\n";

/// The answer to `cluster init`.
#[must_use]
pub fn init(name: &str, answer: &v1::InitResponse) -> String {
    let reasons: String = answer.reasons.iter().map(|r| format!("  because {r}\n")).collect();
    format!(
        "cluster {name} is founded ({}); this node is node {}\nprofile {}\n{reasons}On every other node join it:\n  next: farmctl node join PEER\n",
        view::hex(&answer.cluster),
        answer.node,
        view::profile(answer.profile)
    )
}

/// The answer to `node join`.
#[must_use]
pub fn join(answer: &v1::JoinClusterResponse) -> String {
    let v1::JoinClusterResponse { node, cluster, name } = answer;
    format!(
        "this node is node {node} of cluster {name} ({})\n  next: farmctl cluster status\n",
        view::hex(cluster)
    )
}

/// One event on one line.
#[must_use]
pub fn event(event: &v1::Event, names: &Names) -> String {
    let time = time(event.time_unix_ms);
    let cause = if event.cause.is_empty() { String::new() } else { format!(" <- {}", event.cause) };
    let (who, v1::Event { id, kind, text, .. }) = (who(event, names), event);
    format!("{time} {who} {kind}: {text} [{id}{cause}]")
}

/// One event of a module, for who reads what happened to it.
#[must_use]
pub fn happened(event: &v1::Event, names: &Names) -> String {
    format!("{} {} {}", time(event.time_unix_ms), who(event, names), event.text)
}

/// The node, and how wrong its clock is, where that is worth a word.
fn who(event: &v1::Event, names: &Names) -> String {
    let (name, ahead) = (names.name(event.node), event.clock_ahead_ms);
    if ahead.unsigned_abs() <= CLOCK_OFF {
        return name;
    }
    let (sign, ms) = (if ahead < 0 { '-' } else { '+' }, ahead.unsigned_abs());
    format!("{name} (clock {sign}{}.{} s)", ms / 1000, ms % 1000 / 100)
}

/// An incident.
#[must_use]
pub fn why(about: &str, answer: &v1::WhyResponse) -> String {
    let silent = match answer.silent.as_slice() {
        [] => String::new(),
        nodes => format!("(without what {} would say: no answer)\n", nodes.join(", ")),
    };
    if answer.lines.is_empty() {
        let of = if about.is_empty() { String::new() } else { format!(" of {about}") };
        return format!("nothing{of} has gone wrong as far as the events tell\n{silent}");
    }
    format!("{}\n{silent}", answer.lines.join("\n"))
}

/// What `doctor` found, with what mends it below; what is well only in number.
#[must_use]
pub fn doctor(answer: &v1::DoctorResponse) -> String {
    let level = |finding: &v1::DoctorFinding| view::doctor_level(finding.level);
    let of = |wanted: &str| answer.findings.iter().filter(|finding| level(finding) == wanted).count();
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut text = String::new();
    for finding in answer.findings.iter().filter(|finding| level(finding) != "ok") {
        let v1::DoctorFinding { check, node, resource, fact, remedy, .. } = finding;
        let node = if node.is_empty() { String::new() } else { format!("{node} ") };
        text += &format!("{:<7} {node}{check} {resource}: {fact}\n        {remedy}\n", level(finding));
    }
    let (faults, warnings) = (many(of("fault"), "fault"), many(of("warning"), "warning"));
    let ok = if of("ok") == 1 { "is ok" } else { "are ok" };
    text + &format!("{faults}, {warnings}; {} {ok}\n", many(of("ok"), "check"))
}

/// An instant, from Unix time in ms.
fn time(unix_ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_millis(at).to_string()
}

/// A length of time as people say it.
fn span(ms: u64) -> String {
    let rounded = if ms < 10_000 { ms } else { ms / 1000 * 1000 };
    humantime::format_duration(Duration::from_millis(rounded)).to_string()
}

/// A share in percent.
fn percent(buckets: u32) -> String {
    format!("{:.1}%", f64::from(buckets) * 100.0 / f64::from(BUCKETS))
}
