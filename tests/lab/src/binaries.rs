//! Where the programs of Farm are.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

/// The environment variable that names the directory of the programs.
pub const BIN_DIR: &str = "FARM_BIN_DIR";

/// Directories that are searched, best first: the named one, the one of this program (of a test: above it),
/// the build directory of the current tree.
fn directories() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(BIN_DIR) {
        return vec![named.into()];
    }
    let own = std::env::current_exe().unwrap_or_default();
    let mut found: Vec<PathBuf> = own.ancestors().skip(1).take(2).map(PathBuf::from).collect();
    found.extend(["target/debug", "target/release"].map(PathBuf::from));
    found
}

/// The path of the program `name` (`farmd`, `farmctl`, `farm-lab`).
///
/// # Errors
/// It is in none of the directories; says how to build it.
pub fn find(name: &str) -> Result<PathBuf> {
    let searched = directories();
    let candidates = searched.iter().map(|dir| dir.join(name)).filter(|path| path.is_file());
    if let Some(path) = candidates.filter_map(|path| path.canonicalize().ok()).next() {
        return Ok(path);
    }
    let shown: Vec<String> = searched.iter().map(|dir| dir.display().to_string()).collect();
    let build = if name == "farmd-next" { "farmd --features next" } else { name };
    bail!("{name} is not in {}: build it with `cargo build -p {build}` or set {BIN_DIR}", shown.join(", "))
}

/// The example `name` of `package`: beside our programs, or built for the purpose.
#[must_use]
pub(crate) fn example(package: &str, name: &str) -> Command {
    if let Ok(built) = find(&format!("examples/{name}")) {
        return Command::new(built);
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--release", "--locked", "-p", package, "--example", name]);
    cargo
}

/// `PATH` with the directories of our own programs in front, for commands that people run in the lab.
#[must_use]
pub fn search_path() -> OsString {
    let farmctl = find("farmctl").ok().and_then(|path| path.parent().map(PathBuf::from));
    let inherited = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let all = farmctl.into_iter().chain(std::env::split_paths(&inherited));
    // A directory with a colon in its name cannot be on a PATH: then farmctl is not found, as with any other.
    std::env::join_paths(all).unwrap_or(inherited)
}
