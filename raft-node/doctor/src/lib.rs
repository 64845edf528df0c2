//! What on a machine, or between two, keeps Farm from working well. Probes look and say what they found, as [`Facts`];
//! [`judge`] is pure and says what that means and what to do, as [`Finding`]s.
//!
//! A probe changes nothing: it attaches nothing to a service interface, touches no rule, and its only file is gone with
//! it. Each ends within a bounded time, and one that cannot look says so instead of guessing.

mod facts;
mod finding;
mod firewall;
mod judge;
mod nodes;
mod probe;

pub mod measure;

pub use facts::{Disk, Facts, Firewall, Link, Looked, Mode, Pair, Plan, Ports, Slew, Sync};
pub use finding::{Finding, Level, summary};
pub use firewall::{Manager, Packet, Protocol, Ruling, ruling};
pub use judge::judge;
pub use nodes::{Answered, Node, across};
pub use probe::{Peer, carried, look, port_open};
