//! Whether the files themselves are good: paths, sizes, scripts.

use std::collections::BTreeMap;

use crate::definition::CALLED;
use crate::files::{FILE_BYTES, FILES, File, Files, PATH_BYTES, TOTAL_BYTES};
use crate::finding::{Findings, WHOLE};

/// Where the scripts are.
pub(crate) const BIN: &str = "bin/";

/// Why `path` is none that a module may have.
pub(crate) fn odd(files: &Files, path: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._+@-/".contains(c);
    if path.is_empty() || path.len() > PATH_BYTES {
        return Some(format!("it has {} bytes, not 1 to {PATH_BYTES}", path.len()));
    }
    if let Some(c) = path.chars().find(|c| !legal(*c)) {
        return Some(format!("{c:?} is not one of A-Z a-z 0-9 . _ + @ - /"));
    }
    let parts = || path.split('/');
    if let Some(part) = parts().find(|part| ["", ".", ".."].contains(part)) {
        return Some(format!("{part:?} is no name of a file or directory"));
    }
    if parts().any(|part| part.starts_with('-')) {
        return Some("a name that begins with - is taken for an option".into());
    }
    let above = path.match_indices('/').map(|(at, _)| &path[..at]);
    let file = above.into_iter().find(|above| files.0.contains_key(*above))?;
    Some(format!("{file} is a file, so nothing can be below it"))
}

/// Number, sizes and paths.
pub(crate) fn check(files: &Files, found: &mut Findings) {
    if files.0.len() > FILES {
        let fact = format!("{} files; a module has at most {FILES}", files.0.len());
        found.file(WHOLE, fact, "install what belongs to the application with a package instead");
    }
    if files.size() > TOTAL_BYTES {
        let fact = format!("all files have {} KiB; the most are {} KiB", kib(files.size()), kib(TOTAL_BYTES));
        found.file(WHOLE, fact, "install large files with a package instead");
    }
    for (path, file) in &files.0 {
        if let Some(why) = odd(files, path) {
            found.file(path, format!("odd path: {why}"), "rename the file");
        }
        if file.bytes.len() > FILE_BYTES {
            let size = kib(file.bytes.len());
            let fact = format!("the file has {size} KiB; the most are {} KiB", kib(FILE_BYTES));
            found.file(path, fact, "install large files with a package instead");
        }
    }
}

/// Rounded up, so that what is too long also looks so.
fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}

/// The scripts in `bin/`. A module without them and without anything watched, by what
/// is named, is traffic only.
pub(crate) fn check_scripts(files: &Files, watches: Option<&str>, found: &mut Findings) {
    let scripts: BTreeMap<&str, &File> =
        files.0.iter().filter_map(|(path, file)| Some((path.strip_prefix(BIN)?, file))).collect();
    for name in ["start_both", "stop_both"] {
        if (watches.is_some() || !scripts.is_empty()) && !scripts.contains_key(name) {
            let why = match watches {
                Some(key) if scripts.is_empty() => format!("[[{key}]] watches"),
                Some(_) | None => "bin/ has scripts for".into(),
            };
            let fact = format!("the script is missing, but {why} an application");
            found.file(&format!("{BIN}{name}"), fact, format!("write bin/{name}"));
        }
    }
    for (name, file) in scripts {
        check_script(name, file, found);
    }
}

/// A called script must be one that the kernel can run. A helper may also be read by another script.
fn check_script(name: &str, file: &File, found: &mut Findings) {
    let path = format!("{BIN}{name}");
    let called = CALLED.contains(&name);
    if called && !file.executable {
        found.file(&path, "Farm calls this script, but it is not executable", format!("chmod +x {path}"));
    }
    let script = file.bytes.starts_with(b"#!");
    if called && !script && !file.bytes.starts_with(b"\x7fELF") {
        let fact = "the first bytes are neither #! nor those of a program";
        found.file(&path, fact, "make #!/bin/sh the first line");
    }
    let first = file.bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    if script && (called || file.executable) && first.contains(&b'\r') {
        let fact = "the first line ends with a carriage return: the kernel finds no such interpreter";
        found.file(&path, fact, format!("sed -i 's/\\r$//' {path}"));
    }
}
