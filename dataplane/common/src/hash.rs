//! The bucket hash (SipHash-2-4, keyed) and the cell hash of the one-probe tables (seeded, not secret).

use crate::flow::{Address, Family};
use crate::layout::{BUCKETS, MAC_CELLS, SERVICE_CELLS, VIP_CELLS};

/// Index of a bucket, below [`BUCKETS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bucket(u16);

impl Bucket {
    /// The bucket of a client: SipHash-2-4 over its address (4 or 16 bytes), for the criterion
    /// `source-port` followed by the port (2 bytes, big-endian); the low 12 bits count. What of a client is hashed says
    /// [`Criterion::hashed`](crate::verdict::Criterion::hashed).
    #[inline(always)]
    pub fn of(key: [u64; 2], client: &Address, port: Option<u16>) -> Self {
        let [high, low] = client.words().map(u64::from_le);
        let hash = match (client.family(), port) {
            (Family::V4, None) => siphash(key, [low >> 32 | 4 << 56]),
            (Family::V4, Some(port)) => siphash(key, [low >> 32 | wire(port) << 32 | 6 << 56]),
            (Family::V6, None) => siphash(key, [high, low, 16 << 56]),
            (Family::V6, Some(port)) => siphash(key, [high, low, wire(port) | 18 << 56]),
        };
        Self((hash % BUCKETS as u64) as u16)
    }

    /// `None` when `index` is not below [`BUCKETS`].
    pub fn new(index: u16) -> Option<Self> {
        (usize::from(index) < BUCKETS).then_some(Self(index))
    }

    /// As an array index.
    #[inline(always)]
    pub fn index(self) -> usize {
        usize::from(self.0) & (BUCKETS - 1)
    }
}

#[inline(always)]
fn wire(port: u16) -> u64 {
    u64::from(u16::from_le_bytes(port.to_be_bytes()))
}

/// SipHash-2-4 of a message given as its little-endian words, the last one already carrying the length.
#[inline(always)]
fn siphash<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    for word in words {
        v[3] ^= word;
        v = round(round(v));
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    v = round(round(round(round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v0;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

/// Cell of a virtual IP of a link in [`crate::layout::Slot::vips`].
#[inline(always)]
pub fn vip_cell(seed: u32, link: u8, address: &Address) -> usize {
    let [high, low] = address.words().map(u64::from_le);
    cell(u64::from(seed) | u64::from(link) << 32, high, low, VIP_CELLS)
}

/// Cell of a service key in [`crate::layout::Slot::services`].
#[inline(always)]
pub fn service_cell(seed: u32, key: u32) -> usize {
    cell(u64::from(seed), 0, u64::from(key), SERVICE_CELLS)
}

/// Cell of a MAC, as a number, in [`crate::layout::Slot::macs`].
#[inline(always)]
pub fn mac_cell(seed: u32, mac: u64) -> usize {
    cell(u64::from(seed), 0, mac, MAC_CELLS)
}

/// Multiplicative hash: the upper bits of a product with an odd factor, which the seed gives. Two multiplications for a
/// packet of IPv4, whose upper word is 0; the keys are public, so only spread is asked of it.
#[inline(always)]
fn cell(seed: u64, high: u64, low: u64, cells: usize) -> usize {
    let factor = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let high = high.wrapping_mul(factor);
    let word = low.wrapping_add(high ^ high >> 32);
    (word.wrapping_mul(factor) >> (u64::BITS - cells.ilog2())) as usize
}

/// Seeds tried before giving up. At the limits of [`crate::layout`] one in three thousand fits (256 of 4096
/// cells), so running out means that two items are the same.
pub const SEEDS: u32 = 1 << 16;

/// The smallest seed that gives each of `count` items a cell of its own, `None` when two of them are equal.
/// `cell(seed, item)` must be below 4096.
pub fn find_seed(count: usize, cell: impl Fn(u32, usize) -> usize) -> Option<u32> {
    (0..SEEDS).find(|seed| {
        let mut taken = [0u64; 4096 / 64];
        (0..count).all(|item| {
            let cell = cell(*seed, item);
            let free = taken[cell / 64] >> (cell % 64) & 1 == 0;
            taken[cell / 64] |= 1 << (cell % 64);
            free
        })
    })
}
const _: () = assert!(VIP_CELLS <= 4096 && SERVICE_CELLS <= 4096 && MAC_CELLS <= 4096);
