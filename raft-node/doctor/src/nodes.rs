//! What comes to light only when nodes are compared. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{Finding, Level};

/// Wall clocks that differ by more put events in a wrong order.
const APART: Duration = Duration::from_secs(1);
/// Frames for virtual IPs that one node sees while another one sees none: no accident.
const FRAMES: u64 = 20;

/// A node, as far as it answered.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it said; else why it did not.
    pub answered: Result<Answered, String>,
}

/// What a node said of itself.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Version of its daemon.
    pub version: String,
    /// By how much its wall clock is before that of who asks, in ms.
    pub ahead_ms: i64,
    /// The MTU of its interface in each network.
    pub mtus: BTreeMap<String, u16>,
    /// Frames for virtual IPs that its filter saw while it was examined, where all nodes are to get all of them.
    pub flooded: Option<u64>,
}

/// What is to be said of all of them together.
#[must_use]
pub fn across(nodes: &[Node]) -> Vec<Finding> {
    let answered: Vec<(&str, &Answered)> =
        nodes.iter().filter_map(|node| Some((node.name.as_str(), node.answered.as_ref().ok()?))).collect();
    let mut findings: Vec<Finding> = nodes.iter().filter_map(silent).collect();
    // One alone is neither like the others nor unlike them.
    if answered.len() > 1 {
        findings.extend([versions(&answered), clocks(&answered)]);
        findings.extend(mtus(&answered));
        findings.extend(flooding(&answered));
    }
    findings
}

fn silent(node: &Node) -> Option<Finding> {
    let why = node.answered.as_ref().err()?;
    let fact = format!("it was not examined: {why}");
    let remedy = "on that machine: systemctl status farmd, and farmd doctor";
    Some(Finding::new("silent", Level::Fault, &node.name, fact, remedy))
}

fn versions(nodes: &[(&str, &Answered)]) -> Finding {
    let versions: BTreeSet<&str> = nodes.iter().map(|(_, node)| node.version.as_str()).collect();
    if versions.len() <= 1 {
        let version = versions.into_iter().collect::<String>();
        return Finding::ok("version", "cluster", format!("every node that answers runs {version}"));
    }
    let each: Vec<String> = nodes.iter().map(|(name, node)| format!("{name} {}", node.version)).collect();
    let fact = format!("nodes run different versions: {}", each.join(", "));
    let remedy = "finish the upgrade: install the newest one, then farmctl node restart on each";
    Finding::new("version", Level::Warning, "cluster", fact, remedy)
}

fn clocks(nodes: &[(&str, &Answered)]) -> Finding {
    let mut ahead: Vec<(i64, &str)> = nodes.iter().map(|(name, node)| (node.ahead_ms, *name)).collect();
    ahead.sort_unstable();
    let (Some((early, first)), Some((late, last))) = (ahead.first(), ahead.last()) else {
        return Finding::unknown("wall_clock", "cluster", "nobody answers", "farmctl node list");
    };
    let apart = Duration::from_millis(early.abs_diff(*late));
    let fact = format!("the wall clocks are at most {} ms apart", apart.as_millis());
    if apart <= APART {
        return Finding::ok("wall_clock", "cluster", fact);
    }
    let fact = format!(
        "the wall clock of {last} is {:.1} s ahead of that of {first}: leases do not mind, but events are told in a wrong order",
        apart.as_secs_f64()
    );
    let remedy = "systemctl enable --now chrony on every node";
    Finding::new("wall_clock", Level::Warning, "cluster", fact, remedy)
}

