//! What a module is on this node: a revision of its definition, with its files written out.

use std::path::PathBuf;
use std::sync::Arc;

use farm_core::model::Revision;
use farm_host::cgroup::Cgroup;
use farm_module::{Definition, Files};

use super::{Keeper, Ready, WEIGHT};
use crate::modules::memory::Memory;
use crate::raft::Snapshot;

/// A revision that can be run.
#[derive(Clone)]
pub(super) struct Program {
    /// Its number.
    pub revision: u64,
    /// What it says.
    pub definition: Arc<Definition>,
    /// Directory of its files.
    pub files: PathBuf,
}

impl Keeper {
    /// All that the module needs here.
    pub(super) fn provide(&self, snapshot: &Snapshot) -> Result<Ready, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.name);
        self.home.make().map_err(failed)?;
        let program = self.program(snapshot, 0)?.ok_or_else(|| format!("{} has no definition", self.name))?;
        let token = self.home.token().map_err(failed)?;
        let root = &self.member.config.cgroup;
        let group = Cgroup::open(&format!("{root}/modules/{}", self.name)).map_err(failed)?;
        let log_group = Cgroup::open(&format!("{root}/logs")).map_err(failed)?;
        let check_group = Cgroup::open(&format!("{root}/checks/{}", self.name)).map_err(failed)?;
        // The lease thread goes before everybody anyway; this is for the rest of the daemon.
        if !group.set_weight(WEIGHT).map_err(failed)? {
            tracing::debug!(module = %self.name, "the processor is not shared out by cgroup2 groups here");
        }
        self.modules.give_token(&self.name, token);
        let definition = snapshot.state.modules.get(&self.name).and_then(|m| m.definition.as_ref());
        let born = definition.map_or(0, |d| d.born);
        Ok(Ready { program, group, log_group, check_group, token, born })
    }

    /// Those that the cluster keeps, the newest at the end.
    pub(super) fn revisions<'s>(
        &self,
        snapshot: &'s Snapshot,
    ) -> impl Iterator<Item = &'s Revision> + use<'s> {
        let module = snapshot.state.modules.get(&self.name);
        module.and_then(|m| m.definition.as_ref()).into_iter().flat_map(|d| &d.revisions)
    }

    /// The newest revision, written out, where it is not `known`.
    pub(super) fn program(&self, snapshot: &Snapshot, known: u64) -> Result<Option<Program>, String> {
        let newest = self.revisions(snapshot).last().filter(|revision| revision.number != known);
        newest.map(|revision| self.written(revision)).transpose()
    }

    /// What runs was started from, where the cluster still has it; else the newest is as good as can be.
    pub(super) fn program_of_run(&self, snapshot: &Snapshot, memory: &Memory, newest: &Program) -> Program {
        let found = self.revisions(snapshot).find(|revision| revision.number == memory.revision);
        let written = found.and_then(|revision| self.written(revision).ok());
        written.unwrap_or_else(|| newest.clone())
    }

    fn written(&self, revision: &Revision) -> Result<Program, String> {
        let number = revision.number;
        let failed = |why: &dyn std::fmt::Display| format!("revision {number} of {}: {why}", self.name);
        let files = Files::unpack(&revision.content).map_err(|e| failed(&e))?;
        let definition = Definition::parse(&self.name.0, files).map_err(|found| {
            let first = found.first().map(ToString::to_string).unwrap_or_default();
            failed(&first)
        })?;
        let at = self.home.write(number, &definition.files).map_err(|e| failed(&e))?;
        Ok(Program { revision: number, definition: Arc::new(definition), files: at })
    }
}
