//! Modules as a whole: applied, taken back, shown, started and stopped.

use std::collections::{BTreeMap, BTreeSet};

use farm_core::command::{Body, Command};
use farm_core::id::NodeId;
use farm_core::model::{Module, ModuleName, Outline, Readiness, Revision, VirtualIp};
use farm_core::state::ClusterState;
use farm_module::{Definition, Effect, Files, Finding, TEMPLATES, diff};
use farm_proto::v1;
use futures::future::join_all;
use tonic::{Code, Status};

use super::changes::{ask, done, named_or_all, refuse_foreign_holder};
use super::refuse::{self, invalid, status};
use crate::daemon::rehearse;
use crate::member::Member;
use crate::modules::Verb;
use crate::problem::Problem;
use crate::wire;

pub(super) async fn apply(
    member: &Member,
    request: v1::ModuleApplyRequest,
) -> Result<v1::ModuleApplyResponse, Status> {
    let files = wire::files_from_wire(request.files);
    become_files(member, ModuleName(request.module), files, request.dry_run).await
}

pub(super) async fn rollback(
    member: &Member,
    request: v1::ModuleRollbackRequest,
) -> Result<v1::ModuleApplyResponse, Status> {
    let name = ModuleName(request.module);
    let snapshot = member.snapshot();
    let revisions = revisions(&snapshot.state, &name)?;
    let wanted = match request.revision {
        0 => revisions.len().checked_sub(2).and_then(|at| revisions.get(at)),
        number => revisions.iter().find(|r| r.number == number),
    };
    let wanted = wanted.ok_or_else(|| unknown_revision(&name, revisions))?;
    let files = unpacked(&name, wanted)?;
    become_files(member, name, files, request.dry_run).await
}

/// Checks everything that can be checked before it touches anything.
async fn become_files(
    member: &Member,
    name: ModuleName,
    files: Files,
    dry_run: bool,
) -> Result<v1::ModuleApplyResponse, Status> {
    let snapshot = member.snapshot();
    let definition = match Definition::parse(&name.0, files) {
        Ok(definition) => definition,
        Err(found) => return Ok(findings(found)),
    };
    let outline = match outline(&definition, &snapshot.state) {
        Ok(outline) => outline,
        Err(found) => return Ok(findings(found)),
    };
    let before = present(&snapshot.state, &name)?;
    let changes: Vec<v1::ModuleChange> = diff(before.as_ref(), &definition).into_iter().map(change).collect();
    let content = definition.files.pack().into();
    let body = Body::ModuleApply { module: name.clone(), outline, content };
    rehearse(&snapshot.state, &Command::any(body.clone()))
        .map_err(|p| status(Code::FailedPrecondition, &p))?;
    let known: BTreeSet<VirtualIp> =
        snapshot.state.modules.get(&name).map(|m| m.vips.keys().copied().collect()).unwrap_or_default();
    let vips: BTreeSet<VirtualIp> = definition.services.iter().map(|(service, _)| service.vip).collect();
    for vip in vips.difference(&known) {
        refuse_foreign_holder(member, *vip).await?;
    }
    let answer = v1::ModuleApplyResponse { changes, ..v1::ModuleApplyResponse::default() };
    if dry_run || answer.changes.is_empty() {
        return Ok(answer);
    }
    let done = done(ask(member, Command::any(body)).await?)?;
    Ok(v1::ModuleApplyResponse { revision: done.index, epoch: done.epoch, index: done.index, ..answer })
}

/// What the core needs to know of it; nodes by their ids.
fn outline(definition: &Definition, state: &ClusterState) -> Result<Outline, Vec<Finding>> {
    let id = |name: &String| state.nodes.values().find(|node| node.name == *name).map(|node| node.id);
    let unknown = definition.weights.keys().filter(|name| id(name).is_none()).map(|name| Finding {
        file: "module.toml".into(),
        line: None,
        fact: format!("[weights] names {name}, which is no member"),
        remedy: "see farmctl node list".into(),
    });
    let unknown: Vec<Finding> = unknown.collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let weights = definition.weights.iter().filter_map(|(name, weight)| Some((id(name)?, *weight)));
    Ok(Outline {
        kind: definition.kind,
        services: definition.services.clone(),
        weights: weights.collect(),
        drain: definition.drain,
        application: definition.has_application(),
    })
}

fn findings(found: Vec<Finding>) -> v1::ModuleApplyResponse {
    let finding = |f: Finding| v1::Finding { file: f.file, line: f.line, fact: f.fact, remedy: f.remedy };
    let findings = found.into_iter().map(finding).collect();
    v1::ModuleApplyResponse { findings, ..v1::ModuleApplyResponse::default() }
}

fn change(change: farm_module::Change) -> v1::ModuleChange {
    let effect = match change.effect {
        Effect::AtOnce => v1::ChangeEffect::AtOnce,
        Effect::NextRun => v1::ChangeEffect::NextRun,
        Effect::Stopped => v1::ChangeEffect::Stopped,
    };
    v1::ModuleChange { text: change.text, effect: effect.into() }
}

/// What the module is now; `None` where it was put together by commands, or is new.
pub(crate) fn present(state: &ClusterState, name: &ModuleName) -> Result<Option<Definition>, Status> {
    let definition = state.modules.get(name).and_then(|m| m.definition.as_ref());
    let Some(revision) = definition.and_then(|d| d.revisions.last()) else { return Ok(None) };
    let files = unpacked(name, revision)?;
    // One that an older build took and this one would not is shown as new.
    Ok(Definition::parse(&name.0, files).ok())
}

