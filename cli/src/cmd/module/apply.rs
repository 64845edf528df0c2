//! `farmctl module apply | rollback | new | export`.

use std::path::Path;

use farm_proto::v1;

use super::directory;
use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::values::module_name;
use crate::{render, view};

pub(super) async fn apply(
    at: &Path,
    name: Option<String>,
    dry_run: bool,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let files = directory::read(at)?;
    let module = match name {
        Some(name) => name,
        None => named_like(at)?,
    };
    let daemon = Daemon::connect(global).await?;
    let request = v1::ModuleApplyRequest { module: module.clone(), files, dry_run };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_apply(request).await).await?;
    applied(&module, &answer, dry_run, out)
}

/// A directory that is named like no module needs `--name`.
fn named_like(at: &Path) -> Result<String, Problem> {
    let refused =
        |fact: String| Problem::new(Exit::Usage, "usage", fact, "farmctl module apply DIR --name MODULE");
    let whole = at.canonicalize().map_err(|e| refused(format!("{}: {e}", at.display())))?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
    module_name(&name).map_err(|why| refused(format!("{name:?} cannot be the name of a module: {why}")))
}

pub(super) async fn rollback(
    module: String,
    revision: u64,
    dry_run: bool,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::ModuleRollbackRequest { module: module.clone(), revision, dry_run };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_rollback(request).await).await?;
    applied(&module, &answer, dry_run, out)
}

fn applied(
    module: &str,
    answer: &v1::ModuleApplyResponse,
    dry_run: bool,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    out.show(&view::ModuleApplied::from(answer), || render::applied(module, answer, dry_run))?;
    Ok(if answer.findings.is_empty() { Exit::Done } else { Exit::Refused })
}

pub(super) async fn new(
    name: String,
    template: String,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::ModuleTemplateRequest { template };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_template(request).await).await?;
    directory::write(Path::new(&name), &answer.files)?;
    let answer = v1::ModuleFiles { module: name.clone(), ..answer };
    let said = format!("{name}/ is written; edit {name}/module.toml, then: farmctl module apply {name}\n");
    out.show(&view::ModuleFiles::from(&answer), || said)?;
    Ok(Exit::Done)
}

pub(super) async fn export(
    module: String,
    at: &Path,
    revision: u64,
    global: &Global,
    out: &mut Output<'_>,
) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let request = v1::ModuleExportRequest { module: module.clone(), revision };
    let answer = daemon.call(ORDINARY, async |mut c| c.module_export(request).await).await?;
    directory::write(at, &answer.files)?;
    let said = format!("revision {} of {module} is in {}\n", answer.revision, at.display());
    out.show(&view::ModuleFiles::from(&answer), || said)?;
    Ok(Exit::Done)
}
