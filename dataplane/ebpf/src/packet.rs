//! The frame in the kernel's hands.

use aya_ebpf::programs::XdpContext;
use farm_common::bytes::{Bytes, BytesMut};

/// The linear part of a frame, which holds at least the headers.
pub struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    /// The frame of this run.
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// Address of `length` bytes at `offset`, proven to lie in the frame.
    #[inline(always)]
    pub fn at(&self, offset: usize, length: usize) -> Option<usize> {
        let address = self.start + offset;
        (address + length <= self.end).then_some(address)
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let address = self.at(offset, N)?;
        // SAFETY: `at` has compared the end of these bytes with the end of the frame; the verifier checks it
        // again. An array of bytes has no alignment, and no other CPU writes to the frame during the run.
        Some(unsafe { *(address as *const [u8; N]) })
    }
}

impl BytesMut for Packet {
    #[inline(always)]
    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        let address = self.at(offset, N)?;
        // SAFETY: as in `get`; XDP gives write access to the frame.
        unsafe { *(address as *mut [u8; N]) = value };
        Some(())
    }
}
