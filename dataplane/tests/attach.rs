//! Pins, links, take-up and verification, on real interfaces. Needs root.

mod attach_support;

use std::fs;
use std::path::PathBuf;

use attach_support::*;
use aya::maps::{Array, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use farm_common::layout::{MAP_TABLE, MAP_WORD};
use farm_common::verdict::Reason;
use farm_dataplane::attach::{AttachError, Filter, Finding, Options, PortConfig, XdpMode};
use farm_dataplane::bpffs::PinDirError;
use farm_dataplane::clock::boot_now;
use farm_dataplane::guard::{Guard, GuardState, Rules};
use farm_dataplane::sink::{TableSink, Version};

const MINUTE: u64 = 60_000_000_000;

/// A closed table that names the virtual IP: the filter drops everything for it.
fn publish_closed(filter: &Filter) {
    let mut writer = filter.writer().unwrap();
    writer.grace().unwrap();
    writer.publish(&image(1, ME)).unwrap();
}

fn publish_open(filter: &Filter) -> u64 {
    let mut writer = filter.writer().unwrap();
    writer.grace().unwrap();
    writer.publish(&image(5, ME)).unwrap();
    let deadline = boot_now() + MINUTE;
    writer.set_deadline(deadline);
    deadline
}

fn link_id(wire: &Wire) -> u32 {
    FdLink::from(PinnedLink::from_pin(wire.link_pin()).unwrap()).info().unwrap().id()
}

/// The owner that the tests below kill. Without a role it has nothing to own.
#[test]
fn owner_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let pin_dir = PathBuf::from(std::env::var("FARM_TEST_PINS").unwrap());
    let ifindex = nix::net::if_::if_nametoindex(INTERFACE).unwrap();
    let ports = vec![PortConfig::untagged(ifindex, INTERFACE, NODE_MAC, 0)];
    let options = Options { pin_dir: pin_dir.clone(), identity: identity(1), ports, mode: XdpMode::Auto };
    let (filter, _) = Filter::take_up(&options).unwrap();
    publish_closed(&filter);
    // The planted bug: the link lives by this process's descriptor alone.
    let unpinned = (role == "unpinned").then(|| {
        let link = PinnedLink::from_pin(pin_dir.join(format!("link-{ifindex}"))).unwrap();
        link.unpin().unwrap()
    });
    wait_to_be_killed();
    drop(unpinned);
}

#[test]
fn a_pinned_link_survives_its_owner() {
    let wire = Wire::new();
    wire.serve();
    assert!(wire.connect().is_some(), "without a filter the wire works");
    let owner = spawn_owner(&wire, "owner_process", "pinned");
    assert!(wire.connect().is_none(), "the filter is closed");
    kill(owner);
    assert!(wire.connect().is_none(), "the filter stays closed");
    let (filter, taken) = wire.take_up(1);
    assert!(!taken.fresh);
    assert!(filter.counters().unwrap()[Reason::LeaseExpired.name()] >= 2, "it was the filter that dropped");
}

#[test]
fn an_unpinned_link_fails_open_and_the_guard_closes_it() {
    let wire = Wire::new();
    wire.serve();
    let owner = spawn_owner(&wire, "owner_process", "unpinned");
    assert!(wire.connect().is_none(), "the filter is closed");
    kill(owner);
    assert!(wire.connect().is_some(), "the planted bug is visible: the filter died with its owner");
    let rules = Rules { vips: [VIP.into()].into(), proofs: [].into() };
    let guard = wire.inside(|| Guard::install("farm", rules)).unwrap();
    assert!(wire.connect().is_none());
    assert!(matches!(wire.inside(|| guard.present()).unwrap(), GuardState::Intact { dropped: 1.. }));
}

