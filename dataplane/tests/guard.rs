//! The guard table as the kernel lists it. Needs root; every test has a network namespace of its own.

use std::net::IpAddr;
use std::process::Command;

use farm_dataplane::guard::{Guard, GuardError, GuardState, Rules, draw_proof};
use farm_dataplane::netns::NetNs;

fn rules() -> Rules {
    let vips = ["10.0.0.100", "10.0.0.101", "fd77::100"].map(|vip| vip.parse::<IpAddr>().unwrap());
    Rules { vips: vips.into(), proofs: [("eth0".to_owned(), [2, 0x11, 0x22, 0x33, 0x44, 0x55])].into() }
}

fn nft(arguments: &str) {
    let status = Command::new("nft").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "nft {arguments}");
}

/// Installs, lets `change` spoil it, and says what is found then; puts it back afterwards.
fn after(change: impl FnOnce() + Send) -> GuardState {
    NetNs::create()
        .unwrap()
        .run(|| {
            let guard = Guard::install("farm", rules()).unwrap();
            assert_eq!(guard.present().unwrap(), GuardState::Intact { dropped: 0 });
            change();
            let found = guard.present().unwrap();
            guard.reinstall().unwrap();
            assert_eq!(guard.present().unwrap(), GuardState::Intact { dropped: 0 });
            found
        })
        .unwrap()
}

fn altered(change: &str) -> String {
    match after(|| nft(change)) {
        GuardState::Altered { what } => what,
        other => panic!("{change}: {other:?}"),
    }
}

#[test]
fn a_flushed_ruleset_is_found() {
    assert_eq!(after(|| nft("flush ruleset")), GuardState::Missing)
}

#[test]
fn every_change_is_found() {
    assert!(altered("flush chain inet farm guard").contains("0 rules"));
    assert!(altered("insert rule inet farm guard accept").contains("6 rules"));
    assert!(altered("flush set inet farm v4").contains("set v4"));
    assert!(altered("delete element inet farm v6 { fd77::100 }").contains("set v6"));
    assert!(altered("add element inet farm proof { eth1 . 02:11:22:33:44:55 }").contains("set proof"));
    assert!(altered("add chain inet farm other").contains("2 chains"));
}

#[test]
fn another_order_of_rules_is_found() {
    let found = after(|| {
        // The same number of rules, but the first accepts everything.
        nft("flush chain inet farm guard");
        (0..5).for_each(|_| nft("add rule inet farm guard accept"));
    });
    assert!(matches!(found, GuardState::Altered { what } if what.contains("rule 1")));
}

#[test]
fn rules_are_replaced_and_removed() {
    NetNs::create()
        .unwrap()
        .run(|| {
            let mut guard = Guard::install("farm", Rules::default()).unwrap();
            assert_eq!(guard.present().unwrap(), GuardState::Intact { dropped: 0 });
            guard.update(rules()).unwrap();
            assert_eq!(
                (guard.rules(), guard.present().unwrap()),
                (&rules(), GuardState::Intact { dropped: 0 })
            );
            let second = Guard::install("farm2", rules()).unwrap();
            guard.remove().unwrap();
            assert_eq!(second.present().unwrap(), GuardState::Intact { dropped: 0 });
            nft("delete table inet farm2");
            assert_eq!(second.present().unwrap(), GuardState::Missing);
            second.remove().unwrap();
        })
        .unwrap();
}

#[test]
fn a_restart_keeps_the_proofs_until_the_filter_is_known() {
    NetNs::create()
        .unwrap()
        .run(|| {
            let Rules { vips, proofs } = rules();
            let first = Guard::take_up("farm", vips.clone()).unwrap();
            assert!(first.rules().proofs.is_empty(), "nothing passes before the filter is known");
            Guard::install("farm", Rules { vips: vips.clone(), proofs: proofs.clone() }).unwrap();
            let wanted = vips.iter().take(1).copied().collect();
            let restarted = Guard::take_up("farm", wanted).unwrap();
            assert_eq!(restarted.rules(), &rules(), "what it found stays protected until told otherwise");
            assert_eq!(restarted.present().unwrap(), GuardState::Intact { dropped: 0 });
        })
        .unwrap();
}

#[test]
fn names_that_nft_would_read_as_syntax_are_refused() {
    let install = |table: &str, interface: &str| {
        let proofs = [(interface.to_owned(), draw_proof().unwrap())].into();
        NetNs::create().unwrap().run(|| Guard::install(table, Rules { vips: [].into(), proofs })).unwrap()
    };
    for (table, interface) in
        [("farm; flush ruleset", "eth0"), ("farm", "eth0\""), ("farm", "eth*"), ("", "eth0")]
    {
        assert!(matches!(install(table, interface), Err(GuardError::Name(_))), "{table:?} {interface:?}");
    }
    install("farm", "br-lan.100").unwrap();
}

#[test]
fn a_proof_is_a_local_unicast_mac() {
    let proofs: Vec<_> = (0..64).map(|_| draw_proof().unwrap()).collect();
    assert!(proofs.iter().all(|mac| mac[0] & 0x03 == 0x02));
    assert!(proofs.iter().any(|mac| *mac != proofs[0]));
}
