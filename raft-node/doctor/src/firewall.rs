//! What the rules of nftables do with a packet for one of Farm's ports, as far as they can be read. What is not known of
//! a rule makes the answer unknown: then only trying tells.

use std::net::IpAddr;

use serde_json::Value;

/// Chains that are followed into each other, at most.
const DEPTH: usize = 16;

/// TCP or UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its name in rules.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    const fn number(self) -> u64 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// The first packet of a connection to this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// What the port is for.
    pub what: &'static str,
    /// The protocol.
    pub protocol: Protocol,
    /// The address of this node.
    pub to: IpAddr,
    /// The port.
    pub port: u16,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// It comes in.
    Accepted,
    /// It does not.
    Dropped,
    /// The rules say something that is not understood here.
    Unclear,
}

/// Who writes rules for the administrator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manager {
    /// firewalld.
    Firewalld,
    /// ufw.
    Ufw,
}

/// Who has written `ruleset` (as `nft -j list ruleset` prints it).
#[must_use]
pub fn manager(ruleset: &Value) -> Option<Manager> {
    let tables = objects(ruleset, "table").any(|table| table["name"] == "firewalld");
    let chains =
        || objects(ruleset, "chain").any(|c| c["name"].as_str().is_some_and(|name| name.starts_with("ufw")));
    if tables { Some(Manager::Firewalld) } else { chains().then_some(Manager::Ufw) }
}

/// What `ruleset` does with `packet`: every base chain of the hooks on the way in must let it pass.
#[must_use]
pub fn ruling(ruleset: &Value, packet: &Packet) -> Ruling {
    let on_the_way = |chain: &&Value| {
        let family = chain["family"].as_str().unwrap_or_default();
        let hook = chain["hook"].as_str().unwrap_or_default();
        let own = if packet.to.is_ipv4() { "ip" } else { "ip6" };
        ["inet", own].contains(&family)
            && ["prerouting", "input"].contains(&hook)
            && chain["type"].as_str() == Some("filter")
    };
    let mut worst = Ruling::Accepted;
    for chain in objects(ruleset, "chain").filter(on_the_way) {
        let policy = match chain["policy"].as_str() {
            Some("drop") => Ruling::Dropped,
            _ => Ruling::Accepted,
        };
        match (Walk { ruleset, chain, packet, depth: DEPTH }).end(Some(policy)) {
            Some(Ruling::Dropped) => return Ruling::Dropped,
            Some(Ruling::Unclear) => worst = Ruling::Unclear,
            Some(Ruling::Accepted) | None => {}
        }
    }
    worst
}

fn objects<'a>(ruleset: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    ruleset["nftables"].as_array().into_iter().flatten().filter_map(move |object| object.get(kind))
}

fn is_in(rule: &Value, chain: &Value) -> bool {
    rule["family"] == chain["family"] && rule["table"] == chain["table"] && rule["chain"] == chain["name"]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Matches {
    Yes,
    No,
    Maybe,
}

enum Verdict {
    Ends(Ruling),
    Returns,
}

/// A packet in a chain.
#[derive(Clone, Copy)]
struct Walk<'a> {
    ruleset: &'a Value,
    chain: &'a Value,
    packet: &'a Packet,
    depth: usize,
}

