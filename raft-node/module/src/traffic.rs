//! Virtual IPs and services.

use core::net::IpAddr;
use std::collections::BTreeSet;

use farm_core::event::protocol_name;
use farm_core::limits;
use farm_core::model::{Criterion, Mode, ModuleKind, NoVlan, Protocol, Service, VirtualIp, Vlan, is_unicast};

use crate::reader::{At, Reader, Table};

/// A virtual IP as it is declared.
struct Declared {
    vip: VirtualIp,
    mode: Mode,
    line: u32,
}

/// The services with the modes of their virtual IPs.
pub(crate) fn read<'t>(
    reader: &mut Reader<'t>,
    root: &mut Table<'t>,
    kind: Option<ModuleKind>,
) -> Vec<(Service, Mode)> {
    let vips = reader.tables(root, "vip", limits::VIPS);
    let services = reader.tables(root, "service", limits::SERVICES);
    if kind == Some(ModuleKind::Light) {
        let lines = vips.iter().map(|t| ("[[vip]]", t.line));
        for (head, line) in lines.chain(services.iter().map(|t| ("[[service]]", t.line))) {
            let fact = format!("a light module has no {head}: it only supervises its application");
            reader.found.line(line, fact, "remove it, or write kind = \"farm\"");
        }
        return Vec::new();
    }
    let all = vips.len();
    let vips: Vec<Declared> = vips.into_iter().filter_map(|table| read_vip(reader, table)).collect();
    check_distinct(reader, &vips);
    // With a virtual IP that was not understood, nothing can be said about services that name none.
    let whole = vips.len() == all;
    let written = services.len();
    let read = |table| read_service(reader, table, &vips, whole);
    let services: Vec<At<Service>> = services.into_iter().filter_map(read).collect();
    check_services(reader, &services);
    if services.len() == written {
        check_used(reader, &services, &vips);
    }
    let mode = |service: &Service| vips.iter().find(|v| v.vip == service.vip).map(|v| v.mode);
    services.into_iter().filter_map(|s| Some((s.value, mode(&s.value)?))).collect()
}

fn read_vip<'t>(reader: &mut Reader<'t>, mut table: Table<'t>) -> Option<Declared> {
    let line = table.line;
    reader.need(&table, "address", "\"192.0.2.10\"");
    let ip = read_address(reader, &mut table, "address", "[[vip]] address");
    let vlan = read_vlan(reader, &mut table, "[[vip]]");
    let named = table.contains("mode");
    let modes = [("directed", Mode::Directed), ("flood", Mode::Flood)];
    let mode = reader.choice(&mut table, "mode", &modes);
    let mode = if named { mode } else { Some(Mode::Directed) };
    reader.finish(table);
    let ip = ip?;
    if !is_unicast(ip.value) {
        let fact = format!("{} cannot be a virtual IP: it is no unicast address of a network", ip.value);
        reader.found.line(ip.line, fact, "choose an unused address in a subnet of the clients");
        return None;
    }
    let vlan = vlan.ok()?.unwrap_or(Vlan::NONE);
    Some(Declared { vip: VirtualIp { ip: ip.value, vlan }, mode: mode?, line })
}

fn read_address<'t>(
    reader: &mut Reader<'t>,
    table: &mut Table<'t>,
    key: &'static str,
    named: &str,
) -> Option<At<IpAddr>> {
    let text = reader.text(table, key)?;
    match text.value.parse() {
        Ok(ip) => Some(At { value: ip, line: text.line }),
        Err(_) => {
            let fact = format!("{named} = {:?} is not an IP address", text.value);
            reader.found.line(text.line, fact, format!("write it as {key} = \"192.0.2.10\""));
            None
        }
    }
}

/// The VLAN if one is named; an error when it is none.
fn read_vlan<'t>(reader: &mut Reader<'t>, table: &mut Table<'t>, head: &str) -> Result<Option<Vlan>, ()> {
    let named = table.contains("vlan");
    let Some(text) = reader.word(table, "vlan") else { return if named { Err(()) } else { Ok(None) } };
    text.value.parse().map(Some).map_err(|error: NoVlan| {
        let fact = format!("{head} vlan = {:?}: {error}", text.value);
        reader.found.line(text.line, fact, "write it as vlan = 30, or vlan = \"100.30\"");
    })
}