pub(super) fn module<'a>(state: &'a ClusterState, name: &ModuleName) -> Result<&'a Module, Status> {
    state
        .modules
        .get(name)
        .ok_or_else(|| invalid("unknown_module", format!("there is no module {name}"), "farmctl module list"))
}

fn revisions<'a>(state: &'a ClusterState, name: &ModuleName) -> Result<&'a [Revision], Status> {
    let definition = module(state, name)?.definition.as_ref();
    definition.map(|d| d.revisions.as_slice()).ok_or_else(|| {
        let fact = format!("{name} was put together by commands: it has no definition");
        invalid("no_definition", fact, "farmctl service list")
    })
}

fn unknown_revision(name: &ModuleName, revisions: &[Revision]) -> Status {
    let kept: Vec<String> = revisions.iter().map(|r| r.number.to_string()).collect();
    let fact = format!("of {name} these revisions are kept: {}", kept.join(", "));
    invalid("unknown_revision", fact, format!("farmctl module show {name}"))
}

fn unpacked(name: &ModuleName, revision: &Revision) -> Result<Files, Status> {
    Files::unpack(&revision.content).map_err(|error| {
        let fact = format!("revision {} of {name} cannot be read: {error}", revision.number);
        status(Code::DataLoss, &Problem::new("bad_revision", fact, format!("farmctl module apply {name}")))
    })
}

pub(super) fn export(member: &Member, request: &v1::ModuleExportRequest) -> Result<v1::ModuleFiles, Status> {
    let name = ModuleName(request.module.clone());
    let snapshot = member.snapshot();
    let revisions = revisions(&snapshot.state, &name)?;
    let wanted = match request.revision {
        0 => revisions.last(),
        number => revisions.iter().find(|r| r.number == number),
    };
    let wanted = wanted.ok_or_else(|| unknown_revision(&name, revisions))?;
    let files = wire::files_to_wire(&unpacked(&name, wanted)?);
    Ok(v1::ModuleFiles { module: name.0, revision: wanted.number, files })
}

pub(super) fn template(request: &v1::ModuleTemplateRequest) -> Result<v1::ModuleFiles, Status> {
    let files = farm_module::template(&request.template).ok_or_else(|| {
        let fact =
            format!("no template is called {:?}; there are {}", request.template, TEMPLATES.join(", "));
        invalid("unknown_template", fact, "farmctl module new NAME --template nginx")
    })?;
    let files = wire::files_to_wire(&files);
    Ok(v1::ModuleFiles { module: request.template.clone(), revision: 0, files })
}

/// A node that is gone for good cannot say any more that nothing of the module runs there.
pub(super) async fn remove(member: &Member, request: v1::ModuleRemoveRequest) -> Result<v1::Done, Status> {
    let name = ModuleName(request.module);
    let snapshot = member.snapshot();
    let on = module(&snapshot.state, &name)?.definition.as_ref().and_then(|d| d.application.clone());
    let left: BTreeMap<NodeId, Readiness> = on.unwrap_or_default();
    for (node, _) in left.into_iter().filter(|(_, readiness)| *readiness != Readiness::Closed) {
        if is_gone(member, &snapshot.state, node).await {
            let body = Body::ModuleReadiness { module: name.clone(), node, readiness: Readiness::Closed };
            done(ask(member, Command::any(body)).await?)?;
        }
    }
    done(ask(member, Command::any(Body::ModuleRemove(name))).await?)
}

/// Electors hear it; others have to ask.
async fn is_gone(member: &Member, state: &ClusterState, node: NodeId) -> bool {
    if state.electors.all().contains(&member.me) {
        member.absence_in(state, node).is_some()
    } else {
        member.look(node).await.is_none()
    }
}

pub(super) async fn control(
    member: &Member,
    request: v1::ModuleControlRequest,
) -> Result<v1::ModuleControlResponse, Status> {
    let name = ModuleName(request.module.clone());
    if request.action() == v1::ModuleAction::Kill {
        // Only once it is known that others go on.
        let fact = "an application is killed by a rehearsal alone";
        return Err(invalid("bad_request", fact, format!("farmctl drill app {name}")));
    }
    let snapshot = member.snapshot();
    let application =
        module(&snapshot.state, &name)?.definition.as_ref().and_then(|d| d.application.as_ref());
    if application.is_none() {
        let fact = format!("{name} has no scripts: there is nothing to start or stop");
        return Err(invalid("no_application", fact, format!("farmctl module show {name}")));
    }
    let nodes = named_or_all(member, &request.node)?;
    let told = v1::ControlRequest {
        module: request.module,
        action: request.action,
        no_drain: request.no_drain,
        resource: request.resource,
        until_ms: request.until_ms,
    };
    let asked = nodes.into_iter().map(|node| {
        let told = told.clone();
        async move { (node, member.control(node, told).await) }
    });
    let answers = join_all(asked).await.into_iter().map(|(node, done)| v1::ModuleControlled {
        node: node.0,
        name: snapshot.state.nodes.get(&node).map(|n| n.name.clone()).unwrap_or_default(),
        failed: done.err().map(|p| p.fact).unwrap_or_default(),
    });
    Ok(v1::ModuleControlResponse { nodes: answers.collect() })
}

pub(super) async fn script(
    member: &Member,
    request: &v1::ScriptRequest,
) -> Result<v1::ScriptResponse, Status> {
    let verb = Verb::parse(request)
        .ok_or_else(|| refuse::invalid("bad_request", "nothing was said", "farmctl script --help"))?;
    member.modules.said(&request.token, verb).await.map_err(|p| status(Code::PermissionDenied, &p))
}
