//! Interfaces that are down, addresses that are elsewhere.

use std::net::IpAddr;

use farm_host::check::{AskOn, Check, Finding};
use farm_host::links;
use futures::StreamExt;

use super::{LONG, bad};
use crate::namespace::{CABLE, Lab, NODE_IP, NODE_IP6, PATIENCE, VIP, VIP6, run, setting};

async fn interface(name: &str, address: Option<IpAddr>) -> Finding {
    Check::Interface { name: name.into(), address }.run(LONG).await
}

async fn address(ip: impl Into<IpAddr>, unique: Option<AskOn>) -> Finding {
    Check::Address { ip: ip.into(), unique }.run(LONG).await
}

#[test]
fn an_interface_must_be_there_be_on_and_have_carrier() {
    let lab = Lab::new();
    run(async {
        assert_eq!(interface(CABLE, None).await, Finding::Good);
        assert_eq!(interface("lo", None).await, Finding::Good);
        assert_eq!(interface("eth7", None).await, bad("there is no interface eth7"));
        lab.peer.ip(&format!("link set {CABLE} down"));
        assert_eq!(interface(CABLE, None).await, bad("interface cable has no carrier"));
        lab.node.ip(&format!("link set {CABLE} down"));
        assert_eq!(interface(CABLE, None).await, bad("interface cable is switched off"));
    });
}

#[test]
fn an_interface_must_have_its_address() {
    let lab = Lab::dual();
    run(async {
        assert_eq!(interface(CABLE, Some(NODE_IP.into())).await, Finding::Good);
        assert_eq!(interface(CABLE, Some(NODE_IP6.into())).await, Finding::Good);
        lab.node.ip(&format!("address add {VIP}/32 dev lo"));
        let elsewhere = bad(format!("interface cable does not have the address {VIP}"));
        assert_eq!(interface(CABLE, Some(VIP.into())).await, elsewhere);
        // A link-local one is an address too.
        let list = lab.node.ip(&format!("-6 -o address show dev {CABLE} scope link"));
        let own = list.split_whitespace().find_map(|word| word.split_once("/64")).unwrap().0.parse().unwrap();
        assert_eq!(interface(CABLE, Some(own)).await, Finding::Good);
    });
}

#[test]
fn an_address_must_be_there() {
    let lab = Lab::new();
    run(async {
        assert_eq!(address(NODE_IP, None).await, Finding::Good);
        assert_eq!(address(VIP, None).await, bad(format!("no interface of this host has the address {VIP}")));
        lab.node.ip(&format!("address add {VIP}/32 dev lo"));
        assert_eq!(address(VIP, None).await, Finding::Good);
    });
}

#[test]
fn an_address_that_somebody_else_has_too_is_bad() {
    let lab = Lab::dual();
    run(async {
        for (vip, plain) in [(IpAddr::from(VIP), "32 dev lo"), (VIP6.into(), "64 nodad dev cable")] {
            lab.node.ip(&format!("address add {vip}/{plain}"));
            assert_eq!(address(vip, Some(AskOn::ItsLink)).await, Finding::Good);
            match vip {
                IpAddr::V4(_) => drop(lab.peer.ip(&format!("address add {vip}/24 dev {CABLE}"))),
                IpAddr::V6(_) => lab.in_peer(|| run_in_thread(&lab, &format!("{vip}/64"))),
            }
            let twice = format!(
                "the address {vip} is in use by another host too: 02:00:00:00:00:02 on interface cable"
            );
            for on in [AskOn::ItsLink, AskOn::Link(CABLE.into())] {
                assert_eq!(address(vip, Some(on)).await, bad(twice.clone()));
            }
        }
        let nobody = address(NODE_IP, Some(AskOn::Link("eth7".into()))).await;
        assert_eq!(nobody, bad("there is no interface eth7"));
        lab.node.ip(&format!("link set {CABLE} down"));
        let down = Finding::Unknown(format!("nobody can be asked for {VIP}: interface cable is down"));
        assert_eq!(address(VIP, Some(AskOn::Link(CABLE.into()))).await, down);
    });
}

/// A runtime within a runtime needs a thread; the new one is in the same namespace.
fn run_in_thread(lab: &Lab, address: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| run(lab.peer.assign(address)));
    });
}

/// Found by the kernel: first it asks, then it knows.
#[test]
fn an_address_that_the_kernel_does_not_use_is_bad() {
    let lab = Lab::dual();
    lab.in_peer(|| run(lab.peer.assign(&format!("{VIP6}/64"))));
    setting(&format!("ipv6/conf/{CABLE}/accept_dad"), "1");
    run(async {
        let mut changes = links::watch().unwrap();
        lab.node.ip(&format!("address add {VIP6}/64 dev {CABLE}"));
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last: &String| last.contains("still asks")) {
            match interface(CABLE, Some(VIP6.into())).await {
                Finding::Bad(why) => seen.push(why),
                other => panic!("{other:?} after {seen:?}"),
            }
            if seen.last().is_some_and(|last| last.contains("still asks")) {
                tokio::time::timeout(PATIENCE, changes.next()).await.expect("it stays tentative");
            }
        }
        assert!(seen.len() >= 2, "{seen:?}");
        let twice = format!(
            "the address {VIP6} on interface cable cannot be used: the kernel found another host with it"
        );
        assert_eq!(seen.last(), Some(&twice));
        assert_eq!(address(VIP6, None).await, bad(twice));
    });
}