#[test]
fn the_same_identity_takes_up_epoch_deadline_proof_and_flows() {
    let wire = Wire::new();
    wire.serve();
    let (filter, taken) = wire.take_up(1);
    assert!(taken.fresh);
    let (deadline, proof, program, link) =
        (publish_open(&filter), filter.ports()[0].proof, filter.program_id(), link_id(&wire));
    let mut flow = wire.connect().expect("the filter is open");
    ping(&mut flow);
    drop(filter);
    ping(&mut flow);

    let (filter, taken) = wire.take_up(1);
    assert_eq!((taken.fresh, taken.pinned_generation, taken.pinned_epoch), (false, 1, 5));
    assert_eq!(filter.ports()[0].proof, proof);
    assert_ne!(filter.program_id(), program, "the program was replaced");
    assert_eq!(link_id(&wire), link, "in the link that was there");
    let writer = filter.writer().unwrap();
    assert_eq!((writer.deadline(), writer.pinned()), (deadline, Version { generation: 1, epoch: 5 }));
    ping(&mut flow);
    assert!(filter.writer().is_none(), "there is one writer");
}

#[test]
fn another_identity_closes_the_old_table_first() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    publish_open(&filter);
    drop(filter);
    let (link, old) = (link_id(&wire), old_table(&wire));
    assert_ne!(deadlines(&old), [0, 0]);

    let (filter, taken) = wire.take_up(2);
    assert_eq!(deadlines(&old), [0, 0]);
    assert_eq!((taken.fresh, taken.pinned_epoch, taken.pinned_generation), (true, 0, 0));
    assert_eq!(link_id(&wire), link, "no instant without a filter");
    let writer = filter.writer().unwrap();
    assert_eq!((writer.deadline(), writer.pinned()), (0, Version::default()));
}

/// The table as its map, which lives on after its pin.
fn old_table(wire: &Wire) -> MapData {
    MapData::from_pin(wire.pin_dir.join(MAP_TABLE)).unwrap()
}

/// The first word of both slots.
fn deadlines(table: &MapData) -> [u64; 2] {
    const SLOT: usize = size_of::<farm_common::layout::Slot>();
    let id = table.info().unwrap().id();
    let read = move || {
        let copy = Map::from_map_data(MapData::from_id(id).unwrap()).unwrap();
        let array = Array::<_, [u8; SLOT]>::try_from(copy).unwrap();
        [0, 1].map(|slot| u64::from_ne_bytes(*array.get(&slot, 0).unwrap().first_chunk().unwrap()))
    };
    // Slots are read by value: more than a test's stack holds.
    std::thread::Builder::new().stack_size(32 * SLOT).spawn(read).unwrap().join().unwrap()
}

#[test]
fn incomplete_pins_belong_to_nobody() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    publish_open(&filter);
    drop(filter);
    fs::remove_file(wire.pin_dir.join(MAP_WORD)).unwrap();
    let (_filter, taken) = wire.take_up(1);
    assert!(taken.fresh);
}

#[test]
fn a_second_daemon_is_locked_out() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    let options = wire.options(1);
    let refused = wire.inside(|| Filter::take_up(&options)).err().unwrap();
    assert!(matches!(refused, AttachError::PinDir(PinDirError::Locked { .. })), "{refused}");
    drop(filter);
    wire.take_up(1);
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let wire = Wire::new();
    let other = Wire::new();
    let (filter, _) = wire.take_up(1);
    let options = Options { pin_dir: other.pin_dir.clone(), ..wire.options(1) };
    let refused = wire.inside(|| Filter::take_up(&options)).err().unwrap();
    let AttachError::Foreign { interface, id, name } = refused else { panic!("{refused}") };
    assert_eq!((interface.as_str(), id), (INTERFACE, filter.program_id()));
    assert!(name.starts_with("name "), "{name}");
    assert!(filter.verify().is_empty());
}

