//! Which run of its store each member is in. A store that was copied, restored from a backup or reverted with its virtual
//! machine has forgotten votes and entries: as the member that it was it could elect a leader that lacks what was
//! acknowledged, or vote twice.
//!
//! Each start takes the next number, durable before anybody hears of it, and draws a nonce. Every message carries both. Who
//! shows a number below the highest that was seen of its id, or the same one with another nonce, is a copy.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use farm_core::id::NodeId;
use farm_proto::v1;
use farm_store::LogStore;
use prost::Message;
use tokio::sync::watch;

use super::store::durable;

/// Record: the number of this store's last run (`farm.v1.StoreRun`).
const RUN: &str = "run";
/// Record: the newest run seen of each member (`farm.v1.StoreRuns`).
const SEEN: &str = "runs seen";

/// One run of one member's store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run {
    /// How often it was started.
    pub number: u64,
    /// Tells two runs of that number apart.
    pub nonce: u64,
}

/// `number.nonce`, the nonce in hex.
impl Display for Run {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.number, self.nonce)
    }
}

impl FromStr for Run {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, nonce) = text.split_once('.').ok_or(())?;
        let nonce = u64::from_str_radix(nonce, 16).map_err(|_| ())?;
        Ok(Self { number: number.parse().map_err(|_| ())?, nonce })
    }
}

/// The own run, and the newest that was seen of each member. Unknown and empty for who has no store.
#[derive(Clone, Debug)]
pub struct Runs {
    own: Option<Run>,
    seen: watch::Sender<BTreeMap<NodeId, Run>>,
}

impl Default for Runs {
    fn default() -> Self {
        Self { own: None, seen: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Runs {
    /// Begins the next run of the store of `me`.
    ///
    /// # Errors
    /// The store cannot be read or written, or there is no randomness.
    pub async fn begin(me: NodeId, disk: &Arc<dyn LogStore>) -> io::Result<Self> {
        let unreadable = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        let last = disk.meta(RUN).map(v1::StoreRun::decode).transpose().map_err(unreadable)?;
        let number = last.unwrap_or_default().number + 1;
        let record = v1::StoreRun { number, ..v1::StoreRun::default() };
        durable(|done| disk.put_meta(RUN, record.encode_to_vec().into(), done)).await?;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let own = Run { number, nonce: u64::from_le_bytes(nonce) };
        let seen = disk.meta(SEEN).map(v1::StoreRuns::decode).transpose().map_err(unreadable)?;
        let run = |r: v1::StoreRun| (NodeId(r.node), Run { number: r.number, nonce: r.nonce });
        let mut seen: BTreeMap<NodeId, Run> = seen.unwrap_or_default().runs.into_iter().map(run).collect();
        seen.insert(me, own);
        Ok(Self { own: Some(own), seen: watch::Sender::new(seen) })
    }

    /// The own one.
    #[must_use]
    pub fn own(&self) -> Option<Run> {
        self.own
    }

    /// Whether `run` of `node` may go on. A newer one is remembered; of the own id there is none but the own one.
    #[must_use]
    pub fn admits(&self, me: Option<NodeId>, node: NodeId, run: Run) -> bool {
        let mut admitted = false;
        self.seen.send_if_modified(|seen| {
            let known = seen.get(&node).copied();
            let newer = known.is_none_or(|known| run.number > known.number) && me != Some(node);
            admitted = newer || known == Some(run);
            if newer {
                seen.insert(node, run);
            }
            newer
        });
        admitted
    }

    /// The newest that was seen of `node`.
    #[must_use]
    pub fn newest(&self, node: NodeId) -> Option<Run> {
        self.seen.borrow().get(&node).copied()
    }

    /// Writes down what is seen, again and again, until Raft has ended.
    pub async fn remember(self, disk: Arc<dyn LogStore>) {
        let mut seen = self.seen.subscribe();
        // Whoever can change it goes on elsewhere: this must not keep itself alive.
        drop(self);
        while seen.changed().await.is_ok() {
            let run = |(node, run): (&NodeId, &Run)| v1::StoreRun {
                node: node.0,
                number: run.number,
                nonce: run.nonce,
            };
            let record = v1::StoreRuns { runs: seen.borrow_and_update().iter().map(run).collect() };
            if let Err(error) = durable(|done| disk.put_meta(SEEN, record.encode_to_vec().into(), done)).await
            {
                tracing::warn!(%error, "the runs of the members' stores are not written down");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn run(number: u64, nonce: u64) -> Run {
        Run { number, nonce }
    }

    #[test]
    fn a_run_goes_on_and_is_followed_by_a_later_one_only() {
        let runs = Runs::default();
        assert!(runs.admits(Some(ME), OTHER, run(3, 7)) && runs.admits(Some(ME), OTHER, run(3, 7)));
        assert!(!runs.admits(Some(ME), OTHER, run(3, 8)), "the same number twice");
        assert!(!runs.admits(Some(ME), OTHER, run(2, 7)), "an older store");
        assert!(runs.admits(Some(ME), OTHER, run(4, 1)));
        assert!(!runs.admits(Some(ME), OTHER, run(3, 7)), "the one before");
    }

    #[test]
    fn nobody_else_is_this_node() {
        let own = run(5, 1);
        let runs = Runs { own: Some(own), seen: watch::Sender::new(BTreeMap::from([(ME, own)])) };
        assert!(runs.admits(Some(ME), ME, own));
        assert!(!runs.admits(Some(ME), ME, run(6, 1)) && !runs.admits(Some(ME), ME, run(4, 1)));
    }

    #[test]
    fn a_run_is_read_as_it_is_written() {
        let own = run(12, 0xfeed);
        assert_eq!(own.to_string().parse(), Ok(own));
        assert!("12".parse::<Run>().is_err() && "x.1".parse::<Run>().is_err());
    }
}
