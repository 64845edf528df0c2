//! Whether this node serves a module, for load balancers outside.

use farm_core::model::{ModuleKind, ModuleName, Readiness};
use farm_core::time::BootTime;
use farm_dataplane::clock::boot_now;

use crate::member::Member;

/// Whether clients of the module may be sent to this node now; why not.
pub fn serves(member: &Member, name: &str) -> Result<(), String> {
    let snapshot = member.snapshot();
    let module = snapshot.state.modules.get(&ModuleName(name.to_owned()));
    let module = module.ok_or_else(|| format!("there is no module {name}"))?;
    match module.readiness(member.me) {
        Readiness::Open => {}
        Readiness::Closing => return Err(format!("{name} is about to stop here")),
        Readiness::Closed => return Err(format!("{name} is not up here")),
    }
    if module.kind == ModuleKind::Light || module.services.is_empty() {
        return Ok(());
    }
    if !module.assignment.iter().any(|bucket| bucket.current == Some(member.me)) {
        return Err(format!("no client of {name} is this node's"));
    }
    if !member.host.sound() {
        return Err("its filter or guard is not in place".into());
    }
    if BootTime(member.lease.deadline()) <= BootTime(boot_now()) {
        return Err("it has no lease".into());
    }
    Ok(())
}
