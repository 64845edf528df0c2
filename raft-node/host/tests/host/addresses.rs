//! Virtual addresses, kernel settings, and the unicast filter.

use std::fs;
use std::net::IpAddr;

use farm_host::{Error, Mac, Netlink, address, fdb, sysctl};

use crate::namespace::{CABLE, Lab, NODE_IP, VIP, VIP6, output, run, setting};

const SETTINGS: [&str; 2] = ["arp_announce", "arp_ignore"];

#[test]
fn a_virtual_address_comes_and_goes() {
    let _lab = Lab::new();
    run(async {
        let netlink = Netlink::open().unwrap();
        for vip in [IpAddr::from(VIP), VIP6.into()] {
            assert!(!address::virtual_present(&netlink, vip).await.unwrap());
            for _twice in 0..2 {
                address::add_virtual(&netlink, vip).await.unwrap();
                assert!(address::virtual_present(&netlink, vip).await.unwrap());
            }
            assert_eq!(address::held_elsewhere(&netlink, vip).await.unwrap(), None);
            for _twice in 0..2 {
                address::remove_virtual(&netlink, vip).await.unwrap();
                assert!(!address::virtual_present(&netlink, vip).await.unwrap());
            }
        }
    });
}

#[test]
fn a_virtual_address_is_never_a_source() {
    let lab = Lab::new();
    run(async {
        let netlink = Netlink::open().unwrap();
        // Somebody left it with an ordinary lifetime: set right.
        lab.node.ip(&format!("address add {VIP}/32 dev lo"));
        for vip in [IpAddr::from(VIP), VIP6.into()] {
            address::add_virtual(&netlink, vip).await.unwrap();
        }
    });
    for (family, prefix) in [("-4", format!("{VIP}/32")), ("-6", format!("{VIP6}/128"))] {
        let shown = lab.node.ip(&format!("{family} address show dev lo to {prefix}"));
        assert!(shown.contains("deprecated"), "{shown}");
        // Of a permanent IPv4 address the kernel does not show the lifetime.
        assert!(family == "-4" || shown.contains("valid_lft forever preferred_lft 0sec"), "{shown}");
        assert!(!shown.contains("tentative"), "{shown}");
    }
}

#[test]
fn an_address_of_somebody_else_is_named() {
    let lab = Lab::new();
    run(async {
        let netlink = Netlink::open().unwrap();
        let held = address::held_elsewhere(&netlink, NODE_IP.into()).await.unwrap();
        assert_eq!(held.as_deref(), Some(CABLE));
        lab.node.ip(&format!("address add {VIP}/32 dev {CABLE}"));
        assert_eq!(address::held_elsewhere(&netlink, VIP.into()).await.unwrap().as_deref(), Some(CABLE));
        assert!(!address::virtual_present(&netlink, VIP.into()).await.unwrap());
        address::remove_virtual(&netlink, VIP.into()).await.unwrap();
        assert!(address::held_elsewhere(&netlink, VIP.into()).await.unwrap().is_some(), "not ours to remove");
    });
}

#[test]
fn where_ipv6_is_switched_off_the_error_names_the_switch() {
    let _lab = Lab::new();
    setting("ipv6/conf/lo/disable_ipv6", "1");
    run(async {
        let netlink = Netlink::open().unwrap();
        let error = address::add_virtual(&netlink, VIP6.into()).await.unwrap_err();
        assert!(error.to_string().contains("net.ipv6.conf.lo.disable_ipv6=0"), "{error}");
        address::add_virtual(&netlink, VIP.into()).await.unwrap();
    });
}

#[test]
fn settings_are_raised_and_restored() {
    let _lab = Lab::new();
    let before = settings();
    assert_eq!(before, ["0"; 4]);
    let restore = sysctl::prepare(CABLE).unwrap();
    assert_eq!(settings(), ["2", "1", "2", "1"]);
    assert_eq!(restore.changes.len(), 4);
    assert_eq!(sysctl::prepare(CABLE).unwrap(), sysctl::Restore::default(), "nothing left to change");
    restore.restore().unwrap();
    assert_eq!(settings(), before);
}

#[test]
fn what_an_administrator_set_stays() {
    let _lab = Lab::new();
    let ignore = format!("/proc/sys/net/ipv4/conf/{CABLE}/arp_ignore");
    fs::write(&ignore, "8").unwrap();
    let restore = sysctl::prepare(CABLE).unwrap();
    assert_eq!(fs::read_to_string(&ignore).unwrap().trim(), "8", "stricter than needed");
    fs::write("/proc/sys/net/ipv4/conf/all/arp_announce", "1").unwrap();
    restore.restore().unwrap();
    assert_eq!(settings(), ["1", "0", "0", "8"], "changed since: left alone");
}

#[test]
fn settings_of_a_removed_device_do_not_hinder_the_others() {
    let lab = Lab::new();
    let restore = sysctl::prepare(CABLE).unwrap();
    lab.node.ip(&format!("link del {CABLE}"));
    restore.restore().unwrap();
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/conf/all/arp_announce").unwrap().trim(), "0");
}

#[test]
fn unknown_interfaces_are_named() {
    let _lab = Lab::new();
    for name in ["nic7", "../lo", ""] {
        let error = sysctl::prepare(name).unwrap_err();
        assert!(matches!(&error, Error::NoSuchInterface(n) if n == name), "{error}");
    }
    let error = run(async { fdb::add_unicast(&Netlink::open().unwrap(), "nic7", [2; 6]).await.unwrap_err() });
    assert!(error.to_string().contains("no interface nic7"), "{error}");
}

#[test]
fn the_unicast_filter_takes_and_loses_an_entry() {
    const VIRTUAL_MAC: Mac = [0x02, 0xfa, 0, 0, 0, 0x64];
    const SHOWN: &str = "02:fa:00:00:00:64 self permanent";
    let _lab = Lab::new();
    let shown = || output("bridge", &format!("fdb show dev {CABLE}"));
    run(async {
        let netlink = Netlink::open().unwrap();
        for _twice in 0..2 {
            fdb::add_unicast(&netlink, CABLE, VIRTUAL_MAC).await.unwrap();
            assert!(shown().contains(SHOWN), "{}", shown());
        }
        for _twice in 0..2 {
            fdb::del_unicast(&netlink, CABLE, VIRTUAL_MAC).await.unwrap();
            assert!(!shown().contains(SHOWN), "{}", shown());
        }
    });
}

/// `all` and the cable, in the order of [`SETTINGS`].
fn settings() -> [String; 4] {
    let value = |device: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/{name}")).unwrap();
        text.trim().to_owned()
    };
    let [announce, ignore] = SETTINGS;
    [value("all", announce), value("all", ignore), value(CABLE, announce), value(CABLE, ignore)]
}
