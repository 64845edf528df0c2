//! Reads `nft -j list` and compares it with what was installed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{GuardState, Mac, Rules, format_mac, parse_mac};

/// Whether the listing of tables names `table`.
pub(super) fn has_table(listing: &Value, table: &str) -> bool {
    objects(listing, "table").any(|t| t["name"] == table)
}

/// Compares the listing of the table with `rules`.
pub(super) fn compare(listing: &Value, rules: &Rules) -> GuardState {
    match difference(listing, rules) {
        Some(what) => GuardState::Altered { what },
        None => GuardState::Intact { dropped: dropped(listing) },
    }
}

/// What the table protects and accepts, whoever put it there; elements that Farm would not write are left out.
pub(super) fn rules(listing: &Value) -> Rules {
    let vips = ["v4", "v6"].into_iter().flat_map(|set| elements(listing, set));
    Rules {
        vips: vips.filter_map(|vip| vip.as_str()?.parse().ok()).collect(),
        proofs: elements(listing, "proof").filter_map(|e| proof(e.get("concat")?)).collect(),
    }
}

fn elements<'a>(listing: &'a Value, set: &str) -> impl Iterator<Item = &'a Value> {
    let set = objects(listing, "set").find(|found| found["name"] == set);
    set.and_then(|set| set["elem"].as_array()).into_iter().flatten()
}

fn proof(parts: &Value) -> Option<(String, Mac)> {
    Some((parts[0].as_str()?.to_owned(), parse_mac(parts[1].as_str()?)?))
}

fn difference(listing: &Value, rules: &Rules) -> Option<String> {
    chain_difference(listing).or_else(|| rule_difference(listing)).or_else(|| set_difference(listing, rules))
}

fn objects<'a>(listing: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    listing["nftables"].as_array().into_iter().flatten().filter_map(move |object| object.get(kind))
}

fn chain_difference(listing: &Value) -> Option<String> {
    let chains: Vec<&Value> = objects(listing, "chain").collect();
    let [chain] = chains[..] else {
        return Some(format!("{} chains instead of 1", chains.len()));
    };
    let expected = json!({"type": "filter", "hook": "prerouting", "prio": -450, "policy": "accept"});
    let differs = ["type", "hook", "prio", "policy"].into_iter().find(|key| chain[key] != expected[key])?;
    Some(format!("chain {}: {differs} is {}", chain["name"], chain[differs]))
}

fn rule_difference(listing: &Value) -> Option<String> {
    let found: Vec<Value> = objects(listing, "rule").map(|rule| without_counts(&rule["expr"])).collect();
    let expected = expected_rules();
    if found.len() != expected.len() {
        return Some(format!("{} rules instead of {}", found.len(), expected.len()));
    }
    let index = found.iter().zip(&expected).position(|(found, expected)| found != expected)?;
    Some(format!("rule {} is {}", index + 1, found[index]))
}

fn expected_rules() -> [Value; 5] {
    let daddr = |protocol: &str, set: &str| json!({"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "daddr"}}, "right": set}});
    let source = json!([{"meta": {"key": "iifname"}}, {"payload": {"protocol": "ether", "field": "saddr"}}]);
    let proven = json!({"match": {"op": "==", "left": {"concat": source}, "right": "@proof"}});
    let local = json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}});
    [
        json!([local, {"accept": null}]),
        json!([daddr("ip", "@v4"), proven, {"accept": null}]),
        json!([daddr("ip6", "@v6"), proven, {"accept": null}]),
        json!([daddr("ip", "@v4"), {"counter": null}, {"drop": null}]),
        json!([daddr("ip6", "@v6"), {"counter": null}, {"drop": null}]),
    ]
}

fn without_counts(rule: &Value) -> Value {
    let mut rule = rule.clone();
    for statement in rule.as_array_mut().into_iter().flatten() {
        if let Some(counter) = statement.get_mut("counter") {
            *counter = Value::Null;
        }
    }
    rule
}

fn dropped(listing: &Value) -> u64 {
    let statements = objects(listing, "rule").flat_map(|rule| rule["expr"].as_array().into_iter().flatten());
    statements.filter_map(|statement| statement["counter"]["packets"].as_u64()).sum()
}

fn set_difference(listing: &Value, rules: &Rules) -> Option<String> {
    let vips = |v4: bool| rules.vips.iter().filter(move |vip| vip.is_ipv4() == v4).map(ToString::to_string);
    let proofs = rules.proofs.iter().map(|(name, mac)| format!("{name} . {}", format_mac(mac)));
    one_set(listing, "v4", &json!("ipv4_addr"), vips(true).collect())
        .or_else(|| one_set(listing, "v6", &json!("ipv6_addr"), vips(false).collect()))
        .or_else(|| one_set(listing, "proof", &json!(["ifname", "ether_addr"]), proofs.collect()))
}

fn one_set(listing: &Value, name: &str, kind: &Value, expected: BTreeSet<String>) -> Option<String> {
    let Some(set) = objects(listing, "set").find(|set| set["name"] == name) else {
        return Some(format!("set {name} is missing"));
    };
    let found: BTreeSet<String> = set["elem"].as_array().into_iter().flatten().map(element).collect();
    if set["type"] != *kind {
        return Some(format!("set {name} is of type {}", set["type"]));
    }
    (found != expected).then(|| format!("set {name} holds {found:?} instead of {expected:?}"))
}

/// An element as text; one of a concatenation as `a . b`. Anything else (a range, a time-out) stays JSON, which is
/// never equal to what was installed.
fn element(element: &Value) -> String {
    let parts =
        element["concat"].as_array().map(|parts| parts.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    match (element.as_str(), parts) {
        (Some(text), _) => text.to_owned(),
        (None, Some(parts)) => parts.join(" . "),
        (None, None) => element.to_string(),
    }
}
