//! Bounded access to a frame: the kernel implements it over `data..data_end`, user space over a slice.

/// A frame that can be read.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` when the frame is shorter.
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// A frame that can be changed.
pub trait BytesMut: Bytes {
    /// Replaces the `N` bytes at `offset`; `None`, and no change, when the frame is shorter.
    #[must_use]
    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()>;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let rest = <[u8]>::get(self, offset..)?;
        rest.first_chunk::<N>().copied()
    }
}

impl BytesMut for [u8] {
    #[inline(always)]
    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        let rest = <[u8]>::get_mut(self, offset..)?;
        *rest.first_chunk_mut::<N>()? = value;
        Some(())
    }
}

/// A big-endian 16-bit field.
#[inline(always)]
pub fn u16_at(frame: &(impl Bytes + ?Sized), offset: usize) -> Option<u16> {
    frame.get::<2>(offset).map(u16::from_be_bytes)
}

/// A MAC as a number, for comparisons in one instruction.
#[inline(always)]
pub fn mac_number(mac: &[u8; 6]) -> u64 {
    u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
}
