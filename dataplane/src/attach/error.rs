//! Why the filter could not be put in force.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

use super::Finding;
use crate::bpffs::PinDirError;

/// Why the filter is not in force. Leave the virtual IPs down.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The pin directory cannot be used, or another daemon holds it.
    #[error(transparent)]
    PinDir(#[from] PinDirError),
    /// Somebody else's XDP program is on the interface; it is never replaced.
    #[error(
        "interface {interface} runs another XDP program (id {id}, {name}); remove it first: ip link set dev {interface} xdp off (or its owner's command)"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// Id of the program.
        id: u32,
        /// Its name, or why it is not known.
        name: String,
    },
    /// There is no interface with this name and index here.
    #[error("no interface {name} with index {ifindex} in this network namespace; see: ip link show")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The index asked for.
        ifindex: u32,
    },
    /// The interfaces and their VLANs are not each on a link of its own.
    #[error("every VLAN of an interface needs a link number of its own below {}", farm_common::layout::LINKS)]
    Links,
    /// rtnetlink could not be asked.
    #[error("cannot ask the kernel about interfaces: {0}")]
    Netlink(io::Error),
    /// The kernel refused the maps or the object file.
    #[error("cannot load the filter: {0}")]
    Load(#[from] EbpfError),
    /// The verifier refused the program.
    #[error("the kernel refused the filter, which needs Linux 5.18 or newer: {0}")]
    Program(#[from] ProgramError),
    /// The object is not what this daemon was built for.
    #[error("the filter object does not fit this daemon: {0}; build both from the same source")]
    Object(String),
    /// A map could not be read or written.
    #[error("cannot use the filter's map {map}: {error}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        error: MapError,
    },
    /// The table could not be mapped into memory.
    #[error("cannot map the filter's table: {0}")]
    Table(io::Error),
    /// The program could not be attached to an interface.
    #[error("cannot attach the filter to {interface} in {mode} mode: {error}{hint}")]
    Attach {
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said.
        error: Box<ProgramError>,
        /// What to do, or empty.
        hint: &'static str,
    },
    /// A pin could not be made, read or removed.
    #[error("cannot handle the pin {pin}: {error}")]
    Pin {
        /// Its name in the pin directory.
        pin: String,
        /// Why.
        error: io::Error,
    },
    /// All calls succeeded, but an interface says otherwise.
    #[error("the filter is not in force: {0}")]
    NotInForce(Finding),
}
