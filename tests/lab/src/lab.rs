//! A lab: up, down, and what is left of one that crashed.
//!
//! ```text
//!            build             keep
//!   (none) ────────▶ owned ────────▶ kept
//!      ▲               │ drop, or        │ down
//!      │               │ owner ended     │
//!      └───────────────┴─────────────────┘
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farm_host::cgroup::Cgroup;
use serde::{Deserialize, Serialize};

use crate::guardian::Guardian;
use crate::names::{LabName, NODES_MAX, Place};
use crate::netns::NetNs;
use crate::process::Process;
use crate::record::{Directory, Record};
use crate::{shell, topology};

/// Killed processes are gone when the kernel has freed what they had.
const GONE_LIMIT: Duration = Duration::from_secs(20);

/// How clients' frames reach the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// To one node, which sends them on.
    Directed,
    /// To all nodes; one accepts.
    Flood,
}

impl Mode {
    /// As farmctl spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Directed => "directed",
            Self::Flood => "flood",
        }
    }
}

/// What a lab consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: LabName,
    /// Number of nodes.
    pub nodes: u8,
    /// Mode of the web service.
    pub mode: Mode,
    /// Do the nodes have a second cluster network?
    pub second_network: bool,
    /// Is the filter attached in native mode (a stand-in for real drivers)?
    pub native: bool,
    /// Is the last node a witness, which runs without any privilege?
    #[serde(default)]
    pub witness: bool,
}

impl Spec {
    /// `nodes` nodes on one network, directed mode.
    #[must_use]
    pub fn new(name: LabName, nodes: u8) -> Self {
        Self { name, nodes, mode: Mode::Directed, second_network: false, native: false, witness: false }
    }

    /// The same in another mode.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same with a second cluster network.
    #[must_use]
    pub fn second_network(self) -> Self {
        Self { second_network: true, ..self }
    }

    /// The same with native XDP.
    #[must_use]
    pub fn native(self) -> Self {
        Self { native: true, ..self }
    }

    /// The same with a witness as its last node.
    #[must_use]
    pub fn witness(self) -> Self {
        Self { witness: true, ..self }
    }

    /// Is `node` the witness?
    #[must_use]
    pub fn is_witness(&self, node: Place) -> bool {
        self.witness && node == Place::Node(self.nodes)
    }

    /// Where the applications of a node run, below the cgroup2 mount.
    #[must_use]
    pub fn cgroup(&self, node: Place) -> String {
        format!("{}/{node}", cgroup_of(&self.name))
    }

    /// Directory in the BPF file system for the pins of `node`.
    #[must_use]
    pub fn pin_dir(&self, node: Place) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/farm-{}-{node}", self.name))
    }
}

/// A lab that is up. Dropping an owned one takes it down, also when its process is killed.
#[derive(Debug)]
pub struct Lab {
    pub(crate) spec: Spec,
    pub(crate) directory: Directory,
    guardian: Option<Guardian>,
}

impl Lab {
    /// Makes machines and cables, nothing else. What a crashed lab left is removed first.
    ///
    /// # Errors
    /// Not root, a lab of that name is up, or the kernel refused a step.
    pub fn build(spec: Spec) -> Result<Self> {
        ensure!(
            nix::unistd::Uid::effective().is_root(),
            "not root: network namespaces need it (sudo -E ...)"
        );
        let range = format!("{} nodes: a lab has 1 to {NODES_MAX}", spec.nodes);
        ensure!((1..=NODES_MAX).contains(&spec.nodes), range);
        sweep()?;
        let directory = Directory::of(&spec.name);
        let _lock = directory.lock()?;
        let name = &spec.name;
        ensure!(directory.read()?.is_none(), "lab {name} is up: `farm-lab down --name {name}` takes it down");
        let guardian = Guardian::start(name)?;
        directory.write(&planned(&spec)?)?;
        // From here on a failure drops the lab, and that takes down what was made.
        let lab = Self { spec, directory, guardian: Some(guardian) };
        topology::build(&lab.spec).context("building the lab")?;
        Ok(lab)
    }

    /// Machines, cables, a daemon and a web server on each node, one cluster, and the web service.
    ///
    /// # Errors
    /// As [`Lab::build`]; or a step of the cluster's set-up failed.
    pub fn up(spec: Spec) -> Result<Self> {
        let lab = Self::build(spec)?;
        lab.run_farm()?;
        Ok(lab)
    }

