//! Loads the filter, pins it with its maps, attaches it to interfaces and takes it up again after a restart.
//!
//! ```text
//!              lock the pin directory
//!                        |
//!        pins of the same identity and layout?
//!            yes |                  | no (also: none)
//!   keep the maps: deadline,     close the old table,
//!   epoch and proofs live on     drop its maps: a fresh table has deadline 0
//!                |                  |
//!        load the program with these maps
//!                        |
//!   per interface: living link -> replace its program in one step (never detach and attach)
//!                  no link, or one whose device is gone -> attach and pin
//!                  somebody else's program -> refuse, name it
//!                        |
//!              ask every interface
//! ```
//! The caller has put the guard in force before ([`crate::guard::Guard::take_up`]): it keeps the virtual IPs closed
//! while nothing is attached. Afterwards it gives the guard the proofs ([`Filter::proofs`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use farm_common::layout;
use farm_common::vlan::Vlan;

use crate::bpffs::PinDir;
use crate::explain::Probe;
use crate::guard::Mac;
use crate::interface::{Interface, Netlink};
use crate::object::Object;
use crate::sink::TableSink;
use crate::table::TableWriter;

mod error;
mod inspect;
mod link;
mod pins;
mod verify;

pub use error::AttachError;
pub use inspect::{Attached, Inspected, OtherEnd, inspect};
pub use verify::Finding;

/// How the program is run by an interface. It matters only when it is attached for the first time: taking up a
/// pinned link never changes its mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// Native where the driver is known to be sound, else generic.
    #[default]
    Auto,
    /// In the stack, after the driver: works everywhere.
    Generic,
    /// In the driver.
    Native,
}

/// A link to filter: an interface, or a VLAN of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// Index of the interface that gets the filter, in the network namespace of the calling thread.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The tags that frames of the link carry there.
    pub vlan: Vlan,
    /// The interface on which the stack gets them; the guard knows it by name. Without tags the same one.
    pub device: String,
    /// The MAC of that interface.
    pub mac: Mac,
    /// Which of the node's links it is: below [`layout::LINKS`].
    pub link: u8,
}

impl PortConfig {
    /// A link whose frames carry no tag on the interface that gets the filter.
    #[must_use]
    pub fn untagged(ifindex: u32, name: &str, mac: Mac, link: u8) -> Self {
        Self { ifindex, name: name.to_owned(), vlan: Vlan::NONE, device: name.to_owned(), mac, link }
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the pins, on the host's bpffs. One per node: it carries the lock.
    pub pin_dir: PathBuf,
    /// Who the pins belong to.
    pub identity: layout::Identity,
    /// The links; an interface without any is detached.
    pub ports: Vec<PortConfig>,
    /// See the type.
    pub mode: XdpMode,
}

/// What was found at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakenUp {
    /// Nothing was taken up: the table is empty and closed.
    pub fresh: bool,
    /// Epoch of the table in force; 0 when fresh.
    pub pinned_epoch: u64,
    /// Number of its generation; 0 when fresh. If the daemon's is another one it closes the table at once.
    pub pinned_generation: u64,
}

/// A link with the filter on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// As configured.
    pub config: PortConfig,
    /// The source MAC of frames that it accepted: for [`crate::guard::Rules::proofs`].
    pub proof: Mac,
}

/// The attached filter. Dropping it leaves filter and table in force (the daemon restarts); only the lock is given
/// back. An orderly stop ends with [`Filter::detach_and_unpin`].
pub struct Filter {
    // Declared first: the object's descriptors are closed before the lock is given back.
    object: Object,
    writer: Mutex<Option<TableWriter>>,
    ports: Vec<Port>,
    netlink: Mutex<Netlink>,
    probe: OnceLock<Mutex<Probe>>,
    pins: PinDir,
}

/// How the kernel took the program of this build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rehearsal {
    /// It is machine code; else it is interpreted, several times slower.
    pub jitted: bool,
}

/// Has the kernel verify the program of this build, and attaches and pins nothing.
///
/// # Errors
/// What the kernel says against it.
pub fn rehearse() -> Result<Rehearsal, AttachError> {
    let object = Object::load_unpinned()?;
    Ok(Rehearsal { jitted: object.jitted()? })
}

impl Filter {
    /// Takes up what is pinned, or loads and attaches anew (diagram above). Interfaces are those of the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// [`AttachError`]. A link that was in force before is still in force, at worst under a closed table.
    pub fn take_up(options: &Options) -> Result<(Self, TakenUp), AttachError> {
        let pins = PinDir::lock(&options.pin_dir)?;
        let mut netlink = Netlink::open().map_err(AttachError::Netlink)?;
        let interfaces = find_all(&mut netlink, &options.ports)?;
        let places = link::survey(&pins, &interfaces)?;
        let adopted = pins::adopt(&pins, &options.identity)?;
        let mut object = Object::load_pinned(pins.path())?;
        let ports = pins::write_ports(&mut object, &options.ports)?;
        pins::write_identity(&mut object, &options.identity)?;
        link::put_all(&pins, &mut object, places, options.mode)?;
        pins::drop_stale_links(&pins, &options.ports)?;
        let writer = object.map_table().map_err(AttachError::Table)?;
        let taken = taken_up(adopted, &writer);
        let filter = Self {
            object,
            writer: Mutex::new(Some(writer)),
            ports,
            netlink: Mutex::new(netlink),
            probe: OnceLock::new(),
            pins,
        };
        filter.refuse_findings()?;
        Ok((filter, taken))
    }

