//! Parser and rewriter on frames that nobody meant.

use farm_common::bytes::{Bytes, BytesMut};
use farm_common::judge::Ingress;
use farm_common::layout::{Port, Slot};
use farm_common::parse::{Arp, EXTENSIONS, Ethernet, Solicitation, ipv4, ipv6};
use farm_common::rewrite::{MARK, is_marked, rewrite};
use farm_common::verdict::{Acceptance, Course, NodeIndex, Reason, Verdict};
use proptest::prelude::*;

static SLOT: Slot = Slot::EMPTY;

fn checksum(header: &[u8]) -> u32 {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded & 0xffff) + (folded >> 16)
}

fn ingress() -> Ingress<'static> {
    const PORT: Port = Port {
        mac: [2, 0, 0, 0, 0, 1],
        proof: [2, 0, 0, 0, 0, 9],
        ifindex: 1,
        vlan: 0,
        remembers: 0,
        reserved: [0; 3],
    };
    Ingress { link: 0, port: &PORT }
}

/// Rewrites a frame that is long enough.
fn make(verdict: &Verdict, frame: &mut [u8]) {
    let ethernet = Ethernet::parse(frame).unwrap();
    rewrite(verdict, &SLOT, &ingress(), &ethernet, frame).unwrap();
}

proptest! {
    #[test]
    fn any_bytes_parse_or_not_but_never_panic(frame in prop::collection::vec(any::<u8>(), 0..128)) {
        let frame = &frame[..];
        if let Some(ethernet) = Ethernet::parse(frame) {
            let start = ethernet.payload();
            prop_assert!(start <= frame.len());
            let _ = Arp::parse(frame, start);
            for header in [ipv4(frame, start), ipv6::<EXTENSIONS>(frame, start)].into_iter().flatten() {
                let _ = header.flow(frame);
            }
            if let Some(target) = Solicitation::target(frame, start) {
                let _ = Solicitation::parse(frame, start, target);
            }
        }
    }

    #[test]
    fn marking_keeps_ecn_and_the_checksum(mut frame in prop::collection::vec(any::<u8>(), 34..80)) {
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = !(checksum(&frame[14..34]) as u16);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let (before, tos) = (frame.clone(), frame[15]);
        let bounce = Verdict::Forward { node: NodeIndex(1), course: Course::Bounce };
        make(&bounce, &mut frame);
        prop_assert!(is_marked(frame[15]));
        prop_assert_eq!(frame[15] & 3, tos & 3);
        prop_assert_eq!(checksum(&frame[14..34]), 0xffff);
        make(&Verdict::Accept(Acceptance::New), &mut frame);
        prop_assert_eq!(frame[15], tos & 3);
        prop_assert_eq!(checksum(&frame[14..34]), 0xffff);
        prop_assert_eq!(&frame[26..], &before[26..]);
    }

    #[test]
    fn ordinary_forwards_carry_no_mark(ecn in 0u8..4) {
        let mut frame = [0u8; 60];
        frame[12..16].copy_from_slice(&[8, 0, 0x45, MARK << 2 | ecn]);
        let forward = Verdict::Forward { node: NodeIndex(1), course: Course::Owner };
        make(&forward, &mut frame);
        prop_assert_eq!(frame[15], ecn);
    }
}

#[test]
fn a_slice_is_bounded() {
    let mut frame = [1u8, 2, 3];
    assert_eq!(Bytes::window::<2>(&frame[..], 1), Some([2, 3]));
    assert_eq!(Bytes::window::<2>(&frame[..], 2), None);
    assert_eq!(Bytes::window::<1>(&frame[..], usize::MAX), None);
    assert_eq!(BytesMut::set(&mut frame[..], 2, [9, 9]), None);
    assert_eq!(frame, [1, 2, 3]);
}

#[test]
fn codes_and_names_of_reasons_are_unique_and_read_back() {
    let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        assert_eq!(Reason::try_from(u32::from(*reason)), Ok(*reason));
    }
    assert!(Reason::try_from(63u32).is_err());
}
