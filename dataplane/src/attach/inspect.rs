//! What is on an interface, asked without the lock of the pins and without changing anything: for whoever only looks,
//! also while a daemon runs.

use std::io;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};

use super::link::{is_native, pin_name, program_name};
use super::{AttachError, XdpMode};
use crate::interface::{Bound, Interface, Netlink, driver};

/// An interface as the filter meets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// As `ethtool -i` names it; empty where nobody tells.
    pub driver: String,
    /// Whether the filter is, or would be, run by the driver.
    pub native: bool,
    /// The XDP programs that are there.
    pub programs: Vec<Attached>,
    /// For a veth: what is at its other end.
    pub other_end: Option<OtherEnd>,
}

/// An XDP program on an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The kernel's id.
    pub id: u32,
    /// `name …`, or why it is not known.
    pub name: String,
    /// Run by the driver.
    pub native: bool,
    /// Put there by this node's daemon.
    pub own: bool,
}

/// The other end of a veth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OtherEnd {
    /// In this network namespace.
    Here {
        /// Its name.
        name: String,
        /// Whether it has an XDP program.
        program: bool,
    },
    /// In another network namespace: it cannot be looked at from here.
    Elsewhere,
}

/// What is on the interface `name` of the network namespace of the calling thread; `None` without such an interface.
///
/// # Errors
/// [`AttachError::Netlink`].
pub fn inspect(pin_dir: &Path, name: &str, mode: XdpMode) -> Result<Option<Inspected>, AttachError> {
    let mut netlink = Netlink::open().map_err(AttachError::Netlink)?;
    let Some(interface) = netlink.by_name(name).map_err(AttachError::Netlink)? else { return Ok(None) };
    let own = own_program(pin_dir, interface.ifindex);
    let attached = |id: &u32| Attached {
        id: *id,
        name: program_name(*id),
        native: interface.native.contains(id),
        own: own == Some(*id),
    };
    let programs: Vec<Attached> = interface.programs.iter().map(attached).collect();
    let present = programs.iter().find(|program| program.own).map(|program| program.native);
    let driver = driver(name).unwrap_or_default();
    let other_end = if driver == "veth" { other_end(&mut netlink, &interface) } else { Ok(None) };
    Ok(Some(Inspected {
        native: present.unwrap_or_else(|| is_native(&interface, mode)),
        driver,
        programs,
        other_end: other_end.map_err(AttachError::Netlink)?,
    }))
}

/// The program of the pinned link; a pin that cannot be read tells nothing.
fn own_program(pin_dir: &Path, ifindex: u32) -> Option<u32> {
    let link = PinnedLink::from_pin(pin_dir.join(pin_name(ifindex))).ok()?;
    Some(FdLink::from(link).info().ok()?.program_id())
}

fn other_end(netlink: &mut Netlink, interface: &Interface) -> io::Result<Option<OtherEnd>> {
    Ok(match interface.bound {
        None => None,
        Some(Bound::Elsewhere) => Some(OtherEnd::Elsewhere),
        Some(Bound::Here(ifindex)) => netlink
            .by_index(ifindex)?
            .map(|end| OtherEnd::Here { program: !end.programs.is_empty(), name: end.name }),
    })
}
