//! The machines and cables of a lab:
//!
//! ```text
//!  node1   node2   node3 … client   router ── remote
//!    │       │       │       │        │ 10.77.0.1, 10.88.0.1
//!  ──┴───────┴───────┴───────┴────────┴──  bridge `lan` in the namespace `switch`, 10.77.0.0/24
//! ```
//!
//! Every IPv4 address has a twin in IPv6: fd77::1 and fd88::1 at the router, fd77::/64 on the bridge.

use std::fmt::Write;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use farm_dataplane::bpf::{self, insn};

use crate::lab::Spec;
use crate::names::{Family, Network, Place};
use crate::netns::NetNs;
use crate::shell;

/// Neither IPv6 address detection, nor advertised routes, nor redirects: a lab is ready at once, and the router stays
/// the router.
const QUIET: [(&str, &str); 6] = [
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
];
const FORWARDING: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];

/// A switch has no address: what it said by itself would only stand in the witness's notes.
const MUTE: [(&str, &str); 2] =
    [("net/ipv6/conf/all/disable_ipv6", "1"), ("net/ipv6/conf/default/disable_ipv6", "1")];
/// The kernel believes in a new carrier within a second; a busy machine gets more.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// Columns of `/proc/net/if_inet6` (address, index, length, scope, flags, name): what is for the link alone, and what
/// is not sure yet.
const LINK_SCOPE: &str = "20";
const TENTATIVE: u32 = 0x40;

/// Makes every namespace of the lab and connects them.
///
/// # Errors
/// The first step that the kernel refused.
pub fn build(spec: &Spec) -> Result<()> {
    for place in Place::all(spec.nodes) {
        let namespace = place.namespace(&spec.name);
        namespace.create()?;
        namespace.sysctl(&QUIET)?;
    }
    build_switch(spec)?;
    for place in Place::all(spec.nodes).filter(|p| p.host().is_some()) {
        plug_in(spec, place, Network::Lan)?;
    }
    if spec.second_network {
        Place::nodes(spec.nodes).try_for_each(|node| plug_in(spec, node, Network::Second))?;
    }
    connect_remote(spec)?;
    add_routes(spec)?;
    add_crowds(spec)?;
    Place::all(spec.nodes).try_for_each(|place| settle(spec, place))
}

