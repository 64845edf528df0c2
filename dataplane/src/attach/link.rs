//! Links: one per interface, pinned as `link-<ifindex>`.

use std::io;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as KernelMode};
use aya::programs::{ProgramError, Xdp, loaded_programs};

use super::{AttachError, XdpMode};
use crate::bpf;
use crate::bpffs::PinDir;
use crate::interface::{Interface, driver};
use crate::object::Object;

/// Name prefix of pinned links.
pub(super) const PREFIX: &str = "link-";

/// Drivers whose native XDP was used for years with XDP_TX, and which refuse what they cannot do instead of
/// dropping frames. Not veth (checksums are lost on XDP_TX), not tun/tap, not virtio (it disables offloads).
const SOUND: [&str; 5] = ["ixgbe", "i40e", "ice", "igb", "mlx5_core"];

pub(super) fn pin_name(ifindex: u32) -> String {
    format!("{PREFIX}{ifindex}")
}

/// An interface and what is on it.
pub(super) struct Place {
    interface: Interface,
    standing: Standing,
}

enum Standing {
    /// Nothing is attached and nothing pinned.
    Free,
    /// A pinned link of ours is in force.
    Ours(PinnedLink),
    /// A pinned link whose device is gone, or that was detached by force.
    Dead,
}

/// Looks at every interface before anything is changed.
pub(super) fn survey(pins: &PinDir, interfaces: &[Interface]) -> Result<Vec<Place>, AttachError> {
    let look = |interface: &Interface| {
        Ok(Place { interface: interface.clone(), standing: standing(pins, interface)? })
    };
    interfaces.iter().map(look).collect()
}

fn standing(pins: &PinDir, interface: &Interface) -> Result<Standing, AttachError> {
    let name = pin_name(interface.ifindex);
    let pinned = open(pins, &name)?;
    let ours = pinned.as_ref().map(|(_, program)| *program);
    if let Some(id) = interface.programs.iter().find(|id| Some(**id) != ours) {
        return Err(AttachError::Foreign {
            interface: interface.name.clone(),
            id: *id,
            name: program_name(*id),
        });
    }
    Ok(match pinned {
        None => Standing::Free,
        Some((link, _)) if !interface.programs.is_empty() => Standing::Ours(link),
        Some(_) => Standing::Dead,
    })
}

/// The pinned link of that name, with the id of its program.
fn open(pins: &PinDir, name: &str) -> Result<Option<(PinnedLink, u32)>, AttachError> {
    let fail = |error: LinkError| AttachError::Pin { pin: name.to_owned(), error: io::Error::other(error) };
    if !pins.pin(name).exists() {
        return Ok(None);
    }
    let info = FdLink::from(PinnedLink::from_pin(pins.pin(name)).map_err(fail)?).info().map_err(fail)?;
    let link = PinnedLink::from_pin(pins.pin(name)).map_err(fail)?;
    Ok(Some((link, info.program_id())))
}

/// Puts the program of `object` in force everywhere.
pub(super) fn put_all(
    pins: &PinDir,
    object: &mut Object,
    places: Vec<Place>,
    mode: XdpMode,
) -> Result<(), AttachError> {
    for Place { interface, standing } in places {
        let name = pin_name(interface.ifindex);
        match standing {
            Standing::Ours(link) => replace(object.program()?, link, &interface)?,
            Standing::Free => attach(pins, object.program()?, &interface, mode)?,
            Standing::Dead => {
                pins.unpin(&name).map_err(|error| AttachError::Pin { pin: name, error })?;
                attach(pins, object.program()?, &interface, mode)?;
            }
        }
    }
    Ok(())
}

/// Replaces the program of a living link in one step: no frame passes without a program.
fn replace(program: &mut Xdp, link: PinnedLink, interface: &Interface) -> Result<(), AttachError> {
    let refused = |error| failed(interface, "its pinned", error);
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| refused(unusable(error)))?;
    program.attach_to_link(link).map(drop).map_err(refused)
}

fn attach(pins: &PinDir, program: &mut Xdp, interface: &Interface, mode: XdpMode) -> Result<(), AttachError> {
    let (kernel_mode, word) = choose(interface, mode);
    let refused = |error| failed(interface, word, error);
    let id = program.attach_to_if_index(interface.ifindex, kernel_mode).map_err(refused)?;
    let link = program.take_link(id).map_err(refused)?;
    // Where the kernel has no link for XDP aya attaches by netlink: that dies with nobody and cannot be pinned.
    // The conversion refuses it, and dropping it detaches.
    let link = FdLink::try_from(link).map_err(|error| refused(unusable(error)))?;
    let name = pin_name(interface.ifindex);
    // The descriptor may be closed from here on: the pin holds the link.
    link.pin(pins.pin(&name))
        .map(drop)
        .map_err(|error| AttachError::Pin { pin: name, error: io::Error::other(error) })
}

/// Detaches a pinned link, whether or not its device still exists, and removes the pin.
pub(super) fn detach(pins: &PinDir, name: &str) -> io::Result<()> {
    bpf::detach_link(&pins.pin(name))?;
    pins.unpin(name)
}

fn unusable(error: LinkError) -> ProgramError {
    ProgramError::IOError(io::Error::other(error))
}

fn choose(interface: &Interface, mode: XdpMode) -> (KernelMode, &'static str) {
    if is_native(interface, mode) { (KernelMode::Driver, "native") } else { (KernelMode::Skb, "generic") }
}

/// Whether the driver is to run the filter.
pub(super) fn is_native(interface: &Interface, mode: XdpMode) -> bool {
    match mode {
        XdpMode::Native => true,
        XdpMode::Generic => false,
        // A device without a driver to ask (a bridge, a tunnel) is no network card.
        XdpMode::Auto => driver(&interface.name).is_ok_and(|driver| SOUND.contains(&driver.as_str())),
    }
}

fn failed(interface: &Interface, mode: &'static str, error: ProgramError) -> AttachError {
    let hint = match mode {
        "native" => "; try generic mode: the driver may not support XDP with this MTU or these offloads",
        _ => "",
    };
    AttachError::Attach { interface: interface.name.clone(), mode, error: Box::new(error), hint }
}

/// Name of a loaded program, for messages.
pub(super) fn program_name(id: u32) -> String {
    let found = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    match found.as_ref().and_then(|program| program.name_as_str()) {
        Some(name) if !name.is_empty() => format!("name {name}"),
        Some(_) => "without a name".to_owned(),
        None => "already unloaded".to_owned(),
    }
}
