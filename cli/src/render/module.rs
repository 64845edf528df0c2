//! Modules: what was applied, how they are on each node.

use farm_proto::v1::{
    self, ChangeEffect, LifeStatus, ModuleAction, ModuleApplyResponse, Place, ResourceState,
};

use super::{Names, service, time};

/// What came of a definition.
#[must_use]
pub fn applied(module: &str, answer: &ModuleApplyResponse, dry_run: bool) -> String {
    if !answer.findings.is_empty() {
        let findings: String = answer.findings.iter().map(finding).collect();
        return format!("{findings}{module} stays as it is\n");
    }
    let changes: String = answer.changes.iter().map(change).collect();
    match (answer.changes.is_empty(), dry_run) {
        (true, _) => format!("{module} is like that already\n"),
        (false, true) => format!("{changes}nothing was changed: this was a rehearsal\n"),
        (false, false) => format!("{changes}{module} is what revision {} says\n", answer.revision),
    }
}

fn finding(finding: &v1::Finding) -> String {
    let v1::Finding { file, line, fact, remedy } = finding;
    let line = line.map(|line| format!(":{line}")).unwrap_or_default();
    format!("{file}{line}: {fact}; {remedy}\n")
}

fn change(change: &v1::ModuleChange) -> String {
    let when = match change.effect() {
        ChangeEffect::NextRun => " (from the next start on)",
        ChangeEffect::Stopped => " (only while it runs nowhere)",
        ChangeEffect::AtOnce | ChangeEffect::Unspecified => "",
    };
    format!("  {}{when}\n", change.text)
}

/// Who was asked to do what.
#[must_use]
pub fn controlled(module: &str, action: ModuleAction, answer: &v1::ModuleControlResponse) -> String {
    let what = match action {
        ModuleAction::Start => "start",
        ModuleAction::Stop => "stop",
        ModuleAction::Restart => "restart",
        ModuleAction::Stopstart => "stopstart",
        ModuleAction::Shutdown => "shutdown",
        ModuleAction::CheckOff => "checker off",
        ModuleAction::CheckOn => "checker on",
        ModuleAction::Kill => "killed",
        ModuleAction::Unspecified => "nothing",
    };
    let line = |node: &v1::ModuleControlled| match node.failed.as_str() {
        "" => format!("{}: {what} of {module}\n", node.name),
        why => format!("{}: no {what} of {module}: {why}\n", node.name),
    };
    answer.nodes.iter().map(line).collect()
}

/// `UP (ready)`.
#[must_use]
pub fn life(life: &v1::ModuleLife) -> String {
    let place = match life.place() {
        Place::Stop => "STOP",
        Place::Wait => "WAIT",
        Place::Up => "UP",
        Place::Unspecified => "?",
    };
    let status = match life.status() {
        LifeStatus::NotReady => "not ready",
        LifeStatus::Transient => "on its way",
        LifeStatus::Ready => "ready",
        LifeStatus::Unspecified => "unknown",
    };
    format!("{place} ({status})")
}

/// All modules, a line for each and one for each node.
#[must_use]
pub fn module_list(status: &v1::StatusResponse) -> String {
    if status.modules.is_empty() {
        return "there are no modules; begin with: farmctl module new NAME --template nginx\n".into();
    }
    let names = Names::of(status);
    status.modules.iter().map(|module| lines(module, &names)).collect()
}

fn lines(status: &v1::ModuleStatus, names: &Names) -> String {
    let Some(module) = &status.module else { return String::new() };
    let application = module.definition.as_ref().is_some_and(|d| d.application);
    let services: Vec<String> = module.services.iter().map(service).collect();
    let kind = crate::view::kind(module.kind);
    let mut text = format!("{} ({kind}): {}\n", module.name, services.join(", "));
    if !application {
        text.push_str("  no scripts: every node serves it\n");
    }
    for shown in &status.lives {
        let cause = if shown.cause.is_empty() { String::new() } else { format!("; {}", shown.cause) };
        text.push_str(&format!("  {}: {}{cause}\n", names.name(shown.node), life(shown)));
    }
    text
}

/// One module, with everything about it.
#[must_use]
pub fn module(status: &v1::ModuleStatus, of: &v1::StatusResponse) -> String {
    let names = Names::of(of);
    let mut text = lines(status, &names);
    for life in &status.lives {
        let node = names.name(life.node);
        if life.loops > 0 {
            text.push_str(&format!("  {node}: helped {} times since somebody acted by hand\n", life.loops));
        }
        for resource in &life.resources {
            text.push_str(&format!("  {node}: {}\n", shown(resource)));
        }
    }
    let revisions = status.module.iter().filter_map(|m| m.definition.as_ref()).flat_map(|d| &d.revisions);
    let numbers: Vec<String> = revisions.map(|revision| revision.number.to_string()).collect();
    if !numbers.is_empty() {
        text.push_str(&format!(
            "  definitions that are kept, the last one in force: {}\n",
            numbers.join(", ")
        ));
    }
    text
}

fn shown(resource: &v1::Resource) -> String {
    let state = match resource.state() {
        ResourceState::Init => "not known yet",
        ResourceState::Up => "up",
        ResourceState::Down => "down",
        ResourceState::Unknown | ResourceState::Unspecified => "unknown",
    };
    let detail = match resource.detail.as_str() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    let off = match (resource.off, resource.off_until_ms) {
        (false, _) => String::new(),
        (true, 0) => " (counts for nothing until farmctl checker on)".into(),
        (true, until) => format!(" (counts for nothing until {})", time(until)),
    };
    format!("{} is {state}{detail}{off}", resource.name)
}
