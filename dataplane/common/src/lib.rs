//! What kernel and user space share, written once: the layout of the maps, the keyed hash, the parser, and
//! the decision about one frame.
//!
//! The XDP program is a thin shell around [`judge::judge`] and [`rewrite::rewrite`]; the simulator, the
//! property tests and `farmctl explain` call the same functions.
//!
//! | module | what |
//! |---|---|
//! | [`layout`] | maps as bytes |
//! | [`hash`] | client -> bucket, and the one-probe tables |
//! | [`table`] | look-ups in a [`layout::Slot`], and filling one |
//! | [`bytes`], [`parse`], [`flow`], [`vlan`] | frame -> [`flow::Flow`], and the network it came in on |
//! | [`fragment`] | fragments of one packet |
//! | [`memory`] | flows without a socket on this node |
//! | [`verdict`], [`mod@decide`] | [`flow::Flow`] + table entry -> [`verdict::Verdict`] |
//! | [`mod@read`], [`judge`] | all of the above for one frame, in two halves |
//! | [`mod@asker`] | who has asked for a virtual IP |
//! | `image` | building a table outside of the kernel |
//! | [`rewrite`] | what a verdict does to the frame |
#![no_std]
#![forbid(unsafe_code)]

#[cfg(not(target_arch = "bpf"))]
extern crate alloc;

pub mod asker;
pub mod bytes;
pub mod decide;
pub mod flow;
pub mod fragment;
pub mod hash;
#[cfg(not(target_arch = "bpf"))]
pub mod image;
pub mod judge;
pub mod layout;
pub mod memory;
pub mod parse;
pub mod read;
pub mod rewrite;
pub mod table;
pub mod verdict;
pub mod vlan;