fn build_switch(spec: &Spec) -> Result<()> {
    Place::Switch.namespace(&spec.name).sysctl(&MUTE)?;
    let mut batch = String::new();
    for network in networks(spec) {
        let bridge = network.bridge();
        let _ = writeln!(
            batch,
            "link add name {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        );
        let _ = writeln!(batch, "link set dev {bridge} up");
    }
    Place::Switch.namespace(&spec.name).ip(&batch)
}

fn networks(spec: &Spec) -> impl Iterator<Item = Network> {
    [Network::Lan].into_iter().chain(spec.second_network.then_some(Network::Second))
}

/// Lays the cable from `place` to the switch.
fn plug_in(spec: &Spec, place: Place, network: Network) -> Result<()> {
    let (Some(host), Some(mac)) = (place.host(), place.mac(network)) else { return Ok(()) };
    let (port, interface, bridge) = (network.port(place), network.interface(), network.bridge());
    let (switch, own) = (Place::Switch.namespace(&spec.name), place.namespace(&spec.name));
    switch.ip(&format!(
        "link add name {port} type veth peer name {interface} address {} netns {}\n\
         link set dev {port} master {bridge} up\n",
        mac_text(mac),
        own.name()
    ))?;
    if spec.native && matches!(place, Place::Node(_)) {
        without_checksum_offload(&switch, &port)?;
        with_program(&switch, &port)?;
    }
    own.ip(&format!(
        "link set dev {interface} up\naddr add {}/24 dev {interface}\naddr add {}/64 dev {interface} nodad\n",
        network.address(host),
        network.address6(host)
    ))
}

/// Native XDP on veth sends a frame with a partial checksum on as it is: the other end must fill it in.
fn without_checksum_offload(switch: &NetNs, port: &str) -> Result<()> {
    shell::run(switch.command("ethtool")?.args(["-K", port, "tx", "off"])).map(drop)
}

/// What native XDP on veth sends back is dropped unless the other end runs a program too: this one passes everything.
fn with_program(switch: &NetNs, port: &str) -> Result<()> {
    const XDP_PASS: i32 = 2;
    let pass = [insn(0xb7, 0, 0, 0, XDP_PASS), insn(0x95, 0, 0, 0, 0)];
    let program = bpf::load_xdp_frags(&pass).context("the program that passes everything")?;
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let id = about.lines().find_map(|line| line.strip_prefix("prog_id:")).context("the id of a program")?;
    // By netlink, not by a link of our own: it stays when this process ends.
    let attach = ["net", "attach", "xdpdrv", "id", id.trim(), "dev", port];
    shell::run(switch.command("bpftool")?.args(attach)).map(drop)
}

fn connect_remote(spec: &Spec) -> Result<()> {
    let (router, remote) = (Place::Router.namespace(&spec.name), Place::Remote.namespace(&spec.name));
    router.ip(&format!(
        "link add name eth1 type veth peer name eth0 netns {}\n\
         link set dev eth1 up\naddr add 10.88.0.1/24 dev eth1\naddr add fd88::1/64 dev eth1 nodad\n",
        remote.name()
    ))?;
    remote.ip(&format!(
        "link set dev eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n",
        Place::Remote.address(),
        Place::Remote.address6()
    ))?;
    router.sysctl(&FORWARDING)
}

fn add_routes(spec: &Spec) -> Result<()> {
    for place in Place::nodes(spec.nodes).chain([Place::Client, Place::Remote]) {
        let (gateway, gateway6) = match place {
            Place::Remote => ("10.88.0.1", "fd88::1"),
            Place::Node(_) | Place::Client | Place::Router | Place::Switch => ("10.77.0.1", "fd77::1"),
        };
        let batch = format!("route add default via {gateway}\nroute add default via {gateway6}\n");
        place.namespace(&spec.name).ip(&batch)?;
    }
    Ok(())
}

/// Those of IPv6 are deprecated from the start: the kernel picks none of them by itself.
fn add_crowds(spec: &Spec) -> Result<()> {
    [Place::Client, Place::Remote].into_iter().try_for_each(|place| {
        let mut batch = String::new();
        for ip in place.crowd(Family::V4) {
            let _ = writeln!(batch, "addr add {ip}/24 dev eth0");
        }
        for ip in place.crowd(Family::V6) {
            let _ = writeln!(batch, "addr add {ip}/64 dev eth0 nodad preferred_lft 0");
        }
        place.namespace(&spec.name).ip(&batch)
    })
}

/// Waits until every interface of `place` has the address for its link that the kernel makes once it has a carrier:
/// without it nobody can ask for a neighbour on behalf of others.
fn settle(spec: &Spec, place: Place) -> Result<()> {
    let interfaces: &[&str] = match place {
        Place::Switch => &[],
        Place::Router => &["eth0", "eth1"],
        Place::Node(_) if spec.second_network => &["eth0", "eth1"],
        Place::Node(_) | Place::Client | Place::Remote => &["eth0"],
    };
    let namespace = place.namespace(&spec.name);
    let what = format!("{place} has an address on each link");
    shell::await_value(&what, SETTLE_LIMIT, || {
        // Of the thread, not of the process: only the thread is in the namespace.
        let read = || std::fs::read_to_string("/proc/thread-self/net/if_inet6").context("if_inet6");
        let table = namespace.run(read)?;
        let ready = |interface: &&str| table.lines().any(|line| is_link_local(line, interface));
        Ok(interfaces.iter().all(ready).then_some(()))
    })
}

/// Is this line of `if_inet6` a usable link-local address of `interface`?
fn is_link_local(line: &str, interface: &str) -> bool {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, scope, flags, name] = columns[..] else { return false };
    let sure = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE == 0);
    scope == LINK_SCOPE && name == interface && sure
}

/// `aa:bb:cc:dd:ee:ff`.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs `bridge` in the switch (for the fault module's look at ports).
///
/// # Errors
/// The command failed.
pub(crate) fn in_switch(spec: &Spec, program: &str, args: &[&str]) -> Result<String> {
    let mut command: Command = Place::Switch.namespace(&spec.name).command(program)?;
    shell::run(command.args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sure_link_local_address_settles_an_interface() {
        let line = |scope: &str, flags: &str| {
            format!("fe8000000000000000fa00fffe00000b 02 40 {scope} {flags}     eth0")
        };
        assert!(is_link_local(&line("20", "80"), "eth0"));
        for (wrong, interface) in
            [(line("20", "80"), "eth1"), (line("20", "c0"), "eth0"), (line("00", "80"), "eth0")]
        {
            assert!(!is_link_local(&wrong, interface), "{wrong}");
        }
        assert!(!is_link_local("", "eth0"));
    }
}
