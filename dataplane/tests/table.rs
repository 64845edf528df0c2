//! What the loaded program makes of a published table. Needs root.

mod attach_support;

use attach_support::*;
use farm_common::verdict::Reason;
use farm_dataplane::clock::boot_now;
use farm_dataplane::explain::Action;
use farm_dataplane::fake::FakeFilter;
use farm_dataplane::sink::{PublishRefused, TableSink, Version};

const MINUTE: u64 = 60_000_000_000;

/// The rules of [`TableSink`], whatever implements it.
fn obeys_the_rules(sink: &mut impl TableSink) {
    assert_eq!(sink.publish(&image(7, ME)), Err(PublishRefused::GraceMissing), "nobody knows the spare slot");
    sink.grace().unwrap();
    sink.publish(&image(7, ME)).unwrap();
    assert_eq!(sink.publish(&image(8, ME)), Err(PublishRefused::GraceMissing));
    sink.grace().unwrap();

    let pinned = Version { generation: 1, epoch: 7 };
    for epoch in [6, 7] {
        let offered = Version { generation: 1, epoch };
        assert_eq!(sink.publish(&image(epoch, OTHER)), Err(PublishRefused::NotNewer { pinned, offered }));
    }
    assert_eq!(sink.pinned(), pinned);

    sink.set_deadline(99);
    let mut next = image(0, ME);
    next.head.generation = 2;
    next.head.deadline = 1_000_000;
    sink.publish(&next).unwrap();
    assert_eq!(sink.pinned(), Version { generation: 2, epoch: 0 }, "a greater generation wins");
    assert_eq!(sink.deadline(), 99, "the deadline is carried over, never taken from the image");
    sink.close();
    assert_eq!(sink.deadline(), 0);
}

#[test]
fn the_pinned_table_obeys_the_rules() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    obeys_the_rules(&mut filter.writer().unwrap());
}

#[test]
fn the_table_in_memory_obeys_the_rules() {
    let filter = FakeFilter::new();
    let mut writer = filter.writer();
    obeys_the_rules(&mut writer);
    let mut successor = filter.writer();
    assert_eq!(successor.pinned(), Version { generation: 2, epoch: 0 });
    let mut newer = image(9, ME);
    newer.head.generation = 2;
    assert_eq!(successor.publish(&newer), Err(PublishRefused::GraceMissing));
}

/// The planted mistake: the spare slot is used again at once.
struct Hasty(farm_dataplane::fake::FakeWriter);

impl TableSink for Hasty {
    fn pinned(&self) -> Version {
        self.0.pinned()
    }

    fn publish(&mut self, image: &farm_common::layout::Slot) -> Result<(), PublishRefused> {
        self.0.grace().unwrap();
        self.0.publish(image)
    }

    fn grace(&mut self) -> Result<(), farm_dataplane::sink::GraceError> {
        self.0.grace()
    }

    fn set_deadline(&self, boot_ns: u64) {
        self.0.set_deadline(boot_ns);
    }

    fn deadline(&self) -> u64 {
        self.0.deadline()
    }

    fn close(&self) {
        self.0.close();
    }
}

#[test]
#[should_panic(expected = "nobody knows the spare slot")]
fn a_slot_used_again_without_grace_is_found() {
    obeys_the_rules(&mut Hasty(FakeFilter::new().writer()));
}

#[test]
fn a_flip_is_seen_by_the_program() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    let mut writer = filter.writer().unwrap();
    let reason = || wire.explain(&filter).reason;
    assert_eq!(reason(), Reason::Passed, "an empty table knows no virtual IP");
    writer.grace().unwrap();

    writer.publish(&image(1, ME)).unwrap();
    assert_eq!(reason(), Reason::LeaseExpired, "a fresh table is closed");
    writer.set_deadline(boot_now() + MINUTE);
    assert_eq!(reason(), Reason::AcceptOwner);
    writer.grace().unwrap();

    writer.publish(&image(2, OTHER)).unwrap();
    assert_eq!(reason(), Reason::ForwardOwner);
    writer.grace().unwrap();
    writer.publish(&image(3, ME)).unwrap();
    assert_eq!(reason(), Reason::AcceptOwner, "the lease was carried over twice");

    writer.set_deadline(boot_now());
    assert_eq!(reason(), Reason::LeaseExpired, "a deadline that has passed");
    writer.set_deadline(boot_now() + MINUTE);
    writer.close();
    assert_eq!(reason(), Reason::LeaseExpired);
}

#[test]
fn the_writer_works_from_another_thread() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    let mut writer = filter.writer().unwrap();
    std::thread::spawn(move || {
        writer.grace().unwrap();
        writer.publish(&image(1, ME)).unwrap();
        writer.set_deadline(boot_now() + MINUTE);
    })
    .join()
    .unwrap();
    assert_eq!(wire.explain(&filter).reason, Reason::AcceptOwner);
}

#[test]
fn explaining_shows_the_frame_and_counts_nothing() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    let mut writer = filter.writer().unwrap();
    writer.grace().unwrap();
    writer.publish(&image(1, ME)).unwrap();
    writer.set_deadline(boot_now() + MINUTE);
    let accepted_before = filter.counters().unwrap()[Reason::AcceptOwner.name()];
    let accepted = wire.explain(&filter);
    assert_eq!(accepted.action, Action::Pass);
    assert_eq!(accepted.frame[6..12], filter.ports()[0].proof, "the proof of passage");
    assert_eq!(accepted.frame[12..], syn()[12..], "nothing else changes");

    writer.grace().unwrap();
    writer.publish(&image(2, OTHER)).unwrap();
    let forwarded = wire.explain(&filter);
    assert_eq!(forwarded.action, Action::Transmit);
    assert_eq!((&forwarded.frame[..6], &forwarded.frame[6..12]), (&PEER_MAC[..], &NODE_MAC[..]));
    assert_eq!(filter.counters().unwrap()[Reason::AcceptOwner.name()], accepted_before);
}
