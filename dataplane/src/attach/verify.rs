//! What an interface says about the filter.

use std::io;

use thiserror::Error;

use super::PortConfig;
use super::link::program_name;
use crate::guard::Mac;
use crate::interface::{Interface, Netlink};

/// A reason why the filter is not in force on an interface. The guard keeps the virtual IPs closed there.
#[derive(Debug, Error)]
pub enum Finding {
    /// The interface is gone.
    #[error("interface {name} is gone")]
    Gone {
        /// Its name.
        name: String,
    },
    /// An interface was made anew under the same name; the pin belongs to the old one.
    #[error("interface {name} was made anew (index {now} instead of {ifindex}): the filter is not on it")]
    Recreated {
        /// Its name.
        name: String,
        /// The index it had.
        ifindex: u32,
        /// The index it has.
        now: u32,
    },
    /// The interface has another name now: the guard, which goes by names, drops everything.
    #[error("interface {name} is called {now} now")]
    Renamed {
        /// The name it had.
        name: String,
        /// The name it has.
        now: String,
    },
    /// No XDP program is on the interface (the link was detached by force, or the pin was removed).
    #[error("no filter is attached to {name}")]
    Detached {
        /// Its name.
        name: String,
    },
    /// Another program is on the interface.
    #[error("interface {name} runs another XDP program (id {id}, {program}) instead of the filter")]
    Replaced {
        /// Its name.
        name: String,
        /// Id of that program.
        id: u32,
        /// Name of that program.
        program: String,
    },
    /// Its MAC changed: frames for it are taken for somebody else's.
    #[error("the MAC of {name} changed")]
    MacChanged {
        /// Its name.
        name: String,
        /// The MAC it has.
        now: Mac,
    },
    /// It could not be asked, which counts as not in force.
    #[error("cannot ask the kernel about {name}: {error}")]
    Unknown {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
}

pub(super) fn ask(netlink: &mut Netlink, port: &PortConfig, program: u32) -> Option<Finding> {
    match find(netlink, port) {
        Ok(interface) => judge(&interface, port, program).or_else(|| match port.device == port.name {
            true => judge_mac(&interface, port),
            false => ask_device(netlink, port),
        }),
        Err(finding) => Some(finding),
    }
}

/// The interface on which the stack gets the link's frames: the guard goes by its name, the program by its MAC.
fn ask_device(netlink: &mut Netlink, port: &PortConfig) -> Option<Finding> {
    match netlink.by_name(&port.device) {
        Ok(Some(device)) => judge_mac(&device, port),
        Ok(None) => Some(Finding::Gone { name: port.device.clone() }),
        Err(error) => Some(Finding::Unknown { name: port.device.clone(), error }),
    }
}

fn judge_mac(device: &Interface, port: &PortConfig) -> Option<Finding> {
    let (name, now) = (device.name.clone(), device.mac);
    (now != port.mac).then_some(Finding::MacChanged { name, now })
}

fn find(netlink: &mut Netlink, port: &PortConfig) -> Result<Interface, Finding> {
    let unknown = |error| Finding::Unknown { name: port.name.clone(), error };
    if let Some(interface) = netlink.by_index(port.ifindex).map_err(unknown)? {
        return Ok(interface);
    }
    let (name, ifindex) = (port.name.clone(), port.ifindex);
    match netlink.by_name(&port.name).map_err(unknown)? {
        Some(other) => Err(Finding::Recreated { name, ifindex, now: other.ifindex }),
        None => Err(Finding::Gone { name }),
    }
}

fn judge(interface: &Interface, port: &PortConfig, program: u32) -> Option<Finding> {
    let name = || port.name.clone();
    let foreign = interface.programs.iter().find(|id| **id != program);
    match (foreign, interface.programs.is_empty()) {
        (Some(id), _) => Some(Finding::Replaced { name: name(), id: *id, program: program_name(*id) }),
        (None, true) => Some(Finding::Detached { name: name() }),
        (None, false) if interface.name != port.name => {
            Some(Finding::Renamed { name: name(), now: interface.name.clone() })
        }
        (None, false) => None,
    }
}