    /// A lab that is up, without becoming its owner.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn attach(name: &LabName) -> Result<Self> {
        let directory = Directory::of(name);
        let record = directory.read()?;
        let record =
            record.with_context(|| format!("no lab {name}: `farm-lab up --name {name}` makes one"))?;
        Ok(Self { spec: record.spec, directory, guardian: None })
    }

    /// Leaves the lab up when this process ends.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn keep(mut self) -> Result<()> {
        self.directory.update(|record| record.owner = None)?;
        self.guardian.take().map_or(Ok(()), Guardian::let_go)
    }

    /// Takes the lab down and says whether that worked (dropping can only complain).
    ///
    /// # Errors
    /// Something of it is still there.
    pub fn down(mut self) -> Result<()> {
        let taken = down(&self.spec.name);
        let watched = self.guardian.take().map_or(Ok(()), Guardian::let_go);
        taken.and(watched)
    }

    /// What it consists of.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Place> + use<> {
        Place::nodes(self.spec.nodes)
    }

    /// Those that serve: all but a witness.
    pub fn servers(&self) -> impl Iterator<Item = Place> + use<> {
        Place::nodes(self.spec.nodes - u8::from(self.spec.witness))
    }

    /// The namespace of a machine.
    #[must_use]
    pub fn namespace(&self, place: Place) -> NetNs {
        place.namespace(&self.spec.name)
    }

    /// Directory with configuration, data, log and socket of a machine.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn directory(&self, place: Place) -> Result<PathBuf> {
        self.directory.of_place(place)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(guardian) = self.guardian.take() else { return };
        if let Err(e) = down(&self.spec.name) {
            eprintln!("lab {} is not wholly down: {e:#}", self.spec.name);
        }
        // A guardian that has ended has nothing left to do.
        let _ = guardian.let_go();
    }
}

fn planned(spec: &Spec) -> Result<Record> {
    let namespaces = Place::all(spec.nodes).map(|p| p.namespace(&spec.name).name().to_owned()).collect();
    let pins = Place::nodes(spec.nodes).map(|node| spec.pin_dir(node)).collect();
    Ok(Record {
        spec: spec.clone(),
        owner: Some(Process::current()?),
        namespaces,
        pins,
        processes: Vec::new(),
    })
}

/// Is there anything of a lab of that name?
///
/// # Errors
/// Its record cannot be read.
pub fn exists(name: &LabName) -> Result<bool> {
    Ok(Directory::of(name).path().exists())
}

/// Takes a lab down; does nothing if there is none.
///
/// # Errors
/// Something of it is still there.
pub fn down(name: &LabName) -> Result<()> {
    down_if(name, |_| true)
}

/// The same for the lab that `owner` owns: another of that name may have come after it.
///
/// # Errors
/// As [`down`].
pub(crate) fn down_owned(name: &LabName, owner: Process) -> Result<()> {
    down_if(name, |record| record.owner == Some(owner))
}

/// What is meant is asked under the lock: before it a lab of that name may go and another come.
fn down_if(name: &LabName, is_meant: impl Fn(&Record) -> bool) -> Result<()> {
    let directory = Directory::of(name);
    let _lock = directory.lock()?;
    match directory.read()? {
        Some(record) if !is_meant(&record) => return Ok(()),
        Some(record) => tear_down(&record).with_context(|| format!("taking down lab {name}"))?,
        None => tracing::debug!(%name, "no lab to take down"),
    }
    directory.remove()
}

/// Takes down every lab whose owner has ended without doing so.
///
/// # Errors
/// Something of one of them is still there.
pub fn sweep() -> Result<()> {
    for name in Directory::existing()? {
        if Directory::of(&name).read()?.is_some_and(|record| record.orphaned()) {
            tracing::info!(%name, "removing what a crashed lab left");
            down_if(&name, Record::orphaned)?;
        }
    }
    Ok(())
}

/// Everything by recorded identity: never by the name of a program.
fn tear_down(record: &Record) -> Result<()> {
    let namespaces: Vec<NetNs> = record.namespaces.iter().map(NetNs::named).collect();
    for started in &record.processes {
        started.process.kill()?;
    }
    for namespace in &namespaces {
        kill_inhabitants(namespace)?;
    }
    for pins in record.pins.iter().filter(|pins| pins.exists()) {
        std::fs::remove_dir_all(pins).with_context(|| pins.display().to_string())?;
    }
    remove_cgroups(&record.spec.name)?;
    namespaces.iter().try_for_each(NetNs::delete)
}

/// What runs in the groups has been killed with the namespaces; the kernel may still be at it.
fn remove_cgroups(name: &LabName) -> Result<()> {
    // Nothing was made where there is no such file system.
    let Ok(group) = Cgroup::existing(&cgroup_of(name)) else { return Ok(()) };
    group.kill()?;
    shell::await_value("the groups of the lab are empty", GONE_LIMIT, || Ok(group.remove().ok()))?;
    // Another lab may have some in it.
    let _ = std::fs::remove_dir(group.path().parent().context("it has a name of two parts")?);
    Ok(())
}

fn cgroup_of(name: &LabName) -> String {
    format!("farm-lab/{name}")
}

/// Kills what runs in a namespace of the lab: shells of `exec`, children of the daemons.
pub(crate) fn kill_inhabitants(namespace: &NetNs) -> Result<()> {
    let inhabitants = namespace.processes()?;
    inhabitants.into_iter().filter_map(|pid| Process::of(pid).ok()).try_for_each(Process::kill)
}
