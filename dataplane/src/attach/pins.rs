//! Pinned maps: whether they are ours, and what is written into them once.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{Array, Map, MapData, MapError};
use farm_common::layout::{Identity, LINKS, MAP_IDENTITY, MAP_PORTS, MAP_TABLE, MAP_WORD, Port as PortCell};

use super::link::{PREFIX, detach, pin_name};
use super::{AttachError, Port, PortConfig};
use crate::bpffs::PinDir;
use crate::guard::{Mac, draw_proof};
use crate::object::{MAPS, Object, Raw};
use crate::table::close_foreign;

/// Decides whether the pinned maps may be taken up. If not, the old table is closed first, then their pins are
/// removed; links still run the old program with the closed table until it is replaced.
pub(super) fn adopt(pins: &PinDir, identity: &Identity) -> Result<bool, AttachError> {
    if read_identity(pins).as_ref() == Some(identity) && complete(pins) {
        return Ok(true);
    }
    close_old_table(pins)?;
    for map in MAPS {
        pins.unpin(map).map_err(|error| AttachError::Pin { pin: map.to_owned(), error })?;
    }
    Ok(false)
}

/// The identity in the pins. It is written last, so pins that a crash left incomplete belong to nobody.
fn read_identity(pins: &PinDir) -> Option<Identity> {
    let map = MapData::from_pin(pins.pin(MAP_IDENTITY)).and_then(Map::from_map_data).ok()?;
    let array = Array::<_, Raw<Identity>>::try_from(map).ok()?;
    array.get(&0, 0).ok().map(|raw| raw.0)
}

fn complete(pins: &PinDir) -> bool {
    [MAP_TABLE, MAP_WORD, MAP_PORTS].iter().all(|map| pins.pin(map).exists())
}

fn close_old_table(pins: &PinDir) -> Result<(), AttachError> {
    if !pins.pin(MAP_TABLE).exists() {
        return Ok(());
    }
    let wrong = |error| AttachError::Map { map: MAP_TABLE, error };
    let map = MapData::from_pin(pins.pin(MAP_TABLE)).map_err(wrong)?;
    let info = map.info().map_err(wrong)?;
    let (slots, size) = (info.max_entries() as usize, info.value_size() as usize);
    close_foreign(map.fd().as_fd(), slots, size).map_err(AttachError::Table)?;
    tracing::warn!(pins = %pins.path().display(), "closed the table of another identity");
    Ok(())
}

pub(super) fn write_identity(object: &mut Object, identity: &Identity) -> Result<(), AttachError> {
    let wrong = |error| AttachError::Map { map: MAP_IDENTITY, error };
    let mut array = Array::<_, Raw<Identity>>::try_from(object.map_mut(MAP_IDENTITY)?).map_err(wrong)?;
    array.set(0, Raw(*identity), 0).map_err(wrong)
}

/// Describes the links to the program, and returns them with their proofs.
pub(super) fn write_ports(object: &mut Object, ports: &[PortConfig]) -> Result<Vec<Port>, AttachError> {
    let wrong = |error| AttachError::Map { map: MAP_PORTS, error };
    let mut cells = Array::<_, Raw<PortCell>>::try_from(object.map_mut(MAP_PORTS)?).map_err(wrong)?;
    let mut written = Vec::new();
    for link in 0..LINKS as u8 {
        let config = ports.iter().find(|port| port.link == link);
        written.extend(write_port(&mut cells, link, config).map_err(wrong)?);
    }
    Ok(written)
}

/// A proof that is in force is kept: frames that already passed the filter carry it, and so does the guard.
fn write_port(
    cells: &mut Array<&mut MapData, Raw<PortCell>>,
    link: u8,
    config: Option<&PortConfig>,
) -> Result<Option<Port>, MapError> {
    let old = cells.get(&u32::from(link), 0)?.0;
    let new = config.map(|config| describe(config, &old)).transpose().map_err(MapError::IoError)?;
    let cell = new.unwrap_or_default();
    // The program may be reading the cell: one that says the same already is left alone.
    if cell != old {
        cells.set(u32::from(link), Raw(cell), 0)?;
    }
    Ok(config.map(|config| Port { config: config.clone(), proof: cell.proof }))
}

fn describe(config: &PortConfig, old: &PortCell) -> io::Result<PortCell> {
    let (ifindex, vlan) = (config.ifindex, config.vlan.number());
    let same = (old.ifindex, old.vlan) == (ifindex, vlan) && old.proof != Mac::default();
    let proof = if same { old.proof } else { draw_proof()? };
    let remembers = if same { old.remembers } else { 0 };
    Ok(PortCell { mac: config.mac, proof, ifindex, vlan, remembers, reserved: [0; 3] })
}

/// Detaches the filter from interfaces that are no longer configured.
pub(super) fn drop_stale_links(pins: &PinDir, ports: &[PortConfig]) -> Result<(), AttachError> {
    let wrong = |pin: &str, error: io::Error| AttachError::Pin { pin: pin.to_owned(), error };
    let wanted: Vec<String> = ports.iter().map(|port| pin_name(port.ifindex)).collect();
    for name in pins.names().map_err(|error| wrong("*", error))? {
        if name.starts_with(PREFIX) && !wanted.contains(&name) {
            detach(pins, &name).map_err(|error| wrong(&name, error))?;
            tracing::info!(pin = name, "detached the filter from an interface that is no longer configured");
        }
    }
    Ok(())
}