impl Walk<'_> {
    /// What becomes of it; `last` where no rule says.
    fn end(self, last: Option<Ruling>) -> Option<Ruling> {
        // What rules say that may match, before the one that does.
        let mut maybe = Vec::new();
        let mut ended = last;
        for rule in objects(self.ruleset, "rule").filter(|rule| is_in(rule, self.chain)) {
            let Some((matches, verdict)) = self.outcome(rule) else { continue };
            let says = match verdict {
                Verdict::Ends(ruling) => Some(ruling),
                Verdict::Returns => last,
            };
            match matches {
                Matches::No => {}
                Matches::Maybe => maybe.push(says),
                Matches::Yes => {
                    ended = says;
                    break;
                }
            }
        }
        if maybe.iter().all(|other| *other == ended) { ended } else { Some(Ruling::Unclear) }
    }

    /// Whether a rule matches, and its verdict; `None` where it has none.
    fn outcome(self, rule: &Value) -> Option<(Matches, Verdict)> {
        let mut matches = Matches::Yes;
        for statement in rule["expr"].as_array().into_iter().flatten() {
            let (name, body) = statement.as_object()?.iter().next()?;
            let verdict = match name.as_str() {
                "match" => {
                    match self.matched(body) {
                        Matches::No => return None,
                        Matches::Maybe => matches = Matches::Maybe,
                        Matches::Yes => {}
                    }
                    continue;
                }
                "counter" | "log" | "comment" => continue,
                "accept" => Verdict::Ends(Ruling::Accepted),
                "drop" | "reject" => Verdict::Ends(Ruling::Dropped),
                "return" => Verdict::Returns,
                "jump" => Verdict::Ends(self.follow(body)?),
                "goto" => self.follow(body).map_or(Verdict::Returns, Verdict::Ends),
                // A limit, a map, an extension of iptables: it may match, and what it does is not known.
                _ => return Some((Matches::Maybe, Verdict::Ends(Ruling::Unclear))),
            };
            return Some((matches, verdict));
        }
        None
    }

    /// Into another chain of the same table; `None` where it comes back.
    fn follow(self, to: &Value) -> Option<Ruling> {
        if self.depth == 0 {
            return Some(Ruling::Unclear);
        }
        let target = |c: &&Value| c["name"] == to["target"] && self.beside(c);
        let chain = objects(self.ruleset, "chain").find(target)?;
        Walk { chain, depth: self.depth - 1, ..self }.end(None)
    }

    fn beside(self, object: &Value) -> bool {
        object["family"] == self.chain["family"] && object["table"] == self.chain["table"]
    }

    /// Whether `{"op": …, "left": …, "right": …}` is true of the packet.
    fn matched(self, body: &Value) -> Matches {
        let Some(holds) = self.compared(&body["left"], &body["right"]) else { return Matches::Maybe };
        match (body["op"].as_str(), holds) {
            (Some("==" | "in"), true) | (Some("!="), false) => Matches::Yes,
            (Some("==" | "in"), false) | (Some("!="), true) => Matches::No,
            _ => Matches::Maybe,
        }
    }

    /// Whether what is on the left is, or is among, what is on the right; `None`: not known.
    fn compared(self, left: &Value, right: &Value) -> Option<bool> {
        let Packet { protocol, to, port, .. } = *self.packet;
        let right = self.elements(right)?;
        let named = |value: &Value| {
            Some(value.as_str() == Some(protocol.word()) || value.as_u64() == Some(protocol.number()))
        };
        if let Some(payload) = left.get("payload") {
            let field = payload["field"].as_str()?;
            return match payload["protocol"].as_str()? {
                of @ ("tcp" | "udp") if of != protocol.word() => Some(false),
                "icmp" | "icmpv6" | "sctp" | "dccp" | "igmp" => Some(false),
                "tcp" | "udp" | "th" if field == "dport" => among(&right, |value| number(value, port)),
                "ip" if !to.is_ipv4() => Some(false),
                "ip6" if to.is_ipv4() => Some(false),
                "ip" if field == "protocol" => among(&right, named),
                "ip6" if field == "nexthdr" => among(&right, named),
                "ip" | "ip6" if field == "daddr" => among(&right, |value| address(value, to)),
                _ => None,
            };
        }
        match left.get("meta").or(left.get("ct"))?["key"].as_str()? {
            "l4proto" => among(&right, named),
            // It comes from another machine; on which interface is not known.
            "iifname" | "iif" => among(&right, |value| (value.as_str() == Some("lo")).then_some(false)),
            "state" => among(&right, |value| Some(value.as_str() == Some("new"))),
            _ => None,
        }
    }

    /// The values of a set, be it written here or elsewhere, or the only one.
    fn elements(self, value: &Value) -> Option<Vec<Value>> {
        let named = match value.as_str().and_then(|text| text.strip_prefix('@')) {
            Some(name) => {
                let mut sets = objects(self.ruleset, "set");
                let set = sets.find(|set| set["name"] == name && self.beside(set))?;
                Some(set["elem"].as_array().cloned().unwrap_or_default())
            }
            None => None,
        };
        let written = || value.get("set").and_then(Value::as_array).or(value.as_array()).cloned();
        Some(named.or_else(written).unwrap_or_else(|| vec![value.clone()]))
    }
}

/// Whether `is` of any of the values.
fn among(values: &[Value], is: impl Fn(&Value) -> Option<bool>) -> Option<bool> {
    let each: Vec<Option<bool>> = values.iter().map(is).collect();
    match () {
        () if each.contains(&Some(true)) => Some(true),
        () if each.contains(&None) => None,
        () => Some(false),
    }
}

fn number(value: &Value, port: u16) -> Option<bool> {
    if let Some(range) = value.get("range") {
        return Some(range[0].as_u64()? <= port.into() && u64::from(port) <= range[1].as_u64()?);
    }
    value.as_u64().map(|number| number == u64::from(port))
}

