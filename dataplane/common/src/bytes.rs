//! Bounded access to a frame: the kernel implements it over `data..data_end`, user space over a slice.
//!
//! A header is asked for as a whole, and its fields are then read where they are: one comparison with the frame's end
//! for all of them, one load for each, and no copy of the header on the program's small stack.

/// A frame that can be read.
pub trait Bytes {
    /// The bytes of a header.
    type Window<const N: usize>: Window<N>;

    /// The `N` bytes at `offset`, or `None` when the frame is shorter.
    fn window<const N: usize>(&self, offset: usize) -> Option<Self::Window<N>>;
}

/// `N` bytes of a frame. A field's place is part of its type: one beyond the end does not compile.
pub trait Window<const N: usize>: Copy {
    /// The byte at `AT`.
    fn u8<const AT: usize>(self) -> u8;

    /// The big-endian 16-bit field at `AT`.
    fn u16<const AT: usize>(self) -> u16;

    /// The four bytes at `AT`: an address of IPv4.
    fn four<const AT: usize>(self) -> [u8; 4];

    /// The eight bytes at `AT`, as the word that they are in memory.
    fn word<const AT: usize>(self) -> u64;

    /// The sixteen bytes at `AT`, as the two words that they are in memory: an address of IPv6.
    fn words<const AT: usize>(self) -> [u64; 2];

    /// The MAC at `AT`, as a number ([`mac_number`]).
    fn mac<const AT: usize>(self) -> u64;
}

/// A frame that can be changed.
pub trait BytesMut: Bytes {
    /// Replaces the `N` bytes at `offset`; `None`, and no change, when the frame is shorter.
    #[must_use]
    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()>;
}

impl Bytes for [u8] {
    type Window<const N: usize> = [u8; N];

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}

/// Some bytes of a window that is an array.
#[inline(always)]
fn part<const AT: usize, const LENGTH: usize, const N: usize>(window: &[u8; N]) -> [u8; LENGTH] {
    const { assert!(AT + LENGTH <= N, "a field beyond its header") };
    core::array::from_fn(|index| window[AT + index])
}

impl<const N: usize> Window<N> for [u8; N] {
    #[inline(always)]
    fn u8<const AT: usize>(self) -> u8 {
        let [byte] = part::<AT, 1, N>(&self);
        byte
    }

    #[inline(always)]
    fn u16<const AT: usize>(self) -> u16 {
        u16::from_be_bytes(part::<AT, 2, N>(&self))
    }

    #[inline(always)]
    fn four<const AT: usize>(self) -> [u8; 4] {
        part::<AT, 4, N>(&self)
    }

    #[inline(always)]
    fn word<const AT: usize>(self) -> u64 {
        u64::from_ne_bytes(part::<AT, 8, N>(&self))
    }

    #[inline(always)]
    fn words<const AT: usize>(self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, rest @ ..] = part::<AT, 16, N>(&self);
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]
    }

    #[inline(always)]
    fn mac<const AT: usize>(self) -> u64 {
        mac_number(&part::<AT, 6, N>(&self))
    }
}

impl BytesMut for [u8] {
    #[inline(always)]
    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        *self.get_mut(offset..)?.first_chunk_mut::<N>()? = value;
        Some(())
    }
}

/// A MAC as a number, for comparisons in one instruction.
#[inline(always)]
pub fn mac_number(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from(u32::from_le_bytes([a, b, c, d])) | u64::from(u16::from_le_bytes([e, f])) << 32
}

/// The MAC that [`mac_number`] made a number of.
#[inline(always)]
pub fn mac_bytes(number: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = number.to_le_bytes();
    [a, b, c, d, e, f]
}
