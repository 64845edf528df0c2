//! What support needs to know of a node, piece by piece: each bounded in size and time, and without secrets. A piece that
//! cannot be had says why and costs no other.

mod machine;
mod redact;

use std::collections::BTreeMap;
use std::sync::Arc;

use farm_core::model::{BucketState, Module, ModuleName};
use farm_core::state::ClusterState;
use farm_module::Files;
use farm_proto::v1;
use farm_view::Stamped;
use serde::Serialize;
use tokio::sync::watch;

use crate::api::counters;
use crate::config::Config;
use crate::doctor::Doctor;
use crate::journal::{Journal, KEPT};
use crate::look::Mirror;
use crate::member::Setup;
use crate::modules;
use crate::raft::{Handle, Role, Snapshot};

pub use redact::redact;

/// Bytes of a piece; of a longer one the end is told, which is the newest of a log.
const PIECE_MAX: usize = 2 << 20;
/// Lines of the log of an application.
const LINES: u64 = 10_000;

/// What it needs of a member.
pub struct Collector {
    /// The daemon's configuration.
    pub config: Config,
    /// What happened here.
    pub journal: Arc<Journal>,
    /// The replicated state.
    pub state: watch::Receiver<Arc<Snapshot>>,
    /// Who leads and votes.
    pub role: watch::Receiver<Role>,
    /// How this node is.
    pub mirror: Mirror,
    /// Who examines it.
    pub doctor: Arc<Doctor>,
}

impl Collector {
    /// Of the member that is set up.
    #[must_use]
    pub fn new(setup: &Setup, raft: &Handle, mirror: Mirror, doctor: Arc<Doctor>) -> Self {
        let (config, journal) = (setup.config.clone(), setup.journal.clone());
        Self { config, journal, state: raft.state(), role: raft.role(), mirror, doctor }
    }

    /// The names of all pieces that there are now.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let own = [
            "events.jsonl",
            "counters.json",
            "look.txt",
            "raft.txt",
            "buckets.txt",
            "doctor.json",
            "farmd.toml",
        ];
        let state = self.state.borrow().state.clone();
        let of_modules = state.modules.iter().flat_map(|(name, module)| {
            let files = files_of(module).unwrap_or_default();
            let files = files.into_keys().map(move |path| format!("modules/{name}/files/{path}"));
            [format!("modules/{name}/log.txt")].into_iter().chain(files)
        });
        let machine = machine::names().map(|name| format!("machine/{name}"));
        own.map(str::to_owned).into_iter().chain(of_modules).chain(machine).collect()
    }

    /// A piece or, without a name, the names of all, as the wire has it.
    pub async fn answer(&self, name: &str) -> v1::PieceResponse {
        if name.is_empty() {
            return v1::PieceResponse { names: self.names(), ..Default::default() };
        }
        match self.read(name).await {
            Ok(content) => v1::PieceResponse { content: content.into(), ..Default::default() },
            Err(missing) => v1::PieceResponse { missing, ..Default::default() },
        }
    }

    /// A piece.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let whole = self.whole(name).await?;
        let from = whole.len().saturating_sub(PIECE_MAX);
        let text = String::from_utf8_lossy(&whole[from..]);
        Ok(redact(&text).into_bytes())
    }

    async fn whole(&self, name: &str) -> Result<Vec<u8>, String> {
        let state = self.state.borrow().state.clone();
        match name {
            "events.jsonl" => Ok(self.events()),
            "counters.json" => self.counters(),
            "look.txt" => Ok(format!("{:#?}\n", self.mirror.look()).into_bytes()),
            "raft.txt" => Ok(format!("{:#?}\n", *self.role.borrow()).into_bytes()),
            "buckets.txt" => Ok(buckets(&state).into_bytes()),
            "doctor.json" => Ok(json(&findings(self.doctor.examine().await))),
            "farmd.toml" => file(&self.config.path),
            name => match name.split_once('/') {
                Some(("machine", name)) => {
                    machine::read(name).await.unwrap_or_else(|| Err("there is no such piece".into()))
                }
                Some(("modules", rest)) => self.of_module(&state, rest).await,
                _ => Err("there is no such piece".into()),
            },
        }
    }

    async fn of_module(&self, state: &ClusterState, rest: &str) -> Result<Vec<u8>, String> {
        let gone = || "there is no such piece".to_owned();
        let (name, piece) = rest.split_once('/').ok_or_else(gone)?;
        let name = ModuleName(name.into());
        let module = state.modules.get(&name).ok_or_else(gone)?;
        if piece == "log.txt" {
            let request = v1::LogRequest { module: name.0, last: LINES, ..v1::LogRequest::default() };
            let log = modules::log(&self.config.data_dir, request).await.map_err(|p| p.fact)?;
            return Ok((log.lines.join("\n") + "\n").into_bytes());
        }
        let path = piece.strip_prefix("files/").ok_or_else(gone)?;
        files_of(module).and_then(|mut files| files.remove(path)).ok_or_else(gone)
    }

    fn events(&self) -> Vec<u8> {
        let line = |record| {
            let event = farm_view::Event::from(&v1::Event::from(record));
            // As above.
            serde_json::to_string(&Stamped::new(&event)).unwrap_or_default() + "\n"
        };
        self.journal.tail(KEPT).0.into_iter().map(line).collect::<String>().into_bytes()
    }

    fn counters(&self) -> Result<Vec<u8>, String> {
        let read = counters::of(&self.mirror.host).map_err(|error| error.to_string())?;
        let counters = read.ok_or("no filter is attached")?;
        Ok(json(&counters.iter().map(|c| (c.reason.clone(), c.packets)).collect::<BTreeMap<_, _>>()))
    }
}

