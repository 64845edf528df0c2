//! Tells the cluster when a service link of this node gets another MAC: a bond fails over, somebody sets it. The others
//! send on to the MAC they know, and the former one is nobody's.
//!
//! Level-triggered: what the links say is compared with what the state knows, whenever either changes and now and then.
//! Addresses and links that come and go are told at the next start: a link that is down for a moment has no address, and
//! its virtual IPs must not go with it.

use std::sync::Arc;
use std::time::Duration;

use farm_core::command::{Body, Command};
use farm_core::model::Node;
use farm_dataplane::guard::format_mac;
use farm_host::links::{self, LinkInfo, LinkWatch};
use tokio::time::sleep;
use tokio_stream::StreamExt;

use super::Member;

/// What was missed or refused is looked at again after this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Member {
    /// Runs until Raft has ended.
    pub(super) async fn follow_macs(self: Arc<Self>) {
        let mut state = self.raft.state();
        let watched = links::watch().inspect_err(|error| tracing::warn!(%error, "links are not watched"));
        let (mut events, mut said) = (watched.ok(), String::new());
        loop {
            drop(state.borrow_and_update());
            self.tell_macs(&mut said).await;
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = event(&mut events) => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Each change is noted once, and proposed until the cluster knows it.
    async fn tell_macs(&self, said: &mut String) {
        let snapshot = self.snapshot();
        let Some(known) = snapshot.state.nodes.get(&self.me) else { return };
        // A link that is gone is the filter's finding.
        let Ok(links) = self.host.service_links().await else { return };
        let Some((now, text)) = moved(known, &links) else { return said.clear() };
        if *said != text {
            self.journal.note(self.me.0, "link_changed", &known.name, &text, "");
            *said = text;
        }
        // At this epoch: what somebody else changed of this node meanwhile must not be undone.
        let command = Command::at(snapshot.state.epoch, Body::NodeUpdate(now));
        match self.propose(command).await.map(|proposed| proposed.refused) {
            Ok(None) => {}
            Ok(Some(why)) => tracing::warn!(code = why.code, fact = why.fact, "new MAC refused"),
            Err(error) => tracing::warn!(%error, "new MAC not told yet"),
        }
    }
}

/// Returns at the next change of a link; never where they cannot be watched.
async fn event(events: &mut Option<LinkWatch>) {
    let next = match events {
        Some(events) => events.next().await,
        None => None,
    };
    if next.is_none() {
        std::future::pending().await
    }
}

/// The node with the MACs that its links have, and in words what is new; `None` when it is known with them.
fn moved(known: &Node, links: &[LinkInfo]) -> Option<(Node, String)> {
    let (mut now, mut texts) = (known.clone(), Vec::new());
    for link in &mut now.links {
        let there = links.iter().find(|there| there.name == link.name && there.mac != link.mac);
        let Some(there) = there.filter(|there| there.mac != [0; 6]) else { continue };
        let [old, new] = [link.mac, there.mac].map(|mac| format_mac(&mac));
        texts.push(format!("{} has MAC {new} instead of {old}; the cluster is told", link.name));
        link.mac = there.mac;
    }
    (!texts.is_empty()).then(|| (now, texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use farm_core::id::NodeId;
    use farm_core::model::{Link, Membership, Role, Vlan};

    use super::*;

    const OLD: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const NEW: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn known() -> Node {
        let link = |name: &str| Link {
            name: name.into(),
            mac: OLD,
            addresses: vec![("192.0.2.1".parse().unwrap(), 24)],
            vlan: Vlan::NONE,
        };
        Node {
            id: NodeId(1),
            name: "node1".into(),
            role: Role::Server,
            membership: Membership::Member,
            addresses: std::collections::BTreeMap::new(),
            links: vec![link("eth0"), link("eth1")],
            peer_port: 1,
            lease_port: 2,
            api_port: 3,
            room: String::new(),
        }
    }

    fn there(name: &str, mac: [u8; 6]) -> LinkInfo {
        LinkInfo {
            ifindex: 2,
            name: name.into(),
            mac,
            addresses: Vec::new(),
            driver: String::new(),
            mtu: 1500,
            up: false,
            carrier: false,
            loopback: false,
            vlan: None,
        }
    }

    #[test]
    fn another_mac_is_told_and_nothing_else_of_the_link() {
        let (now, text) = moved(&known(), &[there("eth1", NEW), there("eth0", OLD)]).unwrap();
        let mut expected = known();
        expected.links[1].mac = NEW;
        assert_eq!(now, expected);
        assert_eq!(text, "eth1 has MAC 02:00:00:00:00:02 instead of 02:00:00:00:00:01; the cluster is told");
    }

    #[test]
    fn what_is_known_and_what_is_gone_is_not_told() {
        assert!(moved(&known(), &[there("eth0", OLD), there("eth1", OLD)]).is_none());
        assert!(moved(&known(), &[there("eth7", NEW)]).is_none());
        assert!(moved(&known(), &[there("eth0", [0; 6])]).is_none());
    }
}
