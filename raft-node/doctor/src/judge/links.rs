//! The interfaces that carry virtual IPs.

use farm_dataplane::attach::{Inspected, OtherEnd};

use crate::facts::Link;
use crate::{Facts, Finding, Level, Mode};

/// Least values of `arp_announce` and `arp_ignore` while a virtual IP is on this machine.
const ARP: [(&str, u32); 2] = [("arp_announce", 2), ("arp_ignore", 1)];

pub(super) fn judge(link: &Link, facts: &Facts) -> Vec<Finding> {
    let resource = &link.filter;
    let inspected = match &link.inspected {
        Ok(Some(inspected)) => inspected,
        Ok(None) => {
            let fact = "[interfaces] in farmd.toml names it, but there is no such interface";
            return vec![Finding::new("interface", Level::Fault, resource, fact, "ip -brief link")];
        }
        Err(why) => return vec![Finding::unknown("interface", resource, why, "ip -brief link")],
    };
    let mut findings = vec![foreign(resource, inspected), xdp(resource, inspected, facts.mode)];
    findings.extend(veth(resource, inspected));
    if inspected.programs.iter().any(|program| program.own) {
        findings.push(arp(link));
    }
    findings
}

fn foreign(resource: &str, inspected: &Inspected) -> Finding {
    match inspected.programs.iter().find(|program| !program.own) {
        None => Finding::ok("foreign_program", resource, "no XDP program of anybody else is on it"),
        Some(program) => {
            let fact = format!(
                "it has an XDP program of somebody else ({}, id {}); Farm never replaces one, and does not start",
                program.name, program.id
            );
            let remedy = format!(
                "bpftool prog show id {} tells whose it is; then ip link set dev {resource} xdp off",
                program.id
            );
            Finding::new("foreign_program", Level::Fault, resource, fact, remedy)
        }
    }
}

fn xdp(resource: &str, inspected: &Inspected, mode: Mode) -> Finding {
    let driver =
        if inspected.driver.is_empty() { "no driver that tells its name" } else { &inspected.driver };
    let here = inspected.programs.iter().any(|program| program.own);
    let is = if here { "the filter runs" } else { "the filter will run" };
    let how = if inspected.native { "in the driver (native)" } else { "in the stack (generic)" };
    let fact = format!("{is} {how}; driver {driver}");
    if !inspected.native && mode == Mode::Native {
        let fact =
            format!("{fact}, though farmd.toml asks for native: a filter that is there keeps its mode");
        let remedy = "systemctl stop farmd, then systemctl start farmd: it is attached anew";
        return Finding::new("xdp_mode", Level::Advice, resource, fact, remedy);
    }
    Finding::ok("xdp_mode", resource, fact)
}

/// What the driver of a veth sends back comes to nothing unless the other end has a program too.
fn veth(resource: &str, inspected: &Inspected) -> Option<Finding> {
    let end = inspected.other_end.as_ref().filter(|_| inspected.native)?;
    let remedy = "xdp_mode = \"auto\" in farmd.toml (generic on a veth), then stop and start farmd";
    Some(match end {
        OtherEnd::Here { program: true, name } => Finding::ok(
            "veth",
            resource,
            format!("{name}, its other end, has an XDP program, as native mode needs"),
        ),
        OtherEnd::Here { program: false, name } => {
            let fact = format!(
                "native mode on a veth, and {name}, its other end, has no XDP program: what is sent on or answered is lost"
            );
            Finding::new("veth", Level::Fault, resource, fact, remedy)
        }
        OtherEnd::Elsewhere => {
            let fact = "native mode on a veth whose other end is outside of this container: without an XDP program there, what is sent on or answered is lost";
            Finding::new("veth", Level::Warning, resource, fact, remedy)
        }
    })
}

fn arp(link: &Link) -> Finding {
    let device = &link.device;
    let values = match &link.arp {
        Ok(values) => values,
        Err(why) => return Finding::unknown("arp", device, why, format!("sysctl net.ipv4.conf.{device}")),
    };
    let low = ARP.iter().zip(values).find(|((_, least), value)| *value < least);
    let Some(((name, least), value)) = low else {
        return Finding::ok("arp", device, "the kernel leaves ARP for virtual IPs to the filter");
    };
    let fact = format!(
        "{name} is {value}: somebody has set it back, and the kernel draws clients of the virtual IP to this node"
    );
    let remedy = format!("sysctl -w net.ipv4.conf.{device}.{name}={least}, and take it out of /etc/sysctl.d");
    Finding::new("arp", Level::Fault, device, fact, remedy)
}
