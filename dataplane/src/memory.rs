//! The filter's memory of flows whose sockets are not on this node ([`farm_common::memory`]), through its pins: the list
//! of services whose flows are remembered, and the flows.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use farm_common::flow::{Address, protocol};
use farm_common::layout::{LINKS, MAP_ELSEWHERE, MAP_FLOWS, MAP_PORTS, Port};
use farm_common::memory::{FlowKey, Known, ServiceKey, Stage};
use farm_common::verdict::BootTime;

use crate::clock::boot_now;
use crate::object::Raw;

// SAFETY: `repr(C)`, integers only, no padding (proven beside the type); every bit pattern is valid.
unsafe impl Pod for Raw<FlowKey> {}
// SAFETY: as above.
unsafe impl Pod for Raw<ServiceKey> {}

/// A service of this node without a socket of its own network namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Service {
    /// Virtual IP and port.
    pub at: SocketAddr,
    /// `farm_common::flow::protocol`.
    pub protocol: u8,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = if self.protocol == protocol::UDP { "udp" } else { "tcp" };
        write!(f, "{}/{protocol}", self.at)
    }
}

/// A flow that this node accepted and has not forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Remembered {
    /// Its service.
    pub service: Service,
    /// Its client.
    pub client: SocketAddr,
    /// How far it is.
    pub stage: Stage,
}

/// The pinned maps.
pub struct Memory {
    flows: HashMap<MapData, Raw<FlowKey>, u64>,
    elsewhere: HashMap<MapData, Raw<ServiceKey>, u8>,
    ports: Array<MapData, Raw<Port>>,
}

impl Memory {
    /// Opens the maps pinned in `pins`.
    ///
    /// # Errors
    /// There is no filter, or one of a version without this memory.
    pub fn open(pins: &Path) -> io::Result<Self> {
        let map = |name: &str| MapData::from_pin(pins.join(name)).map_err(io::Error::other);
        let hash = |name: &str| Map::from_map_data(map(name)?).map_err(io::Error::other);
        Ok(Self {
            flows: HashMap::try_from(hash(MAP_FLOWS)?).map_err(io::Error::other)?,
            elsewhere: HashMap::try_from(hash(MAP_ELSEWHERE)?).map_err(io::Error::other)?,
            ports: Array::try_from(hash(MAP_PORTS)?).map_err(io::Error::other)?,
        })
    }

    /// Lets the filter remember the flows of `services`, and of no others. Survives the daemon.
    ///
    /// # Errors
    /// Where the kernel refuses to write a map; try again.
    pub fn remember(&mut self, services: &BTreeSet<Service>) -> io::Result<()> {
        let wanted: BTreeSet<ServiceKey> = services.iter().map(key).collect();
        let listed: BTreeSet<ServiceKey> = self.listed()?;
        for key in wanted.difference(&listed) {
            self.elsewhere.insert(Raw(*key), 1, 0).map_err(io::Error::other)?;
        }
        for key in listed.difference(&wanted) {
            self.elsewhere.remove(&Raw(*key)).map_err(io::Error::other)?;
        }
        self.tell_ports(!wanted.is_empty())
    }

    /// All other bytes of a cell stay what they are, whichever of them the program reads meanwhile.
    fn tell_ports(&mut self, remembers: bool) -> io::Result<()> {
        for link in 0..LINKS as u32 {
            let old = self.ports.get(&link, 0).map_err(io::Error::other)?.0;
            let new = Port { remembers: remembers.into(), ..old };
            if old.ifindex != 0 && new != old {
                self.ports.set(link, Raw(new), 0).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    fn listed(&self) -> io::Result<BTreeSet<ServiceKey>> {
        self.elsewhere.keys().map(|key| key.map(|raw| raw.0).map_err(io::Error::other)).collect()
    }

    /// The flows of services that are listed. One that lives all the time is among them; one that comes or goes
    /// meanwhile may be.
    ///
    /// # Errors
    /// Where the kernel refuses to read a map.
    pub fn flows(&self) -> io::Result<BTreeSet<Remembered>> {
        let (listed, now) = (self.listed()?, BootTime(boot_now()));
        let mut found = BTreeSet::new();
        if listed.is_empty() {
            return Ok(found);
        }
        for key in self.flows.keys() {
            let key = key.map_err(io::Error::other)?;
            match self.flows.get(&key, 0) {
                Ok(word) => found.extend(remembered(&key.0, word, now)),
                // It went meanwhile.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        found.retain(|flow| listed.contains(&self::key(&flow.service)));
        Ok(found)
    }
}

fn key(service: &Service) -> ServiceKey {
    ServiceKey {
        vip: Address::from(service.at.ip()).words(),
        port: service.at.port().into(),
        protocol: service.protocol.into(),
    }
}

fn remembered(key: &FlowKey, word: u64, now: BootTime) -> Option<Remembered> {
    let known = Known::read(word, now)?;
    let at = SocketAddr::new(ip(key.vip), key.service_port);
    let service = Service { at, protocol: u8::try_from(key.protocol).ok()? };
    let client = SocketAddr::new(ip(key.client), key.client_port);
    Some(Remembered { service, client, stage: known.stage() })
}

fn ip(words: [u64; 2]) -> IpAddr {
    IpAddr::from(Address::of_words(words).bytes()).to_canonical()
}
