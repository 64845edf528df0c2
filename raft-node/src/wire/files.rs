//! The files of a module, between client and daemon.

use farm_module::{File, Files};
use farm_proto::v1;

/// The messages for `files`, ascending by path.
#[must_use]
pub fn files_to_wire(files: &Files) -> Vec<v1::ModuleFile> {
    let file = |(path, file): (&String, &File)| v1::ModuleFile {
        path: path.clone(),
        content: file.bytes.clone().into(),
        executable: file.executable,
    };
    files.0.iter().map(file).collect()
}

/// Parses them. Of two with one path the later one counts.
#[must_use]
pub fn files_from_wire(files: Vec<v1::ModuleFile>) -> Files {
    let file = |f: v1::ModuleFile| (f.path, File { bytes: f.content.to_vec(), executable: f.executable });
    Files(files.into_iter().map(file).collect())
}