fn check_distinct(reader: &mut Reader<'_>, vips: &[Declared]) {
    let mut seen = BTreeSet::new();
    for declared in vips {
        if !seen.insert(declared.vip) {
            let fact = format!("virtual IP {} is declared twice", declared.vip);
            reader.found.line(declared.line, fact, "keep one of them");
        }
    }
}

fn read_service<'t>(
    reader: &mut Reader<'t>,
    mut table: Table<'t>,
    vips: &[Declared],
    whole: bool,
) -> Option<At<Service>> {
    let line = table.line;
    let named = table.contains("vip");
    let ip = read_address(reader, &mut table, "vip", "[[service]] vip");
    let vlan = read_vlan(reader, &mut table, "[[service]]");
    reader.need(&table, "protocol", "\"tcp\"");
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocol = reader.choice(&mut table, "protocol", &protocols);
    reader.need(&table, "port", "80");
    let port = reader.number(&mut table, "port", 1..=u32::from(u16::MAX));
    let has_criterion = table.contains("criterion");
    let criteria = [
        ("source-address", Criterion::SourceAddress),
        ("source-port", Criterion::SourcePort),
        ("source-network", Criterion::SourceNetwork),
    ];
    let criterion = reader.choice(&mut table, "criterion", &criteria);
    let criterion = if has_criterion { criterion } else { Some(Criterion::SourceAddress) };
    reader.finish(table);
    if named && ip.is_none() {
        return None;
    }
    let vip = choose(reader, vips, whole, (ip, vlan.ok()?, line))?;
    let port = u16::try_from(port?.value).ok()?;
    Some(At { value: Service { vip, protocol: protocol?, port, criterion: criterion? }, line })
}

/// The virtual IP that a service means: by its address and VLAN, as far as they are named.
fn choose(
    reader: &mut Reader<'_>,
    vips: &[Declared],
    whole: bool,
    (ip, vlan, line): (Option<At<IpAddr>>, Option<Vlan>, u32),
) -> Option<VirtualIp> {
    let line = ip.as_ref().map_or(line, |ip| ip.line);
    let ip = ip.map(|ip| ip.value);
    let meant: BTreeSet<VirtualIp> = vips
        .iter()
        .map(|declared| declared.vip)
        .filter(|vip| ip.is_none_or(|ip| vip.ip == ip) && vlan.is_none_or(|vlan| vip.vlan == vlan))
        .collect();
    if !whole && (meant.is_empty() || ip.is_none()) {
        return None;
    }
    if meant.len() == 1 {
        return meant.first().copied();
    }
    let key = if ip.is_some() { "vlan" } else { "vip" };
    let count = meant.len();
    let named = match (ip, vlan) {
        (Some(ip), None) => ip.to_string(),
        (Some(ip), Some(vlan)) => VirtualIp { ip, vlan }.to_string(),
        (None, Some(vlan)) => format!("vlan {vlan}"),
        (None, None) => "the service".into(),
    };
    match count {
        0 if ip.is_none() && vlan.is_none() => {
            let fact = "[[service]] has no virtual IP: none is declared";
            reader.found.line(line, fact, "declare one with [[vip]]");
        }
        0 => {
            let known: Vec<String> = vips.iter().map(|declared| declared.vip.to_string()).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let fact = format!("{named} is no virtual IP of this module (declared: {known})");
            reader.found.line(line, fact, "declare it with [[vip]], or name a declared one");
        }
        _ => {
            let fact = format!("[[service]]: {named} can mean {count} virtual IPs");
            reader.found.line(line, fact, format!("name one with {key} = …"));
        }
    }
    None
}

fn check_services(reader: &mut Reader<'_>, services: &[At<Service>]) {
    let mut seen = BTreeSet::new();
    for At { value: service, line } in services {
        if !seen.insert((service.vip, service.protocol, service.port)) {
            let (vip, protocol, port) = (service.vip, protocol_name(service.protocol), service.port);
            let fact = format!("service {vip} {protocol} port {port} is declared twice");
            reader.found.line(*line, fact, "keep one of them");
        }
    }
}

/// A virtual IP exists with its services only.
fn check_used(reader: &mut Reader<'_>, services: &[At<Service>], vips: &[Declared]) {
    let used: BTreeSet<VirtualIp> = services.iter().map(|service| service.value.vip).collect();
    for declared in vips.iter().filter(|declared| !used.contains(&declared.vip)) {
        let fact = format!("virtual IP {} has no service", declared.vip);
        reader.found.line(declared.line, fact, "add a [[service]] for it, or remove it");
    }
}
