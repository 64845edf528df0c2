//! Loads, pins, attaches, guards and feeds the XDP filter.
//!
//! | module | what |
//! |---|---|
//! | [`attach`] | load, pin, attach, take up again, verify |
//! | [`guard`] | the nftables table that keeps a lost filter from opening the virtual IP |
//! | [`sink`] | the rules of publishing a table, as a trait |
//! | [`table`], [`grace`] | the pinned table through shared memory, and the grace period after a flip |
//! | [`fake`] | the same in memory |
//! | [`clock`], [`realtime`] | boot clock, time namespaces, scheduling |
//! | [`explain`] | what the loaded program would do with a frame |
//! | [`bpf`] | programs written by hand |
//! | [`netns`] | entering network namespaces without losing the pins |
//!
//! Order at start: guard, filter with deadline 0, [`attach::Filter::verify`], sysctls, virtual IP. To stop, the
//! reverse.

pub mod attach;
pub mod bpf;
pub mod bpffs;
pub mod clock;
pub mod explain;
pub mod fake;
pub mod grace;
pub mod guard;
mod interface;
mod mapping;
pub mod memory;
pub mod netns;
mod object;
pub mod realtime;
pub mod sink;
pub mod table;

pub use farm_common::image;
