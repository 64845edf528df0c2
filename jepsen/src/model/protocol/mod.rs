//! Leases, changes and changes of electors: every reachable state of a few nodes, two buckets and some entries.
//!
//! The machines are the core's own: [`farm_core::lease::Elector`], [`farm_core::lease::Holder`],
//! [`farm_core::controller::evidence::Reports`], [`farm_core::state::ClusterState::apply`], the table that
//! [`farm_core::table::render`] makes of it, and `farm_common::decide`, which judges every mixture of tables. Around them
//! is an abstract log ([`steps`]) and nothing else: no controller decides, any command that applies may be proposed.
//! docs/model.md says what is left out.
//!
//! It searches by itself instead of with a library. A library's checkers clone and hash whole states, which here hold a
//! dozen machines of trees and strings; here each machine has a number ([`pool`]), each step of the core is taken once per
//! machine and input ([`leases`], [`book`]), and a state is a row of numbers of which 64 bits are kept ([`store`]). Their
//! checkers also run on threads of their own, where no planted bug would be seen.

pub mod book;
pub mod choices;
pub mod clock;
pub mod config;
pub mod configs;
pub mod judge;
pub mod leases;
mod menu;
pub mod pool;
pub mod reached;
pub mod search;
pub mod setup;
pub mod state;
pub mod steps;
pub mod store;
pub mod units;