fn address(value: &Value, to: IpAddr) -> Option<bool> {
    let one: IpAddr = value.as_str()?.parse().ok()?;
    Some(one == to)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn packet(protocol: Protocol, port: u16) -> Packet {
        Packet { what: "peers", protocol, to: "10.0.0.1".parse().unwrap(), port }
    }

    fn chain(name: &str, policy: &str) -> Value {
        json!({"chain": {"family": "inet", "table": "t", "name": name, "type": "filter", "hook": "input", "prio": 0,
                         "policy": policy}})
    }

    fn inner(name: &str) -> Value {
        json!({"chain": {"family": "inet", "table": "t", "name": name}})
    }

    fn rule(chain: &str, expr: Value) -> Value {
        json!({"rule": {"family": "inet", "table": "t", "chain": chain, "expr": expr}})
    }

    fn port(protocol: &str, right: Value) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": right}})
    }

    fn ruled(objects: Vec<Value>, protocol: Protocol) -> Ruling {
        ruling(&json!({ "nftables": objects }), &packet(protocol, 7601))
    }

    #[test]
    fn a_policy_counts_unless_a_rule_comes_before() {
        let open = rule("input", json!([port("tcp", json!(7601)), {"accept": null}]));
        assert_eq!(ruled(vec![], Protocol::Tcp), Ruling::Accepted, "no rules");
        assert_eq!(ruled(vec![chain("input", "drop")], Protocol::Tcp), Ruling::Dropped);
        assert_eq!(ruled(vec![chain("input", "drop"), open.clone()], Protocol::Tcp), Ruling::Accepted);
        assert_eq!(ruled(vec![chain("input", "drop"), open], Protocol::Udp), Ruling::Dropped, "of TCP only");
        let other = json!({"chain": {"family": "ip6", "table": "t", "name": "i", "type": "filter", "hook": "input",
                                     "policy": "drop"}});
        assert_eq!(ruled(vec![other], Protocol::Tcp), Ruling::Accepted, "of IPv6");
    }

    #[test]
    fn ports_come_one_by_one_in_sets_and_in_ranges() {
        let with = |right: Value| {
            let rule =
                rule("input", json!([port("udp", right), {"counter": {"packets": 0}}, {"drop": null}]));
            ruled(vec![chain("input", "accept"), rule], Protocol::Udp)
        };
        assert_eq!(with(json!(7601)), Ruling::Dropped);
        assert_eq!(with(json!(7602)), Ruling::Accepted);
        assert_eq!(with(json!({"set": [22, 7601]})), Ruling::Dropped);
        assert_eq!(with(json!({"set": [22, {"range": [7600, 7610]}]})), Ruling::Dropped);
        assert_eq!(with(json!({"range": [1, 1024]})), Ruling::Accepted);
        assert_eq!(with(json!("@none")), Ruling::Unclear, "a set that is not there");
        let set = json!({"set": {"family": "inet", "table": "t", "name": "ports", "elem": [22, 7601]}});
        let named = rule("input", json!([port("udp", json!("@ports")), {"drop": null}]));
        assert_eq!(ruled(vec![chain("input", "accept"), set, named], Protocol::Udp), Ruling::Dropped);
    }

    #[test]
    fn what_cannot_match_the_first_packet_from_outside_is_passed() {
        let state =
            |states: Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": states}});
        let lo = json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}});
        let rules =
            |first: Value| vec![chain("input", "drop"), rule("input", json!([first, {"accept": null}]))];
        assert_eq!(ruled(rules(state(json!(["established", "related"]))), Protocol::Tcp), Ruling::Dropped);
        assert_eq!(ruled(rules(state(json!("new"))), Protocol::Tcp), Ruling::Accepted);
        assert_eq!(ruled(rules(lo), Protocol::Tcp), Ruling::Dropped);
    }

    #[test]
    fn other_chains_are_followed_and_come_back() {
        let jump = rule("input", json!([{"jump": {"target": "farm"}}]));
        let inside = rule("farm", json!([port("tcp", json!(7601)), {"accept": null}]));
        let all = vec![chain("input", "drop"), inner("farm"), jump, inside];
        assert_eq!(ruled(all.clone(), Protocol::Tcp), Ruling::Accepted);
        assert_eq!(ruled(all, Protocol::Udp), Ruling::Dropped, "it came back");
        let endless = rule("input", json!([{"jump": {"target": "input"}}]));
        assert_eq!(ruled(vec![chain("input", "drop"), endless], Protocol::Tcp), Ruling::Unclear);
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        let xt = rule("input", json!([{"xt": {"type": "match", "name": "multiport"}}, {"accept": null}]));
        assert_eq!(ruled(vec![chain("input", "drop"), xt.clone()], Protocol::Tcp), Ruling::Unclear);
        let source = json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                                      "right": "10.0.0.9"}});
        let some = rule("input", json!([source, {"accept": null}]));
        assert_eq!(ruled(vec![chain("input", "drop"), some.clone()], Protocol::Tcp), Ruling::Unclear);
        assert_eq!(
            ruled(vec![chain("input", "accept"), some], Protocol::Tcp),
            Ruling::Accepted,
            "either way"
        );
    }

    #[test]
    fn who_writes_the_rules_is_known_by_what_is_in_them() {
        let of = |object: Value| manager(&json!({ "nftables": [object] }));
        assert_eq!(of(json!({"table": {"family": "inet", "name": "firewalld"}})), Some(Manager::Firewalld));
        assert_eq!(of(json!({"chain": {"name": "ufw-user-input"}})), Some(Manager::Ufw));
        assert_eq!(of(json!({"table": {"family": "inet", "name": "farm"}})), None);
    }
}
