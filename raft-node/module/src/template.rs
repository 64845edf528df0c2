//! Modules to begin with, as they lie in `conf/modules`.

use crate::definition::CALLED;
use crate::files::{File, Files};
use crate::tree::BIN;

/// Their names.
pub const TEMPLATES: [&str; 4] = ["nginx", "apache", "service", "container"];

macro_rules! files {
    ($name:literal: $($path:literal),+) => {
        &[$(($path, include_str!(concat!("../../../conf/modules/", $name, "/", $path)))),+]
    };
}

/// The files of template `name`. The scripts that Farm calls are executable.
#[must_use]
pub fn template(name: &str) -> Option<Files> {
    let files: &[(&str, &str)] = match name {
        "nginx" => {
            files!("nginx": "module.toml", "nginx.conf", "bin/common", "bin/prestart", "bin/start_both", "bin/stop_both")
        }
        "apache" => {
            files!("apache": "module.toml", "apache.conf", "bin/common", "bin/prestart", "bin/start_both", "bin/stop_both")
        }
        "service" => files!("service": "module.toml", "bin/prestart", "bin/start_both", "bin/stop_both"),
        "container" => {
            files!("container": "module.toml", "bin/common", "bin/prestart", "bin/start_both", "bin/stop_both")
        }
        _ => return None,
    };
    let file = |(path, text): &(&str, &str)| {
        let executable = path.strip_prefix(BIN).is_some_and(|script| CALLED.contains(&script));
        ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), executable })
    };
    Some(Files(files.iter().map(file).collect()))
}
