//! The bucket hash against another implementation, and the tables against themselves.

use std::hash::Hasher;

use farm_common::bytes::mac_number;
use farm_common::flow::Address;
use farm_common::hash::{Bucket, find_seed, mac_cell, service_cell, vip_cell};
use farm_common::image::Image;
use farm_common::layout::{BUCKETS, MacCell, SERVICES, Service, VIPS, Vip};
use farm_common::table::{FillError, service_key};
use farm_common::verdict::NodeIndex;
use proptest::prelude::*;
use siphasher::sip::SipHasher24;

fn reference(key: [u64; 2], address: &[u8], port: Option<u16>) -> usize {
    let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
    hasher.write(address);
    if let Some(port) = port {
        hasher.write(&port.to_be_bytes());
    }
    hasher.finish() as usize % BUCKETS
}

proptest! {
    #[test]
    fn buckets_are_siphash_2_4(key: [u64; 2], v4: [u8; 4], v6: [u8; 16], port: Option<u16>) {
        let bucket = |address| Bucket::of(key, &address, port).index();
        prop_assert_eq!(bucket(Address::v4(v4)), reference(key, &v4, port));
        prop_assert_eq!(bucket(Address::v6(v6)), reference(key, &v6, port));
    }
}

proptest! {
    // A full table takes thousands of seeds.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn full_tables_find_what_was_placed(salt: u16) {
        let mut image = Image::empty();
        let [a, b] = salt.to_be_bytes();
        let vip = |id: u8| Vip { id, address: Address::v4([10, a, b, id]), ..Vip::default() };
        let vips: Vec<_> = (1..=VIPS as u8).map(vip).collect();
        let services: Vec<_> =
            (0..SERVICES).map(|i| Service { key: service_key(1 + i as u8 % 64, 6, salt ^ i as u16), ..Service::default() }).collect();
        let macs: Vec<_> = (0..=255).map(|i| MacCell::new([2, a, b, 0, 0, i], 1 + i % 63, 0)).collect();
        image.place_vips(&vips).unwrap();
        image.place_services(&services).unwrap();
        image.place_macs(&macs).unwrap();
        for vip in &vips {
            prop_assert_eq!(image.vip(vip.link, &vip.address), Some(vip));
        }
        for (i, service) in services.iter().enumerate() {
            let vip = &vips[i % 64];
            prop_assert_eq!(image.service(vip, 6, salt ^ i as u16), Some(service));
            prop_assert_eq!(image.service(vip, 17, salt ^ i as u16), None);
        }
        for cell in &macs {
            prop_assert_eq!(image.owner_of_mac(cell.mac()), Some(NodeIndex(cell.node())));
        }
        prop_assert_eq!(image.owner_of_mac(mac_number(&[2, a, b, 1, 0, 0])), None);
    }
}

#[test]
fn equal_items_have_no_seed() {
    assert_eq!(find_seed(2, |seed, _| mac_cell(seed, mac_number(&[2; 6]))), None);
    assert_eq!(find_seed(0, |seed, _| service_cell(seed, 7)), Some(0));
    assert_eq!(find_seed(1, |seed, _| vip_cell(seed, 0, &Address::UNSPECIFIED6)), Some(0));
    let same = [Service { key: 7, ..Service::default() }; 2];
    assert_eq!(Image::empty().place_services(&same), Err(FillError::Duplicate));
    let many = [Service { key: 7, ..Service::default() }; SERVICES + 1];
    assert_eq!(Image::empty().place_services(&many), Err(FillError::TooMany(SERVICES)));
}
