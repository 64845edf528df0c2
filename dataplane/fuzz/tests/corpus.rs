//! The oracle's frames and all former findings against the properties, and the properties against planted mistakes.

use std::collections::BTreeMap;

use farm_common::decide::Given;
use farm_common::layout::{Port, Slot};
use farm_common::verdict::{Course, NodeIndex, Reason, Verdict};
use farm_fuzz::check::{REAL, Subject};
use farm_fuzz::naive::Envelope;
use farm_fuzz::seeds::{kept, oracle, regressions};
use farm_fuzz::{Case, check, check_with};

#[test]
fn the_properties_hold_of_the_oracle_s_frames() {
    let mut met: BTreeMap<Reason, u64> = BTreeMap::new();
    for case in oracle().unwrap() {
        *met.entry(check(&case).unwrap().reason()).or_default() += 1;
    }
    assert!(met.values().sum::<u64>() > 7000 && met.len() > 20, "{met:?}");
}

#[test]
fn the_properties_hold_of_what_was_found_before() {
    let found = kept(&regressions()).unwrap();
    assert!(!found.is_empty());
    for (name, case) in found {
        let verdict = check(&case);
        assert!(verdict.is_ok(), "{name}: {verdict:?}");
    }
}

#[test]
fn an_input_is_read_as_it_was_written() {
    for case in oracle().unwrap() {
        assert_eq!(Case::read(&case.write()).as_ref(), Some(&case));
    }
    assert_eq!(Case::read(&[0; 5]), None);
}

/// The first property that `subject` breaks with one of the oracle's frames or with half of it.
fn breach(subject: &Subject) -> String {
    let cases = oracle().unwrap();
    let halves =
        cases.iter().map(|case| Case { frame: case.frame[..case.frame.len() / 2].to_vec(), ..case.clone() });
    let found = cases.iter().cloned().chain(halves).find_map(|case| check_with(subject, &case).err());
    let breach = found.expect("the mistake is found");
    breach.split(": ").next().unwrap().to_owned()
}

/// The real judgement of a frame that is as long as it says it is, because nobody looked.
fn unchecked(slot: &Slot, ports: &[Port], frame: &[u8], given: &Given) -> Verdict {
    let mut long = frame.to_vec();
    long.resize(frame.len().max(200), 0);
    (REAL.judge)(slot, ports, &long, given)
}

#[test]
fn a_missing_check_of_the_length_is_found() {
    let subject = Subject { judge: unchecked, ..REAL };
    assert_eq!(breach(&subject), "a part of a frame fares no better than the whole");
}

#[test]
fn a_lease_that_nobody_looks_at_is_found() {
    let subject = Subject {
        judge: |slot, ports, frame, given| {
            let verdict = (REAL.judge)(slot, ports, frame, given);
            let expired = verdict == Verdict::Drop(Reason::LeaseExpired);
            let node = NodeIndex(1 + slot.head.me % 4);
            if expired { Verdict::Forward { node, course: Course::Owner } } else { verdict }
        },
        ..REAL
    };
    assert_eq!(breach(&subject), "nothing is acted on without a lease or a link");
}

#[test]
fn a_forgotten_checksum_is_found() {
    let subject = Subject {
        rewrite: |verdict, slot, ports, frame| {
            let before = frame.get(24..26).map(<[u8]>::to_vec);
            (REAL.rewrite)(verdict, slot, ports, frame)?;
            let bounced = matches!(verdict, Verdict::Forward { course: Course::Bounce, .. });
            if bounced && frame[12..14] == [8, 0] {
                frame[24..26].copy_from_slice(&before?);
            }
            Some(())
        },
        ..REAL
    };
    let expected = "a packet changes in MACs, mark, hops and checksum only, and the checksum stays right";
    assert_eq!(breach(&subject), expected);
}

#[test]
fn a_mark_that_stays_is_found() {
    let subject = Subject {
        rewrite: |verdict, slot, ports, frame| match verdict {
            Verdict::Accept(_) => {
                frame[..6].copy_from_slice(&ports[0].mac);
                frame[6..12].copy_from_slice(&ports[0].proof);
                Some(())
            }
            _ => (REAL.rewrite)(verdict, slot, ports, frame),
        },
        ..REAL
    };
    assert_eq!(breach(&subject), "an accepted frame carries the proof and no mark");
}

#[test]
fn a_vlan_that_nobody_looks_at_is_found() {
    let subject = Subject {
        judge: |slot, ports, frame, given| {
            let untagged = Envelope::untagged(frame);
            (REAL.judge)(slot, ports, &untagged, given)
        },
        ..REAL
    };
    assert_eq!(breach(&subject), "what is acted on is for a service");
}
