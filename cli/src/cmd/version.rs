//! `farmctl version`

use serde::Serialize;

use crate::error::Error;
use crate::exit::Exit;
use crate::output::Output;

/// What `version --json` prints.
#[derive(Serialize)]
struct Version {
    version: &'static str,
    protocol: &'static str,
}

pub(super) fn run(out: &mut Output<'_>) -> Result<Exit, Error> {
    let version = Version { version: env!("CARGO_PKG_VERSION"), protocol: "farm.v1" };
    out.show(&version, || format!("farmctl {} (speaks {})\n", version.version, version.protocol))?;
    Ok(Exit::Done)
}