    fn refuse_findings(&self) -> Result<(), AttachError> {
        match self.verify().into_iter().next() {
            Some(finding) => Err(AttachError::NotInForce(finding)),
            None => Ok(()),
        }
    }

    /// The table's writer, once: it moves to the real-time thread. Its first publication needs a `grace()` before
    /// it, because the spare slot may be one that a predecessor just flipped away from.
    pub fn writer(&self) -> Option<TableWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The links with their proofs of passage.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The proofs of passage as the guard wants them ([`crate::guard::Rules::proofs`]).
    #[must_use]
    pub fn proofs(&self) -> BTreeSet<(String, Mac)> {
        self.ports.iter().map(|port| (port.config.device.clone(), port.proof)).collect()
    }

    /// Id of the program that is attached.
    #[must_use]
    pub fn program_id(&self) -> u32 {
        self.object.program_id()
    }

    /// Asks every interface, in its own network namespace and whatever thread calls, whether the filter is in force
    /// there. Empty when all is well. Pins are not asked: they say nothing about an interface that was made anew.
    #[must_use]
    pub fn verify(&self) -> Vec<Finding> {
        // A panic while the socket was held leaves at worst an unread answer, which fails the next question.
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = |port: &Port| verify::ask(&mut netlink, &port.config, self.object.program_id());
        self.ports.iter().filter_map(ask).collect()
    }

    /// Verdicts by reason since the maps were made, summed over all CPUs.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn counters(&self) -> io::Result<BTreeMap<&'static str, u64>> {
        self.object.counters()
    }

    /// Who has asked for a virtual IP on any link, and when. It outlives the daemon.
    ///
    /// # Errors
    /// Where the kernel refuses to read the map.
    pub fn askers(&self) -> io::Result<Vec<(layout::Asker, layout::Asked)>> {
        self.object.askers()
    }

    /// What the program decides about `frame` now, on the interface of `link`. Runs a second instance of the same
    /// program, with the same table and ports, but its own counters and events: nothing that is counted or reported
    /// changes, and nothing is sent.
    ///
    /// Call it from a thread in the interfaces' network namespace: sockets are looked up there.
    ///
    /// # Errors
    /// Where the kernel refuses the second instance or the run.
    pub fn explain(&self, link: u8, frame: &[u8]) -> io::Result<crate::explain::Explained> {
        let port = self.ports.iter().find(|port| port.config.link == link);
        let port = port.ok_or(io::ErrorKind::NotConnected)?;
        if self.probe.get().is_none() {
            // A racing caller may have set it meanwhile: then this second instance is dropped.
            let _ = self.probe.set(Mutex::new(Probe::load(self.pins.path())?));
        }
        let probe = self.probe.get().expect("set above");
        probe.lock().unwrap_or_else(PoisonError::into_inner).run(port.config.ifindex, frame)
    }

    /// Closes the table, detaches the filter everywhere and removes all pins: the end of an orderly stop. From here
    /// on only the guard keeps the virtual IPs closed, so they must be gone from `lo` before the guard goes.
    ///
    /// # Errors
    /// Where a pin cannot be removed; repeat with the next start.
    pub fn detach_and_unpin(self) -> io::Result<()> {
        let Self { object, pins, writer, .. } = self;
        object.close_table()?;
        drop((object, writer));
        let (links, maps): (Vec<_>, Vec<_>) =
            pins.names()?.into_iter().partition(|name| name.starts_with(link::PREFIX));
        links.iter().try_for_each(|name| link::detach(&pins, name))?;
        maps.iter().try_for_each(|name| pins.unpin(name))?;
        pins.remove()
    }
}

/// The daemon shares the filter between threads and moves the writer to another one.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn moved<T: Send>() {}
    shared::<Filter>();
    moved::<TableWriter>();
};

fn taken_up(adopted: bool, writer: &TableWriter) -> TakenUp {
    let pinned = writer.pinned();
    TakenUp { fresh: !adopted, pinned_epoch: pinned.epoch, pinned_generation: pinned.generation }
}

fn find_all(netlink: &mut Netlink, ports: &[PortConfig]) -> Result<Vec<Interface>, AttachError> {
    let links: BTreeSet<u8> = ports.iter().map(|port| port.link).collect();
    let networks: BTreeSet<(u32, Vlan)> = ports.iter().map(|port| (port.ifindex, port.vlan)).collect();
    let in_range = links.last().is_none_or(|last| usize::from(*last) < layout::LINKS);
    if !in_range || links.len() != ports.len() || networks.len() != ports.len() {
        return Err(AttachError::Links);
    }
    let mut found = ports.iter().map(|port| find(netlink, port)).collect::<Result<Vec<_>, _>>()?;
    // Several VLANs of an interface share its filter.
    found.sort_by_key(|interface| interface.ifindex);
    found.dedup();
    Ok(found)
}

fn find(netlink: &mut Netlink, port: &PortConfig) -> Result<Interface, AttachError> {
    let found = netlink.by_index(port.ifindex).map_err(AttachError::Netlink)?;
    let matching = found.filter(|interface| interface.name == port.name);
    matching.ok_or_else(|| AttachError::NoInterface { name: port.name.clone(), ifindex: port.ifindex })
}
