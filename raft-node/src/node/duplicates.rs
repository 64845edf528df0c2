//! Hosts that have a virtual IP as well and are no members: clients that learn from them are lost to the farm.
//!
//! Whoever claims the address in front of everybody is heard by every node. One that only answers is found by the
//! leader, who asks now and then: each answer comes back to it, and the farm's own ones come from known addresses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farm_core::model::{VirtualIp, Vlan};
use farm_core::state::ClusterState;
use farm_core::table::virtual_mac;
use farm_dataplane::guard::format_mac;
use farm_host::Mac;
use farm_host::claim::{Claim, Claims};
use farm_host::links::LinkInfo;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

use super::filter::HostView;
use crate::journal::Journal;
use crate::raft::Snapshot;

/// Between two questions of the leader: one broadcast for each virtual IP.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// A claim holds for so long, unless it is repeated: three questions.
const HOLDS_FOR: Duration = Duration::from_secs(30);
/// Pause after a link could not be listened on.
const RETRY: Duration = Duration::from_secs(5);

/// What was heard lately.
#[derive(Default)]
pub struct Duplicates {
    heard: Mutex<BTreeMap<(VirtualIp, Mac), Instant>>,
}

impl Duplicates {
    /// Who else had which virtual IP at `now`.
    #[must_use]
    pub fn at(&self, now: Instant) -> Vec<(VirtualIp, Mac)> {
        self.heard().iter().filter(|(_, at)| now - **at < HOLDS_FOR).map(|(key, _)| *key).collect()
    }

    /// Whether this is news.
    fn hear(&self, vip: VirtualIp, mac: Mac, now: Instant) -> bool {
        let mut heard = self.heard();
        heard.retain(|_, at| now - *at < HOLDS_FOR);
        heard.insert((vip, mac), now).is_none()
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, BTreeMap<(VirtualIp, Mac), Instant>> {
        // It is whole at every step.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens on one service link for as long as the daemon runs.
pub struct Watcher {
    /// Position among the service links.
    pub link: usize,
    /// The VLAN of its network.
    pub vlan: Vlan,
    /// The host.
    pub host: Arc<HostView>,
    /// What the cluster agreed on.
    pub state: watch::Receiver<Arc<Snapshot>>,
    /// Where it is kept.
    pub duplicates: Arc<Duplicates>,
    /// Where it is told.
    pub journal: Arc<Journal>,
}

impl Watcher {
    /// Runs until it is cancelled. `leads` says whether this node leads.
    pub async fn run(self, me: u64, leads: impl Fn() -> bool) {
        loop {
            if let Err(error) = self.listen(me, &leads).await {
                tracing::debug!(%error, "not listening for duplicates");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn listen(&self, me: u64, leads: &impl Fn() -> bool) -> Result<(), farm_host::Error> {
        let links = self.host.service_links().await?;
        let Some(link) = links.get(self.link) else { return Ok(()) };
        let claims = Claims::open(link.ifindex)?;
        let mut ticks = interval_at(Instant::now() + ASK_EVERY, ASK_EVERY);
        loop {
            tokio::select! {
                claim = claims.next() => self.hear(me, link, &claim?),
                _ = ticks.tick() => if leads() { self.ask(link, &claims)? },
            }
        }
    }

    fn ask(&self, link: &LinkInfo, claims: &Claims) -> Result<(), farm_host::Error> {
        let state = self.state.borrow().clone();
        let vips = state.state.modules.values().flat_map(|m| m.vips.keys());
        let ours = vips.filter(|vip| vip.vlan == self.vlan).map(|vip| vip.ip);
        let mut here = ours.filter(|ip| link.addresses.iter().any(|net| net.contains(ip)));
        here.try_for_each(|ip| claims.ask(link.mac, ip))
    }

    fn hear(&self, me: u64, link: &LinkInfo, claim: &Claim) {
        let vip = VirtualIp { ip: claim.ip, vlan: self.vlan };
        let foreign = is_foreign(&self.state.borrow().state, vip, claim.mac);
        if foreign && self.duplicates.hear(vip, claim.mac, Instant::now()) {
            let mac = format_mac(&claim.mac);
            let text =
                format!("{mac} on {} has {vip} too: clients may reach it instead of the farm", link.name);
            self.journal.note(me, "vip_duplicate", &vip.to_string(), text, "");
        }
    }
}

/// Is it a virtual IP that none of the farm claims?
fn is_foreign(state: &ClusterState, vip: VirtualIp, mac: Mac) -> bool {
    let is_vip = state.module_of(vip).is_some();
    let macs = state.nodes.values().flat_map(|n| &n.links).map(|link| link.mac);
    is_vip && mac != virtual_mac(state.cluster, vip) && !macs.into_iter().any(|known| known == mac)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_claim_is_news_once_and_forgotten_when_it_is_not_repeated() {
        let duplicates = Duplicates::default();
        let (vip, mac) = (VirtualIp::from(IpAddr::from([192, 0, 2, 1])), [2; 6]);
        let start = Instant::now();
        assert!(duplicates.hear(vip, mac, start));
        let repeated = start + HOLDS_FOR / 2;
        assert!(!duplicates.hear(vip, mac, repeated), "it goes on");
        assert_eq!(duplicates.at(repeated + HOLDS_FOR - Duration::from_millis(1)), [(vip, mac)]);
        assert!(duplicates.at(repeated + HOLDS_FOR).is_empty());
        assert!(duplicates.hear(vip, mac, repeated + HOLDS_FOR), "it is back");
    }
}
