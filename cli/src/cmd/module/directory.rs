//! The directory of a module, read and written.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use farm_proto::v1::ModuleFile;

use crate::error::Problem;
use crate::exit::Exit;

/// Files that are read at most: a directory with more is none of a module.
const FILES_MAX: usize = 1_000;
/// Bytes of a file that are read at most; the daemon refuses smaller ones already.
const BYTES_MAX: u64 = 4 << 20;

/// All files below `directory`.
///
/// # Errors
/// `no_module` where there is no module.toml, `unreadable` with the file that cannot be read.
pub(super) fn read(directory: &Path) -> Result<Vec<ModuleFile>, Problem> {
    if !directory.join("module.toml").is_file() {
        let fact = format!("{} has no module.toml", directory.display());
        return Err(Problem::new(Exit::Usage, "no_module", fact, "farmctl module new NAME"));
    }
    let mut files = Vec::new();
    add(directory, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn add(directory: &Path, below: &str, files: &mut Vec<ModuleFile>) -> Result<(), Problem> {
    let failed = |at: &Path, error: &dyn std::fmt::Display| {
        let fact = format!("{} cannot be read: {error}", at.display());
        Problem::new(Exit::Local, "unreadable", fact, format!("chmod +r {}", at.display()))
    };
    for entry in fs::read_dir(directory).map_err(|e| failed(directory, &e))? {
        let entry = entry.map_err(|e| failed(directory, &e))?;
        let at = entry.path();
        let name = entry.file_name();
        let path = format!("{below}{}", name.to_string_lossy());
        let metadata = fs::metadata(&at).map_err(|e| failed(&at, &e))?;
        if metadata.is_dir() {
            add(&at, &format!("{path}/"), files)?;
            continue;
        }
        if files.len() == FILES_MAX || metadata.len() > BYTES_MAX {
            let fact = format!("{} is too large for a part of a module", at.display());
            return Err(Problem::new(Exit::Usage, "too_large", fact, format!("mv {} ..", at.display())));
        }
        let content = fs::read(&at).map_err(|e| failed(&at, &e))?.into();
        files.push(ModuleFile { path, content, executable: metadata.permissions().mode() & 0o111 != 0 });
    }
    Ok(())
}

/// Writes `files` into a directory that must not exist.
///
/// # Errors
/// `exists`, or `unwritable`; what was written until then stays.
pub(super) fn write(directory: &Path, files: &[ModuleFile]) -> Result<(), Problem> {
    let shown = directory.display();
    let failed = |error: io::Error| {
        let cure = format!("mv {shown} {shown}.old");
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Problem::new(Exit::Local, "exists", format!("{shown} exists already"), cure);
        }
        Problem::new(Exit::Local, "unwritable", format!("{shown} cannot be written: {error}"), cure)
    };
    fs::create_dir(directory).map_err(failed)?;
    for file in files {
        let at = directory.join(&file.path);
        fs::create_dir_all(at.parent().unwrap_or(directory)).map_err(failed)?;
        fs::write(&at, &file.content).map_err(failed)?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}
