//! What Farm does to the machine it runs on. To its network: links, addresses, kernel settings, neighbours, ARP and
//! neighbour discovery on the wire, and the list of TCP sockets. To its processes: scripts, the groups that they run in,
//! their logs, and whether they are alive. And what it asks of others and of itself to tell whether all is well: checks.
//!
//! Everything acts in the network namespace of the thread that opens the handle ([`Netlink`],
//! [`Announcer`](announce::Announcer), [`SockDiag`](sockets::SockDiag)) or makes the call. No
//! function touches the filter; the order of the steps (guard, filter, settings, address; reverse
//! to stop) is the caller's.

#![deny(unsafe_code)]

mod arp;
mod error;
mod ethtool;
mod event;
mod helper;
mod ndp;
mod netlink;
mod packet;
mod watch;

pub mod address;
pub mod announce;
pub mod applog;
pub mod cgroup;
pub mod check;
pub mod claim;
pub mod fdb;
pub mod links;
pub mod lock;
pub mod multicast;
pub mod neighbour;
pub mod pause;
pub mod probe;
pub mod processes;
pub mod script;
pub mod sockets;
pub mod sysctl;

pub use error::Error;
pub use netlink::Netlink;

// The frames of `announce` and `probe`, for those who judge the wire.
pub use arp::{ArpOperation, ArpPacket};
pub use ndp::{NdpMessage, NdpPacket};

/// An Ethernet address, in the order of transmission.
pub type Mac = [u8; 6];