fn mtus(nodes: &[(&str, &Answered)]) -> Vec<Finding> {
    let networks: BTreeSet<&String> = nodes.iter().flat_map(|(_, node)| node.mtus.keys()).collect();
    let differs = |network: &String| {
        let here: Vec<(&str, u16)> =
            nodes.iter().filter_map(|(name, node)| Some((*name, *node.mtus.get(network)?))).collect();
        let different: BTreeSet<u16> = here.iter().map(|(_, mtu)| *mtu).collect();
        if different.len() <= 1 {
            return None;
        }
        let each: Vec<String> = here.iter().map(|(name, mtu)| format!("{name} {mtu}")).collect();
        let fact = format!("the nodes' interfaces have different MTUs: {}", each.join(", "));
        let remedy = format!("the same MTU on every interface of {network}: ip link set dev DEVICE mtu N");
        Some(Finding::new("mtu_differs", Level::Warning, network, fact, remedy))
    };
    networks.into_iter().filter_map(differs).collect()
}

fn flooding(nodes: &[(&str, &Answered)]) -> Vec<Finding> {
    let most = nodes.iter().filter_map(|(name, node)| Some((node.flooded?, *name))).max();
    let Some((most, who)) = most.filter(|(most, _)| *most >= FRAMES) else { return Vec::new() };
    let deaf = nodes.iter().filter(|(_, node)| node.flooded == Some(0));
    let finding = |(name, _): &(&str, &Answered)| {
        let fact = format!(
            "it saw no frame for a virtual IP in flood mode while {who} saw {most}: the switch does not flood the shared MAC to it"
        );
        let remedy = "switch off unknown-unicast blocking on its port, or on a hypervisor allow forged transmits and promiscuous mode; else serve it in the mode directed";
        Finding::new("flooding", Level::Warning, *name, fact, remedy)
    };
    deaf.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, change: impl FnOnce(&mut Answered)) -> Node {
        let mut answered = Answered {
            version: "0.1.0".into(),
            ahead_ms: 0,
            mtus: [("lan".to_owned(), 1500)].into(),
            flooded: None,
        };
        change(&mut answered);
        Node { name: name.into(), answered: Ok(answered) }
    }

    /// What is said of three nodes of which the last is another one, and is not ok.
    fn said(change: impl FnOnce(&mut Answered)) -> Vec<(String, Level, String)> {
        let others = |name| node(name, |a| a.flooded = Some(5000));
        let nodes = [
            others("node1"),
            others("node2"),
            node("node3", |a| {
                a.flooded = Some(4000);
                change(a);
            }),
        ];
        let bad = across(&nodes).into_iter().filter(|f| f.level != Level::Ok);
        bad.map(|f| {
            assert!(!f.remedy.is_empty(), "{f}");
            (f.check.to_owned(), f.level, f.resource)
        })
        .collect()
    }

    fn one(check: &str, level: Level, resource: &str) -> Vec<(String, Level, String)> {
        vec![(check.into(), level, resource.into())]
    }

    #[test]
    fn nodes_that_are_alike_are_well() {
        assert_eq!(said(|_| ()), []);
        assert_eq!(said(|a| a.ahead_ms = -1000), []);
        assert_eq!(said(|a| a.flooded = None), [], "it has no filter");
        assert_eq!(said(|a| a.mtus = [("other".to_owned(), 9000)].into()), []);
    }

    #[test]
    fn each_difference_is_told() {
        assert_eq!(said(|a| a.version = "0.2.0".into()), one("version", Level::Warning, "cluster"));
        assert_eq!(said(|a| a.ahead_ms = -1001), one("wall_clock", Level::Warning, "cluster"));
        assert_eq!(
            said(|a| a.mtus = [("lan".to_owned(), 1400)].into()),
            one("mtu_differs", Level::Warning, "lan")
        );
        assert_eq!(said(|a| a.flooded = Some(0)), one("flooding", Level::Warning, "node3"));
    }

    #[test]
    fn who_does_not_answer_is_a_fault() {
        let nodes = [node("node1", |_| ()), Node { name: "node2".into(), answered: Err("no route".into()) }];
        let fault = across(&nodes).into_iter().find(|f| f.level == Level::Fault).expect("a fault");
        assert_eq!((fault.check, fault.resource.as_str()), ("silent", "node2"));
        assert!(fault.fact.contains("no route"));
        assert_eq!(across(&nodes).len(), 1, "nobody to compare node1 with");
    }
}
