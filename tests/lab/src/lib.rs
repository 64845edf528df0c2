//! Farms in network namespaces: a lab of nodes, a client, a router and a client behind it; a witness who judges
//! from the wire; a demo. Everything a lab makes is its own: namespaces, pins, processes, files; what it made is
//! gone when it is taken down, when its owner ends, and when one that crashed is found by the next.
#![deny(unsafe_code)]

pub mod app;
pub mod bench;
pub mod binaries;
pub mod demo;
pub mod echo;
mod farmctl;
mod fault;
pub mod guardian;
mod lab;
pub mod names;
mod netns;
mod node;
pub mod page;
pub mod process;
pub mod record;
pub mod shell;
pub mod status;
pub mod topology;
pub mod witness;

pub use farmctl::{BUCKETS, Condition, Life, ModuleStatus, NodeStatus, Share, Status, WEB_MODULE};
pub use lab::{Lab, Mode, Spec, down, exists, sweep};
pub use names::{FIRST_VIP, FIRST_VIP6, Family, LabName, Network, Place};
pub use netns::NetNs;
pub use node::WEB_PORT;
