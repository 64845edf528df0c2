//! The compiled program with its maps, loaded into the kernel.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use aya::programs::{Program, Xdp};
use aya::{Ebpf, EbpfLoader, Pod, include_bytes_aligned};
use farm_common::layout::{
    Asked, Asker, Identity, MAP_ASKERS, MAP_COUNTERS, MAP_ELSEWHERE, MAP_EVENTS, MAP_FLOWS, MAP_IDENTITY,
    MAP_PORTS, MAP_TABLE, MAP_WORD, PROGRAM, Port,
};
use farm_common::verdict::Reason;

use crate::attach::AttachError;
use crate::table::{TableWriter, close_foreign};

/// Every map that is pinned.
pub(crate) const MAPS: [&str; 9] = [
    MAP_ASKERS,
    MAP_TABLE,
    MAP_WORD,
    MAP_PORTS,
    MAP_COUNTERS,
    MAP_EVENTS,
    MAP_FLOWS,
    MAP_ELSEWHERE,
    MAP_IDENTITY,
];
/// Those that decide: a second instance of the program shares them. Of remembered flows it knows nothing: it must not
/// remember what it is only asked about.
const DECIDING: [&str; 4] = [MAP_TABLE, MAP_WORD, MAP_PORTS, MAP_IDENTITY];

/// A layout struct as bytes for the kernel.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub(crate) T);

// SAFETY: `repr(C)`, integers only, no padding (proven in `layout`); every bit pattern is valid.
unsafe impl Pod for Raw<Identity> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Port> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Asker> {}
// SAFETY: as above.
unsafe impl Pod for Raw<Asked> {}

/// The object file: compiled, or taken from `FARM_EBPF_OBJECT`, when this crate is built.
static BYTES: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/farm-xdp"));

/// The loaded program and its maps.
pub(crate) struct Object {
    ebpf: Ebpf,
    id: u32,
}

impl Object {
    /// Loads the program with the maps pinned in `directory`; those that are missing are made and pinned.
    pub(crate) fn load_pinned(directory: &Path) -> Result<Self, AttachError> {
        Self::load(directory, &MAPS)
    }

    /// Loads the program with maps that nobody else sees.
    pub(crate) fn load_unpinned() -> Result<Self, AttachError> {
        Self::load(Path::new(""), &[])
    }

    /// Loads another instance that decides alike, but counts and reports into maps of its own.
    pub(crate) fn load_second(directory: &Path) -> Result<Self, AttachError> {
        Self::load(directory, &DECIDING)
    }

    fn load(directory: &Path, pinned: &[&str]) -> Result<Self, AttachError> {
        let mut loader = EbpfLoader::new();
        for map in pinned {
            loader.map_pin_path(map, directory.join(map));
        }
        let mut ebpf = loader.load(BYTES)?;
        let program = filter(&mut ebpf)?;
        program.load()?;
        let id = program.info()?.id();
        Ok(Self { ebpf, id })
    }

    /// The kernel's id of the program.
    pub(crate) fn program_id(&self) -> u32 {
        self.id
    }

    /// Whether the kernel has made machine code of the program.
    pub(crate) fn jitted(&self) -> Result<bool, AttachError> {
        let program = self.program_ref().map_err(|error| AttachError::Object(error.to_string()))?;
        Ok(program.info()?.size_jitted() > 0)
    }

    pub(crate) fn program(&mut self) -> Result<&mut Xdp, AttachError> {
        filter(&mut self.ebpf)
    }

    pub(crate) fn program_ref(&self) -> io::Result<&Xdp> {
        match self.ebpf.program(PROGRAM) {
            Some(Program::Xdp(program)) => Ok(program),
            _ => Err(io::Error::other(missing(PROGRAM))),
        }
    }

    pub(crate) fn map_mut(&mut self, name: &str) -> Result<&mut Map, AttachError> {
        self.ebpf.map_mut(name).ok_or_else(|| missing(name))
    }

    fn array(&self, name: &str) -> io::Result<&MapData> {
        match self.ebpf.map(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => Err(io::Error::other(missing(name))),
        }
    }

    fn array_fd(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        Ok(self.array(name)?.fd().as_fd())
    }

    /// Maps the table for its writer.
    pub(crate) fn map_table(&self) -> io::Result<TableWriter> {
        TableWriter::map(self.array_fd(MAP_TABLE)?, self.array_fd(MAP_WORD)?)
    }

    /// Stores deadline 0 in both slots, whoever has the writer.
    pub(crate) fn close_table(&self) -> io::Result<()> {
        let info = self.array(MAP_TABLE)?.info().map_err(io::Error::other)?;
        close_foreign(self.array_fd(MAP_TABLE)?, info.max_entries() as usize, info.value_size() as usize)
    }

    /// Who has asked for a virtual IP. While askers come and go one of them may be missing.
    pub(crate) fn askers(&self) -> io::Result<Vec<(Asker, Asked)>> {
        let map = self.ebpf.map(MAP_ASKERS).ok_or_else(|| io::Error::other(missing(MAP_ASKERS)))?;
        let map = HashMap::<_, Raw<Asker>, Raw<Asked>>::try_from(map).map_err(io::Error::other)?;
        Ok(map.iter().filter_map(Result::ok).map(|(asker, asked)| (asker.0, asked.0)).collect())
    }

    /// Counters by name, summed over the CPUs.
    pub(crate) fn counters(&self) -> io::Result<BTreeMap<&'static str, u64>> {
        let map = self.ebpf.map(MAP_COUNTERS).ok_or_else(|| io::Error::other(missing(MAP_COUNTERS)))?;
        let cells = PerCpuArray::<_, u64>::try_from(map).map_err(io::Error::other)?;
        let sum = |reason: &Reason| {
            let per_cpu = cells.get(&u32::from(*reason), 0).map_err(io::Error::other)?;
            Ok((reason.name(), per_cpu.iter().sum()))
        };
        Reason::ALL.iter().map(sum).collect()
    }
}

fn missing(name: &str) -> AttachError {
    AttachError::Object(format!("it has no {name}"))
}

/// The filter among the object's programs.
fn filter(ebpf: &mut Ebpf) -> Result<&mut Xdp, AttachError> {
    match ebpf.program_mut(PROGRAM) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(missing(PROGRAM)),
    }
}
