//! The labs that are up: for `farm-lab status`.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::Result;
use serde::Serialize;

use crate::lab::Mode;
use crate::names::{LabName, Place};
use crate::record::{Directory, Record, Role};

/// Version of the shape of the JSON; grows when a field changes its meaning or goes, not when one comes.
const SCHEMA: u32 = 1;

/// The labs that are up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Labs {
    /// Version of this shape.
    pub schema: u32,
    /// Ordered by name.
    pub labs: Vec<LabStatus>,
}

/// A lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabStatus {
    /// Its name.
    pub name: LabName,
    /// Mode of the web service.
    pub mode: Mode,
    /// Process that takes it down when it ends; `None` for a lab that stays until `down`.
    pub owner: Option<i32>,
    /// Its nodes.
    pub nodes: Vec<NodeProcesses>,
}

/// What runs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodeProcesses {
    /// Which.
    pub name: Place,
    /// Its main address.
    pub address: Ipv4Addr,
    /// Process id of the daemon, if it runs.
    pub farmd: Option<i32>,
    /// Process id of the web server, if it runs.
    pub nginx: Option<i32>,
}

impl Labs {
    /// What the records of all labs say.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn read() -> Result<Self> {
        let mut labs = Vec::new();
        for name in Directory::existing()? {
            labs.extend(Directory::of(&name).read()?.map(|record| LabStatus::of(&record)));
        }
        Ok(Self { schema: SCHEMA, labs })
    }
}

impl LabStatus {
    fn of(record: &Record) -> Self {
        let pid = |node, role| record.running(node, role).map(|process| process.pid);
        let node = |node: Place| NodeProcesses {
            name: node,
            address: node.address(),
            farmd: pid(node, Role::Farmd),
            nginx: pid(node, Role::Nginx),
        };
        Self {
            name: record.spec.name.clone(),
            mode: record.spec.mode,
            owner: record.owner.map(|owner| owner.pid),
            nodes: Place::nodes(record.spec.nodes).map(node).collect(),
        }
    }
}

impl fmt::Display for Labs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.labs.iter().try_for_each(|lab| lab.fmt(f))
    }
}

impl fmt::Display for LabStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.owner.map_or("kept".into(), |pid| format!("owned by process {pid}"));
        writeln!(f, "{}: {} nodes, {}, {owner}", self.name, self.nodes.len(), self.mode.name())?;
        let pid = |pid: Option<i32>| pid.map_or("-".into(), |pid| pid.to_string());
        for node in &self.nodes {
            let (farmd, nginx) = (pid(node.farmd), pid(node.nginx));
            writeln!(f, "  {} {} farmd {farmd} nginx {nginx}", node.name, node.address)?;
        }
        Ok(())
    }
}
