//! The frame in the kernel's hands.
//!
//! Loads and stores are written as instructions. The compiler knows no alignment of a frame's fields and would make
//! each of them byte by byte; both architectures that Farm runs on load what is not aligned, and the verifier lets
//! them, in frames.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use farm_common::bytes::{Bytes, BytesMut, Window};

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

/// Address of `N` bytes that were proven to lie in the frame.
#[derive(Clone, Copy)]
pub struct Proven<const N: usize>(usize);

impl Bytes for Packet {
    type Window<const N: usize> = Proven<N>;

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<Proven<N>> {
        self.at(offset, N).map(Proven)
    }
}

/// One load from a window, of a size as BPF names it.
macro_rules! load {
    ($size:literal, $bytes:literal, $window:expr, $at:expr) => {{
        const { assert!($at + $bytes <= N, "a field beyond its header") };
        let value: u64;
        // SAFETY: `at` has compared the end of the window with the end of the frame, and the verifier checks it again;
        // the field lies in the window. No other CPU writes to the frame during the run.
        unsafe {
            asm!(
                concat!("{value} = *(", $size, " *)({window} + {at})"),
                value = lateout(reg) value,
                window = in(reg) $window.0,
                at = const $at,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        value
    }};
}

impl<const N: usize> Window<N> for Proven<N> {
    #[inline(always)]
    fn u8<const AT: usize>(self) -> u8 {
        load!("u8", 1, self, AT) as u8
    }

    #[inline(always)]
    fn u16<const AT: usize>(self) -> u16 {
        u16::from_be(load!("u16", 2, self, AT) as u16)
    }

    #[inline(always)]
    fn four<const AT: usize>(self) -> [u8; 4] {
        (load!("u32", 4, self, AT) as u32).to_ne_bytes()
    }

    #[inline(always)]
    fn word<const AT: usize>(self) -> u64 {
        load!("u64", 8, self, AT)
    }

    #[inline(always)]
    fn words<const AT: usize>(self) -> [u64; 2] {
        [load!("u64", 8, self, AT), load!("u64", 8, self, AT + 8)]
    }

    #[inline(always)]
    fn mac<const AT: usize>(self) -> u64 {
        load!("u32", 4, self, AT) | load!("u16", 2, self, AT + 4) << 32
    }
}

/// One store to the frame.
macro_rules! store {
    ($size:literal, $address:expr, $value:expr) => {
        // SAFETY: the caller has proven that these bytes lie in the frame; XDP gives write access to it.
        unsafe {
            asm!(
                concat!("*(", $size, " *)({address} + 0) = {value}"),
                address = in(reg) $address,
                value = in(reg) u64::from($value),
                options(nostack, preserves_flags),
            );
        }
    };
}

/// The same pointer, of which the compiler knows nothing. (A real move: two lines of the source must not have the same
/// instruction, and an empty one has none.)
#[inline(always)]
pub fn afresh<T>(pointer: *mut T) -> *mut T {
    let same;
    // SAFETY: a move between registers.
    unsafe {
        asm!("{0} = {1}", lateout(reg) same, in(reg) pointer, options(nostack, preserves_flags));
    }
    same
}

impl BytesMut for Packet {
    #[inline(always)]
    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N]) -> Option<()> {
        // Else it would leave out a comparison that follows from an earlier one, and the verifier does not see that.
        let start = afresh(self.start as *mut u8) as usize;
        let mut address = Self { start, end: self.end }.at(offset, N)?;
        let (words, rest) = value.as_chunks::<8>();
        for word in words {
            store!("u64", address, u64::from_ne_bytes(*word));
            address += 8;
        }
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            store!("u32", address, u32::from_ne_bytes(*word));
            address += 4;
        }
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            store!("u16", address, u16::from_ne_bytes(*word));
            address += 2;
        }
        for byte in rest {
            store!("u8", address, *byte);
        }
        Some(())
    }
}