/// In lines: what looks like a secret takes the rest of its line with it.
#[must_use]
pub fn json<T: Serialize>(body: &T) -> Vec<u8> {
    // These shapes have names for keys and nothing that can fail.
    serde_json::to_vec_pretty(&Stamped::new(body)).unwrap_or_default()
}

fn file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[derive(Serialize)]
struct Findings {
    findings: Vec<farm_view::DoctorFinding>,
}

fn findings(examined: v1::ExamineResponse) -> Findings {
    Findings { findings: examined.findings.iter().map(Into::into).collect() }
}

/// The files of the newest revision.
fn files_of(module: &Module) -> Option<BTreeMap<String, Vec<u8>>> {
    let revision = module.definition.as_ref()?.revisions.last()?;
    let files = Files::unpack(&revision.content).ok()?;
    Some(files.0.into_iter().map(|(path, file)| (path, file.bytes)).collect())
}

/// Who has which buckets: one line for each run of equal ones.
fn buckets(state: &ClusterState) -> String {
    let mut text = format!("epoch {}\n", state.epoch);
    for (name, module) in &state.modules {
        text.push_str(&format!("\nmodule {name}\n"));
        let mut from = 0;
        for run in module.assignment.chunk_by(|a, b| a == b) {
            text.push_str(&format!("  {from}-{}: {}\n", from + run.len() - 1, bucket(state, &run[0])));
            from += run.len();
        }
    }
    text
}

fn bucket(state: &ClusterState, bucket: &BucketState) -> String {
    let name = |node: Option<_>| node.map_or_else(|| "nobody".into(), |node| state.name_of(node));
    let before =
        if bucket.previous.is_some() { format!(", before {}", name(bucket.previous)) } else { String::new() };
    format!("{}{before}, {:?} since epoch {}", name(bucket.current), bucket.phase, bucket.changed)
}

#[cfg(test)]
mod tests {
    use farm_core::id::NodeId;
    use farm_core::model::ModuleKind;

    use super::*;

    #[test]
    fn equal_buckets_are_told_once() {
        let mut module = Module::new(ModuleKind::Farm, 0, 8);
        module.assignment[3].current = Some(NodeId(7));
        let mut state = ClusterState::unfounded(8);
        state.modules.insert(ModuleName("web".into()), module);
        assert_eq!(
            buckets(&state),
            "epoch 0\n\nmodule web\n  0-2: nobody, Stable since epoch 0\n  3-3: node 7, Stable since epoch 0\n  4-7: \
             nobody, Stable since epoch 0\n"
        );
    }
}
