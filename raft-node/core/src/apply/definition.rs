//! Modules that are applied as a whole, and where their applications serve.

use std::sync::Arc;

use super::modules::{key, unknown_module};
use super::{Done, Refusal, ensure, happened};
use crate::event::{Event, Kind, mode_name};
use crate::id::{EntryId, NodeId};
use crate::limits;
use crate::model::{Definition, Mode, Module, ModuleName, Outline, Readiness, Revision, Service};
use crate::state::ClusterState;

impl ClusterState {
    /// All of it, or nothing: it is tried on a copy.
    pub(super) fn module_apply(
        &mut self,
        name: &ModuleName,
        outline: &Outline,
        content: &Arc<[u8]>,
        entry: EntryId,
    ) -> Done {
        ensure(content.len() <= limits::DEFINITION, || {
            let fact = format!("{name} has {} bytes, at most {} are kept", content.len(), limits::DEFINITION);
            Refusal::new("definition_too_large", fact, format!("farmctl module apply {name}"))
        })?;
        self.check_total(name, content)?;
        self.check_scripts_stay(name, outline)?;
        let mut next = self.clone();
        let mut events = next.become_kind(name, outline)?;
        next.change_services(name, outline, &mut events)?;
        let number = entry.index;
        let module = next.modules.get_mut(name).ok_or_else(|| unknown_module(name))?;
        module.weights.clone_from(&outline.weights);
        module.drain = outline.drain;
        // Who did not learn what became of it asks again.
        if newest(module).is_none_or(|revision| revision.content != *content) {
            define(module, outline, Revision { number, content: content.clone() });
            events.push(Event {
                kind: Kind::ModuleApplied { module: name.clone(), revision: number },
                cause: None,
            });
        }
        *self = next;
        Ok((events, None))
    }

    /// All definitions go into every snapshot of the state.
    fn check_total(&self, name: &ModuleName, content: &Arc<[u8]>) -> Result<(), Refusal> {
        let size = |d: &Definition| d.revisions.iter().map(|r| r.content.len()).sum::<usize>();
        let kept: usize = self.modules.values().filter_map(|m| m.definition.as_ref()).map(size).sum();
        ensure(kept + content.len() <= limits::DEFINITIONS, || {
            let fact = format!(
                "with {name} the revisions of all modules would have {} bytes, at most {} are kept",
                kept + content.len(),
                limits::DEFINITIONS
            );
            Refusal::new("definitions_too_large", fact, "farmctl module list")
        })
    }

    /// What runs would be stopped by nothing.
    fn check_scripts_stay(&self, name: &ModuleName, outline: &Outline) -> Result<(), Refusal> {
        let runs = self.modules.get(name).is_some_and(runs);
        ensure(outline.application || !runs, || {
            let fact = format!("{name} runs: its scripts cannot be taken out meanwhile");
            Refusal::new("module_runs", fact, format!("farmctl module stop {name} --wait"))
        })
    }

    fn become_kind(&mut self, name: &ModuleName, outline: &Outline) -> Result<Vec<Event>, Refusal> {
        match self.modules.get_mut(name) {
            Some(module) => {
                ensure(module.kind == outline.kind, || kind_conflict(name))?;
                Ok(Vec::new())
            }
            None => {
                let module = self.new_module(name, outline.kind)?;
                self.modules.insert(name.clone(), module);
                happened(Kind::ModuleCreated { module: name.clone() }).map(|(events, _)| events)
            }
        }
    }

    /// New services come, then those that are no longer named go: a virtual IP whose only service becomes another one
    /// stays. What is in both is not touched.
    fn change_services(
        &mut self,
        name: &ModuleName,
        outline: &Outline,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let module = self.modules.get(name).ok_or_else(|| unknown_module(name))?.clone();
        let is_new = |service: &Service| !module.services.contains_key(&key(service));
        for (service, mode) in outline.services.iter().filter(|(service, _)| !is_new(service)) {
            check_unchanged(name, &module, service, *mode)?;
        }
        for (service, mode) in outline.services.iter().filter(|(service, _)| is_new(service)) {
            events.extend(self.add_service(name, service, *mode)?.0);
        }
        let named = |k: &_| outline.services.iter().any(|(service, _)| key(service) == *k);
        for ((vip, protocol, port), criterion) in module.services.iter().filter(|(k, _)| !named(k)) {
            let service = Service { vip: *vip, protocol: *protocol, port: *port, criterion: *criterion };
            events.extend(self.remove_service(name, &service)?.0);
        }
        Ok(())
    }

    pub(super) fn module_readiness(&mut self, name: &ModuleName, id: NodeId, to: Readiness) -> Done {
        let node = self.member(id)?.name.clone();
        let module = self.modules.get_mut(name).ok_or_else(|| unknown_module(name))?;
        let application = module.definition.as_mut().and_then(|d| d.application.as_mut());
        let application = application.ok_or_else(|| {
            Refusal::new(
                "no_application",
                format!("{name} has no scripts"),
                format!("farmctl module show {name}"),
            )
        })?;
        let before = application.insert(id, to).unwrap_or(Readiness::Closed);
        let module = name.clone();
        match to {
            _ if before == to => Ok((Vec::new(), None)),
            Readiness::Open => happened(Kind::ModuleOpened { module, name: node }),
            Readiness::Closing => happened(Kind::ModuleClosing { module, name: node }),
            Readiness::Closed => happened(Kind::ModuleClosed { module, name: node }),
        }
    }
}

fn newest(module: &Module) -> Option<&Revision> {
    module.definition.as_ref()?.revisions.last()
}

fn define(module: &mut Module, outline: &Outline, revision: Revision) {
    let before = module.definition.take();
    let born = before.as_ref().map_or(revision.number, |d| d.born);
    let (mut revisions, running) = before.map_or((Vec::new(), None), |d| (d.revisions, d.application));
    revisions.push(revision);
    let over = revisions.len().saturating_sub(limits::REVISIONS);
    revisions.drain(..over);
    let application = outline.application.then(|| running.unwrap_or_default());
    module.definition = Some(Definition { revisions, born, application });
}

fn runs(module: &Module) -> bool {
    let application = module.definition.as_ref().and_then(|d| d.application.as_ref());
    application.is_some_and(|on| on.values().any(|readiness| *readiness != Readiness::Closed))
}

/// Nodes carry the two kinds out by different means: one does not become the other.
pub(super) fn kind_conflict(name: &ModuleName) -> Refusal {
    let fact = format!("the kind of {name} cannot change: remove it, and apply it anew");
    Refusal::new("kind_conflict", fact, format!("farmctl module remove {name}"))
}

/// Nodes would for a moment hash, or deliver, by two rules: it has to go before it comes back.
fn check_unchanged(name: &ModuleName, module: &Module, service: &Service, mode: Mode) -> Result<(), Refusal> {
    let at = service.vip.at(service.port);
    let cure = || format!("farmctl module apply {name}");
    ensure(module.services.get(&key(service)) == Some(&service.criterion), || {
        let fact = format!(
            "the criterion of {at} cannot change while it is served: take the service out, apply, put it back"
        );
        Refusal::new("criterion_conflict", fact, cure())
    })?;
    ensure(module.vips.get(&service.vip) == Some(&mode), || {
        let has = module.vips.get(&service.vip).map_or("no", |mode| mode_name(*mode));
        let fact = format!(
            "{} is delivered in {has} mode; it changes only while no service is on it: take them out, apply, put \
             them back",
            service.vip
        );
        Refusal::new("mode_conflict", fact, cure())
    })
}
