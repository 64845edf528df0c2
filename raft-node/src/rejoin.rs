//! What a node does whose membership is over though it did not leave: a survivor has gone on without it, or its store is
//! a copy. It sets its log aside and joins again by itself, under a new id, with nothing of what it knew.
//!
//! That it is on its way is in a file, so that it goes on after a restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farm_core::condition::is_passing;
use farm_proto::v1;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::daemon::Daemon;
use crate::file;
use crate::journal::now_ms;
use crate::member::Member;
use crate::problem::Problem;

/// Between two rounds of asking. Who lets it in may have to wait for what it held before.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A node on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoin {
    /// Why its membership is over.
    pub why: String,
    /// Since when, Unix time in ms.
    pub since_ms: u64,
    /// Peer addresses of those who were members with it.
    pub peers: Vec<SocketAddr>,
}

impl Rejoin {
    /// Of a member that has been told `why`.
    #[must_use]
    pub fn of(member: &Member, why: String) -> Self {
        let snapshot = member.snapshot();
        let others = snapshot.state.nodes.values().filter(|n| n.id != member.me);
        let at = |n: &farm_core::model::Node| {
            let port = n.peer_port;
            n.addresses.values().map(move |ip| SocketAddr::new(*ip, port)).collect::<Vec<_>>()
        };
        Self { why, since_ms: now_ms(), peers: others.flat_map(at).collect() }
    }

    /// The one that was under way below `data_dir`, if any.
    ///
    /// # Errors
    /// `data_dir`: there is one, and it cannot be read.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, Problem> {
        let path = path(data_dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| unusable(&path, &error))
    }

    /// Notes that it is under way.
    ///
    /// # Errors
    /// `data_dir`.
    pub fn save(&self, data_dir: &Path) -> Result<(), Problem> {
        let (path, text) = (path(data_dir), serde_json::to_vec(self).expect("strings and numbers"));
        file::replace(&path, &text).map_err(|error| unusable(&path, &error))
    }

    /// Notes that it is over.
    ///
    /// # Errors
    /// `data_dir`.
    pub fn forget(data_dir: &Path) -> Result<(), Problem> {
        let path = path(data_dir);
        file::remove(&path).map_err(|error| unusable(&path, &error))
    }

    /// What is not green about it; `last`: what came of the last try.
    #[must_use]
    pub fn condition(&self, name: &str, last: &str) -> v1::Condition {
        v1::Condition {
            code: "rejoining".into(),
            resource: name.into(),
            since_ms: now_ms().saturating_sub(self.since_ms),
            cause: format!("{name} joins anew: {}; {last}", self.why),
            next: "farmctl events".into(),
            passing: is_passing("rejoining"),
        }
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("rejoin.json")
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Problem {
    Problem::new("data_dir", format!("{}: {error}", path.display()), format!("df {}", path.display()))
}

impl Daemon {
    /// Asks those who were members with this node to let it in again, in turn, until one does or somebody has let it
    /// join by hand.
    pub(crate) fn join_anew(self: Arc<Self>, rejoin: Rejoin) -> BoxFuture<'static, ()> {
        // What it ends in may begin it again.
        Box::pin(async move {
            self.on_its_way(Some(rejoin.condition(&self.name(), "nobody was asked yet")));
            while let Err(last) = self.ask_all(&rejoin.peers).await {
                self.on_its_way(Some(rejoin.condition(&self.name(), &last)));
                tokio::time::sleep(ASK_EVERY).await;
            }
        })
    }

    /// The last one's answer, if nobody lets it in.
    async fn ask_all(self: &Arc<Self>, peers: &[SocketAddr]) -> Result<(), String> {
        let mut last = "no other member was known; farmctl node join PEER ends it".to_owned();
        for peer in peers {
            match self.join(v1::JoinClusterRequest { peer: peer.to_string() }).await {
                Ok(_) => return Ok(()),
                Err(problem) if problem.code == "already_member" => return Ok(()),
                Err(problem) => last = problem.fact,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_found_again_until_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Rejoin::load(directory.path()).unwrap(), None);
        let rejoin =
            Rejoin { why: "a survivor".into(), since_ms: 7, peers: vec!["192.0.2.1:7601".parse().unwrap()] };
        rejoin.save(directory.path()).unwrap();
        assert_eq!(Rejoin::load(directory.path()).unwrap(), Some(rejoin));
        Rejoin::forget(directory.path()).unwrap();
        Rejoin::forget(directory.path()).unwrap();
        assert_eq!(Rejoin::load(directory.path()).unwrap(), None);
        std::fs::write(path(directory.path()), "{").unwrap();
        assert_eq!(Rejoin::load(directory.path()).unwrap_err().code, "data_dir");
    }
}