#[test]
fn an_interface_made_anew_is_found() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    assert!(filter.verify().is_empty());
    wire.on_node("ip link del eth0");
    assert!(matches!(filter.verify()[..], [Finding::Gone { .. }]));
    wire.add_veth();
    let findings = filter.verify();
    assert!(matches!(findings[..], [Finding::Recreated { .. }]), "{findings:?}");
    drop(filter);
    let (filter, taken) = wire.take_up(1);
    assert!(!taken.fresh && filter.verify().is_empty());
}

#[test]
fn a_renamed_interface_and_a_new_mac_are_found() {
    let wire = Wire::new();
    let (filter, _) = wire.take_up(1);
    wire.on_node("ip link set eth0 address 02:00:00:00:00:99");
    assert!(matches!(filter.verify()[..], [Finding::MacChanged { now: [2, 0, 0, 0, 0, 0x99], .. }]));
    wire.on_node("ip link set eth0 down");
    wire.on_node("ip link set eth0 name eth9");
    assert!(matches!(&filter.verify()[..], [Finding::Renamed { now, .. }] if now == "eth9"));
}

#[test]
fn a_detached_link_is_found_and_the_guard_still_drops() {
    let wire = Wire::new();
    wire.serve();
    let (filter, _) = wire.take_up(1);
    publish_open(&filter);
    let proofs = [(INTERFACE.to_owned(), filter.ports()[0].proof)].into();
    let guard = wire.inside(|| Guard::install("farm", Rules { vips: [VIP.into()].into(), proofs })).unwrap();
    assert!(wire.connect().is_some(), "frames with the proof of passage pass the guard");
    assert_eq!(wire.inside(|| guard.present()).unwrap(), GuardState::Intact { dropped: 0 });

    run(&format!("bpftool link detach pinned {}", wire.link_pin().display()));
    let findings = filter.verify();
    assert!(matches!(findings[..], [Finding::Detached { .. }]), "{findings:?}");
    assert!(wire.connect().is_none(), "closed, although the lease is open and the pin is there");
    assert!(matches!(wire.inside(|| guard.present()).unwrap(), GuardState::Intact { dropped: 1.. }));

    drop(filter);
    let (filter, taken) = wire.take_up(1);
    assert!(!taken.fresh && filter.verify().is_empty(), "a dead link is replaced");
    assert!(wire.connect().is_some(), "the proof is still the one that the guard knows");
}

#[test]
fn an_interface_no_longer_configured_is_detached() {
    let wire = Wire::new();
    wire.serve();
    let (filter, _) = wire.take_up(1);
    publish_closed(&filter);
    drop(filter);
    assert!(wire.connect().is_none());
    let pin = wire.link_pin();
    let options = Options { ports: Vec::new(), ..wire.options(1) };
    let (filter, _) = wire.inside(|| Filter::take_up(&options)).unwrap();
    assert!(!pin.exists() && filter.ports().is_empty());
    assert!(wire.connect().is_some());
}

#[test]
fn an_orderly_stop_leaves_nothing() {
    let wire = Wire::new();
    wire.serve();
    let (filter, _) = wire.take_up(1);
    publish_closed(&filter);
    assert!(wire.connect().is_none());
    filter.detach_and_unpin().unwrap();
    assert!(!wire.pin_dir.exists());
    assert!(wire.connect().is_some(), "nothing is attached any more");
}

#[test]
fn impossible_ports_are_refused() {
    let wire = Wire::new();
    let port = wire.port();
    let refusal = |ports: Vec<PortConfig>| {
        let options = Options { ports, ..wire.options(1) };
        wire.inside(|| Filter::take_up(&options)).err().unwrap()
    };
    let other = PortConfig { name: "eth7".into(), ..port.clone() };
    assert!(matches!(refusal(vec![other]), AttachError::NoInterface { .. }));
    assert!(matches!(refusal(vec![port.clone(), port.clone()]), AttachError::Links));
    assert!(matches!(refusal(vec![PortConfig { link: 4, ..port }]), AttachError::Links));
}
