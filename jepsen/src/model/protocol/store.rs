//! Two flat tables: fingerprints of states that were seen, and results that are known.
//!
//! Millions of keys are looked up for every second of search. A tree costs a dozen jumps for each of them, and the
//! project uses no hash maps of the standard library: their order differs from run to run.

use std::hash::{Hash, Hasher};

/// A key that no fingerprint and no packed input is: it marks free places.
const FREE: u64 = u64::MAX;

/// Open addressing over 64-bit keys.
#[derive(Debug)]
pub struct Known<V> {
    places: Vec<(u64, V)>,
    len: usize,
}

impl<V: Copy + Default> Default for Known<V> {
    fn default() -> Self {
        Self { places: vec![(FREE, V::default()); 1 << 10], len: 0 }
    }
}

impl<V: Copy + Default> Known<V> {
    /// The value of `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<V> {
        let (found, value) = self.places[self.place(key)];
        (found == key).then_some(value)
    }

    /// Whether `key` is new; then it has `value` from now on.
    pub fn insert(&mut self, key: u64, value: V) -> bool {
        let place = self.place(key);
        let new = self.places[place].0 == FREE;
        if new {
            self.places[place] = (key, value);
            self.len += 1;
            if self.len * 3 > self.places.len() * 2 {
                self.grow();
            }
        }
        new
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(&self, key: u64) -> usize {
        let mask = self.places.len() - 1;
        let mut place = usize::try_from(fold(key, SEED) & mask as u64).expect("masked by a length");
        while self.places[place].0 != key && self.places[place].0 != FREE {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        let larger = vec![(FREE, V::default()); self.places.len() * 2];
        let old = std::mem::replace(&mut self.places, larger);
        for (key, value) in old.into_iter().filter(|(key, _)| *key != FREE) {
            let place = self.place(key);
            self.places[place] = (key, value);
        }
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of a product, so that every bit of the input reaches every bit of the result.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xd6e8_feb8_6659_fd93) * u128::from(b);
    let low = u64::try_from(product & u128::from(u64::MAX)).expect("masked");
    let high = u64::try_from(product >> 64).expect("shifted");
    low ^ high
}

/// Hashes a state into 64 bits: with n states the odds of one collision are n² in 2⁶⁵, one in 36 million at a million.
struct Folding(u64);

impl Hasher for Folding {
    fn finish(&self) -> u64 {
        // The mark of a free place is nobody's fingerprint.
        fold(self.0, SEED).min(FREE - 1)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = fold(self.0.rotate_left(23) ^ u64::from_le_bytes(word), SEED);
        }
    }
}

/// 64 bits of `value`, the same in every run.
#[must_use]
pub fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = Folding(SEED);
    value.hash(&mut hasher);
    hasher.finish()
}
