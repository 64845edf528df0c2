//! `farmctl module list | show`.

use super::super::ask_status;
use crate::args::Global;
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::{render, view};

pub(super) async fn list(global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let modules = view::Modules { modules: status.modules.iter().map(Into::into).collect() };
    out.show(&modules, || render::module_list(&status))?;
    Ok(Exit::Done)
}

pub(super) async fn show(module: &str, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let status = ask_status(global).await?;
    let is_it = |m: &&farm_proto::v1::ModuleStatus| m.module.as_ref().is_some_and(|m| m.name == module);
    let found = status.modules.iter().find(is_it).ok_or_else(|| {
        let fact = format!("there is no module {module}");
        Problem::new(Exit::Refused, "unknown_module", fact, "farmctl module list")
    })?;
    out.show(&view::ModuleStatus::from(found), || render::module(found, &status))?;
    Ok(Exit::Done)
}
