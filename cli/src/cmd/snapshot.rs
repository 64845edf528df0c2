//! `farmctl snapshot`: one archive for support.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use farm_proto::v1;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use tar::{Builder, Header};

use super::status;
use crate::args::Global;
use crate::client::{Daemon, ORDINARY};
use crate::error::{Error, Problem};
use crate::exit::Exit;
use crate::output::Output;
use crate::values::name;
use crate::view::Stamped;

/// One archive for whoever helps: configuration, modules, logs, events, states, counters, what doctor finds, and what
/// the machines say of themselves, of all nodes that answer. Passwords and keys are taken out as far as they look like
/// some: read what you send.
#[derive(Debug, Args)]
pub struct Snapshot {
    /// Where it goes [default: farm-snapshot-CLUSTER-TIME.tar.gz in this directory]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only of this node [default: all]
    #[arg(long, value_parser = name)]
    node: Option<String>,
}

/// What the archive holds; `MANIFEST.json` in it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
struct Manifest {
    cluster: String,
    made: String,
    farmctl: String,
    /// Bytes of each file.
    files: BTreeMap<String, usize>,
    /// What is not there, and why.
    missing: BTreeMap<String, String>,
}

/// What was written.
#[derive(Serialize)]
struct Written<'a> {
    file: String,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

pub(super) async fn run(snapshot: Snapshot, global: &Global, out: &mut Output<'_>) -> Result<Exit, Error> {
    let daemon = Daemon::connect(global).await?;
    let cluster = status(&daemon).await?.name;
    let made = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let default = || format!("farm-snapshot-{cluster}-{}.tar.gz", made.replace(':', "")).into();
    let path = snapshot.file.unwrap_or_else(default);
    let mut archive = Archive::create(&path)?;
    archive.manifest = Manifest {
        cluster: cluster.clone(),
        made,
        farmctl: env!("CARGO_PKG_VERSION").into(),
        ..Manifest::default()
    };
    let request = v1::CollectRequest { node: snapshot.node.unwrap_or_default() };
    let mut parts = daemon.call(ORDINARY, async |mut c| c.collect(request).await).await?;
    while let Some(part) = daemon.next(&mut parts).await? {
        archive.add(&part).map_err(|error| Problem::unwritable(&path, &error))?;
    }
    let manifest = archive.finish().map_err(|error| Problem::unwritable(&path, &error))?;
    let written = Written { file: path.display().to_string(), manifest: &manifest };
    out.show(&written, || told(&path, &manifest))?;
    Ok(Exit::Done)
}

fn told(path: &Path, manifest: &Manifest) -> String {
    let mut text = format!("{} has {} files.\n", path.display(), manifest.files.len());
    if !manifest.missing.is_empty() {
        text.push_str("Not in it:\n");
    }
    for (what, why) in &manifest.missing {
        text.push_str(&format!("  {what}: {why}\n"));
    }
    text + "Read it before you send it: it has logs of applications.\n"
}

/// A compressed tar file that is there whole, or not at all.
struct Archive {
    path: PathBuf,
    partial: PathBuf,
    tar: Builder<GzEncoder<File>>,
    manifest: Manifest,
    finished: bool,
}

impl Archive {
    fn create(path: &Path) -> Result<Self, Problem> {
        if path.exists() {
            let fact = format!("{} exists already", path.display());
            return Err(Problem::new(Exit::Local, "exists", fact, "farmctl snapshot"));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        // Logs are nobody else's to read.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let file = file.map_err(|error| Problem::unwritable(path, &error))?;
        let tar = Builder::new(GzEncoder::new(file, Compression::default()));
        Ok(Self { path: path.to_owned(), partial, tar, manifest: Manifest::default(), finished: false })
    }

    fn add(&mut self, part: &v1::CollectedPart) -> io::Result<()> {
        let parts = [part.node.as_str(), part.path.as_str()].into_iter().filter(|part| !part.is_empty());
        let path = parts.collect::<Vec<_>>().join("/");
        if !part.missing.is_empty() {
            self.manifest.missing.insert(path, part.missing.clone());
            return Ok(());
        }
        self.put(&path, &part.content)?;
        self.manifest.files.insert(path, part.content.len());
        Ok(())
    }

    fn put(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(content.len().try_into().map_err(io::Error::other)?);
        header.set_mode(0o600);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        header.set_mtime(now.map(|since| since.as_secs()).unwrap_or_default());
        // Refuses what leads out of the directory in which it is unpacked.
        self.tar.append_data(&mut header, Path::new("farm-snapshot").join(path), content)
    }

    fn finish(mut self) -> io::Result<Manifest> {
        let text = serde_json::to_vec_pretty(&Stamped::new(&self.manifest)).map_err(io::Error::from)?;
        self.put("MANIFEST.json", &text)?;
        self.tar.finish()?;
        self.tar.get_mut().try_finish()?;
        self.tar.get_mut().get_mut().flush()?;
        fs::rename(&self.partial, &self.path)?;
        self.finished = true;
        Ok(std::mem::take(&mut self.manifest))
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if !self.finished {
            // What is half is nothing; where it cannot be removed, its name says so.
            let _ = fs::remove_file(&self.partial);
        }
    }
}
