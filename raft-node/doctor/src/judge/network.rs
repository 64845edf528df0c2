//! The way to the other nodes, and what stands in it.

use crate::facts::Pair;
use crate::{Facts, Finding, Level, Manager, Packet, Protocol, Ruling};

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let unknown = |(network, mtu): (&String, &Result<u16, String>)| {
        let why = mtu.as_ref().err()?;
        Some(Finding::unknown("mtu", network.as_str(), why, "ip -brief address"))
    };
    let mtus = facts.mtus.iter().filter_map(unknown);
    let pairs = facts.pairs.iter().flat_map(|pair| [peer_port(pair), lease_port(pair), mtu(pair)]);
    mtus.chain(firewall(facts)).chain(pairs).collect()
}

fn firewall(facts: &Facts) -> Vec<Finding> {
    let firewall = match &facts.firewall {
        Ok(firewall) => firewall,
        Err(why) => return vec![Finding::unknown("firewall", "nftables", why, "nft list ruleset")],
    };
    let mut findings: Vec<Finding> = firewall
        .rulings
        .iter()
        .filter_map(|(packet, ruling)| ruled(packet, *ruling, firewall.manager))
        .collect();
    if firewall.legacy {
        let fact = "rules of the old iptables are in force, which are not read here";
        findings.push(Finding::new("firewall", Level::Advice, "iptables", fact, "iptables-legacy -S INPUT"));
    }
    if findings.is_empty() {
        let by = match firewall.manager {
            Some(Manager::Firewalld) => " (firewalld)",
            Some(Manager::Ufw) => " (ufw)",
            None => "",
        };
        findings.push(Finding::ok("firewall", "nftables", format!("the rules{by} let Farm's ports in")));
    }
    findings
}

fn ruled(packet: &Packet, ruling: Ruling, manager: Option<Manager>) -> Option<Finding> {
    let Packet { what, protocol, port, to } = packet;
    let resource = format!("{port}/{}", protocol.word());
    match ruling {
        Ruling::Accepted => None,
        Ruling::Unclear => {
            let fact = format!(
                "the rules for {to} ({what}) say more than is understood here; what other nodes see counts"
            );
            Some(Finding::new("firewall", Level::Advice, resource, fact, "nft list ruleset"))
        }
        Ruling::Dropped => {
            let fact = format!("the firewall of this machine drops what comes to {to} ({what})");
            Some(Finding::new("firewall", level_of(what), resource, fact, opening(*protocol, *port, manager)))
        }
    }
}

/// Without these two a node is none.
fn level_of(what: &str) -> Level {
    if ["peers", "leases"].contains(&what) { Level::Fault } else { Level::Advice }
}

fn opening(protocol: Protocol, port: u16, manager: Option<Manager>) -> String {
    let protocol = protocol.word();
    match manager {
        Some(Manager::Firewalld) => {
            format!("firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload")
        }
        Some(Manager::Ufw) => format!("ufw allow {port}/{protocol}"),
        None => format!("nft list ruleset shows the rule; before it: {protocol} dport {port} accept"),
    }
}

fn resource(pair: &Pair) -> String {
    format!("{} on {}", pair.peer, pair.network)
}

fn peer_port(pair: &Pair) -> Finding {
    let at = format!("{}:{}/tcp", pair.ip, pair.ports.peer);
    reached("peer_port", pair, &pair.peer_port, &at, Protocol::Tcp, pair.ports.peer)
}

fn lease_port(pair: &Pair) -> Finding {
    let at = format!("{}:{}/udp", pair.ip, pair.ports.lease);
    reached("lease_port", pair, &pair.lease_port, &at, Protocol::Udp, pair.ports.lease)
}

fn reached(
    check: &'static str,
    pair: &Pair,
    found: &Result<Result<(), String>, String>,
    at: &str,
    protocol: Protocol,
    port: u16,
) -> Finding {
    let resource = resource(pair);
    let remedy = format!(
        "farmd must run there, and every firewall between must let {port}/{} in: farmctl doctor --node {}",
        protocol.word(),
        pair.peer
    );
    match found {
        Ok(Ok(())) => Finding::ok(check, resource, format!("{at} answers")),
        Ok(Err(why)) => {
            Finding::new(check, Level::Fault, resource, format!("{at} does not answer: {why}"), remedy)
        }
        Err(why) => Finding::unknown(check, resource, why, remedy),
    }
}

fn mtu(pair: &Pair) -> Finding {
    let resource = resource(pair);
    let remedy = format!(
        "the same MTU on every interface and switch of {}: ip link set dev DEVICE mtu N",
        pair.network
    );
    match &pair.mtu {
        Ok((own, carried)) if carried >= own => {
            Finding::ok("mtu", resource, format!("packets of {own} bytes come to {} in one piece", pair.ip))
        }
        Ok((_, 0)) => {
            let why = format!("{} answers no ping", pair.ip);
            Finding::unknown("mtu", resource, &why, format!("ping {}", pair.ip))
        }
        Ok((own, carried)) => {
            let fact = format!(
                "the interface here sends packets of {own} bytes, but only those of up to {carried} come to {}: large messages between the nodes are lost",
                pair.ip
            );
            Finding::new("mtu", Level::Fault, resource, fact, remedy)
        }
        Err(why) => Finding::unknown("mtu", resource, why, remedy),
    }
}
